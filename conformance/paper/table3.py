"""Table III: what transformers, the second DoT and mixed block sizes bring."""

from typing import Any

from conformance.paper.published import TABLE_III, TABLE_III_LIMITS
from conformance.paper.spaces import analyse
from conformance.paper.workspace import Claim, Section, Workspace, decided_by, table
from refsim.model_zoo import Card

FULL = "tinyformer-120k"
"""The row of the model of which the others are variants."""

SPACES = {
    FULL: "normal",
    "no-transformer": "normal-no-transformer",
    "single-dot": "normal-single-dot",
    "block-2": "normal-block-2",
    "block-4": "normal-block-4",
}
"""By the row of the table."""

SAMPLES, SEED = 60, 0


def build(workspace: Workspace) -> Section:
    """Draw models within the paper's limits from each ablation's space; accuracies are those of trained models."""
    settings = decided_by() | {"spaces": SPACES, "samples": SAMPLES, "seed": SEED} | TABLE_III_LIMITS

    def make() -> Any:
        workspace.status(f"{SAMPLES} models of each of {', '.join(SPACES.values())}")
        limits = ("--max-flash", str(TABLE_III_LIMITS["flash"]), "--max-ram", str(TABLE_III_LIMITS["ram"]))
        spaces = analyse(tuple(SPACES.values()), "--samples", str(SAMPLES), "--seed", str(SEED), *limits)
        return {entry["space"]: largest(entry["samples"]) for entry in spaces}

    return section(workspace.stored("table3", settings, make), workspace.cards_by_row())


def largest(samples: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the models that fit, what the one of most effective weights takes; None where none fits."""
    fitting = [sample["resources"] for sample in samples if sample["fits"]]
    return max(fitting, key=lambda found: found["kept_parameters"], default=None)


def section(drawn: dict[str, Any], cards: dict[str, Card]) -> Section:
    """The table of what was drawn and trained."""
    rows = []
    for row, paper in TABLE_III.items():
        card, found = cards.get(row), drawn[SPACES[row]]
        cells = [paper.model, f"{paper.accuracy:.2f} %", f"{paper.parameters} K", f"{paper.storage} KB"]
        cells.append(f"{card.accuracy.int8:.2%}" if card else "not trained")
        if card and card.measured:
            sizes = card.measured
            cells += _sizes(sizes.nonzero_weights, sizes.flash_bytes, sizes.ram_bytes, sizes.latency_ms)
        elif found:
            flash, ram = (
                found[a] + found[b] for a, b in (("constant_bytes", "code_bytes"), ("arena_bytes", "stack_bytes"))
            )
            cells += _sizes(found["kept_parameters"], flash, ram, found["latency_ms"])
        else:
            cells += ["none fits", "-", "-", "-"]
        rows.append(cells)
    trained = [row for row in TABLE_III if row in cards]
    heads = ("model", "paper: int8", "weights", "storage", "here: int8", "weights", "flash", "RAM", "latency")
    full = cards[FULL].accuracy.int8 if FULL in cards else 0.0
    lost = [f"{TABLE_III[row].model} {100 * (full - cards[row].accuracy.int8):.2f}" for row in trained if row != FULL]
    done = bool(full and lost)
    claims = [
        Claim(
            "Table III: points lost without transformers, with a single DoT, with one size of block",
            "1.48, 2.18, 0.22 (2) and 0.58 (4)",
            ", ".join(lost) if done else "sizes only",
            "variants of one network, one training each" if done else "not trained",
        )
    ]
    return Section(table(heads, rows), tuple(claims), ("table3",))


def _sizes(weights: int, flash: int, ram: int, milliseconds: float | None) -> list[str]:
    time = "-" if milliseconds is None else f"{milliseconds:.0f} ms"
    return [f"{weights / 1000:.0f} K", f"{flash / 1024:.0f} KB", f"{ram / 1024:.0f} KB", time]
