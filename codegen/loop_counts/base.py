"""What the counts of several operators share: loops, requantised outputs, windows and walks over a shape."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import Params
from refsim.numerics import Rounding

Terms = dict[str, float]
"""How often something happens in one call, by name."""

Count = Callable[[Params], Terms]
"""Counts one call of a kernel, from its parameters; the names are the same for every call."""


def loop(name: str, lengths: Any, times: float = 1.0) -> Terms:
    """A loop that is entered `times` for each of `lengths`.

    Compilers run four elements a pass, which only a loop of at least four enters, and the rest one by one.
    """
    array = np.atleast_1d(np.asarray(lengths, np.int64))
    rests = {f"{name}: rest of {rest}": float((array % 4 == rest).sum() * times) for rest in (1, 2, 3)}
    return {
        f"{name}: short": float((array < 4).sum() * times),
        f"{name}: long": float((array >= 4).sum() * times),
        f"{name}: 4 elements": float((array // 4).sum() * times),
        **rests,
    }


def steps(name: str, lengths: Any, times: float = 1.0, step: int = 4) -> Terms:
    """Loops over `lengths`, each entered `times`, that take `step` elements a pass and then the rest one by one."""
    array = np.atleast_1d(np.asarray(lengths, np.int64))
    return {
        f"{name}: {step} elements": float((array // step).sum() * times),
        f"{name}: rests": float((array % step > 0).sum() * times),
        f"{name}: rest": float((array % step).sum() * times),
    }


def row_steps(name: str, n: int, times: float) -> Terms:
    """As `steps` for rows that lie one after the other, of which most are not aligned unless their length is."""
    return {**steps(name, n, times), f"{name}: 4 elements, unaligned": times * (n // 4) * (n % 4 > 0)}


def requantized(p: Params, outputs: float, shifts: Any = None) -> Terms:
    """Outputs by how the kernels requantise them: the shift decides, one a channel or one for all."""
    double = p["rounding"] == Rounding.DOUBLE
    short = float(np.mean(np.asarray(p["shift"] if shifts is None else shifts) < -1))
    return {
        "outputs: high word": 0.0 if double else outputs * short,
        "outputs: two words": 0.0 if double else outputs * (1 - short),
        "outputs: rounded twice": outputs if double else 0.0,
    }


def place_windows(p: Params) -> tuple[NDArray[np.int64], NDArray[np.int64], Terms]:
    """How a window moves over an image.

    Returns:
        Positions inside the image, of each row and of each column of windows; how often windows are placed, and cut.
    """
    inside, before, after = [], [], []
    for axis, padding in (("h", "pad_top"), ("w", "pad_left")):
        starts = np.arange(integer(p, f"output_{axis}")) * integer(p, f"stride_{axis}") - integer(p, padding)
        dilation = integer(p, f"dilation_{axis}") if f"dilation_{axis}" in p else 1
        positions = starts[:, None] + np.arange(integer(p, f"kernel_{axis}")) * dilation
        inside.append(((positions >= 0) & (positions < integer(p, f"input_{axis}"))).sum(axis=1))
        before.append(int((starts < 0).sum()))
        after.append(int((positions[:, -1] >= integer(p, f"input_{axis}")).sum()))
    rows, columns = inside
    return (
        rows,
        columns,
        {
            "output rows": rows.size,
            "output positions": rows.size * columns.size,
            "windows cut before": before[0] + rows.size * before[1],
            "windows cut after": after[0] + rows.size * after[1],
        },
    )


def walk_rows(p: Params, dims: str = "dims") -> tuple[int, int, Terms]:
    """A walk over a shape row by row: length and number of the rows, and what stepping from row to row takes."""
    lengths = [int(n) for n in np.asarray(p[dims])]
    rows = math.prod(lengths[:-1])
    turns = sum(math.prod(lengths[:axis]) for axis in range(1, len(lengths) - 1))
    return lengths[-1], rows, {"axis turns": turns, **loop("row: axes", len(lengths) - 1, rows)}


def integer(p: Params, name: str) -> int:
    """A parameter that is one number."""
    return int(p[name])


def element_rows(p: Params) -> Terms:
    """Rows of elements of two inputs, four at a time: see `elementwise_dsp_variant` of `codegen.emit.base`."""
    rows, n = integer(p, "rows"), integer(p, "n")
    double = p["rounding"] == Rounding.DOUBLE
    return {
        "rows": rows,
        **row_steps("elements", n, rows),
        "elements: 4 elements, rounded twice": rows * (n // 4) * double,
        "elements: rest, rounded twice": rows * (n % 4) * double,
    }
