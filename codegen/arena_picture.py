"""A picture of the arena over time, SVG: each buffer is a rectangle, as long as it lives and as high as it is large."""

import re
from collections.abc import Iterable
from xml.sax.saxutils import escape

from codegen.planner import Buffer
from codegen.program import Program

_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 64, 24, 72
"""Margins, pixels."""

_HEIGHT = 400
"""Of the whole arena, pixels."""

_STEP_WIDTHS = (14, 48)
"""Least and largest width of a step, pixels."""

_WIDTH = 900
"""Of all steps where the least and largest width of one allow, pixels."""

_CHARACTER = 6.2
"""Average width of a character of 10 pixels, generous."""

_STYLE = """
svg { background: #fff; font-family: system-ui, sans-serif; font-size: 10px; }
text { fill: #333; }
.title { font-size: 14px; font-weight: 600; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #ddd; }
.bound { stroke: #b00; stroke-dasharray: 5 3; }
.full { stroke: #b00; stroke-width: 4; }
rect { stroke: #fff; fill: #7aa6d6; }
rect.input { fill: #6fbf8b; }
rect.output { fill: #e0a458; }
rect.scratch { fill: #b8b8b8; }
rect:hover { stroke: #000; }
.label { fill: #000; pointer-events: none; }
@media (prefers-color-scheme: dark) {
  svg { background: #1a202a; }
  text { fill: #e4e9f1; }
  .grid { stroke: #2d3644; }
  .bound, .full { stroke: #f08a7e; }
  rect { stroke: #1a202a; }
  rect:hover { stroke: #fff; }
  .label { fill: #000; }
}
"""


def render_arena(program: Program) -> str:
    """The picture of a program's arena: steps from left to right, offsets from the bottom up.

    Pointing at a rectangle shows its tensors, bytes and steps. The lower bound of the arena is dashed, the step that
    sets it underlined.
    """
    plan = program.plan
    steps = len(program.steps)
    least, largest = _STEP_WIDTHS
    column = min(max(_WIDTH // steps, least), largest)
    right, floor = _LEFT + column * steps, _TOP + _HEIGHT
    scale = _HEIGHT / max(plan.arena_bytes, 1)

    def y(offset: int) -> float:
        return floor - offset * scale

    parts = [
        f'<path class="full" d="M{_LEFT + column * plan.fullest_step} {floor + 2}h{column}"/>',
        *(_grid_line(y(offset), right, offset) for offset in _ticks(plan.arena_bytes)),
    ]
    inputs, outputs = ({port.tensor for port in ports} for ports in (program.inputs, program.outputs))
    for buffer in plan.buffers:
        offset = plan.offset(buffer)
        kind = _kind(buffer, inputs, outputs)
        about = (
            f"{_names(buffer) or f'scratch of {program.steps[buffer.first].node}'}\n"
            f"{kind}, {buffer.bytes} bytes at {offset}\n{_lifetime(program, buffer)}"
        )
        left, width = _LEFT + column * buffer.first, column * (buffer.last - buffer.first + 1)
        height = buffer.bytes * scale
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{_number(y(offset + buffer.bytes))}" width="{width}" '
            f'height="{_number(height)}"><title>{_text(about)}</title></rect>'
        )
        label = _short(buffer, int((width - 6) / _CHARACTER))
        if height >= 12 and label:
            middle = _number(y(offset) - height / 2 + 3)
            parts.append(f'<text class="label" x="{left + 3}" y="{middle}">{_text(label)}</text>')
    bound = _number(y(plan.lower_bound))
    parts.append(f'<path class="bound" d="M{_LEFT} {bound}H{right}"/>')
    every = -(-24 // column)  # so that three digits find room
    parts += [
        f'<text class="middle" x="{_number(_LEFT + column * (step + 0.5))}" y="{floor + 16}">{step}</text>'
        for step in range(0, steps, every)
    ]
    width, height = max(right, _LEFT + _WIDTH) + _RIGHT, floor + _BOTTOM
    summary = (
        f"arena {plan.arena_bytes} bytes ({plan.strategy}); lower bound {plan.lower_bound} (dashed), set by step "
        f"{plan.fullest_step}; tensors up to {plan.tensor_bytes}, scratch up to {plan.scratch_bytes}"
    )
    key = "green: input; orange: output; blue: between; grey: scratch. Rectangles tell more when pointed at."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">',
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="{_LEFT}" y="28">{_text(program.graph.name)}: the arena over time</text>',
            f'<text x="{_LEFT}" y="46">{_text(summary)}</text>',
            *parts,
            f'<text x="{_LEFT}" y="{floor + 34}">step, from left to right; offset in bytes, from the bottom up</text>',
            f'<text x="{_LEFT}" y="{floor + 50}">{key}</text>',
            "</svg>\n",
        ]
    )


def _kind(buffer: Buffer, inputs: set[str], outputs: set[str]) -> str:
    """What a buffer holds: a graph's input stays one even where an operator writes over it."""
    if not buffer.tensors:
        return "scratch"
    if not inputs.isdisjoint(buffer.tensors):
        return "input"
    return "tensor" if outputs.isdisjoint(buffer.tensors) else "output"


def _names(buffer: Buffer) -> str:
    return ", ".join(map(_line, buffer.tensors))


def _short(buffer: Buffer, room: int) -> str:
    """The end of the name of the first tensor, as much as there is room for; nothing where that tells too little."""
    name = _line(buffer.tensors[0]) if buffer.tensors else "scratch"
    if len(name) <= room:
        return name
    return f"…{name[1 - room :]}" if room >= 5 else ""


def _lifetime(program: Program, buffer: Buffer) -> str:
    if buffer.first == buffer.last:
        return f"step {buffer.first}, {_line(program.steps[buffer.first].node)}"
    first, last = (_line(program.steps[step].node) for step in (buffer.first, buffer.last))
    return f"steps {buffer.first} to {buffer.last}, {first} to {last}"


def _grid_line(y: float, right: int, offset: int) -> str:
    at = _number(y)
    return (
        f'<path class="grid" d="M{_LEFT} {at}H{right}"/>'
        f'<text class="end" x="{_LEFT - 6}" y="{_number(y + 3)}">{offset}</text>'
    )


def _ticks(size: int) -> Iterable[int]:
    """Round offsets, four to eight of them, and the end."""
    distance = 8
    while size > 8 * distance:
        distance *= 2
    return [*(tick for tick in range(0, size, distance) if size - tick > distance // 3), size]


def _number(value: float) -> str:
    """At most two decimals, and none that are zero."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _line(text: str) -> str:
    """A name on one line."""
    return " ".join(text.split())


def _text(text: str) -> str:
    """Text as XML: what XML 1.0 cannot hold becomes a question mark."""
    return escape(re.sub("[^\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text))
