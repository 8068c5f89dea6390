"""The paper's ablation of Scaled-LayerNorm (section III-C, Table IV): the same model with fewer fraction bits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from refsim.dataset import Dataset, Progress
from refsim.errors import QuantizationError, located
from refsim.evaluation import Classifier, Evaluation
from refsim.float_model import FloatModel
from refsim.graph import Graph
from refsim.model import Model
from refsim.numerics import INT32_MAX, Int8Array, rdbpot
from refsim.ops.base import Requantization
from refsim.ops.layernorm import MOST_SCALE_BITS, LayerNorm
from refsim.real import run_real

BITS = (7, 0)
"""The paper's choice, and its naive variant: a normalised value that is a whole number."""

REAL = "int8, LayerNorm in real numbers"


@dataclass(frozen=True)
class Variant:
    """One row of the ablation.

    Attributes:
        variant: what was run.
        scale_bits: fraction bits of the normalised value; None where LayerNorm, or the whole model, is in float.
        accuracy: share of right answers, in [0, 1].
        agreement: share of samples to which it gives the same class as the first row.
    """

    variant: str
    scale_bits: int | None
    accuracy: float
    agreement: float


@dataclass(frozen=True)
class Ablation:
    """The float model, if there is one, and the integer graph with each number of scale bits.

    Attributes:
        samples: how many were classified.
        layers: LayerNorms in the graph.
        variants: in the order asked for.
    """

    samples: int
    layers: int
    variants: tuple[Variant, ...]

    def records(self) -> list[dict[str, Any]]:
        """One for each variant, with plain values."""
        return [asdict(variant) for variant in self.variants]


class RealLayerNorm(LayerNorm):
    """A LayerNorm in real numbers: its int8 inputs are exact, its result is rounded to int8, nothing else is."""

    def run(self, *inputs: Int8Array) -> Int8Array:
        """As for `LayerNorm`."""
        found: Int8Array = np.rint(run_real(self, inputs[0].astype(np.float64))).astype(np.int8)
        return found


def with_real_layernorm(graph: Graph) -> Graph:
    """The same graph with every LayerNorm in real numbers: the paper's FP32-LN."""
    nodes = []
    for node in graph.nodes:
        op = node.op
        if isinstance(op, LayerNorm):
            op = RealLayerNorm(op.gamma, op.beta, op.epsilon, op.output, op.scale_bits)
        nodes.append(replace(node, op=op))
    return replace(graph, nodes=tuple(nodes))


def with_scale_bits(graph: Graph, bits: int) -> Graph:
    """The same graph with `bits` fraction bits in every LayerNorm's normalised value.

    Gamma stays; beta, at scale s_gamma * 2^-bits, and the last step's shift follow (docs/numerics.md, layernorm).

    Raises:
        QuantizationError: naming the node, for a number of bits that LayerNorm refuses.
    """
    nodes = []
    for original in graph.nodes:
        node = original
        if isinstance(original.op, LayerNorm):
            with located(f"node {original.name!r}"):
                node = replace(original, op=_scaled(original.op, bits))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _scaled(op: LayerNorm, bits: int) -> LayerNorm:
    if not 0 <= bits <= MOST_SCALE_BITS:
        raise QuantizationError(f"layernorm takes 0 to {MOST_SCALE_BITS} scale bits, found {bits}")
    more = bits - op.scale_bits
    beta = [int(b) << more if more >= 0 else int(rdbpot(int(b), min(-more, 31))) for b in op.beta]
    if any(abs(b) > INT32_MAX for b in beta):
        raise QuantizationError(f"beta leaves int32 with {bits} scale bits")
    output: Requantization = replace(op.output, shift=op.output.shift - np.int32(more))
    return replace(op, beta=np.array(beta, np.int32), output=output, scale_bits=bits)


def ablate_layernorm(
    model: Model,
    dataset: Dataset,
    *,
    float_model: str | Path | None = None,
    bits: Sequence[int] = BITS,
    real: bool = False,
    progress: Progress = True,
) -> Ablation:
    """Classify labelled samples with the float model and with the integer graph at several scale bits.

    Args:
        model: the quantised model.
        dataset: labelled samples; see `refsim.dataset.Dataset`.
        float_model: the float .onnx file, or None to leave it out.
        bits: fraction bits of each variant.
        real: a variant with LayerNorm in real numbers as well.
        progress: see `Model`.

    Raises:
        QuantizationError: there is no LayerNorm, or one refuses a number of bits.
        DataError: samples or labels do not fit.
        ModelError: the float model is unreadable or another one.
    """
    count = sum(isinstance(node.op, LayerNorm) for node in model.graph.nodes)
    if not count:
        raise QuantizationError(f"{model.graph.name}: holds no LayerNorm to ablate")
    classifiers: dict[str, Classifier] = {}
    if float_model is not None:
        classifiers["float"] = FloatModel(float_model, model.graph).scores
    graphs = {REAL: with_real_layernorm(model.graph)} if real else {}
    graphs |= {_name(wanted): with_scale_bits(model.graph, wanted) for wanted in bits}
    for name, graph in graphs.items():
        variant = Model(graph, preprocessing=model.preprocessing, threads=model.threads)
        classifiers[name] = variant.scores
    found = model.evaluate_beside(classifiers, dataset, progress=progress)
    by_name: dict[str, Evaluation] = {name: found.by_name[name] for name in classifiers}
    scale_bits = {_name(wanted): wanted for wanted in bits}
    return Ablation(
        next(iter(by_name.values())).samples,
        count,
        tuple(
            Variant(name, scale_bits.get(name), evaluation.accuracy, found.agreement[name])
            for name, evaluation in by_name.items()
        ),
    )


def _name(bits: int) -> str:
    kind = {0: ", naive", 7: ", the paper's"}.get(bits, "")
    return f"int8, {bits} scale bits{kind}"
