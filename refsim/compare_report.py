"""A comparison for people: a table on the terminal, JSON, and a self-contained HTML page."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from refsim.agreement import Agreement, LayerAgreement
from refsim.comparison import Comparison, LayerComparison
from refsim.evaluation import Evaluation
from refsim.page import render_page
from refsim.real import MOVES
from refsim.sensitivity import Sensitivity

_PAGE = Path(__file__).parent / "compare_page"
_WORST_ON_PAGE = 8
_MOVES = {op.name for op in MOVES}
_WIDE = 120
"""Width of a terminal, in characters, from which all figures of a layer fit."""


def terminal(
    comparison: Comparison, sensitivity: Sensitivity | None = None, *, width: int = 80, count: int = 12
) -> RenderableType:
    """The layers that lose the most, and what they make of the whole.

    Args:
        comparison: what to show.
        sensitivity: what each layer costs by itself, if that was measured.
        width: of the terminal, in characters; a wide one shows more columns.
        count: layers in a table, at most.
    """
    figures = _FIGURES if width >= _WIDE else _FIGURES[:3]
    table = _table(f"{comparison.model} beside {comparison.reference}: where most is lost", ("layer", "operator"))
    for column, _ in figures:
        table.add_column(column, justify="right", no_wrap=True)
    for layer in comparison.worst(count):
        table.add_row(escape(layer.node), layer.operator, *(show(layer) for _, show in figures))
    parts: list[RenderableType] = [table]
    if sensitivity is not None:
        parts.append(_sensitivity_table(sensitivity, count))
    if comparison.unmatched:
        names = ", ".join(layer.node for layer in comparison.unmatched)
        parts.append(Text(f"No tensor of their name in {comparison.reference}: {names}", "yellow"))
    if comparison.quantized is not None and comparison.real is not None and comparison.agreement is not None:
        parts.append(
            Text(
                f"accuracy on {comparison.quantized.samples} samples: int8 {comparison.quantized.accuracy:.2%}, "
                f"{comparison.reference} {comparison.real.accuracy:.2%}; same class on {comparison.agreement:.2%}"
            )
        )
    return Group(*parts)


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} dB"


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


_FIGURES: tuple[tuple[str, Callable[[LayerComparison], str]], ...] = (
    ("SQNR", lambda layer: _decibels(layer.sqnr_db)),
    ("lost", lambda layer: _decibels(layer.lost_db)),
    ("rms steps", lambda layer: _optional(layer.rms_steps, ".2f")),
    ("cosine", lambda layer: _optional(layer.cosine, ".5f")),
    ("max error", lambda layer: _optional(layer.max_error, ".3g")),
    ("clipped", lambda layer: _optional(layer.clipped, ".2%")),
    ("dead", lambda layer: f"{len(layer.dead_channels)}/{layer.channels}"),
    ("bytes", lambda layer: str(layer.levels)),
)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", min_width=8)
    return table


def _sensitivity_table(sensitivity: Sensitivity, count: int) -> Table:
    title = f"One layer in int8, the others in real numbers ({sensitivity.samples} samples): which costs most"
    table = _table(title, ("layer", "operator"))
    for column in ("SQNR of output", "other class", "accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for layer in sensitivity.layers[:count]:
        table.add_row(
            escape(layer.node),
            layer.operator,
            _decibels(layer.sqnr_db),
            "-" if layer.changed is None else f"{layer.changed:.2%}",
            "-" if layer.accuracy_change is None else f"{100 * layer.accuracy_change:+.2f} points",
        )
    return table


def agreement_tables(agreement: Agreement) -> RenderableType:
    """Bytes beside ONNX Runtime's: each operator kind alone, each layer one after the other, end to end."""
    kinds: dict[str, list[LayerAgreement]] = {}
    for layer in agreement.layers:
        kinds.setdefault(layer.operator, []).append(layer)
    alone = _table("Each operator alone, on ONNX Runtime's own bytes", ("operator",))
    for column in ("bytes", "differ", "share", "by at most"):
        alone.add_column(column, justify="right", no_wrap=True)
    for name, rows in sorted(kinds.items()):
        count = sum(row.bytes for row in rows)
        differ = sum(round(row.bytes * (1 - row.alone_equal)) for row in rows)
        largest = max(row.alone_largest for row in rows)
        alone.add_row(name, f"{count:,}", f"{differ:,}", f"{differ / count:.2%}", str(largest))
    layers = _table("One after the other", ("layer", "operator"))
    for column in ("equal bytes", "by at most"):
        layers.add_column(column, justify="right", no_wrap=True)
    for layer in agreement.layers:
        if layer.operator not in _MOVES:
            layers.add_row(escape(layer.node), layer.operator, f"{layer.equal:.2%}", str(layer.largest))
    lines = [f"{agreement.samples} samples; ONNX Runtime {version('onnxruntime')}"]
    if agreement.same_class is not None:
        lines.append(f"same class on {agreement.same_class:.2%}")
    if agreement.unmatched:
        lines.append(f"not quantised in the file: {len(agreement.unmatched)} nodes")
    return Group(alone, layers, Text("; ".join(lines)))


def as_dict(comparison: Comparison, sensitivity: Sensitivity | None, data: str) -> dict[str, Any]:
    """Everything that was measured, as plain values; numbers that JSON lacks are still floats."""
    return {
        "version": version("tinyformer"),
        "model": comparison.model,
        "reference": comparison.reference,
        "data": data,
        "samples": comparison.samples,
        "layers": [{**layer.record(), "histogram": layer.histogram.tolist()} for layer in comparison.layers],
        "worst": [layer.node for layer in comparison.worst(_WORST_ON_PAGE)],
        "unmatched": [layer.node for layer in comparison.unmatched],
        "quantized": _evaluation(comparison.quantized),
        "real": _evaluation(comparison.real),
        "agreement": comparison.agreement,
        "sensitivity": None
        if sensitivity is None
        else {"samples": sensitivity.samples, "layers": sensitivity.records()},
    }


def _evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        "accuracy": evaluation.accuracy,
        "top": {str(k): share for k, share in evaluation.top.items()},
        "confusion": evaluation.confusion.tolist(),
        "classes": evaluation.records(),
    }


def page(comparison: Comparison, sensitivity: Sensitivity | None, data: str) -> str:
    """A self-contained HTML page.

    Args:
        comparison: what to show.
        sensitivity: what each layer costs by itself, if that was measured.
        data: what the samples are called.
    """
    style, script = (_PAGE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    content = as_dict(comparison, sensitivity, data)
    return render_page(f"{comparison.model} beside {comparison.reference}", content, style, script)
