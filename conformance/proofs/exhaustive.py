"""Primitives that no solver decides, tried on every argument by compiled code (`exhaustive.c`)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ckernels
from conformance.host import HostLibrary
from conformance.toolchain import build_shared_library

_FOLDER = Path(__file__).parent
CHUNK = 1 << 26
"""Arguments between two steps of a progress bar."""


@dataclass(frozen=True)
class Domain:
    """A function and all of its arguments.

    Attributes:
        function: its name in C, without tnf_.
        first, count: the arguments tried.
        words: the domain, for people.
    """

    function: str
    first: int
    count: int
    words: str


DOMAINS = (
    Domain("exp_negative", 0, 2**31 + 1, "every a in [-2^31, 0]"),
    Domain("reciprocal", 0, 2**31, "every a in [0, 2^31)"),
    Domain("divide_2_61", 2**30, 2**30, "every s in [2^30, 2^31)"),
    Domain("isqrt", 0, 2**32, "r^2, r^2 + r and r^2 + 2 r for every r below 2^32"),
)


class Trial:
    """The compiled functions.

    Raises:
        ToolchainError: they cannot be built.
    """

    def __init__(self) -> None:
        path = build_shared_library(
            [_FOLDER / "exhaustive.c"], include_dirs=[ckernels.include_dir(), _FOLDER], name="exhaustive"
        )
        self._library = HostLibrary(path, [_FOLDER / "exhaustive.h"])

    def wrong(self, domain: Domain, step: int = 1, progress: Callable[[int], None] = lambda _: None) -> int:
        """How many arguments give something else than the definition.

        Args:
            domain: what to try.
            step: try only every so many-th argument; 1 is a proof.
            progress: called with the number of arguments of each chunk.
        """
        function = getattr(self._library.lib, f"tnf_try_{domain.function}")
        found = 0
        chunk = CHUNK // step * step or step
        for first in range(domain.first, domain.first + domain.count, chunk):
            count = min(chunk, domain.first + domain.count - first)
            found += int(function(first, count, step))
            progress(count)
        return found
