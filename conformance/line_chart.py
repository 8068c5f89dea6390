"""Line charts as SVG, several in a grid: few lines, drawn from zero, readable in light and dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 380, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 34, 46
_LEGEND_LINE, _LEGEND_WIDTH = 18, 240
_COLOURS = ("#0b62a4", "#d1600f", "#2a8a4a", "#8a3fa0", "#b02a37", "#6b6b6b")
_DASHES = ("", "6 4", "2 3")
_STYLE = """<style>
svg { background: #fff; color: #222 } .grid { stroke: #ddd }
@media (prefers-color-scheme: dark) { svg { background: #16181c; color: #ddd } .grid { stroke: #3a3d44 } }
text { fill: currentColor; font: 12px sans-serif } .title { font-weight: 600; font-size: 13px }
</style>"""


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: above it.
        x_label, y_label: of the axes, with their units.
        lines: points in the order of x, by the line's name; lines without a point are left out.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]


def render_charts(charts: Sequence[Chart], columns: int = 2) -> str:
    """Charts side by side, `columns` in a row, with one legend: lines of one name look the same in all."""
    names = list(dict.fromkeys(name for chart in charts for name, points in chart.lines.items() if points))
    styles = {
        name: (_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)]) for i, name in enumerate(names)
    }
    columns = max(1, min(columns, len(charts)))
    rows = -(-len(charts) // columns)
    width = columns * _WIDTH
    per_row = max(1, width // _LEGEND_WIDTH)
    height = rows * _HEIGHT + _LEGEND_LINE * -(-len(names) // per_row) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape('; '.join(chart.title for chart in charts))}</title>",
        _STYLE,
    ]
    for index, chart in enumerate(charts):
        parts.append(f'<g transform="translate({index % columns * _WIDTH} {index // columns * _HEIGHT})">')
        parts += [*_draw(chart, styles), "</g>"]
    for index, name in enumerate(names):
        x, y = index % per_row * _LEGEND_WIDTH + _LEFT, rows * _HEIGHT + _LEGEND_LINE * (index // per_row) + 8
        colour, dash = styles[name]
        parts += [
            f'<path d="M{x} {y}h24" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>',
            f'<text x="{x + 30}" y="{y + 4}">{escape(name)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _draw(chart: Chart, styles: Mapping[str, tuple[str, str]]) -> list[str]:
    points = [point for line in chart.lines.values() for point in line]
    xs = sorted({x for x, _ in points}) or [0.0, 1.0]
    low, high = xs[0], xs[-1] if xs[-1] > xs[0] else xs[0] + 1
    step = _step(max((y for _, y in points), default=1.0))
    ticks = math.ceil(max((y for _, y in points), default=1.0) / step) or 1
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (right - _LEFT) * (x - low) / (high - low),
            bottom - (bottom - _TOP) * y / (step * ticks),
        )

    parts = [f'<text class="title" x="{_LEFT}" y="18">{escape(chart.title)}</text>']
    for tick in range(ticks + 1):
        _, y = at(low, tick * step)
        parts += [
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>',
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick * step:g}</text>',
        ]
    parts += [f'<text x="{at(x, 0)[0]:.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>' for x in xs]
    parts += [
        f'<text x="{(_LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(chart.x_label)}</text>',
        f'<text transform="translate(13 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.y_label)}</text>",
    ]
    for name, line in chart.lines.items():
        if not line:
            continue
        colour, dash = styles[name]
        places = [at(x, y) for x, y in line]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        for (x, y), (real_x, real_y) in zip(places, line, strict=True):
            tip = escape(f"{name}, {real_x:g}: {real_y:.4g}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{tip}</title></circle>')
    return parts


def _step(most: float) -> float:
    """Between ticks of an axis from 0 to `most`: 1, 2 or 5 times a power of ten, for about five of them."""
    rough = max(most, 1e-12) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
