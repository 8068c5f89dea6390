"""A failing case on disk: a JSON descriptor plus arrays, enough to run it again on any place.

The descriptor spells the operator out by its dataclass fields, whatever they are, so a new operator needs nothing here.
"""

import hashlib
import importlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.primitives import Primitive
from conformance.strategies.base import Case
from refsim.errors import DataError
from refsim.numerics import Int8Array
from refsim.ops.base import Operator

FORMAT = 1
DESCRIPTOR = "case.json"


@dataclass(frozen=True)
class Vector:
    """A saved case.

    Attributes:
        case: operator and inputs.
        golden: int8, what the golden model gave when it was saved (the output's shape, no batch axis).
        place: name of the place that differed.
        descriptor: everything else that was noted.
    """

    case: Case
    golden: Int8Array
    place: str
    descriptor: Mapping[str, Any]


def save(
    folder: Path, case: Case, golden: Int8Array, found: Int8Array | None, place: str, notes: Mapping[str, Any]
) -> Path:
    """Save a case, whole or not at all.

    Args:
        folder: parent of the vector's own folder, `<operator>-<hash>`.
        case: operator and inputs.
        golden: the expected output, int8.
        found: the place's output where it gave one.
        place: its name.
        notes: anything more, as JSON knows it.

    Returns:
        The vector's folder.
    """
    arrays: dict[str, NDArray[Any]] = {f"input{k}": x for k, x in enumerate(case.inputs)}
    arrays["golden"] = golden
    if found is not None:
        arrays["found"] = found
    descriptor = {
        "format": FORMAT,
        "operator": case.op.name,
        "place": place,
        **notes,
        "op": _encode(case.op, "op", arrays),
    }
    descriptor["inputs"] = len(case.inputs)
    descriptor["arrays"] = {k: {"shape": list(a.shape), "dtype": a.dtype.name} for k, a in arrays.items()}
    files = {f"{name}.npy": _npy(array) for name, array in arrays.items()}
    files[DESCRIPTOR] = (json.dumps(descriptor, indent=2) + "\n").encode()
    digest = hashlib.sha256(b"".join(name.encode() + data for name, data in sorted(files.items()))).hexdigest()
    result = folder / f"{case.op.name}-{digest[:12]}"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as parent:
            whole = Path(parent) / "vector"
            whole.mkdir()
            for name, data in files.items():
                (whole / name).write_bytes(data)
            whole.replace(result)
    return result


def load(folder: Path) -> Vector:
    """Read what `save` wrote.

    Raises:
        DataError: the folder holds no vector, or a damaged one.
    """
    try:
        descriptor = json.loads((folder / DESCRIPTOR).read_text(encoding="utf-8"))
        if descriptor["format"] != FORMAT:
            raise DataError(f"vector {folder} has format {descriptor['format']}; this version reads format {FORMAT}")
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in descriptor["arrays"]}
        op = _decode(descriptor["op"], arrays)
        if not isinstance(op, Operator):
            raise TypeError(f"{type(op).__name__} is no operator")
        inputs = tuple(arrays[f"input{k}"] for k in range(descriptor["inputs"]))
        return Vector(Case(op, inputs), arrays["golden"], str(descriptor["place"]), descriptor)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise DataError(
            f"{folder} holds no readable test vector ({error}); it must be a folder that `tinyformer conformance` saved"
        ) from error


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _encode(value: Any, path: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """A field's value as JSON; arrays go to `arrays` under the field's path."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, Enum):
        return {"class": _class_name(type(value)), "member": value.name}
    if is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        named = value._asdict()
    elif isinstance(value, tuple):
        return [_encode(item, f"{path}.{index}", arrays) for index, item in enumerate(value)]
    else:
        return value.item() if isinstance(value, np.generic) else value
    return {
        "class": _class_name(type(value)),
        "fields": {k: _encode(v, f"{path}.{k}", arrays) for k, v in named.items()},
    }


def _decode(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, arrays) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    module, _, name = value["class"].partition(":")
    if module.split(".")[0] != "refsim" and value["class"] != _class_name(Primitive):
        # a descriptor names classes of the golden model, or the primitives', and nothing else
        raise ValueError(f"class {value['class']!r} does not belong to refsim")
    cls = getattr(importlib.import_module(module), name)
    if "member" in value:
        return cls[value["member"]]
    return cls(**{k: _decode(v, arrays) for k, v in value["fields"].items()})


def _class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
