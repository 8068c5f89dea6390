"""Loop counts of the kernels of pad."""

import numpy as np
from numpy.typing import NDArray

from codegen.emit.base import Params
from codegen.loop_counts.base import Terms, loop, walk_rows


def portable(p: Params) -> Terms:
    """Loops of tnf_pad."""
    n, rows, walk = walk_rows(p, "output_dims")
    sizes, results, befores = (np.asarray(p[name]) for name in ("input_dims", "output_dims", "before"))
    inside = np.ones((1,) * max(len(sizes) - 1, 1), bool)
    for axis in range(len(sizes) - 1):
        at = np.arange(results[axis]) - befores[axis]
        inside = inside & ((at >= 0) & (at < sizes[axis])).reshape([-1 if i == axis else 1 for i in range(inside.ndim)])
    starts = np.arange(rows) * n
    copied, padding = starts[inside.ravel()], starts[~inside.ravel()]
    width, before = int(sizes[-1]), int(befores[-1])
    return {
        **walk,
        **loop("copied", width, copied.size),
        **_filled("before", copied, before),
        **_filled("after", copied + before + width, n - before - width),
        **_filled("row", padding, n),
    }


def _filled(name: str, starts: NDArray[np.int64], length: int) -> Terms:
    """Bytes set to one value: words where the address allows it, in a tensor that begins at one of a word."""
    aligned, others = int((starts % 4 == 0).sum()), int((starts % 4 != 0).sum())
    return {
        f"{name}: filled": starts.size * (length > 0),
        f"{name}: 16 bytes": aligned * (length // 16),
        f"{name}: words": aligned * (length % 16 // 4),
        f"{name}: bytes": aligned * (length % 4) + others * length,
    }
