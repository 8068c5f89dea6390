"""Loop counts of the kernels of softmax."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, row_steps


def portable(p: Params) -> Terms:
    """Loops of tnf_softmax."""
    rows, n = integer(p, "rows"), integer(p, "n")
    # An exponential is computed once for each difference to a row's maximum that occurs.
    occurs = 1 - (1 - _score_differences(n, rows > 1)) ** (rows * n)
    computed, products = _exponentials(p)
    return {
        "rows": rows,
        **loop("row", n, rows),
        "exponentials: looked for": float(occurs.sum()),
        "exponentials": float((occurs * computed).sum()),
        "exponentials: products": float((occurs * computed * products).sum()),
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_softmax_dsp."""
    rows, n = integer(p, "rows"), integer(p, "n")
    # The whole table is computed, once a call.
    computed, products = _exponentials(p)
    return {
        "rows": rows,
        "row: 16 elements": rows * (n // 16),
        "row: words left": rows * (n % 16 // 4),
        **row_steps("row", n, rows),
        "exponentials": float(computed.sum()),
        "exponentials: products": float((computed * products).sum()),
    }


def _exponentials(p: Params) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of each difference to the maximum: whether its exponential is not 0, and the products that it takes."""
    differences = np.arange(256)
    # A product for each bit of the integer part in quarters.
    quarters = (differences * (integer(p, "multiplier") * 2.0 ** (integer(p, "shift") - 31 - 24))).astype(np.int64)
    products = np.sum([(quarters >> bit) & 1 for bit in range(7)], axis=0)
    return differences <= -integer(p, "diff_min"), products


def _score_differences(n: int, many: bool) -> NDArray[np.float64]:
    """Probability of each difference to the maximum of a row of `n`, where scores are normal and fill int8."""
    deviation = 36.0
    maximum = deviation * NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) if n > 1 else 0.0
    spread = math.hypot(deviation, deviation / 3) if many else deviation  # the maximum is another in each row
    density = np.exp(-0.5 * ((np.arange(256) - maximum) / spread) ** 2)
    probabilities: NDArray[np.float64] = density / density.sum()
    return probabilities
