"""`tinyformer ablate-compression`: what each technique of the compression brings, over several runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.data import DATA_VARIABLE
from refsim.errors import DataError, TinyFormerError

if TYPE_CHECKING:
    from rich.table import Table

    from nas.space import Architecture

RESULTS = "ablation.json"


def ablate_compression(
    space: Annotated[str, typer.Argument(help="Name or .toml file of the space that the network is drawn from.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for networks and accuracies; what is there goes on.")
    ],
    data: Annotated[Path | None, typer.Option(envvar=DATA_VARIABLE, help="Folder with labelled images.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="To train on; by default all.")] = None,
    test_images: Annotated[int | None, typer.Option(min=1, help="For the accuracies; by default all.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of training the network, and its teacher, before.")] = 60,
    prune_epochs: Annotated[int, typer.Option(min=1, help="Of training with gradual pruning.")] = 10,
    tune_epochs: Annotated[int, typer.Option(min=1, help="Of training what is left.")] = 10,
    sparsity: Annotated[float, typer.Option(min=0, max=0.99, help="Share of each layer's blocks that goes.")] = 0.8,
    block: Annotated[int, typer.Option(help="Weights of a block, 2 or 4.")] = 4,
    runs: Annotated[int, typer.Option(min=2, help="Of each way to compress, with seeds of their own.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the network and the images, and the first run's.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; 1 makes a run repeatable.")] = 1,
    device: Annotated[str, typer.Option(help='As torch names it; "auto" takes a GPU if there is one.')] = "auto",
) -> None:
    """Compress one trained network in several ways and compare the accuracy of the integer models.

    Scores (magnitude, Wanda, Fisher information of blocks or of whole heads and channels), a teacher (forward
    and reverse divergence) and quantisation-aware training are exchanged one at a time, and then used together.
    An interrupted run continues where it stopped.
    """
    try:
        import torch
        from rich.console import Console

        from nas.compression import Compression, ablate, variants
        from nas.data import draw, load_images
        from nas.evaluate import CALIBRATION_IMAGES, integer_accuracy
        from nas.layers import describe
        from nas.network import PathNetwork, weights
        from nas.search import check_images
        from nas.search_export import largest
        from nas.space import as_dict, load_space
        from nas.training import Hardware, paper_schedule, train
        from refsim.files import write_whole
    except ModuleNotFoundError as error:
        raise TinyFormerError(
            f'the ablation needs {error.name}, which is not installed; install it with: pip install "tinyformer[nas]"'
        ) from error
    console = Console()
    torch.set_num_threads(threads)
    chosen, hardware = load_space(space), Hardware(device=device)
    training = load_images(data, "train")
    check_images(chosen, training)
    test = load_images(data, "test")
    training = draw(training, images or len(training), seed)
    test = draw(test, test_images or len(test), seed)
    settings = {
        "space": as_dict(chosen),
        "images": len(training),
        "test_images": len(test),
        "epochs": [epochs, prune_epochs, tune_epochs],
        "pruning": [sparsity, block],
        "seed": seed,
    }
    accuracies = _begun(out / RESULTS, settings)

    def note(name: str, run: int, accuracy: float) -> None:
        accuracies.setdefault(name, {})[str(run)] = accuracy
        whole = {"settings": settings, "accuracies": accuracies}
        write_whole(out / RESULTS, (json.dumps(whole, indent=1) + "\n").encode())

    def trained(architecture: Architecture, what: str) -> PathNetwork:
        console.print(f"Training the {what}: {describe(architecture).parameter_count} parameters")
        model, _ = train(
            lambda: PathNetwork(describe(architecture)),
            training,
            None,
            config=paper_schedule(epochs, seed=seed, peak_lr=2e-3),
            folder=out / what,
            hardware=hardware,
            console=console,
        )
        assert isinstance(model, PathNetwork)
        return model

    teacher = trained(largest(chosen), "teacher")
    model = trained(_drawn(space, sparsity, block, seed), "network")
    for what, dense in (("dense", model), ("teacher", teacher)):
        if what not in accuracies:
            calibration = draw(training, CALIBRATION_IMAGES, seed).images
            note(what, 0, integer_accuracy(dense.network, weights(dense), calibration, test, threads=threads))
    for run in range(runs):
        base = Compression(
            prune=paper_schedule(prune_epochs, seed=seed + run, peak_lr=1e-3),
            tune=paper_schedule(tune_epochs, seed=seed + run, peak_lr=5.5e-4),
        )
        ways = [way for way in variants(base) if str(run) not in accuracies.get(way.name, {})]
        for row in ablate(
            model, teacher, training, test, settings=ways, hardware=hardware, console=Console(quiet=True)
        ):
            note(row.settings.name, run, row.accuracy)
            console.print(f"Run {run + 1} of {runs}: {row.settings.name}: {row.accuracy:.2%}")
    console.print(summary(accuracies))


def summary(accuracies: dict[str, dict[str, float]]) -> Table:
    """Means over the runs with their standard errors, and of the differences, run by run, from the first way.

    Args:
        accuracies: by the name of a way and the number of the run, in [0, 1]; two runs or more.
    """
    import numpy as np
    from rich.table import Table

    def mean(values: list[float], sign: str = "") -> str:
        error = np.std(values, ddof=1) / len(values) ** 0.5
        return f"{100 * np.mean(values):{sign}.2f} ± {100 * error:.2f}"

    table = Table("scores", "teacher", "quantisation", "accuracy, %", "difference")
    for what in ("dense", "teacher"):
        table.add_row(what, "", "", f"{100 * accuracies[what]['0']:.2f}", "")
    ways = {name: runs for name, runs in accuracies.items() if name not in ("dense", "teacher")}
    first = next(iter(ways.values()))
    for name, runs in ways.items():
        differences = [value - first[run] for run, value in runs.items()]
        table.add_row(*name.split(", "), mean(list(runs.values())), mean(differences, "+") if runs is not first else "")
    return table


def _begun(file: Path, settings: dict[str, object]) -> dict[str, dict[str, float]]:
    """The accuracies of an ablation that was interrupted.

    Raises:
        DataError: it was one with other settings.
    """
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["settings"] != json.loads(json.dumps(settings)):
        raise DataError(f"{file} tells of an ablation with other settings; choose another output folder")
    accuracies: dict[str, dict[str, float]] = found["accuracies"]
    return accuracies


def _drawn(space: str, sparsity: float, block: int, seed: int) -> Architecture:
    """A path of the space with one pruning everywhere."""
    import dataclasses

    import numpy as np

    from nas.sampling import random_architecture
    from nas.space import load_space

    uniform = dataclasses.replace(load_space(space), sparsities=(sparsity,), blocks=(block,))
    return random_architecture(uniform, np.random.default_rng(seed))
