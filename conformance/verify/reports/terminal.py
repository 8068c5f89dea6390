"""The report on a terminal."""

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from conformance.verify.reports.wording import SYMBOLS, WORDS, explained, headline, measured, one_line, printable
from conformance.verify.result import Build, Divergence, Outcome, Report

_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.NOT_RUN: "yellow"}


def print_report(report: Report, console: Console) -> None:
    """Print what was found: checks, memory, first divergences, and the verdict last, where it is read first."""
    console.print(render(report))


def render(report: Report) -> RenderableType:
    """All of it."""
    return Group(
        *([_check_table(report)] if report.checks else []),
        *([_memory_table(report.builds)] if any(build.memory for build in report.builds) else []),
        *(_panel(divergence) for divergence in report.divergences),
        Text(f"{SYMBOLS[report.verdict]} {headline(report)}", _STYLES[report.verdict]),
    )


def _check_table(report: Report) -> Table:
    table = Table(title=Text(one_line(report.model)), box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "check", "place"):
        table.add_column(heading)
    table.add_column("measured", justify="right")
    table.add_column("finding", overflow="fold")
    for check, following in zip(report.checks, [*report.checks[1:], None], strict=True):
        cells = (one_line(check.name), one_line(check.place), one_line(measured(check)), one_line(check.detail))
        mark = Text(f"{SYMBOLS[check.outcome]} {WORDS[check.outcome]}", _STYLES[check.outcome], no_wrap=True)
        ends = following is not None and following.place != check.place
        table.add_row(mark, *map(Text, cells), end_section=ends)
    return table


def _memory_table(builds: Iterable[Build]) -> Table:
    table = Table(title="Memory, bytes", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
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
