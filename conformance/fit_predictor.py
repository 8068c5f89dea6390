"""Fits the predictor of `codegen.predictor` on emulated runs of the kernels, and measures its error.

Each sample runs once on an emulated chip, which counts exactly; what the loops of its kernel cost, and the lines that
it reads into a cache, follows by non-negative least squares on relative errors. Part of the shapes of Table I is held
out: the error on them is kept with the fit. Everything is drawn from a seed, so that the same kernels, compiler and
timing model give the same fit.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import conformance.layout
import conformance.timing
from codegen.cache_counts import cache_counts
from codegen.generate import generate
from codegen.predictor import Fit, HeldOutError, Predictor, kernels_hash, memories_hash
from codegen.target import Target, load_target
from conformance.layout import arena_layout
from conformance.models import CortexMModel, read_model
from conformance.places import CortexMPlace, Library
from conformance.predictor_samples import Sample, Samples
from conformance.timing.cycles import Timing
from conformance.toolchain import NATIVE, Toolchain, arm_toolchains
from refsim.compiled import cache_folder
from refsim.errors import TinyFormerError

Float64Array = NDArray[np.float64]

CHIPS = {
    "cortex-m7": "stm32f746",
    "cortex-m4": "stm32l4r5",
    "cortex-m3": "stm32l4r5",
    "cortex-m33": "stm32u575",
    "cortex-m0plus": "rp2040",
}
"""The chip on which each core is measured, in place of its own: its memory only has to hold the samples."""

OPT = "-O2"
"""Optimisation of the kernels, as in generated projects."""

_RESERVED_RAM, _RESERVED_FLASH = 16 * 1024, 64 * 1024
"""Left for variables and guards, and for code."""

Measured = Mapping[str, float]
"""Of one call: "instructions", "cycles" at zero wait states, and "waits" for memory beyond them."""


def chip(core: str) -> Target:
    """The chip on which a core is measured.

    Raises:
        TinyFormerError: there is none.
    """
    if core not in CHIPS:
        raise TinyFormerError(f"there is no chip to measure {core!r} on; there is one for {', '.join(CHIPS)}")
    target = load_target(CHIPS[core])
    return target if target.core == core else replace(target, name=core, core=core, fpu="none")


class Meter:
    """Measures kernel calls on a chip, and remembers what it has measured: a fit that was interrupted goes on.

    Args:
        target: the chip.
        timing: whether its memories make the core wait.
        toolchain: the compiler; the preferred one by default.

    Raises:
        ToolchainError: the kernels cannot be built.
        TargetError: the target does not say how fast its memories are, where they count.
    """

    def __init__(self, target: Target, timing: Timing, toolchain: Toolchain | None = None) -> None:
        toolchain = toolchain or arm_toolchains()[0]
        self.compiler = f"{toolchain.name} {toolchain.version} {OPT}"
        self._dsp = target.dsp
        self.room = target.data.size - target.stack_bytes - _RESERVED_RAM
        self._flash_room = target.code.size - _RESERVED_FLASH
        self._place = CortexMPlace(
            target.name, Library(), target, toolchain=toolchain, opt=OPT, arena_bytes=self.room, timing=timing
        )
        memories = memories_hash(target) if timing is Timing.MEMORY else ""
        key = _digest([target.name, target.core, memories, self.compiler, kernels_hash(), _model_hash()])
        self._file = cache_folder() / "predictor" / f"{target.name}-{timing.value}-{key[:20]}.jsonl"
        self._known = dict(_read_lines(self._file))

    def measure(self, sample: Sample) -> Measured | None:
        """What a sample costs; None where it is larger than the chip, or where its kernel is not for the core.

        Raises:
            EmulationError: the kernel strayed, faulted or did not end.
        """
        key = sample_key(sample)
        if sample.call.kernel.endswith("_dsp") and not self._dsp:
            return None
        if key not in self._known:
            begin = int(key, 16) % (_WAY // 16) * 16
            layout = arena_layout(sample.call, sample.inputs, sample.output_bytes, begin=begin, grain=_WAY)
            if len(layout.image) > self.room or sample.call.constant_bytes > self._flash_room:
                return None
            _, result = self._place.measure(sample.call, layout)
            assert result.cycles is not None
            waits = result.cycles.fetch + result.cycles.data
            cycles = result.cycles.total - waits
            measured: dict[str, float] = {"instructions": result.instructions, "cycles": cycles, "waits": waits}
            self._known[key] = measured
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                # The line begins with its end, so that one that was not finished spoils no other.
                stream.write("\n" + json.dumps({"sample": key, **measured}))
        return self._known[key]


_WAY = 4096
"""Bytes of a way of the largest cache. Buffers begin anywhere in one, the same each time."""


def fit_costs(
    counts: Sequence[Mapping[str, float]], values: Sequence[float], scale: Sequence[float]
) -> dict[str, float]:
    """What each count costs, none below zero: least squares of e = (cost - value) / scale, of large e the magnitudes.

    Samples unlike the others, such as one whose weights all fall into one set of a cache, do not bend the rest: from
    `LARGE` on errors count by their magnitude (Huber's loss, by reweighting).

    Args:
        counts: of each sample, the same names in all.
        values: what each sample costs.
        scale: what an error is relative to, positive.
    """
    names = list(counts[0])
    weights = np.array(scale, np.float64)
    matrix = np.array([[count[name] for name in names] for count in counts], np.float64) / weights[:, None]
    target = np.array(values, np.float64) / weights
    sizes = np.sqrt((matrix**2).sum(axis=0))
    sizes[sizes == 0] = 1.0
    matrix /= sizes
    trust = np.ones(len(values))
    for _ in range(_ROUNDS):
        solution = non_negative_least_squares(matrix * trust[:, None], target * trust)
        trust = np.sqrt(LARGE / np.maximum(np.abs(matrix @ solution - target), LARGE))
    return {name: float(f"{value:.6g}") for name, value in zip(names, solution / sizes, strict=True)}


LARGE, _ROUNDS = 0.05, 10


def non_negative_least_squares(matrix: Float64Array, values: Float64Array) -> Float64Array:
    """The x >= 0 that minimises |matrix x - values|: the active-set method of Lawson and Hanson (1974, chapter 23).

    Args:
        matrix: float64 (samples, terms).
        values: float64 (samples,).
    """
    terms = matrix.shape[1]
    x = np.zeros(terms)
    free = np.zeros(terms, bool)
    for _ in range(3 * terms):
        gradient = matrix.T @ (values - matrix @ x)
        candidates = ~free & (gradient > _TOLERANCE)
        if not candidates.any():
            break
        free[np.argmax(np.where(candidates, gradient, -np.inf))] = True
        while True:
            step = np.zeros(terms)
            step[free] = np.linalg.lstsq(matrix[:, free], values, rcond=None)[0]
            blocked = free & (step <= 0)
            if not blocked.any():
                break
            # As far towards the solution as no term becomes negative; what becomes zero stays there.
            reach = (x[blocked] / (x[blocked] - step[blocked])).min()
            x += reach * (step - x)
            free &= x > _TOLERANCE
        x = step
    return x


_TOLERANCE = 1e-10


def held_out_error(predicted: Iterable[float], measured: Iterable[float]) -> HeldOutError:
    """Relative errors of predictions.

    Args:
        predicted: of each sample.
        measured: of each sample, positive.
    """
    errors = [abs(p / m - 1.0) for p, m in zip(predicted, measured, strict=True)]
    figures = (np.median(errors), np.percentile(errors, 90), max(errors))
    return HeldOutError(len(errors), *(float(f"{figure:.4g}") for figure in figures))


def fit_core(
    core: str,
    samples: Samples,
    seed: int,
    *,
    toolchain: Toolchain | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Fit:
    """Fit what a core takes at zero wait states.

    Args:
        core: one of `CHIPS`.
        samples: of every operator.
        seed: that they were drawn from.
        toolchain: the compiler; the preferred one by default.
        progress: called after each sample.

    Raises:
        ToolchainError: the kernels cannot be built.
        EmulationError: a kernel strayed, faulted or did not end.
        TinyFormerError: no chip stands for the core; or something that a kernel does happens in no sample.
    """
    meter = Meter(chip(core), Timing.ZERO_WAIT, toolchain)
    training, held_out = (_measure(meter, these, progress) for these in (samples.training, samples.held_out))
    metrics = ("instructions", "cycles")
    costs: dict[str, dict[str, dict[str, float]]] = {metric: {} for metric in metrics}
    errors: dict[str, dict[str, HeldOutError]] = {metric: {} for metric in metrics}
    for kernel, measured in training.items():
        counts = [sample.counts for sample, _ in measured]
        missing = [name for name in counts[0] if not any(count[name] for count in counts)]
        if missing:
            raise TinyFormerError(f"{kernel}: in no sample there is {', '.join(missing)}; try another seed")
        for metric in metrics:
            values = [found[metric] for _, found in measured]
            costs[metric][kernel] = fit_costs(counts, values, values)
            errors[metric][kernel] = held_out_error(
                (_cost(costs[metric][kernel], sample.counts) for sample, _ in held_out[kernel]),
                (found[metric] for _, found in held_out[kernel]),
            )
    return Fit(core, meter.compiler, kernels_hash(), "", seed, costs, errors)


def fit_waits(
    target: Target,
    core: Fit,
    samples: Samples,
    seed: int,
    *,
    toolchain: Toolchain | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Fit:
    """Fit what a target's memories add to what its core takes.

    Args:
        target: that says how fast its memories are.
        core: fit of its core, for the error of all cycles.
        samples: of every operator.
        seed: that they were drawn from.
        toolchain: the compiler; the preferred one by default.
        progress: called after each sample.

    Raises:
        ToolchainError: the kernels cannot be built.
        EmulationError: a kernel strayed, faulted or did not end.
        TargetError: the target does not say how fast its memories are.
    """
    meter = Meter(target, Timing.MEMORY, toolchain)
    training, held_out = (_measure(meter, these, progress) for these in (samples.training, samples.held_out))
    costs: dict[str, dict[str, float]] = {}
    errors: dict[str, HeldOutError] = {}
    for kernel, measured in training.items():
        counts = [_counts_with_waits(sample, target) for sample, _ in measured]
        values = [found["waits"] for _, found in measured]
        costs[kernel] = fit_costs(counts, values, [_all_cycles(found) + _FEW for _, found in measured])
        predicted = (
            core.cost("cycles", kernel, sample.counts) + _cost(costs[kernel], _counts_with_waits(sample, target))
            for sample, _ in held_out[kernel]
        )
        errors[kernel] = held_out_error(predicted, (_all_cycles(found) for _, found in held_out[kernel]))
    memories = memories_hash(target)
    return Fit(target.name, meter.compiler, kernels_hash(), memories, seed, {"waits": costs}, {"waits": errors})


_FEW = 20_000
"""An error of waits is relative to these cycles more than the call takes: in short calls most waits are for lines that
come once, and what they say of the loops would not hold for longer ones."""


def _measure(
    meter: Meter, samples: Iterable[Sample], progress: Callable[[], None]
) -> dict[str, list[tuple[Sample, Measured]]]:
    """Each kernel's samples, as far as the chip holds them."""
    found: dict[str, list[tuple[Sample, Measured]]] = {}
    for sample in samples:
        measured = meter.measure(sample)
        if measured is not None:
            found.setdefault(sample.call.kernel, []).append((sample, measured))
        progress()
    return found


def _cost(costs: Mapping[str, float], counts: Mapping[str, float]) -> float:
    return sum(costs[name] * count for name, count in counts.items())


def _counts_with_waits(sample: Sample, target: Target) -> dict[str, float]:
    counts = sample.counts
    return {**counts, **cache_counts(sample.call, counts, sample.activation_bytes, target)}


def _all_cycles(measured: Measured) -> float:
    return measured["cycles"] + measured["waits"]


@dataclass(frozen=True)
class ModelError:
    """A whole model: what was predicted, and what an emulated chip counted for one sample.

    Attributes:
        model, chip: names; the chip's is its core's where its memories do not count.
        predicted, measured: cycles, waits included where they count.
    """

    model: str
    chip: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative, signed."""
        return self.predicted / self.measured - 1.0


def check_model(predictor: Predictor, model: Path, data: Path | None, toolchain: Toolchain | None = None) -> ModelError:
    """Predict a model's kernel calls, as they are generated, and run it.

    Args:
        predictor: of a core or of a target.
        model: QDQ ONNX.
        data: samples, .npz, of which the first is run; random bytes where None.
        toolchain: the compiler; the preferred one by default.

    Raises:
        refsim.errors.ModelError, DataError: the model or its samples are unreadable.
        TargetError: the model does not fit the chip.
    """
    under_test = read_model(model, data, 1)
    target = predictor.target or chip(predictor.core.name)
    with TemporaryDirectory() as folder:
        generated = generate(under_test.graph, target, Path(folder, "model"))
        timing = Timing.MEMORY if predictor.target else Timing.ZERO_WAIT
        place = CortexMModel(generated, toolchain, opt=OPT, timing=timing)
        place.run({name: x[0] for name, x in under_test.samples.items()})
    tensors = generated.program.graph.tensors
    predicted = sum(
        predictor.time(step.call, sum(tensors[name].size for name in (*step.inputs, step.output)))
        for step in generated.steps
        if not step.elided
    )
    measured = sum(cycles.total for cycles in place.cycles[0])
    name = predictor.target.name if predictor.target else predictor.core.name
    return ModelError(under_test.graph.name, name, predicted, measured)


def sample_key(sample: Sample) -> str:
    """A name for a sample: a hash of everything that its run depends on."""
    parts = [sample.call.kernel.encode()]
    for name, value in sample.call.params.items():
        parts += [name.encode(), str(value).encode() if isinstance(value, int) else value.tobytes()]
    return _digest([*parts, *(part for x in sample.inputs for part in (str(x.shape), x.tobytes()))])[:20]


def _model_hash() -> str:
    """Of everything of this package that decides a count: the timing models, the hooks, and where buffers lie."""
    timing, layout = Path(conformance.timing.__file__).parent, Path(conformance.layout.__file__)
    files = [*timing.rglob("*.py"), *NATIVE.iterdir(), layout, Path(__file__)]
    return _digest([part for path in sorted(files) for part in (path.name, path.read_bytes())])


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _read_lines(path: Path) -> Iterable[tuple[str, dict[str, float]]]:
    """What an earlier run has measured; a line that it did not finish is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            yield values.pop("sample"), values
        except (ValueError, KeyError):
            continue
