"""What a search has found so far: results.json, and results.html for people, which needs nothing but a browser."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from codegen.generate import tool_version
from codegen.target import load_target
from nas.deployment import Deployed
from nas.evolution import ATTEMPT
from nas.layers import Layer, Network, describe
from nas.search import Found
from nas.sparsenas import RESOURCES, SPEED
from nas.study import OWNER, SETTINGS, SKIPPED, ranking
from refsim.files import write_whole
from refsim.page import finite, render_page

RESULTS = "results.json"
PAGE = "results.html"

_PAGE = Path(__file__)
_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "skipped",
    TrialState.FAIL: "lost",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        supernets, paths: trials wanted of each stage.
        stopped: nobody goes on with it.
    """

    supernets: int
    paths: int
    stopped: bool = False


class LivePage:
    """The results of a search under way, written anew whenever it is called.

    Args:
        folder: of the search.
        supernets, paths: trials wanted of each stage.
    """

    def __init__(self, folder: Path, supernets: int, paths: int) -> None:
        self.folder, self.progress = folder, Progress(supernets, paths)
        self._studies: tuple[Study, Study | None] | None = None

    def __call__(self, supernets: Study, paths: Study | None) -> None:
        """Write what is there (`nas.search.Watch`)."""
        self._studies = supernets, paths
        write_results(self.folder, supernets, paths, progress=self.progress)

    def stop(self) -> None:
        """Write that the search was stopped."""
        if self._studies is not None:
            write_results(self.folder, *self._studies, progress=replace(self.progress, stopped=True))


def write_results(
    folder: Path,
    supernets: Study,
    paths: Study | None,
    *,
    deployed: Deployed | None = None,
    progress: Progress | None = None,
) -> None:
    """Write results.json and results.html.

    Args:
        folder: of the search.
        supernets: the study of the first stage.
        paths: that of the second, if it has begun.
        deployed: the model of the best path, once it is written.
        progress: of a search that is not finished; the page then says how far it is and reloads itself.
    """
    data = results(supernets, paths, deployed=deployed, progress=progress)
    write_whole(folder / RESULTS, (json.dumps(finite(data), indent=1) + "\n").encode())
    write_whole(folder / PAGE, render(data).encode())


def results(
    supernets: Study, paths: Study | None, *, deployed: Deployed | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Everything that was tried, and the best model, as JSON has it; accuracies in [0, 1]. See `write_results`."""
    settings = supernets.user_attrs[SETTINGS]
    target = load_target(settings["target"])
    supernet = next(iter(ranking(supernets)), None)
    chosen = next(iter(ranking(paths)), None) if paths else None
    network = None
    if supernet and paths and chosen:
        found = Found(supernets, paths, supernet, paths.user_attrs[SETTINGS])
        network = network_data(describe(found.architecture(chosen)))
    return {
        "version": tool_version(),
        "space": settings["space"]["name"],
        "target": {
            "name": target.name,
            "core": target.core,
            "clock_hz": target.clock_hz,
            "flash_bytes": target.code.size,
            "ram_bytes": target.data.size,
        },
        "limits": settings["limits"],
        "effort": settings["effort"],
        "seed": settings["seed"],
        "progress": progress and _progress(progress, supernets, paths),
        "supernets": [_trial(t) for t in _trials(supernets)],
        "supernet": supernet and supernet.number,
        "paths": [_trial(t) for t in _trials(paths)] if paths else [],
        "chosen": chosen and chosen.number,
        "model": deployed
        and {
            "test_accuracy": deployed.accuracy,
            "test_images": deployed.test_images,
            RESOURCES: _resources(asdict(deployed.resources)),
        },
        "network": network,
    }


def _progress(progress: Progress, supernets: Study, paths: Study | None) -> dict[str, Any]:
    """How far the stage under way is, and when it ends if its trials go on as they did; times in seconds since 1970."""
    study, wanted = (paths, progress.paths) if paths else (supernets, progress.supernets)
    done = [t for t in _trials(study) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    running = [t for t in _trials(study) if t.state == TrialState.RUNNING]
    now = datetime.now()
    ends = None
    if done and not progress.stopped:
        each = sum(((t.duration or timedelta()) for t in done), timedelta()) / len(done)
        spent = sum((now - (t.datetime_start or now) for t in running), timedelta())
        left = each * (wanted - len(done)) - spent
        ends = now + max(left, timedelta()) / max(len(running), 1)
    return {
        "stage": "paths" if paths else "supernets",
        "done": len(done),
        "wanted": wanted,
        "stopped": progress.stopped,
        "written": now.timestamp(),
        "ends": ends and ends.timestamp(),
    }


def render(data: dict[str, Any]) -> str:
    """The page's text, from `results`."""
    style, script = (_PAGE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    return render_page(f"Search of {data['space']} for {data['target']['name']}", data, style, script)


def network_data(network: Network) -> dict[str, Any]:
    """A network as the page draws it."""
    return {
        "input": list(network.input_shape),
        "parameters": network.parameter_count,
        "kept": network.kept_parameter_count,
        "modules": [
            {
                "name": module.name,
                "candidate": module.candidate,
                "shape": list(module.output.shape),
                "layers": [_layer(layer, module.name, module.candidate) for layer in module.layers],
            }
            for module in network.modules
        ],
    }


def _layer(layer: Layer, module: str, candidate: str) -> dict[str, Any]:
    return {
        "name": layer.name.removeprefix(module).removeprefix(f".{candidate}").removeprefix("."),
        "kind": "depthwise" if layer.depthwise else layer.kind.value,
        "shape": list(layer.shape),
        "kernel": list(layer.kernel),
        "parameters": layer.parameter_count,
        "kept": layer.kept_parameter_count,
        "sparsity": layer.pruned_blocks / layer.blocks if layer.pruned_blocks else 0,
        "block": layer.pruning.block,
    }


def _trials(study: Study) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    return trials


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    facts = trial.user_attrs
    duration = trial.duration
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "accuracy": trial.value if trial.state == TrialState.COMPLETE else None,
        "skipped": facts.get(SKIPPED),
        "attempt": facts.get(ATTEMPT, 1),
        "host": str(facts.get(OWNER, {}).get("host", "")).partition(" ")[0],
        "seconds": None if duration is None else duration.total_seconds(),
        "parameters": trial.params,
        RESOURCES: _resources(facts[RESOURCES]) if RESOURCES in facts else None,
        **{
            key: facts[key]
            for key in ("tested", "exceeding", "fitting", "paths", "path_accuracies", SPEED)
            if key in facts
        },
    }


def _resources(resources: dict[str, Any]) -> dict[str, Any]:
    """With the sums that limits are about."""
    return {
        **resources,
        "flash_bytes": resources["constant_bytes"] + resources["code_bytes"],
        "ram_bytes": resources["arena_bytes"] + resources["stack_bytes"],
    }
