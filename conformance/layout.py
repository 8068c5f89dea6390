"""Where a test case lies in memory, and what the memory must look like after the kernel ran.

Everything that the kernel may not rely on is random: the order of the buffers, their addresses (activations need no
alignment), the bytes around and between them, the scratch and the output before the call. Everything that it may not
write is compared afterwards.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen.emit import SCRATCH_ALIGNMENT, KernelCall
from refsim.errors import ConformanceError
from refsim.numerics import Int8Array

MARGIN = 16
"""Least number of guarding bytes between two buffers."""


@dataclass(frozen=True)
class Span:
    """A range of the image, bytes."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.start + self.size


@dataclass(frozen=True)
class Layout:
    """Buffers in a stretch of memory whose end is aligned to 16 bytes and borders on memory that does not exist.

    Attributes:
        image: the stretch's bytes before the call; its length is a multiple of 16.
        inputs, output, scratch: where they lie in it; the output is an input where the kernel runs in place.
    """

    image: bytes
    inputs: tuple[Span, ...]
    output: Span
    scratch: Span | None

    def collect(self, after: bytes) -> bytes:
        """The output, once everything around it is found to be as it was.

        Raises:
            ConformanceError: the kernel wrote where it must not.
        """
        expected = np.frombuffer(self.image, np.uint8)
        found = np.frombuffer(after, np.uint8)
        changed = expected != found
        for span in (self.output, self.scratch):
            if span is not None:
                changed[span.start : span.end] = False
        if changed.any():
            first = int(changed.argmax())
            count = int(changed.sum())
            raise ConformanceError(f"the kernel wrote {count} bytes that it must not, from {self.describe(first)}")
        return after[self.output.start : self.output.end]

    def describe(self, at: int) -> str:
        """A place in the image in terms of the nearest buffer, for a message."""
        named = [(f"input {index}", span) for index, span in enumerate(self.inputs)] + [("output", self.output)]
        named += [("scratch", self.scratch)] if self.scratch else []
        name, span = min(named, key=lambda item: max(item[1].start - at, at - item[1].end + 1))
        if at < span.start:
            return f"{span.start - at} bytes before the {name}"
        return (
            f"byte {at - span.start} of the {name}"
            if at < span.end
            else f"byte {at - span.end} past the end of the {name}"
        )


def lay_out(call: KernelCall, inputs: Sequence[Int8Array], output_size: int, in_place: int | None, seed: int) -> Layout:
    """Place a call's buffers.

    Args:
        call: the kernel and its needs.
        inputs: int8 of any shape.
        output_size: bytes.
        in_place: index of the input whose memory is the output as well, or None.
        seed: of everything random.
    """
    generator = random.Random(seed)  # noqa: S311 - test data
    data: dict[str | int, bytes] = {index: x.tobytes() for index, x in enumerate(inputs)}
    if in_place is None:
        data["output"] = generator.randbytes(output_size)
    if call.scratch_bytes:
        data["scratch"] = generator.randbytes(call.scratch_bytes)
    order = list(data)
    generator.shuffle(order)
    from_end: dict[str | int, int] = {}  # distance of each start from the end of the stretch
    cursor = 0
    for name in order:
        cursor += len(data[name])
        if name == "scratch":
            cursor = -(-cursor // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT
        from_end[name] = cursor
        cursor += MARGIN + generator.randrange(SCRATCH_ALIGNMENT)
    size = -(-cursor // 16) * 16
    image = bytearray(generator.randbytes(size))
    spans = {name: Span(size - from_end[name], len(data[name])) for name in order}
    for name, span in spans.items():
        image[span.start : span.end] = data[name]
    return Layout(
        bytes(image),
        tuple(spans[index] for index in range(len(inputs))),
        spans["output" if in_place is None else in_place],
        spans.get("scratch"),
    )


def arena_layout(
    call: KernelCall, inputs: Sequence[Int8Array], output_size: int, *, begin: int = 0, grain: int = 16
) -> Layout:
    """Place a call's buffers as a generated model does: one after the other, aligned, in place where the kernel can.

    Args:
        call: the kernel and its needs.
        inputs: int8 of any shape.
        output_size: bytes.
        begin: where the first buffer begins, a multiple of 16.
        grain: the image is a multiple of so many bytes, itself one of 16.
    """
    in_place = 0 in call.in_place
    spans, cursor = [], begin
    for size in (*(x.size for x in inputs), *(() if in_place else (output_size,)), call.scratch_bytes):
        spans.append(Span(cursor, size))
        cursor += -(-size // 16) * 16
    image = bytearray(-(-cursor // grain) * grain)
    for span, x in zip(spans, inputs, strict=False):
        image[span.start : span.end] = x.tobytes()
    return Layout(
        bytes(image),
        tuple(spans[: len(inputs)]),
        spans[0] if in_place else spans[len(inputs)],
        spans[-1] if call.scratch_bytes else None,
    )
