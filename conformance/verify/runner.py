"""A whole validation: every target with every compiler, then what does not depend on them."""

import hashlib
import math
import platform
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import refsim
from codegen.choose import Optimise
from codegen.generate import GeneratedModel, generate, tool_version
from codegen.program import build_program
from codegen.target import Target
from conformance.models import ModelUnderTest
from conformance.qemu import find_qemu
from conformance.toolchain import host_toolchains
from conformance.verify.checks import Answer, Compiler, answered
from conformance.verify.folder import read_folder
from conformance.verify.given import Given
from conformance.verify.place import STAGES, UNDER_EMULATION, Findings, Progress, examine, examine_given
from conformance.verify.result import Build, Check, Outcome, Report
from conformance.verify.samples import Extreme, Sample, extremes, samples
from conformance.verify.undefined import run_sanitized
from refsim.errors import TargetError, ToolchainError
from refsim.float_model import FloatModel
from refsim.model_zoo import model_file
from refsim.samples import LABELS, read_archive

PACKAGES = ("numpy", "onnx", "unicorn", "capstone", "pyelftools", "ziglang")
CHECKS = ("build", "flash", "ram", *UNDER_EMULATION, "qemu", "undefined-behaviour", "accuracy")
"""Every check, in the order in which they run."""

COMPARED_SAMPLES = 64
"""Samples on which each layer is compared with the float model."""


@dataclass(frozen=True)
class Plan:
    """What to validate.

    Attributes:
        path: the model's file, or its name in the zoo.
        model: graph, and the user's samples; none where no data were given.
        targets, compilers: each with each.
        wanted: names of the checks to run.
        data: file of samples, perhaps labelled; None without.
        folder: generated earlier, to be built as it is; None to generate.
        given: the user's image, to be examined instead of building one; None to build.
        optimise: as for `codegen.generate`.
        max_ms: limit of the latency; None for none.
        max_drop: limit of the loss of accuracy against the float model, in points of a percent; None for none.
        float_model: its file; None without.
        seed: of what is random.
        command: for the report.
    """

    path: Path
    model: ModelUnderTest
    targets: Sequence[Target]
    compilers: Sequence[Compiler]
    wanted: Set[str] = frozenset(CHECKS)
    data: Path | None = None
    folder: Path | None = None
    given: Given | None = None
    optimise: Optimise = Optimise.BALANCED
    max_ms: float | None = None
    max_drop: float | None = None
    float_model: Path | None = None
    seed: int = 0
    command: str = ""

    @property
    def stages(self) -> int:
        """How often `verify` tells its progress."""
        return 2 + len(self.targets) * (1 + STAGES * len(self.compilers))


def verify(plan: Plan, progress: Progress = lambda what: None) -> tuple[Report, dict[str, bytes]]:
    """Validate a model on its targets.

    Args:
        plan: what to validate.
        progress: called with what is being done, as it begins, `Plan.stages` times at most.

    Returns:
        The report, and the reproducers that it names, by file name.

    Raises:
        ModelError, DataError: the float model, the samples or the folder are unreadable or do not fit.
    """
    started, begin, found = datetime.now(UTC), time.perf_counter(), Findings()
    progress("golden model")
    given = samples(plan.model.graph, plan.model.samples, plan.seed)
    progress("accuracy")
    _compare_with_float(plan, found)
    with TemporaryDirectory(prefix="tinyformer-verify-") as name:
        for target in plan.targets:
            _examine_target(plan, target, Path(name), given, found, progress)
    if "accuracy" in plan.wanted:
        found.checks.append(answered("accuracy", "golden model", lambda: _accuracy(plan)))
    report = Report(
        model=plan.path.name,
        model_sha256=_sha256(model_file(plan.path)),
        sources_sha256=found.sources,
        versions={"tinyformer": tool_version(), "python": platform.python_version()}
        | {package: version(package) for package in PACKAGES}
        | ({"qemu": qemu.version} if (qemu := find_qemu()) else {}),
        command=plan.command,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - begin,
        builds=tuple(found.builds),
        checks=tuple(found.checks),
        divergences=tuple(found.divergences),
    )
    return report, found.attachments


def _examine_target(
    plan: Plan, target: Target, folder: Path, given: Sequence[Sample], found: Findings, progress: Progress
) -> None:
    graph = plan.model.graph
    try:
        if plan.folder is not None:
            model: GeneratedModel = read_folder(plan.folder, graph, target)
        else:
            model = generate(graph, target, folder / target.name, optimise=plan.optimise)
    except TargetError as error:
        found.checks.append(_too_large(plan, target, str(error)))
        return
    files = {path.relative_to(model.folder).as_posix(): path for path in (model.header, *model.sources)}
    found.sources |= {f"{target.name}/{name}": _sha256(path) for name, path in files.items()}
    if plan.given is not None:
        examine_given(model, plan.given, given, plan.wanted, plan.max_ms, found, progress)
        return
    extreme_runs = extremes(model.program, plan.seed)
    for compiler in plan.compilers:
        examine(model, compiler, given, extreme_runs, plan.wanted, plan.max_ms, found, progress)
    progress(f"{target.name}: sanitizers")
    if "undefined-behaviour" not in plan.wanted:
        return
    check, build = _undefined(model, [*given, *extreme_runs])
    found.checks.append(check)
    found.builds += [build] if build else []


def _too_large(plan: Plan, target: Target, reason: str) -> Check:
    """The check that fails where a model is too large before it is compiled."""
    program = build_program(plan.model.graph, target, optimise=plan.optimise)
    if program.constant_bytes > target.code.size:
        name, figure, limit = "flash", program.constant_bytes, target.code.size
    else:
        name, figure, limit = "ram", program.plan.arena_bytes + target.stack_bytes, target.data.size
    return Check(name, target.name, Outcome.FAILED, reason, figure, limit, "bytes")


def _undefined(model: GeneratedModel, runs: Sequence[Sample | Extreme]) -> tuple[Check, Build | None]:
    """Undefined behaviour on this machine, by the compiler with the most sanitizers."""
    name, reasons = "undefined-behaviour", []
    # zig brings no AddressSanitizer, so it comes last, whatever it is preferred for otherwise.
    for toolchain in sorted(host_toolchains(), key=lambda tool: tool.name == "zig"):
        place = f"host {toolchain.name} -O1 ({model.target.name})"
        start = time.perf_counter()
        try:
            done = run_sanitized(model, runs, toolchain)
        except ToolchainError as error:
            reasons.append(f"{toolchain.name}: {error}")
            continue
        seconds = time.perf_counter() - start
        if done.message:
            detail, outcome = f"{done.message} (run {runs[done.runs].name})", Outcome.FAILED
        elif done.mismatch:
            detail, outcome = f"without a finding, but {done.mismatch}", Outcome.FAILED
        else:
            names = {"undefined": "UndefinedBehaviorSanitizer", "address": "AddressSanitizer"}
            missing = "" if "address" in done.sanitizers else f"; {toolchain.name} has no AddressSanitizer"
            used = " and ".join(names[each] for each in done.sanitizers)
            detail, outcome = f"{done.runs} runs without a finding of {used}{missing}", Outcome.PASSED
        build = Build(
            place, "host", platform.machine(), toolchain.name, toolchain.version, "-O1", _sha256(done.program)
        )
        return Check(name, place, outcome, detail, seconds=seconds), build
    return Check(name, f"host ({model.target.name})", Outcome.NOT_RUN, "; ".join(reasons)), None


def _compare_with_float(plan: Plan, found: Findings) -> None:
    """How far each layer is from the float model, where there are both a float model and samples."""
    if plan.float_model is None or plan.data is None:
        return
    model = refsim.Model(plan.model.graph, plan.path)
    compared = model.compare(plan.float_model, plan.data, limit=COMPARED_SAMPLES, progress=False)
    found.sqnr |= {
        layer.tensor: layer.sqnr_db
        for layer in compared.layers
        if layer.sqnr_db is not None and math.isfinite(layer.sqnr_db)
    }


def _accuracy(plan: Plan) -> Answer:
    """Accuracy that int8 costs, on labelled samples."""
    lacking = [] if plan.float_model else ["a float model (--float)"]
    if plan.data is None or LABELS not in read_archive(plan.data):
        lacking.append(f"samples with {LABELS!r} (--data)")
    if lacking or plan.float_model is None:
        return Answer(Outcome.NOT_RUN, f"it needs {' and '.join(lacking)}", limit=plan.max_drop, unit="points")
    model = refsim.Model(plan.model.graph, plan.path)
    scores = FloatModel(plan.float_model, plan.model.graph).scores
    by_name = model.evaluate_beside({"float": scores}, plan.data or "", progress=False).by_name
    real, int8 = (by_name[name] for name in ("float", "int8"))
    drop = round(100 * (real.accuracy - int8.accuracy), 9)
    passed = plan.max_drop is None or drop <= plan.max_drop
    detail = f"float {real.accuracy:.2%}, int8 {int8.accuracy:.2%} of {int8.samples} samples"
    return Answer(Outcome.PASSED if passed else Outcome.FAILED, detail, drop, plan.max_drop, "points")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
