"""An operator as a flat list of named parameters and arrays, and back: what a suite says of it, whatever the language.

Names are those of docs/numerics.md and of the operator's dataclass; those of a part are joined to the part's by a dot.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refsim.ops import OPERATORS
from refsim.ops.base import Operator

Parameter = int | bool | str | None | list[int]


@dataclass(frozen=True)
class Description:
    """An operator in plain data.

    Attributes:
        operator: a name of `refsim.ops.OPERATORS`.
        parameters: numbers, truths, names of roundings and lists of numbers; None where a part is absent.
        arrays: integers of int8, int16 or int32.
    """

    operator: str
    parameters: dict[str, Parameter]
    arrays: dict[str, NDArray[Any]]


def describe(op: Operator) -> Description:
    """Spell an operator out."""
    result = Description(op.name, {}, {})
    _flatten(op, "", result)
    return result


def build(description: Description) -> Operator:
    """The operator of a description.

    Raises:
        ShapeError, QuantizationError: it is not legal.
    """
    built: Operator = _compose(OPERATORS[description.operator], "", description.parameters, description.arrays)
    return built


def _flatten(value: Any, name: str, to: Description) -> None:
    if isinstance(value, np.ndarray):
        to.arrays[name] = value
    elif isinstance(value, Enum):
        to.parameters[name] = value.name.lower()
    elif is_dataclass(value) or hasattr(value, "_fields"):
        for key in [field.name for field in fields(value)] if is_dataclass(value) else value._fields:
            _flatten(getattr(value, key), f"{name}.{key}".lstrip("."), to)
    elif isinstance(value, tuple) and not all(isinstance(item, int) for item in value):
        for index, item in enumerate(value):
            _flatten(item, f"{name}.{index}", to)
    elif isinstance(value, tuple):
        to.parameters[name] = [int(item) for item in value]
    else:
        to.parameters[name] = value.item() if isinstance(value, np.generic) else value


def _compose(kind: Any, name: str, parameters: Mapping[str, Parameter], arrays: Mapping[str, NDArray[Any]]) -> Any:
    if name in arrays:
        return arrays[name]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[str(parameters[name]).upper()]
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        own = [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields
        return kind(**{key: _compose(hints[key], f"{name}.{key}".lstrip("."), parameters, arrays) for key in own})
    if name in parameters:
        value = parameters[name]
        return tuple(value) if isinstance(value, list) else value
    # A tuple of parts, each of which may be absent.
    part = next(k for k in typing.get_args(typing.get_args(kind)[0]) if k is not type(None))
    parts: list[Any] = []
    while any(key == f"{name}.{len(parts)}" or key.startswith(f"{name}.{len(parts)}.") for key in parameters):
        absent = f"{name}.{len(parts)}" in parameters
        parts.append(None if absent else _compose(part, f"{name}.{len(parts)}", parameters, arrays))
    return tuple(parts)
