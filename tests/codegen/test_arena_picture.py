"""The picture of the arena: well-formed, one rectangle a buffer, where the plan says, whatever the names are."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from codegen.arena_picture import render_arena
from codegen.program import Program, build_program
from refsim import Graph
from refsim.ops.pad import Pad
from tests.codegen.graphs import Builder, hybrid_graph, random_graphs

SVG = "{http://www.w3.org/2000/svg}"


def rectangles(program: Program) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(render_arena(program)).iter(f"{SVG}rect"))


def title(rectangle: ElementTree.Element) -> str:
    return rectangle[0].text or ""


@settings(max_examples=60, deadline=None)
@given(random_graphs())
def test_one_rectangle_a_buffer_and_none_overlap(graph: Graph) -> None:
    program = build_program(graph)
    found = rectangles(program)
    assert len(found) == len(program.plan.buffers)
    places = [[float(r.attrib[key]) for key in ("x", "y", "width", "height")] for r in found]
    rounding = 0.02
    for i, (x, y, width, height) in enumerate(places):
        for other_x, other_y, other_width, other_height in places[:i]:
            beside = x >= other_x + other_width or other_x >= x + width
            assert beside or y + rounding >= other_y + other_height or other_y + rounding >= y + height


def test_rectangles_are_where_the_plan_says() -> None:
    program = build_program(hybrid_graph())
    found = rectangles(program)
    column = min(float(rectangle.attrib["width"]) for rectangle in found)  # some buffer lives for one step only
    for buffer, rectangle in zip(program.plan.buffers, found, strict=True):
        offset = program.plan.offset(buffer)
        assert f"{buffer.bytes} bytes at {offset}\n" in title(rectangle)
        for tensor in buffer.tensors:
            assert tensor in title(rectangle)
            assert program.plan.tensor_offsets[tensor] == offset
        if not buffer.tensors:
            assert title(rectangle).startswith(f"scratch of {program.steps[buffer.first].node}\n")
        assert float(rectangle.attrib["width"]) == column * (buffer.last - buffer.first + 1)
        assert float(rectangle.attrib["x"]) - float(found[0].attrib["x"]) == column * buffer.first
        height = 400 * buffer.bytes / program.plan.arena_bytes
        assert float(rectangle.attrib["height"]) == pytest.approx(height, abs=0.01)
    kinds = {rectangle.attrib["class"] for rectangle in found}
    assert kinds == {"input", "output", "tensor", "scratch"}


def test_the_text_tells_the_figures() -> None:
    program = build_program(hybrid_graph())
    plan, text = program.plan, render_arena(program)
    for figure in (
        f"arena {plan.arena_bytes} bytes ({plan.strategy})",
        f"lower bound {plan.lower_bound} (dashed), set by step {plan.fullest_step}",
        f"tensors up to {plan.tensor_bytes}, scratch up to {plan.scratch_bytes}",
    ):
        assert figure in text


def test_names_are_escaped() -> None:
    name = '</title><script>"&\x00\x1b\ud800\n]]> \U0001f600 ü'
    b = Builder("<model> & \x07")
    x = b.input("<x>", (64,))
    graph = b.graph(b.add(name, Pad((1,), (2,), 0), x))
    text = render_arena(build_program(graph))
    assert text.encode().decode() == text
    root = ElementTree.fromstring(text)
    assert not list(root.iter(f"{SVG}script"))
    titles = [title(r) for r in root.iter(f"{SVG}rect")]
    assert titles[0].startswith("<x>\n")
    assert any(t.startswith('</title><script>"&??? ]]> \U0001f600 ü\n') for t in titles)
    assert root.findtext(f"{SVG}text") == "<model> & ?: the arena over time"


def test_the_same_program_gives_the_same_picture() -> None:
    assert render_arena(build_program(hybrid_graph())) == render_arena(build_program(hybrid_graph()))
    assert not re.search(
        r"e[-+]\d", " ".join(re.findall(r'="([-\d.e+]+)"', render_arena(build_program(hybrid_graph()))))
    )


def test_a_long_chain_is_drawn_with_narrow_steps() -> None:
    b = Builder("long")
    tensor = b.input("x", (64,))
    for i in range(300):
        tensor = b.add(f"pad{i}", Pad((0,), (i % 2,), 0), tensor)
    found = rectangles(build_program(b.graph(tensor)))
    assert len(found) == 301
    assert min(float(r.attrib["width"]) for r in found) >= 14
