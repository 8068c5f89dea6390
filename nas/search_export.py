"""From a trial of a search to a deployed model: as it is, or compressed at length."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial
from rich.console import Console

from codegen.generate import tool_version
from codegen.target import Target
from nas.arrays import load_arrays
from nas.compression import Compression, compress
from nas.data import LabelledImages
from nas.deployment import Deployed, deploy
from nas.layers import describe
from nas.network import PathNetwork, weights
from nas.search import Found, paths_folder
from nas.search_training import Images, network_of
from nas.space import Architecture, PathConfig, Pruning, Space, StageConfig, StagePath, SuperConfig
from nas.study import ranking, weights_path
from nas.training import Hardware, TrainingConfig, train
from refsim.errors import DataError
from refsim.files import write_whole

BEST = "best"
SETTINGS = "settings.json"
RESULT = "result.json"


def deploy_trial(
    found: Found,
    trial: FrozenTrial,
    folder: Path,
    *,
    images: Images,
    test: LabelledImages,
    target: Target,
    threads: int,
) -> Deployed:
    """Write the models and C of a finished trial to ``best/`` in the search's `folder`."""
    model = _model(found, trial, folder)
    return deploy(
        model.network,
        weights(model),
        calibration=images.calibration,
        test=test,
        target=target,
        folder=folder / BEST,
        threads=threads,
    )


def compress_trial(
    found: Found,
    trial: FrozenTrial,
    folder: Path,
    out: Path,
    *,
    images: Images,
    test: LabelledImages,
    target: Target,
    settings: Compression,
    teaching: TrainingConfig,
    hardware: Hardware,
    threads: int,
    console: Console,
) -> Deployed:
    """The compression stage of SparseNAS for a finished trial; its models and C (paper, section III-C.1).

    Args:
        found: the search.
        trial: of a path.
        folder: of the search.
        out: folder to write to; training that was interrupted goes on from its checkpoints there.
        images: to train on.
        test: for the accuracy in the end.
        target: the microcontroller.
        settings: which techniques, and how long.
        teaching: how the teacher is trained, if there is one.
        hardware: where to compute.
        threads: of the processor.
        console: of the progress bars.

    Raises:
        DataError: the trial's weights are gone, or `out` holds a compression of another trial or with other settings.
        TargetError: the model does not fit the target.
    """
    torch.set_num_threads(threads)
    found_model = _model(found, trial, folder)
    what = {"supernet": found.supernet.number, "path": trial.number, **asdict(settings), "teaching": asdict(teaching)}
    _take(out, what)
    teacher = None
    if settings.distillation is not None:
        console.print("Training the teacher")
        teacher, _ = train(
            lambda: PathNetwork(describe(largest(found.space))),
            images.training,
            images.validation,
            config=teaching,
            folder=out / "teacher",
            hardware=hardware,
            console=console,
        )
        assert isinstance(teacher, PathNetwork)
    model = compress(
        found_model,
        images.training,
        images.validation,
        settings=settings,
        teacher=teacher,
        folder=out,
        hardware=hardware,
        console=console,
    )
    deployed = deploy(
        model.network,
        weights(model),
        calibration=images.calibration,
        test=test,
        target=target,
        folder=out,
        threads=threads,
    )
    result = {
        "version": tool_version(),
        "settings": what,
        "test_accuracy": deployed.accuracy,
        "test_images": deployed.test_images,
        "resources": asdict(deployed.resources),
    }
    write_whole(out / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    return deployed


def largest(space: Space) -> Architecture:
    """The dense architecture with the largest choice everywhere: a teacher for all others of its space."""
    supernet = SuperConfig(
        tuple(StageConfig(max(s.dims), max(s.mobilenets), max(s.transformers)) for s in space.stages),
        max(space.heads),
        max(space.last_linear),
    )
    dense = Pruning()
    stages = []
    for stage, config in zip(space.stages, supernet.stages, strict=True):
        encoder = max(stage.encoders, key=lambda e: (e.convolutions, e.mlp_ratio))
        stages.append(
            StagePath(
                stage.downsamples[0],
                (max(stage.expansions),) * config.mobilenets,
                (encoder,) * config.transformers,
                dense,
                (dense,) * config.mobilenets,
                (dense,) * config.transformers,
            )
        )
    return Architecture(space.input_shape, space.classes, supernet, PathConfig(tuple(stages), space.poolings[0], dense))


def _take(out: Path, what: dict[str, Any]) -> None:
    """Make sure that checkpoints in a folder belong to this compression."""
    note, wanted = out / SETTINGS, json.dumps(what, indent=1) + "\n"
    if note.exists() and note.read_text(encoding="utf-8") != wanted:
        raise DataError(
            f"{note} tells of a compression of another trial or with other settings; choose another output folder"
        )
    write_whole(note, wanted.encode())


def _model(found: Found, trial: FrozenTrial, folder: Path) -> PathNetwork:
    weights_of = paths_folder(folder, found.supernet.number)
    path = weights_path(weights_of, trial.number)
    if not path.exists():
        kept = [t.number for t in ranking(found.paths) if weights_path(weights_of, t.number).exists()]
        raise DataError(
            f"the weights of trial {trial.number} are not in {weights_of}: a search keeps those of its best trials "
            f"(--keep); there are those of {', '.join(map(str, kept)) or 'none'}"
        )
    return network_of(found.architecture(trial), load_arrays(path))
