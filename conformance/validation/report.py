"""The validation as a table, JSON, Markdown for docs/cycle-model.md, and a plot."""

import json
import math
from html import escape as escape_xml

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from conformance.timing.cycles import Timing
from conformance.validation.cases import Use
from conformance.validation.runner import OPTIMISATION, Outcome, Validation

_FILLS = {Use.PREDICTED: "#0b62a4", Use.GIVEN: "#9bb7cc", Use.ORIENTATION: "none"}


def render(validation: Validation) -> RenderableType:
    """Tables for a terminal."""
    table = Table(title="Published measurements and estimates")
    table.add_column("measurement", overflow="fold")
    table.add_column("chip")
    for column in ("published", "zero wait", "error", "memory", "error"):
        table.add_column(column, justify="right")
    table.add_column("use")
    for outcome in validation.outcomes:
        case = outcome.case
        published = f"{_figure(case.published)} {case.unit}"
        table.add_row(escape(case.name), case.target.name, published, *_estimates(outcome), case.use)
    bands = Table("core", "timing", "error band", "from", title="Error bands")
    for row in _band_rows(validation):
        bands.add_row(*row)
    return Group(table, bands, f"{validation.toolchain.name} {OPTIMISATION}: {escape(validation.toolchain.version)}")


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
    """The tables of docs/cycle-model.md."""
    lines = [
        "| measurement | chip | published | zero wait | error | memory | error | use | source |",
        "|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for outcome in validation.outcomes:
        case = outcome.case
        source = f"{case.source}; {case.note}" if case.note else case.source
        published = f"{_figure(case.published)} {case.unit}"
        cells = (case.name, case.target.name, published, *_estimates(outcome), str(case.use), source)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += ["", "| core | timing | error band | from |", "|---|---|---:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _band_rows(validation)]
    return "\n".join(lines) + "\n"


def plot(validation: Validation) -> str:
    """Published against estimated core cycles, both logarithmic, as SVG; with memory where it was estimated."""
    points = []
    for outcome in validation.outcomes:
        timing = Timing.MEMORY if Timing.MEMORY in outcome.estimates else Timing.ZERO_WAIT
        if outcome.estimates:
            cycles = outcome.cycles[timing].total / outcome.case.scale
            points.append((cycles / (1 + outcome.error(timing)), cycles, outcome))
    if not points:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="640"></svg>\n'
    values = [value for published, estimated, _ in points for value in (published, estimated)]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    size, margin = 640, 70
    span = size - 2 * margin

    def at(value: float) -> float:
        return span * (math.log10(value) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="13">',
        f'<rect width="{size}" height="{size}" fill="white"/>',
    ]
    for power in range(low, high + 1):
        x, y = margin + at(10.0**power), size - margin - at(10.0**power)
        parts += [
            f'<path d="M{x:.1f} {margin}V{size - margin}M{margin} {y:.1f}H{size - margin}" stroke="#ddd"/>',
            f'<text x="{x:.1f}" y="{size - margin + 18}" text-anchor="middle">1e{power}</text>',
            f'<text x="{margin - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>',
        ]
    parts += [
        f'<path d="M{margin} {size - margin}L{size - margin} {margin}" stroke="#888"/>',
        f'<text x="{size / 2}" y="{size - 20}" text-anchor="middle">published, cycles</text>',
        f'<text transform="translate(20 {size / 2}) rotate(-90)" text-anchor="middle">estimated, cycles</text>',
    ]
    for published, estimated, outcome in points:
        case = outcome.case
        x, y = margin + at(published), size - margin - at(estimated)
        title = escape_xml(f"{case.name}, {case.target.name}: {published:.3g} published, {estimated:.3g} estimated")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{_FILLS[case.use]}" stroke="#0b62a4">'
            f"<title>{title}</title></circle>"
        )
    for row, use in enumerate(Use):
        y = margin + 20 + 20 * row
        parts += [
            f'<circle cx="{margin + 16}" cy="{y}" r="5" fill="{_FILLS[use]}" stroke="#0b62a4"/>',
            f'<text x="{margin + 28}" y="{y + 4}">{use}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _estimates(outcome: Outcome) -> list[str]:
    """Estimate and error, for each timing."""
    cells = []
    for timing in Timing:
        known = timing in outcome.estimates
        cells += [f"{outcome.estimates[timing]:.4g}", f"{outcome.error(timing):+.0%}"] if known else ["-", "-"]
    return cells


def _band_rows(validation: Validation) -> list[tuple[str, str, str, str]]:
    """Core, timing, band, and what it rests on."""
    return [
        (core, Timing[timing].value, str(band), f"{band.figures} figures of {', '.join(band.cores)}")
        for (core, timing), band in validation.bands.items()
    ]
