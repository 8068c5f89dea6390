"""The kernels' benchmark as tables, JSON that a later run is compared with, and a plot."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from conformance.kernel_bench import NONZERO_MAC, Baseline, KernelBenchReport, Measured
from conformance.line_chart import Chart, render_charts
from refsim.errors import DataError

Key = tuple[str, str, str]
"""Case, target and variant."""

WIDE = 132
"""Columns of text that the widest table takes."""

CHANGED = 0.005
"""Part of its cycles from which a difference between two runs is coloured."""


def as_json(report: KernelBenchReport) -> str:
    """The report as JSON."""
    return json.dumps(asdict(report), indent=2) + "\n"


def read_cycles(path: Path) -> dict[Key, float]:
    """Cycles a unit of an earlier run, from the file that `as_json` made.

    Raises:
        DataError: the file is missing, or is no such report.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["measured"]
        return {(row["case"], row["target"], row["variant"]): row["cycles"] / row["units"] for row in rows}
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise DataError(f"{path} is no report of `tinyformer bench-kernels --json`") from error


def tables(report: KernelBenchReport, earlier: Mapping[Key, float] | None = None) -> list[Table]:
    """A table for each chip: a row for each kernel, and how far its cycles are from the goal and from the peer's.

    Args:
        report: what was measured.
        earlier: cycles a unit of another run; then a column says how many times those this run takes.
    """
    made = []
    for target, core in dict.fromkeys((m.target, m.core) for m in report.measured):
        table = Table(title=f"{target} ({core}), {report.compiler}")
        for column in ("case", "per", "kernel"):
            table.add_column(column, no_wrap=True)
        for column in ("instructions", "cycles", "goal", "cycles / goal", "peer", "peer / cycles"):
            table.add_column(column, justify="right")
        if earlier is not None:
            table.add_column("cycles / earlier", justify="right")
        previous = ""
        for m in (m for m in report.measured if m.target == target):
            cycles = m.cycles / m.units
            table.add_row(
                m.case if m.case != previous else "",
                m.unit,
                m.variant,
                f"{m.instructions / m.units:.2f}",
                f"{cycles:.2f}",
                *_against(cycles, m.baseline or Baseline(None)),
                *([] if earlier is None else [_change(cycles, earlier.get((m.case, m.target, m.variant)))]),
            )
            previous = m.case
        made.append(table)
    return made


def _against(cycles: float, baseline: Baseline) -> list[str]:
    """The goal and its share, the peer and how many times faster this is."""
    cells = ["-"] * 4
    if baseline.goal is not None:
        share = cycles / baseline.goal
        colour = "green" if share <= 1 else "yellow" if share <= 1.25 else "red"
        cells[:2] = f"{baseline.goal:g}", f"[{colour}]{share:.2f}[/]"
    if baseline.cycles is not None:
        cells[2:] = f"{baseline.cycles:.3g}", f"{baseline.cycles / cycles:.2f}"
    return cells


def _change(cycles: float, earlier: float | None) -> str:
    if earlier is None:
        return "new"
    ratio = cycles / earlier
    colour = "green" if ratio < 1 - CHANGED else "red" if ratio > 1 + CHANGED else "dim"
    return f"[{colour}]{ratio:.3f}[/]"


def plot(report: KernelBenchReport) -> str:
    """Cycles of a dense multiplication against sparsity as SVG, a chart for each case with sparse kernels and chip.

    The dense kernels and the peer, which compute the zeros too, are level lines.
    """
    charts = []
    for case, target in dict.fromkeys((m.case, m.target) for m in report.measured if m.unit == NONZERO_MAC):
        rows = [m for m in report.measured if (m.case, m.target) == (case, target)]
        dense = [m for m in rows if m.unit != NONZERO_MAC]
        macs = dense[0].units
        sparse = [m for m in rows if m.unit == NONZERO_MAC]
        ends = sorted({m.sparsity for m in sparse})
        lines = {m.variant: [(float(x), m.cycles / macs) for x in ends] for m in dense}
        if dense[0].baseline and dense[0].baseline.cycles is not None:
            lines["peer"] = [(float(x), dense[0].baseline.cycles) for x in ends]
        for block in sorted({m.block for m in sparse}, reverse=True):
            lines[f"sparse, blocks of {block}"] = _by_sparsity([m for m in sparse if m.block == block], macs)
        charts.append(Chart(f"{case}, {target}", "blocks of weights that are zero, %", "cycles a dense MAC", lines))
    return render_charts(charts)


def _by_sparsity(rows: list[Measured], macs: int) -> list[tuple[float, float]]:
    return sorted((float(m.sparsity), m.cycles / macs) for m in rows)
