"""The report on a terminal."""

from collections.abc import Iterable
from itertools import groupby

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from conformance.verify.reports.wording import SYMBOLS, WORDS, explained, headline, measured, one_line, printable
from conformance.verify.result import Build, Divergence, Outcome, Report

_NAME, _FIGURES = 24, 26
"""Columns that names of checks and their figures get before they are folded."""

_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.NOT_RUN: "yellow"}


def print_report(report: Report, console: Console) -> None:
    """Print what was found: checks, memory, first divergences, and the verdict last, where it is read first."""
    console.print(render(report))


def render(report: Report) -> RenderableType:
    """All of it."""
    return Group(
        *(part for table in _check_tables(report) for part in (table, Text())),
        *([_memory_table(report.builds)] if any(build.memory for build in report.builds) else []),
        *(_panel(divergence) for divergence in report.divergences),
        Text(f"{SYMBOLS[report.verdict]} {headline(report)}", _STYLES[report.verdict]),
    )


def _check_tables(report: Report) -> Iterable[Table]:
    """A table for each place, all with columns of the same width."""
    names, figures = (
        max((len(one_line(word(check))) for check in report.checks), default=0)
        for word in (lambda check: check.name, measured)
    )
    for place, checks in groupby(report.checks, key=lambda check: check.place):
        title = Text(one_line(place), "bold")
        table = Table(
            title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        table.add_column(no_wrap=True)
        table.add_column(width=min(names, _NAME), overflow="fold")
        table.add_column(width=min(figures, _FIGURES), justify="right", overflow="fold")
        table.add_column(overflow="fold")
        for check in checks:
            mark = Text(f"{SYMBOLS[check.outcome]} {WORDS[check.outcome]}", _STYLES[check.outcome])
            table.add_row(mark, *(Text(one_line(text)) for text in (check.name, measured(check), check.detail)))
        yield table


def _memory_table(builds: Iterable[Build]) -> Table:
    table = Table(
        title=Text("Memory, bytes", "bold"), title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in ("place", "memory"):
        table.add_column(heading)
    for heading in ("used", "of", ""):
        table.add_column(heading, justify="right")
    table.add_column("parts", overflow="fold")
    for build in builds:
        for region in build.memory:
            used = sum(part.bytes for part in region.parts)
            style = "red" if used > region.size else ""
            parts = ", ".join(f"{one_line(part.name)} {part.bytes:,}" for part in region.parts)
            share = f"{used / region.size:.1%}" if region.size else ""
            table.add_row(
                Text(one_line(build.place)),
                Text(one_line(region.name)),
                Text(f"{used:,}", style),
                f"{region.size:,}",
                Text(share, style),
                Text(parts),
            )
    return table


def _panel(divergence: Divergence) -> Panel:
    lines = [explained(divergence), *divergence.contributions]
    if divergence.reproducer:
        lines.append(f"reproducer: {divergence.reproducer}")
    title = Text(f"First divergence at {one_line(divergence.place)}")
    return Panel(Text("\n".join(map(printable, lines))), title=title, border_style="red")
