"""A whole search in small: 200 images, one epoch, through to C; then compression with every technique."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

NEEDS = 'is not installed: pip install "tinyformer[nas]"'
torch = pytest.importorskip("torch", reason=f"torch {NEEDS}")
pytest.importorskip("optuna", reason=f"optuna {NEEDS}")
image = pytest.importorskip("PIL.Image", reason=f"pillow {NEEDS}")

import tinyformer
from codegen.onnx import load
from codegen.target import load_target
from nas.layers import describe
from nas.search import load_search
from nas.search_export import largest
from nas.space import load_space
from nas.study import open_storage
from refsim.errors import DataError, TargetError
from tests.nas.tiny import dark_and_bright

SMALL = ["--super-epochs", "1", "--epochs", "1", "--prune-epochs", "1", "--paths", "1", "--test-paths", "2"]
SMALL += ["--validation-images", "40", "--batch-size", "40"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 16 x 16 pixels: 200 images to train on and 40 to test with."""
    folder = tmp_path_factory.mktemp("data")
    for split, count, seed in (("train", 200, 0), ("test", 40, 1)):
        images = dark_and_bright(count, seed, size=16)
        for index, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
            place = folder / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(place / f"{index:03d}.png")
    return folder


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(tinyformer.app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def search(data: Path, out: Path, *options: str) -> str:
    command = ["search", "--space", "tiny", "--target", "stm32f746", "--data", data, "--out", out, "--no-verify"]
    return invoke(*command, *SMALL, *options)


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("search") / "out"
    return out, search(data, out, "--supernets", "1", "--trials", "2")


def test_a_search_ends_in_c(searched: tuple[Path, str]) -> None:
    out, said = searched
    assert {"float.onnx", "model.onnx", "calibration.npz", "test.npz", "c"} == {
        p.name for p in (out / "best").iterdir()
    }
    assert (out / "best" / "c" / "model.c").is_file()
    assert f"tinyformer verify {out / 'best' / 'model.onnx'}" in said
    assert f"--generated {out / 'best' / 'c'}" in said
    assert not list(out.rglob("checkpoint.pt")), "checkpoints have served their purpose"


def test_results_hold_all_that_was_tried(searched: tuple[Path, str]) -> None:
    out, _ = searched
    found = json.loads((out / "results.json").read_text())
    assert [len(found["supernets"]), len(found["paths"])] == [1, 2]
    accuracies = {trial["number"]: trial["accuracy"] for trial in found["paths"]}
    assert accuracies[found["chosen"]] == max(accuracies.values())
    chosen = next(trial for trial in found["paths"] if trial["number"] == found["chosen"])
    model = found["model"]
    # the trial's figures are those of the model that was written
    assert chosen["resources"] == model["resources"]
    assert model["test_images"] == 40
    assert found["network"]["parameters"] == model["resources"]["parameters"]
    page = (out / "results.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "downsample" in page


def test_pruned_zeros_are_kept(searched: tuple[Path, str]) -> None:
    out, _ = searched
    found = load_search(open_storage(None, out), "search")
    network = describe(found.architecture(found.path(None)))
    graph = load(out / "best" / "model.onnx")
    zeros = sum(int((np.asarray(node.op.weight) == 0).sum()) for node in graph.nodes if hasattr(node.op, "weight"))
    assert zeros >= network.parameter_count - network.kept_parameter_count > 0


def test_a_search_goes_on_where_it_stopped(data: Path, searched: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(searched[0], out)
    before = json.loads((out / "results.json").read_text())["paths"]
    search(data, out, "--supernets", "1", "--trials", "3")
    after = json.loads((out / "results.json").read_text())["paths"]
    assert after[:2] == before
    assert len(after) == 3


def test_compression_with_every_technique(data: Path, searched: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "compressed"
    techniques = ["--distill", "forward", "--quantisation-aware", "--criterion", "wanda"]
    epochs = ["--prune-epochs", "1", "--tune-epochs", "1", "--teacher-epochs", "1"]
    said = invoke(
        "compress", searched[0], "--out", out, "--data", data, "--trial", "1", *techniques, *epochs, "--no-verify"
    )
    assert (out / "c" / "model.c").is_file()
    assert (out / "teacher" / "checkpoint.pt").is_file()
    assert "of 40 test images" in " ".join(said.split())
    assert json.loads((out / "result.json").read_text())["settings"]["distillation"] == "forward"
    # the checkpoints there are not taken for those of another
    with pytest.raises(DataError, match="another trial or with other settings"):
        invoke("compress", searched[0], "--out", out, "--data", data, "--trial", "0", *techniques, *epochs)


def test_weights_that_are_gone_are_an_error_that_names_the_others(data: Path, searched: tuple[Path, str]) -> None:
    out = searched[0]
    number = next(iter(sorted(out.glob("paths-*/0001.npz"))))
    number.rename(number.with_suffix(".away"))
    try:
        with pytest.raises(DataError, match=r"weights of trial 1 are not in .*\(--keep\); there are those of 0"):
            invoke("compress", out, "--data", data, "--trial", "1")
    finally:
        number.with_suffix(".away").rename(number)


def test_the_page_of_a_search_that_ends_early_says_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="none of 1 trials fits"):
        search(data, tmp_path, "--supernets", "1", "--max-ram", "1000")
    progress = json.loads((tmp_path / "results.json").read_text())["progress"]
    assert [progress[key] for key in ("stage", "done", "wanted", "stopped")] == ["supernets", 1, 1, True]


def test_a_model_that_cannot_fit_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="none of 2 trials fits the target"):
        search(data, tmp_path, "--supernets", "2", "--max-ram", "1000")


def test_images_of_another_size_are_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images are 3x16x16; space 'normal' is for 3x32x32"):
        search(data, tmp_path, "--space", "normal")


def test_unknown_trials_and_searches_are_errors(searched: tuple[Path, str], tmp_path: Path) -> None:
    storage = open_storage(None, searched[0])
    with pytest.raises(DataError, match="there are: search"):
        load_search(storage, "other")
    with pytest.raises(DataError, match="trial 7 is none of the finished ones: 0, 1"):
        load_search(storage, "search").path(7)


def test_the_teacher_is_the_largest_of_its_space() -> None:
    space = load_space("tiny")
    network = describe(largest(space))
    assert network.parameter_count == network.kept_parameter_count
    assert [module.output.shape for module in network.modules][-2:] == [(24,), (10,)]


def test_verify_is_called_with_the_model(tmp_path: Path, searched: tuple[Path, str]) -> None:
    """The program's own command `verify`, whichever that is, gets the model, and its exit code counts."""
    from rich.console import Console

    from nas.deployment import Deployed
    from nas.resources import ResourceEval
    from nas.search_cli import _verify_deployed

    app = typer.Typer()
    seen = {}
    resources = ResourceEval(load_target("stm32f746"))(largest(load_space("tiny")))

    @app.command()
    def verify(
        model: Path,
        target: str = "",
        data: Path = Path(),
        float: Path = Path(),
        generated: Path = Path(),
        report: Path = Path(),
    ) -> None:
        seen.update(model=model, target=target, generated=generated)
        raise typer.Exit(1)

    @app.command()
    def finish(context: typer.Context) -> None:
        _verify_deployed(context, Deployed(tmp_path, resources, 0.5, 10), "stm32f746", True, Console())

    result = CliRunner().invoke(app, ["finish"])
    assert result.exit_code == 1
    assert seen == {"model": tmp_path / "model.onnx", "target": "stm32f746", "generated": tmp_path / "c"}
