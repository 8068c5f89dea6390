"""The golden model's loop nests as Python runs them: slower than Numba's code by far, but there is nothing to compile.

What they compute is the same, since every integer's width is named: NumPy's scalars wrap as those of the compiled code
do. That it is the same is tried, not believed: the model without a fault has to pass whatever a mutant is given here.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """In place of `numba.njit`: decorate a function with nothing but Numba's view of its arguments."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if options.get("inline") == "always":  # called from functions whose arguments have been seen to
            return function

        @functools.wraps(function)
        def run(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*map(_as_compiled, arguments))

        return run

    return decorate


def _as_compiled(argument: Any) -> Any:
    """Python's integers, also those in tuples, as the 64 bits that Numba makes of them."""
    if isinstance(argument, tuple):
        parts = map(_as_compiled, argument)
        return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
    return np.int64(argument) if type(argument) is int else argument
