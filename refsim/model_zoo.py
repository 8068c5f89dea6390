"""The models that come with the package: found by name, held to their cards.

A model is a folder of the zoo: `model.onnx`, quantised, and `card.toml`, which says what it is, how it was trained and
what it does. Whatever reads a model file takes the name of one as well: `refsim.load("tinyformer-mini")`.
"""

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from refsim.errors import ModelError

MODEL, CARD = "model.onnx", "card.toml"

_HERE = Path(__file__).parent
FOLDER = next((place for place in (_HERE / "zoo", _HERE.parent / "zoo") if place.is_dir()), _HERE / "zoo")
"""Of the models: inside an installed package, beside it in a checkout."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers, in [0, 1].

    Attributes:
        images: test images, none of which had a part in any choice.
        int8: of the model, by the golden model.
        float32: of the float model that was quantised; None where it is not known.
        dense_float32: of the float model before it was pruned; None likewise.
    """

    images: int
    int8: float
    float32: float | None = None
    dense_float32: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a model takes on a microcontroller; `tinyformer zoo --check` measures it again.

    Attributes:
        target: the microcontroller.
        compiler: name, version and optimisation.
        kernels: hash of the kernels' sources and headers.
        fits: flash and RAM hold it.
        weights, nonzero_weights: numbers in the weights of convolutions and linear layers, and those that are not zero.
        macs: multiply-accumulates of the dense model.
        constant_bytes: encoded weights and tables.
        flash_bytes: of the linked image; an upper bound where it does not fit.
        arena_bytes: planned.
        ram_bytes: of the linked image, its stack included; arena and stack where it does not fit.
        cycles: of one run with flash and caches, emulated; None where it does not fit.
        latency_ms: the same at the target's clock.
        band_percent: how far published measurements lie from such estimates.
    """

    target: str
    compiler: str
    kernels: str
    fits: bool
    weights: int
    nonzero_weights: int
    macs: int
    constant_bytes: int
    flash_bytes: int
    arena_bytes: int
    ram_bytes: int
    cycles: int | None = None
    latency_ms: float | None = None
    band_percent: int | None = None

    @property
    def sparsity(self) -> float:
        """Share of the weights that is zero."""
        return 1 - self.nonzero_weights / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Card:
    """What is known of a trained model.

    Attributes:
        summary: what it is, a sentence or two.
        data: what it was trained and tested on.
        training: commands that train it, one a line.
        row: what it stands for in the paper's tables, such as "tinyformer" or "mobilenetv2"; empty for nothing.
        epochs: passes over the training images, all stages together; None where it is not known.
        seed: of the training; None likewise.
        sha256: of the model's file; empty where there is none.
        accuracy: on test images.
        measured: on a microcontroller; None where it was not measured yet.
    """

    summary: str
    data: str
    training: str
    accuracy: Accuracy
    row: str = ""
    epochs: int | None = None
    seed: int | None = None
    sha256: str = ""
    measured: Measured | None = None


_TABLES = {"accuracy": Accuracy, "measured": Measured}


def names() -> tuple[str, ...]:
    """Names of the models, sorted."""
    return tuple(sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}")))


def model_file(path: str | Path) -> Path:
    """The file that is meant: a path as it is, of a name the file in the zoo, its hash checked.

    A name has neither folder nor suffix; a file of that name comes first.

    Raises:
        ModelError: there is neither file nor model of that name, or the model's file is not the one of its card.
    """
    path = Path(path)
    if len(path.parts) != 1 or path.suffix or path.is_file():
        return path
    name, known = path.name, names()
    if name not in known:
        raise ModelError(f"{name}: there is no such file, and no model of that name; models: {_list(known)}")
    file = FOLDER / name / MODEL
    expected = card(name).sha256
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"model {name}: {file} cannot be read: {error.strerror}") from error
    if found != expected:
        raise ModelError(
            f"model {name}: SHA-256 of {file} is {found}, its card says {expected or 'none'}: install the package again"
        )
    return file


def card(name: str) -> Card:
    """The card of a model.

    Raises:
        ModelError: there is no model of that name, or its card is wrong.
    """
    if name not in names():
        raise ModelError(f"{name}: no model of that name; models: {_list(names())}")
    return read_card(FOLDER / name / CARD)


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        ModelError: it is unreadable, or a key is missing, unknown or of the wrong type.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"card {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"card {path} is no valid TOML: {error}") from error
    for key, kind in _TABLES.items():
        if isinstance(value := table.get(key), dict):
            table[key] = _read(kind, value, f"card {path}: [{key}]")
    found: Card = _read(Card, table, f"card {path}")
    return found


def card_text(what: Card) -> str:
    """A card as TOML, which `read_card` reads."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in _fields(what).items():
        if dataclasses.is_dataclass(value):
            inner = (f"{name} = {_toml(entry)}" for name, entry in _fields(value).items())
            tables += ["", f"[{key}]", *inner]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join([*lines, *tables, ""])


def _fields(part: Any) -> dict[str, Any]:
    """Fields of a dataclass that are not None, by name."""
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return {name: value for name, value in values.items() if value is not None}


def _toml(value: str | bool | float) -> str:
    if isinstance(value, str) and "\n" in value:
        return '"""\n' + value.strip().replace("\\", "\\\\").replace('"""', '\\"""') + '\n"""'
    return json.dumps(value, ensure_ascii=False)


def _read(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in table]
    if unknown := sorted(table.keys() - hints.keys()):
        raise ModelError(f"{where} has the unknown key {unknown[0]!r}; the keys are {', '.join(hints)}")
    if missing:
        raise ModelError(f"{where} lacks {missing[0]!r}")
    for name, value in table.items():
        if not isinstance(value, hints[name]) or isinstance(value, bool) is not (hints[name] is bool):
            raise ModelError(
                f"{where}: {name} is {value!r}, which is no {getattr(hints[name], '__name__', hints[name])}"
            )
    return kind(**table)


def _list(known: tuple[str, ...]) -> str:
    return ", ".join(known) or "none"
