"""The command `tinyformer zoo`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refsim import model_zoo
from refsim.errors import ConformanceError, TinyFormerError

if TYPE_CHECKING:
    from refsim.model_zoo import Card


def zoo(
    name: Annotated[
        str | None,
        typer.Argument(help="Model to show the card of, all as a table by default; with --update a run's folder too."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Measure the cards' figures again; exit 1 if one differs.")] = (
        False
    ),
    update: Annotated[bool, typer.Option("--update", help="Measure NAME and write its card.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled samples, .npz: --check and --update take the accuracy on them."),
    ] = None,
) -> None:
    """The models that come with the package: what they are, what they take, how good they are.

    Each name can be given wherever a command takes a model file.
    """
    if data is not None and not (check or update):
        raise TinyFormerError("--data gives samples to --check or --update: give one of them")
    if update:
        if name is None or check:
            raise TinyFormerError("--update writes one card: give its NAME, without --check")
        _update(name, data)
    elif check:
        _check([name] if name else list(model_zoo.names()), data)
    elif name is None:
        Console().print(_table({name: model_zoo.card(name) for name in model_zoo.names()}))
    else:
        _show(name, model_zoo.card(name))


def _check(names: list[str], data: Path | None) -> None:
    """Measure again what cards say.

    Raises:
        ConformanceError: a card says something else.
    """
    import refsim
    from conformance.model_card import differences, measure

    wrong = []
    for name in names:
        card, model = model_zoo.card(name), refsim.load(name)
        with Console(stderr=True).status(f"Measuring {name}"):
            measured, _ = measure(model.graph)
        found = differences(card, measured, model.evaluate(data, top=(1,)) if data else None)
        wrong += [f"{name}: {line}" for line in found]
        if not found:
            _say(f"{name}: as its card says{'' if data else ', accuracy left out: it needs --data'}")
    if wrong:
        raise ConformanceError("; ".join(wrong))


def _update(name: str, data: Path | None) -> None:
    """Write hash and figures of a model into its card."""
    import hashlib

    import refsim
    from conformance.model_card import measure
    from refsim.files import write_whole

    is_run = (Path(name) / model_zoo.CARD).is_file()
    folder = Path(name) if is_run else model_zoo.FOLDER / name
    card = model_zoo.read_card(folder / model_zoo.CARD) if is_run else model_zoo.card(name)
    file = folder / model_zoo.MODEL
    model = refsim.load(file)
    with Console(stderr=True).status(f"Measuring {name}"):
        measured, _ = measure(model.graph)
    accuracy = card.accuracy
    if data:
        found = model.evaluate(data, top=(1,))
        accuracy = replace(accuracy, images=found.samples, int8=found.accuracy)
    card = replace(card, sha256=hashlib.sha256(file.read_bytes()).hexdigest(), accuracy=accuracy, measured=measured)
    write_whole(folder / model_zoo.CARD, model_zoo.card_text(card).encode())
    _say(f"Wrote {folder / model_zoo.CARD}.")


def _table(cards: dict[str, Card]) -> Table:
    table = Table("model", box=box.SIMPLE, pad_edge=False)
    for column in ("int8", "zeros", "flash KB", "RAM KB", "ms", "chip"):
        table.add_column(column, justify="left" if column == "chip" else "right", no_wrap=True)
    for name, card in cards.items():
        found = card.measured
        figures = ["-"] * 5
        if found:
            time = "does not fit" if found.latency_ms is None else f"{found.latency_ms:.0f}{_band(found.band_percent)}"
            sizes = (f"{size / 1024:.0f}" for size in (found.flash_bytes, found.ram_bytes))
            figures = [f"{found.sparsity:.0%}", *sizes, time, found.target]
        table.add_row(name, f"{card.accuracy.int8:.2%}", *figures)
    table.caption = "int8: accuracy in the golden model; ms: emulated with flash and caches, an estimate with its band"
    return table


def _show(name: str, card: Card) -> None:
    accuracy, found = card.accuracy, card.measured
    table = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = [("model", name), ("what", card.summary), ("data", card.data), ("training", card.training.strip())]
    rows += [(what, str(value)) for what, value in (("epochs", card.epochs), ("seed", card.seed)) if value is not None]
    rows.append(("accuracy, int8", f"{accuracy.int8:.2%} of {accuracy.images} test images"))
    for what, share in (("float32", accuracy.float32), ("float32, dense", accuracy.dense_float32)):
        rows += [(f"accuracy, {what}", f"{share:.2%}")] if share is not None else []
    if found:
        rows += [
            ("weights", f"{found.nonzero_weights:,} of {found.weights:,}, {found.sparsity:.1%} are zero"),
            ("MACs", f"{found.macs:,} of the dense model"),
            ("chip", f"{found.target}, {found.compiler}{'' if found.fits else ': does not fit'}"),
            ("flash", f"{found.flash_bytes:,} bytes, constants {found.constant_bytes:,}"),
            ("RAM", f"{found.ram_bytes:,} bytes, arena {found.arena_bytes:,}"),
        ]
        if found.latency_ms is not None:
            time = f"{found.latency_ms:.1f} ms{_band(found.band_percent)}, {found.cycles:,} cycles, an estimate"
            rows.append(("latency", time))
    rows += [("SHA-256", card.sha256), ("file", str(model_zoo.FOLDER / name / model_zoo.MODEL))]
    for what, text in rows:
        table.add_row(what, Text(text))
    Console().print(table)


def _band(percent: int | None) -> str:
    return f" ± {percent} %" if percent is not None else ""


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
