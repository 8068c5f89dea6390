"""Loop counts of the kernels of linear."""

from codegen.emit.base import SPARSE_ROWS, Params
from codegen.loop_counts.base import Terms, integer, loop, requantized
from codegen.loop_counts.sparse import sparse_fill, sparse_layer, sparse_tiles
from codegen.loop_counts.tiles import tile_layer


def portable(p: Params) -> Terms:
    """Loops of tnf_linear."""
    rows, n, outputs = integer(p, "rows"), integer(p, "input_c"), integer(p, "output_c")
    quads, singles = divmod(outputs, 4)
    return {
        "rows": rows,
        **loop("four outputs", n, rows * quads),
        **loop("one output", n, rows * singles),
        **requantized(p, rows * outputs),
    }


def dsp(p: Params) -> Terms:
    """Loops of tnf_linear_dsp."""
    return tile_layer(p, integer(p, "rows"), integer(p, "input_c"))


def sparse(p: Params) -> Terms:
    """Loops of tnf_linear_sparse."""
    rows = integer(p, "rows")
    tiles, single = sparse_tiles(rows)
    return {**sparse_fill(p, SPARSE_ROWS * tiles + single), **sparse_layer(p, rows)}
