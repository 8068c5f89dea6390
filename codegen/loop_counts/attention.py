"""Loop counts of the kernels of attention."""

from codegen.emit.base import Params
from codegen.loop_counts import matmul, softmax
from codegen.loop_counts.base import Count, Terms, integer


def portable(p: Params) -> Terms:
    """Loops of tnf_attention."""
    return _joined(p, matmul.portable, softmax.portable)


def dsp(p: Params) -> Terms:
    """Loops of tnf_attention_dsp."""
    return _joined(p, matmul.dsp, softmax.dsp)


def _joined(p: Params, of_matmul: Count, of_softmax: Count) -> Terms:
    """What the three operators of attention count, each with its name before it."""
    batch, m, n = (integer(p, name) for name in ("batch", "m", "n"))
    parts = {
        "scores": of_matmul({**p, **_own(p, "scores"), "columns": n}),
        "softmax": of_softmax({"rows": batch * m, "n": n, **_own(p, "softmax")}),
        "context": of_matmul({**p, **_own(p, "context"), "k": n, "n": p["d"], "columns": p["d"]}),
    }
    return {
        "tiles": batch * -(-m // integer(p, "tile_rows")),
        **{f"{part}: {name}": count for part, terms in parts.items() for name, count in terms.items()},
    }


def _own(p: Params, operator: str) -> Params:
    """The parameters of one of several operators that a kernel joins."""
    return {name.removeprefix(f"{operator}_"): value for name, value in p.items() if name.startswith(f"{operator}_")}
