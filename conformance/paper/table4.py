"""Table IV: LayerNorm in floating point, naive and scaled: accuracy and latency."""

from typing import Any

import refsim
from codegen.target import load_target
from conformance import kernel_bench
from conformance.paper.published import TABLE_IV
from conformance.paper.workspace import Claim, Section, Workspace, file_hash, provenance, table
from conformance.timing.cycles import Timing
from conformance.validation.cases import load_cases
from conformance.validation.runner import OPTIMISATION, choose_toolchain, validate
from refsim import model_zoo
from refsim.ablation import REAL, ablate_layernorm
from refsim.model_zoo import model_file

MODEL = "tinyformer-300k"
SHAPES = ("256x44", "64x192")
FLOATS = ("float", "double")
TARGET = "stm32f746"


def build(workspace: Workspace) -> Section:
    """Classify with each kind of LayerNorm, and time each under emulation."""
    return section(_accuracies(workspace), _milliseconds(workspace))


def _accuracies(workspace: Workspace) -> dict[str, Any] | None:
    """Shares by variant; None where the model or test images are not there."""
    names = model_zoo.names()
    name = MODEL if MODEL in names else next((n for n in names if n.startswith("tinyformer")), None)
    if name is None:
        return None
    data = workspace.data

    def make() -> Any:
        assert data is not None
        found = ablate_layernorm(refsim.load(name), data, real=True)
        return {"model": name, "images": found.samples, "variants": found.records()}

    settings = {"model": name, "sha256": file_hash(model_file(name))}
    if data is None:
        kept: dict[str, Any] | None = workspace.kept("table4-accuracy", settings)
        return kept
    made: dict[str, Any] = workspace.stored("table4-accuracy", settings, make)
    return made


def _milliseconds(workspace: Workspace) -> dict[str, float]:
    """By kind and shape, of a Cortex-M7 at 216 MHz with memory that never waits."""
    tool = choose_toolchain(None)

    def make() -> Any:
        cases = [case for case in load_cases() if case.name.startswith(tuple(f"LayerNorm {kind}" for kind in FLOATS))]
        outcomes = validate(cases, tool, workspace.status).outcomes
        found = {each.case.name.removeprefix("LayerNorm "): each.estimates[Timing.ZERO_WAIT] for each in outcomes}
        report = kernel_bench.measure(kernel_bench.choose_cases(["layernorm"]), [TARGET], progress=workspace.status)
        clock = load_target(TARGET).clock_hz
        kernels = {one.case: 1e3 * one.cycles / clock for one in report.measured if one.variant == "dsp"}
        return found | {f"int8, {shape}": kernels[f"layernorm {shape}"] for shape in SHAPES}

    settings = provenance() | {"float compiler": f"{tool.name} {tool.version} {OPTIMISATION}"}
    found: dict[str, float] = workspace.stored("table4-latency", settings, make)
    return found


def section(accuracies: dict[str, Any] | None, milliseconds: dict[str, float]) -> Section:
    """The table of what was classified and timed."""
    shares: dict[str, float | None] = dict.fromkeys(TABLE_IV)
    if accuracies:
        by_bits = {v["scale_bits"]: v["accuracy"] for v in accuracies["variants"] if v["variant"] != REAL}
        by_name = {v["variant"]: v["accuracy"] for v in accuracies["variants"]}
        shares = {"real": by_name[REAL], "naive": by_bits[0], "scaled": by_bits[7]}
    rows = []
    for key, paper in TABLE_IV.items():
        share = shares[key]
        for shape in SHAPES:
            if key == "real":
                times = [milliseconds[f"{kind}, {shape}"] for kind in ("double", "float")]
                here = f"{times[0]:.1f} ms (double), {times[1]:.1f} ms (single)"
            else:
                here = f"{milliseconds[f'int8, {shape}']:.1f} ms"
            accuracy = [f"{paper.accuracy:.2f} %", "not measured" if share is None else f"{share:.2%}"]
            if shape != SHAPES[0]:
                accuracy = ["", ""]
            rows.append([paper.method, *accuracy, shape, f"{paper.milliseconds[shape]:.0f} ms", here])
    heads = ("LayerNorm", "paper: accuracy", "here", "shape", "paper: latency", "here, estimated")
    text = table(heads, rows)
    if accuracies:
        text += f"\n\nAccuracies of `{accuracies['model']}` on {accuracies['images']} test images."
    claims = [
        Claim(
            "Table IV: LayerNorm in int8 against float, time",
            "38.8 to 52 times faster",
            _ratios(milliseconds, "double")
            + " (double precision in software), "
            + _ratios(milliseconds, "float")
            + " (single, in the FPU)",
            "reproduced for double precision; the FPU, in single, is closer",
        )
    ]
    real, naive, scaled = (shares[key] for key in ("real", "naive", "scaled"))
    if real is not None and naive is not None and scaled is not None:
        lost = (100 * (real - naive), 100 * (real - scaled))
        claims.append(
            Claim(
                "Table IV: accuracy lost against float LayerNorm",
                "naive 0.19, scaled 0.01 points",
                f"naive {lost[0]:.2f}, scaled {lost[1]:.2f} points",
                "reproduced" if lost[1] < lost[0] else "not reproduced",
            )
        )
    return Section(text, tuple(claims), ("table4-accuracy", "table4-latency"))


def _ratios(milliseconds: dict[str, float], kind: str) -> str:
    ratios = [milliseconds[f"{kind}, {shape}"] / milliseconds[f"int8, {shape}"] for shape in SHAPES]
    return f"{min(ratios):.1f} to {max(ratios):.1f} times"
