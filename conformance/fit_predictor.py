"""Fits the predictor of `codegen.predictor` on emulated runs of the kernels, and measures its error.

Each sample runs once on an emulated core, which counts exactly; what the loops of its kernel cost follows by
non-negative least squares on relative errors. Part of the shapes of Table I is held out: the error on them is kept
with the fit. Everything is drawn from a seed, so that the same kernels, compiler and timing model give the same fit.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import conformance.timing
from codegen.generate import generate
from codegen.predictor import METRICS, HeldOutError, Predictor, kernels_hash, loop_counts
from codegen.target import Target, load_target
from conformance.emulator import CallResult
from conformance.layout import arena_layout
from conformance.models import CortexMModel, read_model
from conformance.places import CortexMPlace, Library
from conformance.predictor_samples import Sample, Samples
from conformance.timing.cycles import Timing
from conformance.toolchain import NATIVE, Toolchain, arm_toolchains
from refsim.compiled import cache_folder
from refsim.errors import TinyFormerError, located

Float64Array = NDArray[np.float64]

CHIPS = {
    "cortex-m7": "stm32f746",
    "cortex-m4": "stm32l4r5",
    "cortex-m33": "stm32u575",
    "cortex-m0plus": "rp2040",
}
"""The chip on which each core is measured: its memory only has to hold the samples."""

OPT = "-O2"
"""Optimisation of the kernels, as in generated projects."""

_RESERVED = 16 * 1024
"""RAM of a chip that is left for the stack, variables and guards."""


def chip(core: str) -> Target:
    """The chip on which a core is measured.

    Raises:
        TinyFormerError: there is none.
    """
    if core not in CHIPS:
        raise TinyFormerError(f"there is no chip to measure {core!r} on; there is one for {', '.join(CHIPS)}")
    return load_target(CHIPS[core])


class Meter:
    """Measures kernel calls on a core, and remembers what it has measured: a fit that was interrupted goes on.

    Args:
        core: one of `CHIPS`.
        toolchain: the compiler; the preferred one by default.

    Raises:
        TinyFormerError: no chip stands for the core.
        ToolchainError: the kernels cannot be built.
    """

    def __init__(self, core: str, toolchain: Toolchain | None = None) -> None:
        toolchain = toolchain or arm_toolchains()[0]
        target = chip(core)
        self.core = core
        self.compiler = f"{toolchain.name} {toolchain.version} {OPT}"
        self.room = target.data.size - target.stack_bytes - _RESERVED
        self._place = CortexMPlace(
            core, Library(), target, toolchain=toolchain, opt=OPT, arena_bytes=self.room, timing=Timing.ZERO_WAIT
        )
        key = _digest([core, self.compiler, kernels_hash(), _model_hash()])
        self._file = cache_folder() / "predictor" / f"{core}-{key[:20]}.jsonl"
        self._known = dict(_read_lines(self._file))

    def measure(self, sample: Sample) -> Mapping[str, float] | None:
        """Each of `METRICS` for a sample; None where it is larger than the chip.

        Raises:
            EmulationError: the kernel strayed, faulted or did not end.
        """
        key = sample_key(sample)
        if key not in self._known:
            layout = arena_layout(sample.call, sample.inputs, sample.output_bytes)
            if len(layout.image) > self.room:
                return None
            _, result = self._place.measure(sample.call, layout)
            self._known[key] = _metrics(result)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                # The line begins with its end, so that one that was not finished spoils no other.
                stream.write("\n" + json.dumps({"sample": key, **self._known[key]}))
        return self._known[key]


def _metrics(result: CallResult) -> dict[str, float]:
    assert result.cycles is not None
    return {"instructions": result.instructions, "cycles": result.cycles.total}


def fit(counts: Sequence[Mapping[str, float]], costs: Sequence[float]) -> dict[str, float]:
    """What each count costs: least squares on relative errors, no cost below zero.

    Args:
        counts: of each sample, the same names in all.
        costs: of each sample, positive.

    Raises:
        TinyFormerError: something never happens in the samples, so that nothing is known of its cost.
    """
    names = list(counts[0])
    matrix = np.array([[count[name] for name in names] for count in counts], np.float64)
    matrix /= np.array(costs, np.float64)[:, None]
    scale = np.sqrt((matrix**2).sum(axis=0))
    if (scale == 0).any():
        missing = ", ".join(repr(name) for name, size in zip(names, scale, strict=True) if size == 0)
        raise TinyFormerError(f"no sample has {missing}: draw more, or with another seed")
    solution = non_negative_least_squares(matrix / scale, np.ones(len(costs))) / scale
    return {name: float(f"{value:.6g}") for name, value in zip(names, solution, strict=True)}


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


def measured_error(predicted: Iterable[float], measured: Iterable[float]) -> HeldOutError:
    """Relative errors of predictions.

    Args:
        predicted: of each sample.
        measured: of each sample, positive.
    """
    errors = [abs(p / m - 1.0) for p, m in zip(predicted, measured, strict=True)]
    return HeldOutError(
        len(errors), *(float(f"{v:.4g}") for v in (np.median(errors), np.percentile(errors, 90), max(errors)))
    )


def fit_core(
    core: str,
    samples: Samples,
    seed: int,
    *,
    toolchain: Toolchain | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Predictor:
    """Measure samples on a core and fit the predictor.

    Args:
        core: one of `CHIPS`.
        samples: of every operator.
        seed: that they were drawn from.
        toolchain: the compiler; the preferred one by default.
        progress: called after each sample.

    Raises:
        ToolchainError: the kernels cannot be built.
        EmulationError: a kernel strayed, faulted or did not end.
    """
    meter = Meter(core, toolchain)

    def measure(these: Iterable[Sample]) -> dict[str, list[tuple[Sample, Mapping[str, float]]]]:
        found: dict[str, list[tuple[Sample, Mapping[str, float]]]] = {}
        for sample in these:
            metrics = meter.measure(sample)
            if metrics is not None:
                found.setdefault(sample.call.kernel, []).append((sample, metrics))
            progress()
        return found

    training, held_out = measure(samples.training), measure(samples.held_out)
    coefficients: dict[str, dict[str, dict[str, float]]] = {metric: {} for metric in METRICS}
    errors: dict[str, dict[str, HeldOutError]] = {metric: {} for metric in METRICS}
    for kernel, measured in training.items():
        counts = [loop_counts(sample.call) for sample, _ in measured]
        for metric in METRICS:
            with located(kernel):
                cost = fit(counts, [metrics[metric] for _, metrics in measured])
            predicted = [
                sum(cost[name] * count for name, count in loop_counts(sample.call).items())
                for sample, _ in held_out[kernel]
            ]
            coefficients[metric][kernel] = cost
            errors[metric][kernel] = measured_error(predicted, [metrics[metric] for _, metrics in held_out[kernel]])
    return Predictor(core, meter.compiler, kernels_hash(), seed, coefficients, errors)


@dataclass(frozen=True)
class ModelError:
    """A whole model: what was predicted, and what an emulated chip counted for one sample.

    Attributes:
        model, core: names.
        predicted, measured: by metric.
    """

    model: str
    core: str
    predicted: Mapping[str, float]
    measured: Mapping[str, float]

    def error(self, metric: str) -> float:
        """Relative, signed."""
        return self.predicted[metric] / self.measured[metric] - 1.0


def check_model(predictor: Predictor, model: Path, data: Path | None, toolchain: Toolchain | None = None) -> ModelError:
    """Predict a model and run it.

    Args:
        predictor: of one core.
        model: QDQ ONNX.
        data: samples, .npz, of which the first is run; random bytes where None.
        toolchain: the compiler; the preferred one by default.

    Raises:
        ModelError, DataError: the model or its samples are unreadable.
        TargetError: the model does not fit the chip that stands for the core.
    """
    under_test = read_model(model, data, 1)
    total = predictor.predict_graph(under_test.graph).total
    with TemporaryDirectory() as folder:
        generated = generate(under_test.graph, chip(predictor.core), Path(folder, "model"))
        place = CortexMModel(generated, toolchain, opt=OPT, timing=Timing.ZERO_WAIT)
        place.run({name: x[0] for name, x in under_test.samples.items()})
    measured = {"instructions": sum(place.instructions[0]), "cycles": sum(c.total for c in place.cycles[0])}
    return ModelError(under_test.graph.name, predictor.core, vars(total), measured)


def sample_key(sample: Sample) -> str:
    """A name for a sample: a hash of everything that its run depends on."""
    parts = [sample.call.kernel.encode()]
    for name, value in sample.call.params.items():
        parts += [name.encode(), str(value).encode() if isinstance(value, int) else value.tobytes()]
    return _digest([*parts, *(part for x in sample.inputs for part in (str(x.shape), x.tobytes()))])[:20]


def _model_hash() -> str:
    """Of everything of this package that decides a count: the timing models and the hooks."""
    files = [*Path(conformance.timing.__file__).parent.rglob("*.py"), *NATIVE.iterdir()]
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
