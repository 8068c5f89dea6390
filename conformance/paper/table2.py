"""Table II: accuracy, memory, storage and time of TinyFormers and of other networks on equal ground."""

from dataclasses import asdict
from typing import Any

import refsim
from codegen.target import load_target
from conformance.model_card import TARGET, measure
from conformance.paper.published import LATENCY_SECONDS, TABLE_II, TABLE_III
from conformance.paper.spaces import baselines
from conformance.paper.workspace import Claim, Section, Workspace, decided_by, file_hash, provenance, table
from refsim.model_zoo import Accuracy, Card, Measured

RESNET8, RESULT, BASELINES = "resnet8", "table2-resnet8", "table2-baselines"
UNPUBLISHED = {"cnn": "plain CNN", RESNET8: "ResNet-8 (MLPerf Tiny)"}
"""Rows that the paper does not have."""

LEFT_OUT = ("mobilevitv2-0.75", "mcunet-in3")
"""Networks that nothing here builds."""

PIXELS = refsim.Preprocessing(0, 1)
"""ResNet-8 takes pixels as they are."""


def build(workspace: Workspace) -> Section:
    """Rows of trained models are their cards'; ResNet-8 is measured from its file."""
    cards = workspace.cards_by_row()
    if resnet8 := _resnet8(workspace):
        cards[RESNET8] = resnet8

    def make() -> Any:
        workspace.status("networks that are not trained")
        return baselines()

    return section(cards, workspace.stored(BASELINES, decided_by() | {"seed": 0}, make))


def _resnet8(workspace: Workspace) -> Card | None:
    """ResNet-8 as a card; None where it was never measured and the file or test images are not there."""
    path, data = workspace.resnet8, workspace.data
    if path is None or data is None:
        kept = workspace.kept(RESULT)
    else:
        hashes = {"model": file_hash(path), "data": file_hash(data)}

        def make() -> Any:
            workspace.status("ResNet-8")
            model = refsim.load(path, preprocessing=PIXELS)
            found = model.evaluate(data, top=(1,))
            measured, _ = measure(model.graph)
            return {"measured": asdict(measured), "images": found.samples, "int8": found.accuracy}

        kept = workspace.stored(RESULT, provenance() | hashes, make)
    if kept is None:
        return None
    accuracy = Accuracy(kept["images"], kept["int8"])
    return Card(UNPUBLISHED[RESNET8], "CIFAR-10", "given as a file", accuracy, measured=Measured(**kept["measured"]))


def section(cards: dict[str, Card], untrained: dict[str, dict[str, Any]]) -> Section:
    """The table of what is known of trained models and of networks that are not trained, by row."""
    others = [row for row in cards if row not in {*TABLE_II, *UNPUBLISHED, *TABLE_III}]
    rows = []
    for row in (*TABLE_II, *UNPUBLISHED, *others):
        paper, card = TABLE_II.get(row), cards.get(row)
        name = paper.model if paper else UNPUBLISHED.get(row, row)
        cells = [paper.memory, paper.storage, f"{paper.accuracy:.2f} %"] if paper else ["-"] * 3
        rows.append([name, *cells, *_ours(row, card, untrained.get(row))])
    heads = ("model", "paper: memory", "storage", "int8", "here: float", "int8", "memory", "storage", "latency")
    return Section(table(heads, rows), _claims(cards), (RESULT, BASELINES))


def _ours(row: str, card: Card | None, untrained: dict[str, Any] | None) -> list[str]:
    if card is not None:
        accuracy, found = card.accuracy, card.measured
        shares = ["-" if share is None else f"{share:.2%}" for share in (accuracy.float32, accuracy.int8)]
        sizes = _sizes(found.ram_bytes, found.flash_bytes, found.latency_ms) if found else ["-"] * 3
        return [*shares, *sizes]
    if untrained is None:
        return ["-", "left out" if row in LEFT_OUT else "not trained", "-", "-", "-"]
    ram = untrained["arena_bytes"] + untrained["stack_bytes"]
    flash = untrained["constant_bytes"] + untrained["code_bytes"]
    return ["-", "not trained", *_sizes(ram, flash, untrained["latency_ms"])]


def _sizes(ram: int, flash: int, milliseconds: float | None) -> list[str]:
    """Memory, storage and time; what the chip has no room for has a star and no time."""
    chip = load_target(TARGET)
    over = [used > room for used, room in ((ram, chip.data.size), (flash, chip.code.size))]
    sizes = [f"{used / 1024:.0f} KB{'*' * star}" for used, star in zip((ram, flash), over, strict=True)]
    return [*sizes, "-" if milliseconds is None or any(over) else f"{milliseconds:.0f} ms"]


def _claims(cards: dict[str, Card]) -> tuple[Claim, ...]:
    claims = []
    for row in ("tinyformer-300k", "tinyformer-120k"):
        paper, card = TABLE_II[row], cards.get(row)
        what = f"Table II: {paper.model}, accuracy on CIFAR-10"
        if card is None:
            claims.append(Claim(what, f"{paper.accuracy:.2f} %", "-", "not trained"))
            continue
        reached = 100 * card.accuracy.int8 >= paper.accuracy
        epochs = f" ({card.epochs} epochs here, 300 there)" if card.epochs else ""
        verdict = "reproduced" if reached else f"not reached{epochs}"
        claims.append(Claim(what, f"{paper.accuracy:.2f} %", f"{card.accuracy.int8:.2%}", verdict))
        if (found := card.measured) and found.latency_ms is not None:
            times = f"{1e3 * LATENCY_SECONDS / found.latency_ms:.0f} times faster, another network"
            here = f"{found.latency_ms:.0f} ms ± {found.band_percent} %, estimated"
            if row == "tinyformer-300k":
                claims.append(Claim(f"{paper.model}, latency on an STM32F746", f"{LATENCY_SECONDS} s", here, times))
            sizes = f"{found.ram_bytes / 1024:.0f} KB, {found.flash_bytes / 1024:.0f} KB"
            fits = "fits, by the linked image" if found.fits else "does not fit"
            claims.append(
                Claim(f"Table II: {paper.model}, memory and storage", f"{paper.memory}, {paper.storage}", sizes, fits)
            )
    tinyformers = [card for row, card in cards.items() if row.startswith("tinyformer")]
    baselines = [card for row, card in cards.items() if row in {*TABLE_II, *UNPUBLISHED} and card not in tinyformers]
    fitting = [card for card in baselines if card.measured and card.measured.fits]
    if tinyformers and fitting:
        best, rival = (max(cards, key=lambda card: card.accuracy.int8) for cards in (tinyformers, fitting))
        better = best.accuracy.int8 > rival.accuracy.int8
        claims.append(
            Claim(
                "Table II: TinyFormer is the most accurate network that fits",
                "yes",
                f"{best.accuracy.int8:.2%} against {rival.accuracy.int8:.2%}",
                "reproduced among what was trained" if better else "not reproduced",
            )
        )
    return tuple(claims)
