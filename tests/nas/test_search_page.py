"""The page of a search with made-up trials: Pareto fronts by hand, and that it draws itself."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

NEEDS = 'is not installed: pip install "tinyformer[nas]"'
pytest.importorskip("torch", reason=f"torch {NEEDS}")
pytest.importorskip("optuna", reason=f"optuna {NEEDS}")

from codegen.target import load_target
from nas.deployment import Deployed
from nas.evolution import Evolution, EvolutionarySampler, path_genes, super_genes
from nas.executor import LocalExecutor, Result
from nas.layers import describe
from nas.resources import Limits
from nas.search import Effort, Found
from nas.search_export import largest
from nas.search_page import LivePage, Progress, network_data, render, results, write_results
from nas.space import as_dict, load_space
from nas.study import best_trial, open_storage, open_study, run_trials
from tests.browser import browser, check_drawn, column, view
from tests.nas.fakes import made_up

SPACE = load_space("tiny")
TARGET = load_target("stm32f746")
KB = 1024

# accuracy, milliseconds, KB of flash, KB of RAM; None is skipped
TRIALS = [
    (0.50, 20.0, 200, 60),
    (0.70, 40.0, 300, 60),  # Pareto front for latency and flash
    (0.60, 45.0, 320, 80),
    None,
    (0.80, 60.0, 500, 90),  # the best
    (0.40, 10.0, 210, 50),
    (0.80, 70.0, 500, 90),
    (0.55, 12.0, 600, 100),
]


def evaluate(number: int) -> Result:
    trial = TRIALS[number]
    if trial is None:
        return Result(None, {"skipped": "latency: 99.0 of 80.0 ms (before training) <b>"})
    accuracy, latency, flash, ram = trial
    resources = made_up(ram * KB, flash * KB, latency)
    return Result(accuracy, {"resources": asdict(resources), "images_per_second": 800.0})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("search")
    storage = open_storage(None, folder)
    limits = replace(Limits.of(TARGET, 80.0), flash_bytes=550 * KB)
    settings = {
        "space": as_dict(SPACE),
        "target": "stm32f746",
        "limits": asdict(limits),
        "effort": asdict(Effort()),
        "seed": 3,
    }
    supernet_genes = super_genes(SPACE)
    supernets = open_study(storage, "search/supernets", EvolutionarySampler(supernet_genes, Evolution()), settings)
    accuracies = iter([0.3, None, 0.45])

    def supernet_trial(*_: object) -> Result:
        accuracy = next(accuracies)
        facts = {"tested": 50, "exceeding": 50, "skipped": "RAM"} if accuracy is None else {"fitting": 7, "paths": 10}
        return Result(accuracy, facts)

    run_trials(supernets, supernet_genes, supernet_trial, LocalExecutor(), trials=3, seed=0, folder=folder)
    best = best_trial(supernets)
    supernet = supernet_genes.config(best.params)
    genes = path_genes(SPACE, supernet)
    settings = {**settings, "supernet": as_dict(supernet)}
    paths = open_study(storage, "search/paths-0002", EvolutionarySampler(genes, Evolution()), settings)
    numbers = iter(range(len(TRIALS)))
    run_trials(
        paths, genes, lambda *_: evaluate(next(numbers)), LocalExecutor(), trials=len(TRIALS), seed=0, folder=folder
    )
    return Found(supernets, paths, best, settings)


def deployed(folder: Path) -> Deployed:
    return Deployed(folder, made_up(90 * KB, 500 * KB, 60.0), 0.79, 1000)


def test_results_say_what_became_of_each_trial(found: Found, tmp_path: Path) -> None:
    data = results(found.supernets, found.paths, deployed=deployed(tmp_path))
    assert (data["supernet"], data["chosen"]) == (2, 4)
    assert [t["state"] for t in data["supernets"]] == ["finished", "skipped", "finished"]
    states = ["finished"] * len(TRIALS)
    states[3] = "skipped"
    assert [t["state"] for t in data["paths"]] == states
    assert data["paths"][4]["resources"]["flash_bytes"] == 500 * KB
    write_results(tmp_path, found.supernets, found.paths, deployed=deployed(tmp_path))
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(data))


def test_a_search_under_way_says_how_far_it_is(found: Found) -> None:
    done = [t for t in found.paths.get_trials() if t.state.is_finished()]
    before = time.time()
    progress = results(found.supernets, found.paths, progress=Progress(3, len(TRIALS) + 2))["progress"]
    assert [progress[key] for key in ("stage", "done", "wanted", "stopped")] == ["paths", 8, 10, False]
    # two more trials at the mean time of those that are done
    each = sum(t.duration.total_seconds() for t in done) / len(done)
    assert progress["ends"] - progress["written"] == pytest.approx(2 * each, abs=1e-3)
    assert before <= progress["written"] <= time.time()
    first = results(found.supernets, None, progress=Progress(5, 8, stopped=True))
    assert (first["paths"], first["chosen"], first["network"], first["model"]) == ([], None, None, None)
    assert (first["progress"]["stage"], first["progress"]["ends"]) == ("supernets", None)


def test_a_network_is_drawn_layer_by_layer() -> None:
    network = describe(largest(SPACE))
    drawn = network_data(network)
    assert [m["name"] for m in drawn["modules"]] == [m.name for m in network.modules]
    assert sum(layer["parameters"] for m in drawn["modules"] for layer in m["layers"]) == network.parameter_count
    assert [layer["name"] for layer in drawn["modules"][1]["layers"]] == ["expand", "depthwise", "project", "add"]
    assert drawn["modules"][1]["layers"][1]["kind"] == "depthwise"


def test_page_draws_itself(found: Found, tmp_path: Path) -> None:
    page = tmp_path / "results.html"
    data = results(found.supernets, found.paths, deployed=deployed(tmp_path))
    page.write_text(render(data), encoding="utf-8")
    profile = tmp_path / "profile"
    profile.mkdir()
    front = """return [...document.querySelectorAll('.chart-svg')].slice(0, 3).map(chart =>
        [...chart.querySelectorAll('circle.on-front, circle.chosen')]
        .map(c => parseInt(c.textContent.match(/path (\\d+)/)[1])).sort())"""
    with browser(profile) as driver:
        for scheme, width in (("light", 1300), ("dark", 700)):
            view(driver, page, width=width, scheme=scheme)
            check_drawn(driver, scheme)
        # as accurate for less, or more accurate: by latency 5, 7, 1, 4; by flash 0, 1, 4; by RAM 5, 1, 4
        assert driver.execute_script(front) == [[1, 4, 5, 7], [0, 1, 4], [1, 4, 5]]
        assert driver.execute_script("return document.querySelectorAll('.limit').length") == 2
        assert column(driver, "Paths", "state")[:2] == ["chosen", "finished"]
        assert column(driver, "Supernets", "paths that fit")[:2] == ["7 of 10", "7 of 10"]
        assert "<b>" in "".join(column(driver, "Paths", "why skipped"))


def test_page_of_a_search_under_way_draws_itself(found: Found, tmp_path: Path) -> None:
    live = LivePage(tmp_path, supernets=3, paths=10)
    profile = tmp_path / "profile"
    profile.mkdir()
    state = "return document.querySelector('.state').textContent"
    with browser(profile) as driver:
        live(found.supernets, None)
        view(driver, tmp_path / "results.html", width=500, scheme="dark")
        assert driver.execute_script(state).startswith("Running SuperNAS: 3 of 3 trials are done; what is next begins.")
        assert driver.execute_script("return document.querySelectorAll('.card, .network').length") == 0
        live(found.supernets, found.paths)
        view(driver, tmp_path / "results.html", width=1300, scheme="light")
        check_drawn(driver, "light")
        assert driver.execute_script(state).startswith("Running SparseNAS: 8 of 10 trials are done, the rest by ")
        assert column(driver, "Paths", "state")[:2] == ["best so far", "finished"]
        assert set(column(driver, "Paths", "images/s")) >= {"800"}
        live.stop()
        driver.refresh()
        assert driver.execute_script(state).startswith("Stopped ")
