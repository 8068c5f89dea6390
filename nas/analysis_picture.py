"""The sizes of the models of search spaces as a picture, SVG, like the paper's Fig. 9a."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

from nas.analysis import LAMBDA_LO, LAMBDA_UP, Round
from nas.resources import Limits

_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 56, 24, 56
_WIDTH, _ROW = 760, 90
_RADIUS = 2.5

_KINDS = {True: "fits", False: "large", None: "unknown"}

_STYLE = """
svg { background: #fff; font-family: system-ui, sans-serif; font-size: 12px; }
text { fill: #333; }
.title { font-size: 14px; font-weight: 600; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #ddd; }
.band { fill: #6fbf8b; opacity: 0.25; }
.fits { fill: #2b6cb0; }
.large { fill: #e0a458; }
.unknown { fill: #999; }
@media (prefers-color-scheme: dark) {
  svg { background: #1a202a; }
  text { fill: #e4e9f1; }
  .grid { stroke: #2d3644; }
  .fits { fill: #7aa6d6; }
}
"""


def render_sizes(rounds: Sequence[Round], limits: Limits) -> str:
    """Each space's models from left to right by their number of parameters, on a logarithmic scale.

    The band is what is accepted, lambda_lo to lambda_up of the flash; blue models fit the limits as they are pruned,
    of grey ones it was not asked.
    """
    sizes = [sample.parameters for step in rounds for sample in step.samples]
    low, high = min(*sizes, LAMBDA_LO * limits.flash_bytes) / 1.1, max(*sizes, LAMBDA_UP * limits.flash_bytes) * 1.1
    height = _TOP + _ROW * len(rounds)

    def x(size: float) -> float:
        return _LEFT + _WIDTH * math.log(size / low) / math.log(high / low)

    first, last = x(LAMBDA_LO * limits.flash_bytes), x(LAMBDA_UP * limits.flash_bytes)
    parts = [
        f'<text class="title" x="{_LEFT}" y="20">Sizes of sampled models</text>',
        f'<text x="{_LEFT}" y="38">Green: {LAMBDA_LO:g} to {LAMBDA_UP:g} times the flash, '
        f"{limits.flash_bytes} bytes. Blue models fit flash and RAM as they are pruned, orange ones do not.</text>",
        f'<rect class="band" x="{first:.1f}" y="{_TOP}" width="{last - first:.1f}" height="{height - _TOP}"/>',
    ]
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height}"/>')
        parts.append(f'<text class="middle" x="{x(tick):.1f}" y="{height + 18}">{tick / 1e6:g} M</text>')
    parts.append(f'<text class="middle" x="{_LEFT + _WIDTH / 2}" y="{height + 40}">parameters</text>')
    scatter = np.random.default_rng(0)
    for index, step in enumerate(rounds):
        middle = _TOP + _ROW * (index + 0.5)
        parts.append(f'<text class="end" x="{_LEFT - 10}" y="{middle}">{escape(step.space.name)}</text>')
        parts.append(f'<text class="end" x="{_LEFT - 10}" y="{middle + 16}">{step.acceptance.probability:.0%}</text>')
        for sample in step.samples:
            y = middle + scatter.uniform(-0.4, 0.4) * _ROW
            kind = _KINDS[sample.fits]
            parts.append(
                f'<circle class="{kind}" cx="{x(sample.parameters):.1f}" cy="{y:.1f}" r="{_RADIUS}">'
                f"<title>{sample.parameters} parameters, {sample.kept_parameters} kept</title></circle>"
            )
    size = (_LEFT + _WIDTH + _RIGHT, height + _BOTTOM)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'height="{size[1]}">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**e for e in exponents for digit in (1, 2, 5) if low <= digit * 10.0**e <= high]
