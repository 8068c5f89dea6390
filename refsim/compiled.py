"""Compilation of the golden model's loop nests, and the folder where compiled code is kept between runs."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config as numba_config

config: Any = numba_config  # its settings are set at run time, unknown to type checkers
Function = TypeVar("Function", bound=Callable[..., Any])

SHARED_MODULES = ("matrices.py", "numerics.py", "planes.py", "windows.py")
"""Sources whose functions are compiled into those of other modules."""


def cache_folder() -> Path:
    """The folder of everything the toolkit caches, which need not exist yet.

    `TINYFORMER_CACHE`, else `$XDG_CACHE_HOME/tinyformer`, else `~/.cache/tinyformer`.
    """
    own, general = os.environ.get("TINYFORMER_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).absolute()
    return (Path(general) if general else Path.home() / ".cache") / "tinyformer"


def compiled(*, inline: bool = False) -> Callable[[Function], Function]:
    """Compile a function of integers with Numba and keep the result between runs.

    Numba checks only a function's own file when it looks for kept code, yet the primitives are compiled into every
    operator: the folder's name therefore hashes the shared sources, so that an edit of a primitive never leaves an
    operator with the old one.

    It releases Python's lock, so that batches run on several threads (`refsim.engine`).

    Args:
        inline: paste the function into its callers.
    """

    def compile_(function: Function) -> Function:
        previous = config.CACHE_DIR
        config.CACHE_DIR = str(cache_folder() / "numba" / _shared_hash())
        try:
            decorate: Any = numba.njit(cache=True, nogil=True, inline="always" if inline else "never")
            dispatcher: Function = decorate(function)
            return dispatcher
        finally:
            config.CACHE_DIR = previous

    return compile_


@functools.cache
def _shared_hash() -> str:
    digest = hashlib.sha256(f"numba {numba.__version__}".encode())
    for name in SHARED_MODULES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]
