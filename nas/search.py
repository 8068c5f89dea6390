"""A search from beginning to end: SuperNAS, SparseNAS, and what is made of the best model.

Everything found is in the studies (`nas.study`) and, as weights, in the search's folder::

    study.db             the studies, unless they are kept elsewhere
    supernets/0003.npz   weights of a supernet, by its trial's number
    paths-0003/0012.npz  weights of a path through supernet 3, trained and pruned
    results.json, results.html
    best/                the models and C of the best path
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from codegen.target import Target
from nas.arrays import load_arrays
from nas.data import LabelledImages, draw, hold_out, load_images, to_input
from nas.evaluate import CALIBRATION_IMAGES
from nas.evolution import Evolution, EvolutionarySampler, path_genes, super_genes
from nas.executor import Executor
from nas.resources import Limits, ResourceEval
from nas.search_training import Images, PathTrainer, SupernetTrainer
from nas.space import Architecture, Space, SuperConfig, as_dict, from_dict
from nas.sparsenas import SPEED, PathTrial
from nas.study import SETTINGS, accuracy, best_trial, open_study, run_trials, weights_path
from nas.supernas import SupernetTrial
from nas.training import Hardware, TrainingConfig, paper_schedule
from refsim.errors import DataError

Watch = Callable[[Study, Study | None], None]
"""Called with the studies of both stages, the second once it is there, whenever a trial is begun or finished."""


@dataclass(frozen=True)
class Effort:
    """How much each trial does; the defaults are the paper's where it says.

    Attributes:
        super_epochs: of a supernet's training.
        path_epochs: of a path's training before pruning.
        prune_epochs: of its training with gradual pruning.
        paths: that a supernet's accuracy is the average of, T_j.
        test_paths: of TestSupernet.
        batch_size: of all training.
        peak_lr: learning rate of all training after its warm-up.
        images: training images; None takes all.
        validation_images: held out for accuracies.
    """

    super_epochs: int = 10
    path_epochs: int = 10
    prune_epochs: int = 5
    paths: int = 10
    test_paths: int = 100
    batch_size: int = 128
    peak_lr: float = 5.5e-4
    images: int | None = None
    validation_images: int = 1000

    def schedule(self, epochs: int) -> TrainingConfig:
        """Of a training; its seed is the trial's."""
        return paper_schedule(epochs, batch_size=self.batch_size, peak_lr=self.peak_lr)


@dataclass(frozen=True, eq=False)
class Search:
    """What is searched, for what, and with what; see the module for its folder.

    Attributes:
        space: of the models.
        target, target_name: the chip, and what the user calls it.
        limits: for the models.
        effort: of each trial.
        evolution: of the sampling.
        seed: of everything random.
        storage, name: where the studies are, and what their names begin with.
        folder: for weights and results. Machines that share studies share it.
        hardware, threads: to train on.
        keep: weights of how many trials of each study stay in `folder`, those of the best.
        watch: is told of progress.
    """

    space: Space
    target: Target
    target_name: str
    limits: Limits
    storage: BaseStorage
    folder: Path
    name: str = "search"
    effort: Effort = field(default_factory=Effort)
    evolution: Evolution = field(default_factory=Evolution)
    seed: int = 0
    hardware: Hardware = field(default_factory=Hardware)
    threads: int = 1
    keep: int = 50
    watch: Watch = lambda _supernets, _paths: None

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what a trial gives."""
        return {
            "space": as_dict(self.space),
            "target": self.target_name,
            "limits": asdict(self.limits),
            "effort": asdict(self.effort),
            "evolution": asdict(self.evolution),
            "seed": self.seed,
        }

    def search_supernets(self, images: Images, executor: Executor, trials: int, console: Console) -> Study:
        """Algorithm 2: the study of supernets, with `trials` of them evaluated."""
        genes = super_genes(self.space)
        sampler = EvolutionarySampler(genes, self.evolution, seed=self.seed)
        study = open_study(self.storage, f"{self.name}/supernets", sampler, self.settings)
        schedule = self.effort.schedule(self.effort.super_epochs)
        trial = SupernetTrial(
            self.space,
            ResourceEval(self.target),
            self.limits,
            SupernetTrainer(self.space, images, schedule, self.hardware, self.threads),
            self.effort.test_paths,
            self.effort.paths,
        )
        with _progress(console, "SuperNAS", study, trials, lambda: self.watch(study, None)) as observe:
            run_trials(
                study,
                genes,
                trial,
                executor,
                trials=trials,
                seed=self.seed,
                folder=self.folder / "supernets",
                keep=self.keep,
                observe=observe,
            )
        return study

    def search_paths(
        self, images: Images, supernets: Study, executor: Executor, trials: int, console: Console
    ) -> Study:
        """Algorithm 3, selection stage: the study of paths through the best supernet, with `trials` of them evaluated.

        Raises:
            TargetError: no supernet is finished.
        """
        best = best_trial(supernets)
        number, supernet = best.number, super_genes(self.space).config(best.params)
        genes = path_genes(self.space, supernet)
        sampler = EvolutionarySampler(genes, self.evolution, seed=self.seed)
        settings = {**self.settings, "supernet": as_dict(supernet)}
        study = open_study(self.storage, paths_study(self.name, number), sampler, settings)
        trial = PathTrial(
            self.space,
            supernet,
            ResourceEval(self.target, samples=to_input(images.calibration)),
            self.limits,
            PathTrainer(
                space=self.space,
                supernet=supernet,
                shared=load_arrays(weights_path(self.folder / "supernets", number)),
                images=images,
                schedule=self.effort.schedule(self.effort.path_epochs),
                pruning=self.effort.schedule(self.effort.prune_epochs),
                hardware=self.hardware,
                threads=self.threads,
            ),
        )
        with _progress(console, "SparseNAS", study, trials, lambda: self.watch(supernets, study)) as observe:
            run_trials(
                study,
                genes,
                trial,
                executor,
                trials=trials,
                seed=self.seed,
                folder=paths_folder(self.folder, number),
                keep=self.keep,
                observe=observe,
            )
        return study


def paths_study(name: str, supernet: int) -> str:
    """Name of the study of paths through the supernet of that trial."""
    return f"{name}/paths-{supernet:04d}"


def paths_folder(folder: Path, supernet: int) -> Path:
    """Folder of the weights of these paths."""
    return folder / f"paths-{supernet:04d}"


@dataclass(frozen=True, eq=False)
class Found:
    """A search as it is in its storage.

    Attributes:
        supernets, paths: the studies of the two stages.
        supernet: the best trial of the first, which the second is about.
        settings: of the search.
    """

    supernets: Study
    paths: Study
    supernet: FrozenTrial
    settings: dict[str, Any]

    @property
    def space(self) -> Space:
        """That was searched."""
        return from_dict(Space, self.settings["space"], "the study's space")

    @property
    def limits(self) -> Limits:
        """For the models."""
        return Limits(**self.settings["limits"])

    @property
    def effort(self) -> Effort:
        """Of each trial."""
        return Effort(**self.settings["effort"])

    def architecture(self, trial: FrozenTrial) -> Architecture:
        """Of a path's trial."""
        space = self.space
        supernet = from_dict(SuperConfig, self.settings["supernet"], "the study's supernet")
        path = path_genes(space, supernet).config(trial.params)
        return Architecture(space.input_shape, space.classes, supernet, path)

    def path(self, number: int | None) -> FrozenTrial:
        """A finished trial of a path, by default the best.

        Raises:
            DataError: there is no such trial, or it was skipped or lost.
            TargetError: no trial is finished.
        """
        if number is None:
            return best_trial(self.paths)
        finished = {t.number: t for t in self.paths.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}
        if number not in finished:
            raise DataError(f"trial {number} is none of the finished ones: {', '.join(map(str, finished)) or 'none'}")
        return finished[number]


def load_search(storage: BaseStorage, name: str) -> Found:
    """The search of that name.

    Raises:
        DataError: it is not in the storage, or has not come to its paths.
        TargetError: no supernet is finished.
    """
    known = optuna.get_all_study_names(storage)
    if f"{name}/supernets" not in known:
        searches = sorted(study.removesuffix("/supernets") for study in known if study.endswith("/supernets"))
        raise DataError(f"there is no search {name!r} in the storage; there are: {', '.join(searches) or 'none'}")
    supernets = optuna.load_study(study_name=f"{name}/supernets", storage=storage)
    supernet = best_trial(supernets)
    if paths_study(name, supernet.number) not in known:
        raise DataError(f"search {name!r} has no paths yet; go on with tinyformer search")
    paths = optuna.load_study(study_name=paths_study(name, supernet.number), storage=storage)
    return Found(supernets, paths, supernet, paths.user_attrs[SETTINGS])


def load_images_for(space: Space, data: Path | None, effort: Effort, seed: int) -> Images:
    """Training, validation and calibration images for a space.

    Raises:
        DataError: they cannot be read, are of another size or have more classes.
    """
    everything = load_images(data, "train")
    check_images(space, everything)
    wanted = len(everything)
    if effort.images is not None:
        wanted = min(effort.images + effort.validation_images, wanted)
    training, validation = hold_out(draw(everything, wanted, seed), effort.validation_images, seed)
    return Images(training, validation, draw(training, CALIBRATION_IMAGES, seed).images)


def check_images(space: Space, images: LabelledImages) -> None:
    """Check that images are of the size and have the classes that a space is for.

    Raises:
        DataError: saying what differs.
    """
    _, height, width, channels = images.images.shape
    if (channels, height, width) != space.input_shape:
        raise DataError(
            f"images are {channels}x{height}x{width}; space {space.name!r} is for "
            f"{'x'.join(map(str, space.input_shape))}: set input_shape in a space of your own"
        )
    if int(images.labels.max(initial=0)) >= space.classes:
        raise DataError(
            f"labels reach {images.labels.max()}; space {space.name!r} has {space.classes} classes, numbered from 0"
        )


@contextmanager
def _progress(
    console: Console, stage: str, study: Study, trials: int, watch: Callable[[], None]
) -> Iterator[Callable[[Sequence[FrozenTrial]], None]]:
    """A bar over the trials of a stage, with the best accuracy so far and the speed of the last training."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[found]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=24 * 3600) as progress:

        def state(all_trials: Sequence[FrozenTrial]) -> dict[str, Any]:
            finished = [t for t in all_trials if t.state == TrialState.COMPLETE]
            skipped = sum(t.state == TrialState.PRUNED for t in all_trials)
            best = f"best {max(map(accuracy, finished)):.2%}" if finished else "none yet"
            speed = f", {finished[-1].user_attrs[SPEED]:.0f} images/s" if finished else ""
            return {"completed": len(finished) + skipped, "found": f"{best}, {skipped} skipped{speed}"}

        # what an earlier run did is no speed of this one
        task = progress.add_task(stage, total=trials, **state(study.get_trials(deepcopy=False)))

        def observe(all_trials: Sequence[FrozenTrial]) -> None:
            progress.update(task, **state(all_trials))
            watch()

        yield observe
