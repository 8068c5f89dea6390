"""A profile for people: tables for the terminal, and a page that needs nothing but a browser."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from conformance.profile import CAUSES, Change, Comparison, Counts, Profile
from refsim.page import render_page

WIDE = 136
"""Columns of a terminal that has room for all figures; a narrower one is spared MACs, instructions, causes and mJ."""

_TEXTS = ("layer", "operator", "")
_SHORTEST = 8
_PAGE = Path(__file__).parent / "profile_page"


def estimate(profile: Profile) -> tuple[str, str]:
    """The time of one sample with its error band, such as "0.38 s ± 15 %", and what the band rests on.

    A band that rests on measurements of other cores only is none for this one.
    """
    time = _time(profile.seconds(profile.counts.cycles))
    if profile.band is None or profile.core not in profile.band.cores:
        return time, f"no validated error band for {profile.core}"
    return f"{time} {profile.band}", (
        f"error band: {_plural(profile.band.figures, 'published measurement')} on {', '.join(profile.band.cores)}"
    )


def render(profile: Profile, width: int) -> RenderableType:
    """The tables.

    Args:
        profile: what to show.
        width: columns of the terminal.
    """
    return Group(_layer_table(profile, width), _operator_table(profile, width), *_facts(profile))


def render_comparison(comparison: Comparison, width: int) -> RenderableType:
    """What changed, the largest effect first.

    Args:
        comparison: what to show.
        width: columns of the terminal.
    """
    after, old, new = comparison.after, comparison.before.counts, comparison.after.counts
    changed = [change for change in comparison.changes if not change.unchanged]
    rows: list[list[str | Text]] = [
        [
            str(change.layer.index),
            change.layer.name,
            _note(change),
            f"{change.old.cycles / 1000:,.1f}" if change.before else "-",
            f"{change.new.cycles / 1000:,.1f}" if change.after else "-",
            *_deltas(change.old, change.new),
        ]
        for change in changed
    ]
    rows.append(["", "all", "", f"{old.cycles / 1000:,.1f}", f"{new.cycles / 1000:,.1f}", *_deltas(old, new)])
    title = f"{after.model} on {after.target}: what changed, thousands of cycles and instructions a sample"
    table = _table(title, ["#", "layer", "", "before", "now", "cycles", "", "instr.", ""], rows, width)
    same = len(comparison.changes) - len(changed)
    lines = [Text(f"{_plural(same, 'layer')} as before.")] if same else []
    return Group(table, *lines, *(Text(f"warning: {warning}", "yellow") for warning in comparison.warnings))


def page(profile: Profile, comparison: Comparison | None = None) -> str:
    """A self-contained HTML page.

    All names reach the page as JSON, and its script puts them there as text, never as markup.

    Args:
        profile: what to show.
        comparison: of an earlier profile with this one, for columns of changes.
    """
    time, note = estimate(profile)
    data = dataclasses.asdict(profile) | {
        "estimate": {"time": time, "note": note},
        "causes": CAUSES,
        "built_by": profile.built_by,
    }
    if comparison is not None:
        data["comparison"] = {
            "total": dataclasses.asdict(comparison.before.counts),
            "warnings": comparison.warnings,
            "before": {c.after.index: dataclasses.asdict(c.before) for c in comparison.changes if c.after and c.before},
            "gone": [dataclasses.asdict(c.before) for c in comparison.changes if c.before and not c.after],
        }
    style, script = (_PAGE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    return render_page(f"{profile.model} on {profile.target}", data, style, script)


def _layer_table(profile: Profile, width: int) -> Table:
    wide = width >= WIDE
    rows = [
        [str(layer.index), layer.name, layer.operator, *_figures(profile, layer.macs, layer.counts, wide)]
        for layer in profile.layers
    ]
    rows.append(["", "all", "", *_figures(profile, profile.macs, profile.counts, wide)])
    title = f"{profile.model} on {profile.target}: one sample, thousands of instructions and cycles"
    return _table(title, ["#", "layer", "operator", *_heads(wide)], rows, width)


def _operator_table(profile: Profile, width: int) -> Table:
    wide = width >= WIDE
    rows = [
        [str(entry.layers), entry.operator, *_figures(profile, entry.macs, entry.counts, wide)]
        for entry in profile.operators
    ]
    rows.append([str(len(profile.layers)), "all", *_figures(profile, profile.macs, profile.counts, wide)])
    return _table("by operator", ["layers", "operator", *_heads(wide)], rows, width)


def _heads(wide: bool) -> list[str]:
    """Headings of what `_figures` gives."""
    if wide:
        return ["kMAC", "kinstr", "kcycles", "a MAC", "dep.", "branch", "fetch", "data", "ms", "mJ", "share"]
    return ["kcycles", "a MAC", "stalls", "ms", "share"]


def _figures(profile: Profile, macs: int, counts: Counts, wide: bool) -> list[str]:
    """The figures of a layer; stalls are shares of its cycles."""
    cycles = counts.cycles
    stalls = [_share(getattr(counts, cause), cycles) for cause in CAUSES]
    energy = profile.millijoules(cycles)
    return [
        *([f"{macs / 1000:,.1f}" if macs else "-", f"{counts.instructions / 1000:,.1f}"] if wide else []),
        f"{cycles / 1000:,.1f}",
        f"{cycles / macs:.2f}" if macs else "-",
        *(stalls if wide else [_share(cycles - counts.issuing, cycles)]),
        f"{1000 * profile.seconds(cycles):,.3f}",
        *(["-" if energy is None else f"{energy:,.3f}"] if wide else []),
        _share(cycles, profile.counts.cycles),
    ]


def _facts(profile: Profile) -> Iterable[Text]:
    total = profile.counts
    energy = profile.millijoules(total.cycles)
    spread = f", from {profile.fewest:,} to {profile.most:,}" if profile.samples > 1 else ""
    time, note = estimate(profile)
    yield Text(f"{time} a sample" + (f", {energy:,.2f} mJ" if energy is not None else ""), "bold")
    yield Text(note)
    yield Text(f"{total.cycles:,.0f} cycles a sample{spread}; {total.instructions:,.0f} instructions")
    yield Text(f"{profile.arena_bytes:,} bytes of arena, {profile.stack_bytes:,} of stack")
    yield Text(
        f"{profile.target}: {profile.core} at {profile.clock_hz / 1e6:g} MHz, {profile.timing} timing; "
        f"{profile.built_by} {profile.opt}"
    )
    seed = "" if profile.seed is None else f", seed {profile.seed}"
    yield Text(
        f"{_plural(profile.samples, 'sample')} of {profile.data}{seed}, every tensor equal to the golden model; "
        + ", ".join(f"{name} {number}" for name, number in profile.versions.items())
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str | Text]], width: int) -> Table:
    """A table whose last row is a sum; its names, the second column, get what the others leave of `width`."""
    table = Table(title=Text(title), box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if head in _TEXTS and index < 3 else "right", no_wrap=True)
    columns = [[len(cell) for cell in column] for column in zip(heads, *rows, strict=True)]
    taken = sum(max(lengths) for index, lengths in enumerate(columns) if index != 1)
    room = max(_SHORTEST, width - taken - 2 * len(heads))
    for number, row in enumerate(rows):
        if number == len(rows) - 1:
            table.add_section()
        name = Text(str(row[1]))
        if len(name) > room:  # its end tells it apart
            name = Text("\N{HORIZONTAL ELLIPSIS}") + name[1 - room :]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in (row[0], name, *row[2:])))
    return table


def _note(change: Change) -> str:
    """What else has become of a layer."""
    if change.before is None or change.after is None:
        return "new" if change.after else "gone"
    old, new = change.before.operator, change.after.operator
    return f"{old} -> {new}" if old != new else ""


def _deltas(old: Counts, new: Counts) -> list[Text]:
    """What is more or less than before: cycles, instructions, and what share of those before each is."""
    cells = []
    for before, now in ((old.cycles, new.cycles), (old.instructions, new.instructions)):
        style = "green" if now < before else "red" if now > before else ""
        cells.append(Text(f"{(now - before) / 1000:+,.1f}", style))
        cells.append(Text(f"{now / before - 1:+.1%}" if before else "-", style))
    return cells


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _time(seconds: float) -> str:
    """Three significant digits, in the unit that reads best."""
    scale, unit = next((s, u) for s, u in ((1, "s"), (1e3, "ms"), (1e6, "us")) if seconds * s >= 1 or u == "us")
    value = seconds * scale
    digits = 2 - math.floor(math.log10(value)) if value else 0
    return f"{value:,.{min(max(digits, 0), 2)}f} {unit}"
