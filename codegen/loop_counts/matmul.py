"""Loop counts of the kernels of matmul."""

import numpy as np

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, integer, loop, requantized, steps
from codegen.loop_counts.tiles import TILE_CHANNELS, tile_rows, tile_sums
from refsim.numerics import Rounding


def portable(p: Params) -> Terms:
    """Loops of tnf_matmul."""
    k, n, transposed = integer(p, "k"), integer(p, "n"), integer(p, "transpose_b")
    rows = integer(p, "batch") * integer(p, "m")
    quads, singles = divmod(n, 4)
    return {
        "matrices": integer(p, "batch"),
        "rows": rows,
        **loop("row sum", k, rows * (p["b_zero_point"] != 0)),
        **loop("four transposed columns", k, rows * quads * transposed),
        **loop("one transposed column", k, rows * singles * transposed),
        **loop("four columns", k - 1, rows * quads * (1 - transposed)),
        **loop("one column", k, rows * singles * (1 - transposed)),
        **requantized(p, rows * n),
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_matmul_dsp."""
    batch, m, k, n, most = (integer(p, name) for name in ("batch", "m", "k", "n", "columns"))
    columns = np.array([min(most, n - first) for first in range(0, n, most)])
    pairs, quads = int(np.sum(-(-columns // 2))), -(-k // 4)
    visits = int(np.sum(-(-columns // TILE_CHANNELS)))
    tiles = batch * -(-m // 4)
    quick = batch * (m // 4) * integer(p, "quick")
    return {
        "matrices": batch,
        "packed": batch * columns.size,
        "packed: pairs": batch * pairs,
        "packed: quads": batch * pairs * (k // 4),
        "packed: rests": batch * pairs * (k % 4 > 0),
        "tiles": tiles * columns.size,
        **tile_rows("tile rows", 4 * tiles * columns.size, k),
        "corrections": tiles * columns.size * (p["b_zero_point"] != 0),
        "corrections: quads": tiles * columns.size * (p["b_zero_point"] != 0) * quads,
        **tile_sums(tiles * visits, tiles * pairs, k),
        "quick": quick * visits,
        "quick: columns": quick * n,
        "quick: columns, rounded twice": quick * n * (p["rounding"] == Rounding.DOUBLE),
        **steps("clamped", columns, 4 * quick * ((p["act_min"], p["act_max"]) != (-128, 127))),
        "columns": (tiles - quick) * n,
        **requantized(p, (batch * m - 4 * quick) * n),
    }
