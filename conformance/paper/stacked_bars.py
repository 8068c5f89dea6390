"""Stacked bars as SVG, one below the other, readable in light and dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _WIDTH, _ROW, _BAR, _TOP = 220, 520, 46, 28, 40
_LEGEND_WIDTH = 170
_COLOURS = ("#0b62a4", "#5fa3d0", "#2a8a4a", "#c9a227", "#d1600f", "#8a3fa0", "#8a8a8a")
_STYLE = """<style>
svg { background: #fff; color: #222 }
@media (prefers-color-scheme: dark) { svg { background: #16181c; color: #ddd } }
text { fill: currentColor; font: 12px sans-serif } .title { font-weight: 600; font-size: 13px }
</style>"""


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: left of it.
        parts: lengths by name, from the left; those of one name have one colour in all bars.
    """

    name: str
    parts: Mapping[str, float]


def render_bars(title: str, bars: Sequence[Bar], unit: float = 1.0) -> str:
    """Bars with one legend; what they show is divided by `unit`."""
    names = list(dict.fromkeys(name for bar in bars for name, length in bar.parts.items() if length))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    longest = max(sum(bar.parts.values()) for bar in bars)
    legend = _TOP + _ROW * len(bars) + 10
    per_row = (_LEFT + _WIDTH) // _LEGEND_WIDTH
    width, height = _LEFT + _WIDTH + 70, legend + 20 * -(-len(names) // per_row) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        _STYLE,
        f'<text class="title" x="10" y="20">{escape(title)}</text>',
    ]
    for index, bar in enumerate(bars):
        x, y = float(_LEFT), _TOP + _ROW * index
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 19}" text-anchor="end">{escape(bar.name)}</text>')
        for name, length in bar.parts.items():
            if length:
                wide = _WIDTH * length / longest
                tip = escape(f"{name}: {length / unit:.3g}")
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_BAR}" fill="{colours[name]}">'
                    f"<title>{tip}</title></rect>"
                )
                x += wide
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 19}">{sum(bar.parts.values()) / unit:.1f}</text>')
    for index, name in enumerate(names):
        x, y = 10 + index % per_row * _LEGEND_WIDTH, legend + 20 * (index // per_row)
        parts += [
            f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colours[name]}"/>',
            f'<text x="{x + 18}" y="{y + 11}">{escape(name)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
