"""`tinyformer search` and `tinyformer compress`: from a space and images to a verified model in C."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from nas.data import DATA_VARIABLE
from refsim.errors import TinyFormerError

if TYPE_CHECKING:
    from nas.deployment import Deployed
    from nas.executor import Executor

_Data = Annotated[
    Path | None,
    typer.Option(help=f"Folder with the images, or the name of one in that of {DATA_VARIABLE}, its default."),
]
_Storage = Annotated[
    str | None, typer.Option(help="Database URL or .journal file of the studies; by default SQLite in the folder.")
]
_Name = Annotated[str, typer.Option(help="Of the search in its storage.")]
_Threads = Annotated[int, typer.Option(min=1, help="CPU threads of a trial; 1 makes it repeatable.")]
_Device = Annotated[str, typer.Option(help='To train on, as torch names it; "auto" takes a GPU if there is one.')]
_Verify = Annotated[bool, typer.Option(help="Compile and run the C against the golden model in the end.")]


def search(
    context: typer.Context,
    target: Annotated[str, typer.Option(help="Name (see `tinyformer targets`) or .toml file of the microcontroller.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the search; one begun there goes on.")],
    space: Annotated[str, typer.Option(help="Name or .toml file of the search space.")] = "normal",
    data: _Data = None,
    supernets: Annotated[int, typer.Option(min=1, help="Trials of SuperNAS (Algorithm 2).")] = 10,
    trials: Annotated[int, typer.Option(min=1, help="Trials of SparseNAS (Algorithm 3).")] = 50,
    super_epochs: Annotated[int, typer.Option(min=1, help="Of training each supernet.")] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Of training each path before it is pruned.")] = 10,
    prune_epochs: Annotated[int, typer.Option(min=1, help="Of training each path while it is pruned.")] = 5,
    paths: Annotated[int, typer.Option(min=1, help="Paths in a supernet's average accuracy.")] = 10,
    test_paths: Annotated[int, typer.Option(min=1, help="Paths that say whether a supernet is worth training.")] = 100,
    images: Annotated[int | None, typer.Option(min=1, help="Training images; by default all.")] = None,
    validation_images: Annotated[int, typer.Option(min=1, help="Held out from them for accuracies.")] = 1000,
    test_images: Annotated[int | None, typer.Option(min=1, help="For the accuracy in the end; by default all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a training step.")] = 128,
    peak_lr: Annotated[float, typer.Option(min=0, help="Learning rate after the warm-up.")] = 5.5e-4,
    random_trials: Annotated[int, typer.Option(min=1, help="Trials of each stage before evolution begins.")] = 10,
    parents: Annotated[int, typer.Option(min=1, help="Trials, the best, that others descend from.")] = 10,
    max_ms: Annotated[float | None, typer.Option(help="Most milliseconds that a run may take, by estimate.")] = None,
    max_ram: Annotated[int | None, typer.Option(help="Most bytes of RAM; by default the target's.")] = None,
    max_flash: Annotated[int | None, typer.Option(help="Most bytes of flash; by default the target's.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="Trials of each stage, the best, whose weights stay on disk.")] = 50,
    storage: _Storage = None,
    name: _Name = "search",
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Where trials run; see also RAY_ADDRESS.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="With ray, trials at a time; by default as many as fit.")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="With ray, GPUs of a trial; several may share one.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: _Device = "auto",
    threads: _Threads = 1,
    verify: _Verify = True,
) -> None:
    """Search the best sparse network within a chip's limits; the same command goes on with a stopped search."""
    console = Console()
    with _torch_needed(console, "the same command goes on with the search"):
        from dataclasses import replace

        from codegen.target import load_target
        from nas.data import draw, load_images
        from nas.evolution import Evolution
        from nas.resources import Limits
        from nas.search import Effort, Search, load_images_for, load_search
        from nas.search_export import deploy_trial
        from nas.search_page import LivePage, write_results
        from nas.space import load_space
        from nas.study import open_storage
        from nas.training import Hardware

        chip, searched = load_target(target), load_space(space)
        limits = Limits.of(chip, max_ms)
        limits = replace(limits, ram_bytes=max_ram or limits.ram_bytes, flash_bytes=max_flash or limits.flash_bytes)
        effort = Effort(
            super_epochs=super_epochs,
            path_epochs=epochs,
            prune_epochs=prune_epochs,
            paths=paths,
            test_paths=test_paths,
            batch_size=batch_size,
            peak_lr=peak_lr,
            images=images,
            validation_images=validation_images,
        )
        folder = _data_folder(data)
        console.print("Reading images")
        pictures = load_images_for(searched, folder, effort, seed)
        page = LivePage(out, supernets, trials)
        plan = Search(
            space=searched,
            target=chip,
            target_name=target,
            limits=limits,
            storage=open_storage(storage, out),
            folder=out,
            name=name,
            effort=effort,
            evolution=Evolution(random=random_trials, parents=parents),
            seed=seed,
            hardware=Hardware(device=device),
            threads=threads,
            keep=keep,
            watch=page,
        )
        place = _executor(executor, workers, threads, gpus)
        try:
            first_stage = plan.search_supernets(pictures, place, supernets, console)
            plan.search_paths(pictures, first_stage, place, trials, console)
            found = load_search(plan.storage, name)
            test = load_images(folder, "test")
            test = draw(test, min(test_images or len(test), len(test)), seed)
            console.print("Writing the best model")
            deployed = deploy_trial(
                found, found.path(None), out, images=pictures, test=test, target=chip, threads=threads
            )
            write_results(out, found.supernets, found.paths, deployed=deployed)
        except BaseException:
            page.stop()
            raise
        finally:
            place.close()
        _report(console, deployed, out / "results.html")
    _verify_deployed(context, deployed, target, verify, console)


def compress(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of the search.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="To write to; by default compressed/ in it.")] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="Of a path; by default the best.")] = None,
    data: _Data = None,
    prune_epochs: Annotated[int, typer.Option(min=1, help="Of training with gradual pruning.")] = 100,
    tune_epochs: Annotated[int, typer.Option(min=1, help="Of training what is left.")] = 200,
    criterion: Annotated[
        Literal["magnitude", "wanda", "fisher", "units"], typer.Option(help="Scores that pruning goes by.")
    ] = "magnitude",
    distill: Annotated[
        Literal["forward", "reverse"] | None,
        typer.Option(help="Learn from a larger network as well, by this divergence (Kullback-Leibler)."),
    ] = None,
    teacher_epochs: Annotated[int, typer.Option(min=1, help="Of training that larger network.")] = 100,
    quantisation_aware: Annotated[bool, typer.Option(help="Train with the rounding of int8.")] = False,
    images: Annotated[int | None, typer.Option(min=1, help="Training images; by default all.")] = None,
    peak_lr: Annotated[
        float | None, typer.Option(min=0, help="Learning rate after the warm-up; by default the search's.")
    ] = None,
    test_images: Annotated[int | None, typer.Option(min=1, help="For the accuracy in the end; by default all.")] = None,
    storage: _Storage = None,
    name: _Name = "search",
    device: _Device = "auto",
    threads: _Threads = 1,
    verify: _Verify = True,
) -> None:
    """Train a searched model at length while it is pruned again; an interrupted run continues where it stopped."""
    console = Console()
    with _torch_needed(console, "the same command goes on"):
        from dataclasses import replace

        from codegen.target import load_target
        from nas.compression import Compression
        from nas.data import draw, load_images
        from nas.search import load_images_for, load_search
        from nas.search_export import compress_trial
        from nas.study import open_storage
        from nas.training import Hardware

        if storage is None and not (folder / "study.db").is_file():
            raise TinyFormerError(f"{folder} holds no search (study.db); give its folder, or its --storage")
        found = load_search(open_storage(storage, folder), name)
        chosen = found.path(trial)
        place = _data_folder(data)
        console.print("Reading images")
        seed = found.settings["seed"]
        effort = replace(found.effort, images=images)
        if peak_lr is not None:
            effort = replace(effort, peak_lr=peak_lr)
        pictures = load_images_for(found.space, place, effort, seed)
        test = load_images(place, "test")
        deployed = compress_trial(
            found,
            chosen,
            folder,
            out or folder / "compressed",
            images=pictures,
            test=draw(test, min(test_images or len(test), len(test)), seed),
            target=load_target(found.settings["target"]),
            settings=Compression(
                criterion=criterion,
                distillation=distill,
                quantisation_aware=quantisation_aware,
                prune=effort.schedule(prune_epochs),
                tune=effort.schedule(tune_epochs),
            ),
            teaching=effort.schedule(teacher_epochs),
            hardware=Hardware(device=device),
            threads=threads,
            console=console,
        )
        _report(console, deployed, None)
    _verify_deployed(context, deployed, found.settings["target"], verify, console)


@contextmanager
def _torch_needed(console: Console, remedy: str) -> Iterator[None]:
    """Name the package that is missing, and say how to go on where the user stops."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise TinyFormerError(
            f'searching needs {error.name}, which is not installed; install it with: pip install "tinyformer[nas]"'
        ) from error
    except KeyboardInterrupt:
        console.print(f"Stopped; {remedy}.")
        raise


def _data_folder(data: Path | None) -> Path | None:
    """`data`, or the folder of that name among those of TINYFORMER_DATA."""
    root = os.environ.get(DATA_VARIABLE)
    if data is not None and root and not data.exists():
        return Path(root) / data
    return data


def _executor(kind: str, workers: int | None, threads: int, gpus: float) -> Executor:
    from nas.executor import LocalExecutor, RayExecutor

    return RayExecutor(cpus=threads, gpus=gpus, workers=workers) if kind == "ray" else LocalExecutor()


def _report(console: Console, deployed: Deployed, page: Path | None) -> None:
    used = deployed.resources
    time = "" if used.latency_ms is None else f", {used.latency_ms:.1f} ms by estimate"
    lines = [
        f"{deployed.folder}: {deployed.accuracy:.2%} of {deployed.test_images} test images, "
        f"flash {used.flash_bytes} bytes, RAM {used.ram_bytes} bytes{time}"
    ]
    if page is not None:
        lines.append(f"{page}: everything that was tried")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _verify_deployed(context: typer.Context, deployed: Deployed, target: str, wanted: bool, console: Console) -> None:
    """Hand over to the program's command `verify`, or say how to call it."""
    arguments = deployed.verify_arguments(target)
    program = context.find_root()
    command = getattr(program.command, "commands", {}).get("verify")
    if not wanted or command is None:
        line = shlex.join(["tinyformer", "verify", *arguments])
        console.print(f"Next: {line}", highlight=False, soft_wrap=True, markup=False)
        return
    code = command.main(arguments, parent=program, prog_name="verify", standalone_mode=False)
    if code:
        raise typer.Exit(code)
