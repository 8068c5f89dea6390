"""A pytest fixture: a test fails where a model is not safe to flash.

In a `conftest.py`:

    pytest_plugins = ["conformance.pytest_plugin"]

In a test:

    def test_model_is_safe(verify_model):
        verify_model("model.onnx", "stm32f746", data="samples.npz", max_ms=50)
"""

import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from codegen.target import load_target
from conformance.models import ModelUnderTest, read_model
from conformance.places import find_toolchain
from conformance.verify.checks import Compiler
from conformance.verify.reports import print_report, write_reports
from conformance.verify.result import Outcome, Report
from conformance.verify.runner import Plan, verify
from conformance.verify_cli import SAMPLES
from refsim.errors import DataError

_WIDTH = 120


@dataclass(frozen=True)
class ModelVerifier:
    """What the fixture `verify_model` gives.

    Attributes:
        folder: for the reports of a test; None for none.
    """

    folder: Path | None = None

    def __call__(
        self,
        model: str | Path,
        *targets: str | Path,
        data: str | Path | None = None,
        samples: int = SAMPLES,
        compilers: Sequence[str] = ("zig",),
        opts: Sequence[str] = ("O2",),
        max_ms: float | None = None,
        max_drop: float | None = None,
        float_model: str | Path | None = None,
        require: Sequence[str] = (),
        seed: int = 0,
        numerics: Literal["litert", "cmsis-nn"] = "litert",
    ) -> Report:
        """Validate a model, and fail the test where it is not safe to flash.

        Args:
            model: quantised, QDQ ONNX or .tflite.
            targets: names or .toml files of microcontrollers, at least one.
            data: samples, .npz, which run beside the adversarial ones.
            samples: of the data, how many run at every place.
            compilers: "zig", "arm-none-eabi-gcc".
            opts: optimisation: "O1", "O2", "O3", "Os".
            max_ms: most milliseconds that a run may take, by estimate.
            max_drop: most accuracy that int8 may cost, percentage points; needs a float model and labelled data.
            float_model: ONNX.
            require: names of checks that must have run, such as "qemu"; what did not run does not fail by itself.
            seed: of random samples.
            numerics: whose bytes a .tflite model gives: "litert" or "cmsis-nn".

        Returns:
            The report, all of whose checks passed or were not run.

        Raises:
            TinyFormerError: a file is unreadable, a compiler is missing, there is no such target or check.
        """
        if not targets:
            raise DataError("verify_model needs a target: the name or .toml file of a microcontroller")
        given = read_model(Path(model), Path(data) if data else None, samples, seed=seed, numerics=numerics)
        if data is None:
            given = ModelUnderTest(given.graph, {name: x[:0] for name, x in given.samples.items()})
        named = [part for target in targets for part in ("--target", str(target))]
        plan = Plan(
            path=Path(model),
            model=given,
            targets=[load_target(target) for target in targets],
            compilers=[Compiler(find_toolchain(name, "cortex-m"), f"-{opt}") for name in compilers for opt in opts],
            data=Path(data) if data else None,
            max_ms=max_ms,
            max_drop=max_drop,
            float_model=Path(float_model) if float_model else None,
            seed=seed,
            command=shlex.join(["tinyformer", "verify", str(model), *named]),
        )
        report, attachments = verify(plan)
        if self.folder is not None:
            write_reports(report, self.folder, attachments)
        if reasons := _reasons(report, require):
            pytest.fail("\n".join((*reasons, "", _text(report))), pytrace=False)
        return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register where reports go."""
    parser.getgroup("tinyformer").addoption(
        "--tinyformer-report",
        metavar="FOLDER",
        type=Path,
        help="folder for the reports of verify_model, one folder a test",
    )


@pytest.fixture
def verify_model(request: pytest.FixtureRequest) -> ModelVerifier:
    """Fail the test where a model is not safe to flash: call it with the model and its targets."""
    folder: Path | None = request.config.getoption("--tinyformer-report")
    name = re.sub("[^A-Za-z0-9_.-]+", "-", request.node.nodeid).strip("-")
    return ModelVerifier(folder / name if folder else None)


def _reasons(report: Report, required: Sequence[str]) -> list[str]:
    """Why the model is not safe, one line for each check; empty where it is."""
    names = {check.name for check in report.checks}
    if unknown := [name for name in required if name not in names]:
        raise DataError(f"there is no check {unknown[0]!r}; there are {', '.join(sorted(names))}")
    lines = [
        f"{check.name} at {check.place}: {check.detail}" + ("" if failed else " (not run, but required)")
        for check in report.checks
        if (failed := check.outcome is Outcome.FAILED) or (check.outcome is Outcome.NOT_RUN and check.name in required)
    ]
    return lines or ([] if report.verdict is Outcome.PASSED else [f"{report.model}: no check ran"])


def _text(report: Report) -> str:
    console = Console(file=io.StringIO(), width=_WIDTH)
    with console.capture() as captured:
        print_report(report, console)
    return captured.get()
