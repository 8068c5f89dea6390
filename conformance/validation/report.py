"""The validation as a table, JSON, Markdown for docs/cycle-model.md, and a plot."""

import json
import math
from html import escape as escape_xml
from itertools import chain

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from conformance.timing.cycles import Timing
from conformance.validation.cases import Use
from conformance.validation.runner import OPTIMISATION, Outcome, Validation

_HEADINGS = {
    Use.PREDICTED: "Programs, predicted",
    Use.SEQUENCE: "Sequences of instructions",
    Use.ORIENTATION: "Other code, for orientation",
}
_MARKS = {
    Use.PREDICTED: 'fill="#0b62a4" stroke="#0b62a4"',
    Use.ORIENTATION: 'fill="none" stroke="#0b62a4"',
}


def render(validation: Validation) -> RenderableType:
    """Tables for a terminal."""
    table = Table(title="Published measurements, and estimates with their errors")
    for column in ("measurement", "published", "zero wait", "memory"):
        table.add_column(column, justify="left" if column == "measurement" else "right")
    for use, outcomes in _by_use(validation).items():
        table.add_section()
        table.add_row(f"[bold]{_HEADINGS[use]}[/]")
        for outcome in outcomes:
            case = outcome.case
            name = f"{escape(case.name)}, {_chip(outcome)}"
            table.add_row(name, f"{_figure(case.published)} {case.unit}", *map(" ".join, _estimates(outcome)))
    bands = Table("core", "timing", "error band", "from", title="Error bands")
    for row in _band_rows(validation):
        bands.add_row(*row)
    parts = [table, bands] if validation.bands else [table]
    return Group(*parts, f"{validation.toolchain.name} {OPTIMISATION}: {escape(validation.toolchain.version)}")


def as_json(validation: Validation) -> str:
    """Everything, for programs: figures in each case's unit, errors relative to the published figure."""
    cases = [
        {
            "name": o.case.name,
            "workload": o.case.workload,
            "steps": list(o.case.steps),
            "target": o.case.target.name,
            "core": o.case.target.core,
            "clock_hz": o.case.clock_hz,
            "published": o.case.published,
            "unit": o.case.unit,
            "use": o.case.use,
            "source": o.case.source,
            "note": o.case.note,
            "estimates": {
                timing.value: {
                    "value": o.estimates[timing],
                    "error": o.error(timing),
                    "cycles": o.cycles[timing].total,
                    "dependency": o.cycles[timing].dependency,
                    "branch": o.cycles[timing].branch,
                    "fetch": o.cycles[timing].fetch,
                    "data": o.cycles[timing].data,
                }
                for timing in o.estimates
            },
        }
        for o in validation.outcomes
    ]
    bands = [
        {"core": core, "timing": timing, "percent": band.percent, "figures": band.figures, "cores": list(band.cores)}
        for (core, timing), band in validation.bands.items()
    ]
    tool = {"name": validation.toolchain.name, "version": validation.toolchain.version, "optimisation": OPTIMISATION}
    return json.dumps({"compiler": tool, "cases": cases, "bands": bands}, indent=2) + "\n"


def markdown(validation: Validation) -> str:
    """The tables of docs/cycle-model.md: the figures by use, then the error bands."""
    lines = []
    for use, outcomes in _by_use(validation).items():
        lines += [
            f"**{_HEADINGS[use]}**",
            "",
            "| measurement | chip | published | zero wait | error | memory | error | source |",
            "|---|---|---:|---:|---:|---:|---:|---|",
        ]
        for outcome in outcomes:
            case = outcome.case
            source = f"{case.source}; {case.note}" if case.note else case.source
            published = f"{_figure(case.published)} {case.unit}"
            cells = (case.name, _chip(outcome), published, *chain(*_estimates(outcome)), source)
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        lines.append("")
    lines += ["| core | timing | error band | from |", "|---|---|---:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _band_rows(validation)]
    return "\n".join(lines) + "\n"


def plot(validation: Validation) -> str:
    """Published against estimated cycles of programs, both logarithmic, as SVG; with memory where that is known."""
    points = []
    for outcome in validation.outcomes:
        if outcome.case.use is not Use.SEQUENCE:
            timing = Timing.MEMORY if Timing.MEMORY in outcome.estimates else Timing.ZERO_WAIT
            cycles = outcome.cycles[timing].total
            points.append((cycles / (1 + outcome.error(timing)), cycles, outcome.case))
    values = [value for published, estimated, _ in points for value in (published, estimated)] or [1, 10]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    size, margin = 640, 70
    end, middle = size - margin, size / 2

    def at(value: float) -> float:
        return margin + (end - margin) * (math.log10(value) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="13">',
        f'<rect width="{size}" height="{size}" fill="white"/>',
    ]
    for power in range(low, high + 1):
        place = at(10.0**power)
        parts += [
            f'<path d="M{place:.1f} {margin}V{end}M{margin} {size - place:.1f}H{end}" stroke="#ddd"/>',
            f'<text x="{place:.1f}" y="{end + 18}" text-anchor="middle">1e{power}</text>',
            f'<text x="{margin - 8}" y="{size - place + 4:.1f}" text-anchor="end">1e{power}</text>',
        ]
    parts += [
        f'<path d="M{margin} {end}L{end} {margin}" stroke="#888"/>',
        f'<text x="{middle}" y="{size - 20}" text-anchor="middle">published, cycles</text>',
        f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">estimated, cycles</text>',
    ]
    for published, estimated, case in points:
        title = escape_xml(f"{case.name}, {case.target.name}: {published:.3g} published, {estimated:.3g} estimated")
        parts.append(
            f'<circle cx="{at(published):.1f}" cy="{size - at(estimated):.1f}" r="5" {_MARKS[case.use]}>'
            f"<title>{title}</title></circle>"
        )
    for row, (use, mark) in enumerate(_MARKS.items()):
        y = margin + 20 + 20 * row
        parts += [
            f'<circle cx="{margin + 16}" cy="{y}" r="5" {mark}/>',
            f'<text x="{margin + 28}" y="{y + 4}">{use}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _by_use(validation: Validation) -> dict[Use, list[Outcome]]:
    """The figures of each use that there are."""
    found = {use: [o for o in validation.outcomes if o.case.use is use] for use in Use}
    return {use: outcomes for use, outcomes in found.items() if outcomes}


def _chip(outcome: Outcome) -> str:
    """The target, or the core where that alone is what was measured and estimated."""
    target = outcome.case.target
    return target.name if Timing.MEMORY in outcome.case.timings else target.core


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _estimates(outcome: Outcome) -> list[tuple[str, str]]:
    """Estimate and error, for each timing."""
    return [
        (f"{outcome.estimates[timing]:.4g}", f"{outcome.error(timing):+.0%}")
        if timing in outcome.estimates
        else ("-", "")
        for timing in Timing
    ]


def _band_rows(validation: Validation) -> list[tuple[str, str, str, str]]:
    """Core, timing, band, and what it rests on."""
    return [
        (core, Timing[timing].value, str(band), f"{band.figures} figures of {', '.join(band.cores)}")
        for (core, timing), band in validation.bands.items()
    ]
