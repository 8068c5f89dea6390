"""The first byte at which an image leaves the golden model: where it is, what feeds it, and a program that shows it."""

import re
from collections.abc import MutableMapping, Sequence

import numpy as np

from codegen.generate import GeneratedModel
from codegen.program import Step
from conformance.models import Trace
from conformance.verify.origin import Index, Source, origin
from conformance.verify.reproducer import render_reproducer
from conformance.verify.result import Divergence
from conformance.verify.samples import Sample
from refsim.errors import TinyFormerError
from refsim.numerics import Int8Array

OVERWRITTEN = "right when its step ended, but not at the end of the run: a later step wrote over it"


def first_divergence(
    model: GeneratedModel,
    sample: Sample,
    trace: Trace,
    *,
    place: str,
    attachments: MutableMapping[str, bytes] | None = None,
) -> Divergence | None:
    """The first difference between a run and the golden model, in the order of execution, outputs last.

    Args:
        model: the generated folder that ran.
        sample: that it ran on.
        trace: what it gave.
        place: where.
        attachments: files of the report by name, to which a reproducer is added; None for none.

    Returns:
        None where nothing differs.
    """
    at = 0
    for step in model.steps:
        found = np.frombuffer(trace.log, np.int8, step.bytes, at).reshape(step.shape)
        at += step.bytes
        if (found != sample.golden[step.output]).any():
            inputs = [_tensor(model, sample, name) for name in step.inputs]
            golden = sample.golden[step.output]
            return step_divergence(
                model, step, inputs, golden, found, sample=sample.name, place=place, attachments=attachments
            )
    for port, data in zip(model.outputs, trace.outputs, strict=True):
        expected, found = sample.golden[port.tensor], np.frombuffer(data, np.int8).reshape(port.shape)
        if (found != expected).any():
            writers = [step for step in model.steps if step.output == port.tensor]
            element = _first(expected, found)
            return Divergence(
                place=place,
                sample=sample.name,
                step=writers[-1].index if writers else 0,
                node=writers[-1].node if writers else port.name,
                operator=writers[-1].operator if writers else "input",
                tensor=port.tensor,
                element=element,
                expected=int(expected[element]),
                found=int(found[element]),
                accumulator=None,
                contributions=(OVERWRITTEN,),
            )
    return None


def step_divergence(
    model: GeneratedModel,
    step: Step,
    inputs: Sequence[Int8Array],
    expected: Int8Array,
    found: Int8Array,
    *,
    sample: str,
    place: str,
    attachments: MutableMapping[str, bytes] | None = None,
) -> Divergence:
    """The first difference in the output of one step that was given these inputs.

    Args:
        model: the generated folder that ran.
        step: of its program.
        inputs: what it reads by the golden model, constants included, int8 of each tensor's shape.
        expected: what it must write, int8 of the output's shape.
        found: what it wrote, the same; not equal.
        sample: its index and origin.
        place: where.
        attachments: files of the report by name, to which a reproducer is added; None for none. A step that runs no
            code has none.
    """
    element = _first(expected, found)
    op = model.program.graph.nodes[step.index].op
    sources = [Source(name, data) for name, data in zip(step.inputs, inputs, strict=True)]
    explained = origin(op, sources, element)
    name, lines = "", explained.lines()
    if attachments is not None and not step.elided:
        about = (
            f"{place}, sample {sample}, node {step.node!r}, tensor {step.output!r}, first at {list(element)}:",
            f"golden model {int(expected[element])}, found {int(found[element])}.",
        )
        try:
            text = render_reproducer(model, step, inputs, expected, about)
        except TinyFormerError as error:
            lines = (*lines, f"no reproducer: {error}")
        else:
            name = f"divergence-{re.sub('[^A-Za-z0-9]+', '-', place).strip('-')}.c"
            attachments[name] = text.encode()
    return Divergence(
        place=place,
        sample=sample,
        step=step.index,
        node=step.node,
        operator=step.operator,
        tensor=step.output,
        element=element,
        expected=int(expected[element]),
        found=int(found[element]),
        accumulator=explained.accumulator,
        contributions=lines,
        reproducer=name,
    )


def _first(expected: Int8Array, found: Int8Array) -> Index:
    return tuple(int(i) for i in np.argwhere(expected != found)[0])


def _tensor(model: GeneratedModel, sample: Sample, name: str) -> Int8Array:
    constants = model.program.graph.constants
    return constants[name] if name in constants else sample.golden[name]
