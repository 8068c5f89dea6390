"""Fig. 9: sizes of the models that three search spaces hold, and what sparsity costs the best of each."""

from typing import Any

from conformance.line_chart import Chart, render_charts
from conformance.paper.published import FIG_9A_ACCEPTED, FIG_9B_LOST
from conformance.paper.spaces import analyse
from conformance.paper.workspace import Claim, Section, Workspace, decided_by, table
from refsim.model_zoo import Card

SPACES = ("small", "normal", "large")
SAMPLES, SEED = 200, 0
ACCEPTED = 0.9

PRUNED = 0.1
"""Zeros among the weights from which a network counts as pruned: quantisation alone makes some."""


def build(workspace: Workspace) -> Section:
    """Draw models from each space; accuracies are those of trained models' cards."""
    settings = decided_by() | {"spaces": SPACES, "samples": SAMPLES, "seed": SEED}
    picture = workspace.folder / "fig9a.svg"

    def make() -> Any:
        workspace.status(f"{SAMPLES} models of each of {', '.join(SPACES)}")
        return analyse(SPACES, "--samples", str(SAMPLES), "--seed", str(SEED), svg=picture)

    return section(workspace.stored("fig9a", settings, make, files=(picture.name,)), workspace.cards())


def section(spaces: list[dict[str, Any]], cards: dict[str, Card]) -> Section:
    """The figure of spaces that were analysed, and of models that were trained."""
    rows, probabilities = [], {}
    for entry in spaces:
        name, drawn = entry["space"], entry["samples"]
        sizes = sorted(sample["parameters"] for sample in drawn)
        probabilities[name] = entry["probability"]
        rows.append(
            [
                name,
                f"{sizes[0] / 1e6:.2f} to {sizes[-1] / 1e6:.2f} M",
                f"{sum(bool(sample['fits']) for sample in drawn) / len(drawn):.0%}",
                f"{probabilities[name]:.0%}",
                FIG_9A_ACCEPTED[name],
            ]
        )
    kept = [name for name in SPACES if probabilities[name] > ACCEPTED]
    found = ", ".join(f"{name} {probabilities[name]:.0%}" for name in SPACES)
    claims = [
        Claim(
            "Fig. 9a: accepted search spaces",
            "normal alone (> 90 %); small and large < 30 %",
            found,
            "reproduced" if kept == ["normal"] else "not reproduced",
        )
    ]
    text = f"""\
**(a)** {SAMPLES} models of each space.

{table(("space", "parameters", "fit", "accepted", "paper"), rows)}

![Sizes of sampled models](paper/fig9a.svg)

**(b)** """
    what = "Fig. 9b: accuracy lost by pruning and quantisation"
    printed = f"{FIG_9B_LOST['small']:.2f} (small) to {FIG_9B_LOST['large']:.2f} points (large)"
    trained = {name: card for name, card in cards.items() if card.accuracy.dense_float32 and _zeros(card) >= PRUNED}
    if not trained:
        text += "No model was trained both dense and pruned yet."
        claims.append(Claim(what, printed, "-", "not trained"))
        return Section(text, tuple(claims), ("fig9a",))
    table_rows, lines = [], {name: list[tuple[float, float]]() for name in ("dense, float", "pruned, float", "int8")}
    for name, card in sorted(trained.items(), key=lambda item: _zeros(item[1])):
        accuracy = card.accuracy
        shares = (accuracy.dense_float32, accuracy.float32, accuracy.int8)
        lost = 100 * ((accuracy.dense_float32 or 0) - accuracy.int8)
        cells = ("-" if share is None else f"{share:.2%}" for share in shares)
        table_rows.append([name, f"{_zeros(card):.0%}", *cells, f"{lost:.2f}"])
        for points, share in zip(lines.values(), shares, strict=True):
            if share is not None:
                points.append((round(100 * _zeros(card)), 100 * share))
    text += f"""Models that were trained here.

{table(("model", "zeros", *lines, "points lost"), table_rows)}"""
    losses = [float(row[-1]) for row in table_rows]
    claims.append(
        Claim(
            what,
            printed,
            f"{min(losses):.2f} to {max(losses):.2f} points, {len(losses)} model{'s' * (len(losses) > 1)}",
            "other models, trained for less long",
        )
    )
    if len(table_rows) == 1:
        return Section(text, tuple(claims), ("fig9a",))
    text += "\n\n![Accuracy against sparsity](paper/fig9b.svg)"
    svg = render_charts([Chart("Accuracy", "weights that are zero, %", "% of the test images", lines)])
    return Section(text, tuple(claims), ("fig9a",), {"fig9b.svg": svg})


def _zeros(card: Card) -> float:
    return card.measured.sparsity if card.measured else 0.0
