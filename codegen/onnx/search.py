"""A search that spends a number of evaluations on the layers whose quantisation costs most.

One evaluation runs the whole integer model on the calibration samples. Layers are visited in the order of their
sensitivity (`refsim.sensitivity`), the costliest first. For each, other weights are tried (clipped, rounded up or down:
`codegen.onnx.weight_rounding`), then other ranges of what it writes and of what it reads (other calibrators', and
narrower and wider ones). A change stays if the signal to quantisation noise ratio of the model's outputs grows, and
if the errors of the samples, one by one, shrink by more than chance would bring: many candidates on few samples would
else fit the samples. Rounds follow each other until nothing helps any more or the budget is spent.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from codegen.onnx.layers import Layer, float_layers, fused
from codegen.onnx.lowering import lower
from codegen.onnx.mse_range import Range
from codegen.onnx.network import Network
from codegen.onnx.qdq_writer import groups, write_qdq
from codegen.onnx.reader import ModelFile, read_proto
from codegen.onnx.runner import Runner, Samples
from codegen.onnx.weight_rounding import LARGEST_GRAM, add_gram, clip_weight, gram_inputs, round_weight
from refsim import Graph, predict
from refsim.comparison import batch_size, decibels
from refsim.dataset import Batches
from refsim.float_model import FloatModel
from refsim.samples import Preprocessing
from refsim.sensitivity import MOST, SAMPLES, sensitivity

_FACTORS = (0.85, 0.7, 0.5, 1.15)
"""By which the range that a tensor has is narrowed or widened, beside the other calibrators' ranges."""

_ALIKE = 0.01
"""Ranges that differ by less than this part of their width are not worth an evaluation."""

_LEAST_GAIN_DB = 0.01
"""What changes less is no reason to depart from what the calibrator chose."""

_STANDARD_ERRORS = 2.0
"""By how many standard errors of its mean a gain must differ from none."""


@dataclass(frozen=True)
class Candidate:
    """What the search chooses.

    Attributes:
        ranges: of every activation.
        weights: that replace the file's, float64 by name.
    """

    ranges: Mapping[str, Range]
    weights: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Found:
    """What a search brought.

    Attributes:
        candidate: the best.
        before, after: signal to quantisation noise ratio of the outputs on the samples, dB.
        evaluations: made for it.
    """

    candidate: Candidate
    before: float
    after: float
    evaluations: int


@dataclass(frozen=True, eq=False)
class Score:
    """Of the outputs on calibration samples.

    Attributes:
        signal: sum of the float model's squared outputs.
        noise: float64 (N,), sum of squared errors of each sample.
    """

    signal: float
    noise: NDArray[np.float64]

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise ratio, dB."""
        return decibels(self.signal, float(self.noise.sum()))

    def beats(self, other: "Score") -> bool:
        """Whether it is better by more than chance would bring, sample by sample."""
        gain = other.noise - self.noise
        if len(gain) < 2 or self.sqnr_db < other.sqnr_db + _LEAST_GAIN_DB:
            return False
        return bool(gain.mean() > _STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(len(gain)))


def search_candidates(
    file: ModelFile,
    corrected: ModelFile,
    start: Candidate,
    others: Mapping[str, Mapping[str, Range]],
    samples: Samples,
    budget: int,
    *,
    per_channel: bool,
    count: Callable[[int], None] = lambda evaluations: None,
) -> Found:
    """The best candidate that is found with so many evaluations beside the start's own.

    Args:
        file: the float model, whose outputs are the aim.
        corrected: the same with the biases to quantise.
        start: what the calibrator chose; no result is worse on the samples.
        others: ranges by other calibrators, by their names; "minmax" is among them or is the start.
        samples: calibration samples.
        budget: evaluations, at most.
        per_channel: as for `quantize`.
        count: called with the evaluations done since the last call.
    """
    evaluator = _Evaluator(file, corrected, samples, per_channel)
    best, score = start, evaluator.score(start)
    before = score.sqnr_db
    order = _by_sensitivity(file, evaluator.graph(start), samples)
    moves = _Moves(file, samples, [start.ranges, *others.values()], per_channel)
    spent, improved = 0, True
    while improved and spent < budget:
        improved = False
        for knob in moves.knobs(order):
            winner: tuple[Score, Candidate] | None = None
            for candidate in knob(best):
                if spent == budget:
                    break
                found = evaluator.score(candidate)
                spent += 1
                count(1)
                if found.beats(score) and (winner is None or found.sqnr_db > winner[0].sqnr_db):
                    winner = found, candidate
            if winner is not None:
                (score, best), improved = winner, True
    return Found(best, before, score.sqnr_db, spent)


class _Evaluator:
    """Runs candidates as the chip would."""

    def __init__(self, file: ModelFile, corrected: ModelFile, samples: Samples, per_channel: bool) -> None:
        self.file, self.samples, self.per_channel = corrected, samples, per_channel
        self.network = fused(corrected)
        names = [value.name for value in file.proto.graph.output]
        size = len(next(iter(samples.values())))
        parts = list(Runner(file.proto, names, file.batch).run(samples))
        self.real = {name: np.concatenate([part[name] for part in parts])[:size] for name in names}

    def graph(self, candidate: Candidate) -> Graph:
        file = with_weights(self.file, candidate.weights)
        quantized = write_qdq(file, self.network, candidate.ranges, per_channel=self.per_channel)
        return lower(fused(read_proto(quantized)))

    def score(self, candidate: Candidate) -> Score:
        found = predict(self.graph(candidate), self.samples)
        signal, noise = 0.0, np.zeros(len(next(iter(self.samples.values()))))
        for name, real in self.real.items():
            true = real.astype(np.float64).reshape(len(noise), -1)
            signal += float(np.square(true).sum())
            noise += np.square(found[name].reshape(true.shape) - true).sum(axis=1)
        return Score(signal, noise)


def with_weights(file: ModelFile, weights: Mapping[str, NDArray[np.float64]]) -> ModelFile:
    """The model with other values of some weights, for the quantiser."""
    return replace(file, values={**file.values, **weights})


def _by_sensitivity(file: ModelFile, graph: Graph, samples: Samples) -> list[str]:
    """Names of the nodes that compute, the costliest first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(file.proto, path)
        reference = FloatModel(path, graph)
        batches = Batches(graph, dict(samples), batch_size(graph, MOST), Preprocessing(), SAMPLES)
        return [layer.node for layer in sensitivity(graph, reference, batches).layers]


Knob = Callable[[Candidate], Iterator[Candidate]]
"""Candidates that differ from a given one in one respect."""


@dataclass
class _Moves:
    """The changes that the search knows.

    Attributes:
        file, samples, per_channel: as for `search_candidates`.
        ranges: all calibrators' ranges.
    """

    file: ModelFile
    samples: Samples
    ranges: list[Mapping[str, Range]]
    per_channel: bool
    network: Network = field(init=False)
    layers: dict[str, Layer] = field(init=False)
    grams: dict[str, NDArray[np.float64] | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.network = fused(self.file)
        self.layers = {layer.op.name: layer for layer in float_layers(self.file, self.network)}
        leader = groups(self.network, self.ranges[0])
        fixed = {op.output for op in self.network.ops if op.kind == "Softmax"}
        self.leader = {tensor: leader[tensor] for tensor in self.ranges[0] if leader[tensor] not in fixed}

    def knobs(self, nodes: list[str]) -> Iterator[Knob]:
        """The weights and ranges of each node, each once."""
        ops = {op.name: op for op in self.network.ops}
        seen = set()
        for op in (ops[name] for name in nodes if name in ops):
            layer = self.layers.get(op.name)
            if layer is not None and layer.weight_name not in seen:
                seen.add(layer.weight_name)
                yield self._weight_knob(layer)
            for tensor in (op.output, *self.network.activations(op)):
                group = self.leader.get(tensor)
                if group is not None and group not in seen:
                    seen.add(group)
                    yield self._range_knob(group)

    def _range_knob(self, group: str) -> Knob:
        members = [tensor for tensor, leader in self.leader.items() if leader == group]
        known = [_joined([ranges[tensor] for tensor in members]) for ranges in self.ranges]

        def candidates(best: Candidate) -> Iterator[Candidate]:
            now = _joined([best.ranges[tensor] for tensor in members])
            tried = [now]
            for limits in (*known, *((now[0] * factor, now[1] * factor) for factor in _FACTORS)):
                if not any(_alike(limits, other) for other in tried):
                    tried.append(limits)
                    yield replace(best, ranges={**best.ranges, **dict.fromkeys(members, limits)})

        return candidates

    def _weight_knob(self, layer: Layer) -> Knob:
        def candidates(best: Candidate) -> Iterator[Candidate]:
            name, axis = layer.weight_name, layer.axis
            clipped = clip_weight(layer.weight, axis if self.per_channel else None)
            tried = [layer.weight, clipped]
            gram = self._gram(layer)
            if gram is not None:
                tried += [round_weight(weight, gram, axis, per_channel=self.per_channel) for weight in tried]
            different = [best.weights.get(name, layer.weight)]
            for weight in tried:
                if not any(np.array_equal(weight, other) for other in different):
                    different.append(weight)
                    yield replace(best, weights={**best.weights, name: weight})

        return candidates

    def _gram(self, layer: Layer) -> NDArray[np.float64] | None:
        """Of the layer's float inputs; None where it would be too large."""
        name, source = layer.op.name, layer.node.input[0]
        if name not in self.grams:
            self.grams[name] = None
            if gram_inputs(layer) <= LARGEST_GRAM:
                for values in Runner(self.file.proto, [source], self.file.batch).run(self.samples):
                    self.grams[name] = add_gram(self.grams[name], layer, values[source])
        return self.grams[name]


def _alike(a: Range, b: Range) -> bool:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) < _ALIKE * max(a[1] - a[0], b[1] - b[0], 1e-30)


def _joined(ranges: list[Range]) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
