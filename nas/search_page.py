"""What a search found: results.json, and results.html for people, one file that needs nothing but a browser."""

from __future__ import annotations

import json
from dataclasses import asdict
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
from nas.sparsenas import RESOURCES
from nas.study import OWNER, SKIPPED
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


def write_results(found: Found, chosen: FrozenTrial, deployed: Deployed, folder: Path) -> None:
    """Write results.json and results.html.

    Args:
        found: the search.
        chosen: the trial of the path that was deployed.
        deployed: its model.
        folder: of the search.
    """
    data = results(found, chosen, deployed)
    write_whole(folder / RESULTS, (json.dumps(finite(data), indent=1) + "\n").encode())
    write_whole(folder / PAGE, render(data).encode())


def results(found: Found, chosen: FrozenTrial, deployed: Deployed) -> dict[str, Any]:
    """Everything that was tried, and the chosen model, as JSON has it; accuracies in [0, 1]."""
    settings = found.settings
    target = load_target(settings["target"])
    architecture = found.architecture(chosen)
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
        "supernets": [_trial(t) for t in _trials(found.supernets)],
        "supernet": found.supernet.number,
        "paths": [_trial(t) for t in _trials(found.paths)],
        "chosen": chosen.number,
        "model": {
            "test_accuracy": deployed.accuracy,
            "test_images": deployed.test_images,
            RESOURCES: _resources(asdict(deployed.resources)),
        },
        "network": network_data(describe(architecture)),
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
        **{key: facts[key] for key in ("tested", "exceeding", "fitting", "paths", "path_accuracies") if key in facts},
    }


def _resources(resources: dict[str, Any]) -> dict[str, Any]:
    """With the sums that limits are about."""
    return {
        **resources,
        "flash_bytes": resources["constant_bytes"] + resources["code_bytes"],
        "ram_bytes": resources["arena_bytes"] + resources["stack_bytes"],
    }
