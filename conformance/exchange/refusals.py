"""Descriptors that an engine must refuse: legal ones with one thing wrong, each refused by the golden model."""

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np

from conformance.exchange.description import Description, build
from refsim.errors import QuantizationError, ShapeError
from refsim.numerics import Int8Array

Inputs = tuple[Int8Array, ...]
_Change = Callable[[Description, Inputs], Inputs | None]


def _set(name: str, value: int) -> _Change:
    """One parameter has another value, or the first element of an array."""

    def change(d: Description, inputs: Inputs) -> Inputs | None:
        if name in d.arrays and d.arrays[name].ndim:
            d.arrays[name] = d.arrays[name].copy()
            d.arrays[name].flat[0] = value
            return inputs
        if name in d.parameters:
            d.parameters[name] = value
            return inputs
        return None

    return change


def _add(name: str, index: int, value: int) -> _Change:
    """One element of a list of numbers is larger."""

    def change(d: Description, inputs: Inputs) -> Inputs | None:
        numbers = d.parameters.get(name)
        if not isinstance(numbers, list) or not numbers:
            return None
        d.parameters[name] = [*numbers[:index], numbers[index] + value, *numbers[index:][1:]]
        return inputs

    return change


def _longer_last_axis(d: Description, inputs: Inputs) -> Inputs | None:
    x = inputs[0]
    return (np.concatenate([x, x[..., :1]], axis=-1), *inputs[1:]) if x.ndim > 1 else None


def _longest_row(d: Description, inputs: Inputs) -> Inputs | None:
    return (np.zeros((1, 4096), np.int8),) if d.operator == "softmax" else None


def _short_table(d: Description, inputs: Inputs) -> Inputs | None:
    if "table" not in d.arrays:
        return None
    d.arrays["table"] = d.arrays["table"][:255]
    return inputs


def _emptied_range(d: Description, inputs: Inputs) -> Inputs | None:
    prefix = next((key.removesuffix("act_min") for key in d.parameters if key.endswith("act_min")), None)
    if prefix is None:
        return None
    d.parameters.update({f"{prefix}act_min": 1, f"{prefix}act_max": 0})
    return inputs


_CHANGES: dict[str, _Change] = {
    "a multiplier that is not normalised": _set("output.multiplier", 2**29 - 1),
    "a shift beyond 30": _set("output.shift", 31),
    "a shift below -31": _set("output.shift", -32),
    "an output zero point that is no int8": _set("output.zero_point", 128),
    "an input zero point that is no int8": _set("input_zero_point", -129),
    "a zero point of the first input that is no int8": _set("a_zero_point", 128),
    "a bias with which the accumulator may overflow": _set("bias", 2**31 - 1),
    "a beta with which the accumulator may overflow": _set("beta", -(2**31)),
    "a gamma of -32768": _set("gamma", -(2**15)),
    "more scale bits than 14": _set("scale_bits", 15),
    "an epsilon of 2^62": _set("epsilon", 2**62),
    "a softmax shift of 32": _set("shift", 32),
    "a difference that does not follow from the shift": _set("diff_min", 1),
    "a row longer than 4095": _longest_row,
    "an empty activation range": _emptied_range,
    "an input whose last axis is longer": _longer_last_axis,
    "a table of 255 bytes": _short_table,
    "an axis twice": _add("permutation", 0, 1),
    "an axis that there is not": _set("axis", 7),
    "axes to reduce that there are not": _set("last_axis", 7),
    "a part that leaves the input": _add("sizes", 0, 1000),
    "a step of 0": _add("steps", 0, -3),
    "another number of elements": _add("shape", 0, 1),
    "a negative padding": _add("before", 0, -1000),
    "a stride of 0": _add("stride", 0, -4),
    "a window wholly in the padding": _add("padding", 0, 1000),
    "probabilities with another zero point": _set("context.a_zero_point", 0),
}


def refusals(description: Description, inputs: Inputs) -> Iterator[tuple[str, Description, Inputs]]:
    """What of a legal operator's description must be refused: the reason, the description, and inputs for it."""
    for reason, change in _CHANGES.items():
        changed = deepcopy(description)
        given = change(changed, inputs)
        if given is not None and _refused(changed, given):
            yield reason, changed, given


def _refused(description: Description, inputs: Inputs) -> bool:
    try:
        build(description).output_shape(*(x.shape[1:] for x in inputs))
    except (ShapeError, QuantizationError):
        return True
    return False
