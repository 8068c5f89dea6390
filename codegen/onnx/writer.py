"""Float networks as ONNX, written layer by layer from numpy weights: the layers of hybrid CNN-transformers."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""The first opset with LayerNormalization."""

_IR_VERSION = 8
LAYER_NORM_EPS = 1e-5

Activation = Literal["none", "relu", "relu6"]


class NetworkWriter:
    """An ONNX graph under construction; a tensor is its name.

    Each layer's method takes the layer's `name` last, appends its nodes, called ``name/Conv``, and its parameters,
    called ``name.weight`` and ``name.bias``, and returns the output. Axis 0 of every activation is the batch, which
    stays free; shapes in the arguments are those of one sample.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._used: Counter[str] = Counter()

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Any operator of one output; constants among the inputs come from `constant`."""
        path = f"{name}/{kind}"
        self._used[path] += 1
        path += f"_{self._used[path] - 1}" if self._used[path] > 1 else ""
        self._nodes.append(helper.make_node(kind, inputs, [path], name=path, **attributes))
        return path

    def constant(self, value: NDArray[Any] | np.float32, name: str) -> str:
        """A tensor in the file; the same name stands for the same value."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name

    def conv(
        self,
        x: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        name: str,
        *,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: Activation = "relu6",
    ) -> str:
        """Convolution with "same" padding for odd kernels.

        Args:
            x: (channels, height, width).
            weight: (outputs, channels / groups, kernel height, kernel width).
            bias: (outputs,).
            name: of the layer.
            stride: vertical, horizontal.
            groups: as many as channels for a depthwise convolution.
            activation: what follows.
        """
        height, width = weight.shape[2:]
        y = self.node(
            "Conv",
            [x, *self._parameters(weight, bias, name)],
            name,
            kernel_shape=[height, width],
            pads=[height // 2, width // 2] * 2,
            strides=list(stride),
            group=groups,
        )
        return self._activation(y, activation, name)

    def linear(
        self,
        x: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        name: str,
        *,
        activation: Activation = "none",
    ) -> str:
        """Linear layer on the last axis; weight (outputs, inputs), bias (outputs,)."""
        weights, biases = self._parameters(weight.T, bias, name)
        y = self.node("Add", [self.node("MatMul", [x, weights], name), biases], name)
        return self._activation(y, activation, name)

    def layer_norm(self, x: str, gamma: NDArray[np.float32], beta: NDArray[np.float32], name: str) -> str:
        """Layer normalisation of the last axis; gamma and beta (dim,)."""
        inputs = [x, *self._parameters(gamma, beta, name)]
        return self.node("LayerNormalization", inputs, name, axis=-1, epsilon=LAYER_NORM_EPS)

    def attention(self, query: str, key: str, value: str, tokens: int, dim: int, heads: int, name: str) -> str:
        """softmax(Q K^T / sqrt(dim / heads)) V for each head, on projections (tokens, dim)."""
        split = self._shape((0, tokens, heads, dim // heads), name)

        def apart(x: str) -> str:
            return self.node("Transpose", [self.node("Reshape", [x, split], name)], name, perm=[0, 2, 1, 3])

        transposed = self.node("Transpose", [apart(key)], name, perm=[0, 1, 3, 2])
        scores = self.node("MatMul", [apart(query), transposed], name)
        factor = self.constant(np.float32((dim // heads) ** -0.5), f"{name}/factor")
        weights = self.node("Softmax", [self.node("Mul", [scores, factor], name)], name, axis=-1)
        context = self.node("Transpose", [self.node("MatMul", [weights, apart(value)], name)], name, perm=[0, 2, 1, 3])
        return self.node("Reshape", [context, self._shape((0, tokens, dim), name)], name)

    def to_tokens(self, x: str, tokens: int, channels: int, name: str) -> str:
        """Feature map (channels, height, width) -> (height * width, channels)."""
        flat = self.node("Reshape", [x, self._shape((0, channels, tokens), name)], name)
        return self.node("Transpose", [flat], name, perm=[0, 2, 1])

    def to_map(self, x: str, channels: int, height: int, width: int, name: str) -> str:
        """Tokens (height * width, channels) -> (channels, height, width)."""
        turned = self.node("Transpose", [x], name, perm=[0, 2, 1])
        return self.node("Reshape", [turned, self._shape((0, channels, height, width), name)], name)

    def max_pool(self, x: str, kernel: tuple[int, int], name: str) -> str:
        """Largest of each window, windows side by side; the last may reach beyond the edge."""
        return self.node("MaxPool", [x], name, kernel_shape=list(kernel), strides=list(kernel), ceil_mode=1)

    def mean(self, x: str, channels: int, name: str) -> str:
        """Mean of each channel: (channels, height, width) -> (channels,)."""
        pooled = self.node("GlobalAveragePool", [x], name)
        return self.node("Reshape", [pooled, self._shape((0, channels), name)], name)

    def sequence_pool(self, scores: str, tokens: str, channels: int, name: str) -> str:
        """softmax(scores)^T tokens: (tokens, 1) and (tokens, channels) -> (channels,) (Hassani et al., 2021)."""
        turned = self.node("Transpose", [scores], name, perm=[0, 2, 1])
        weights = self.node("Softmax", [turned], name, axis=-1)
        pooled = self.node("MatMul", [weights, tokens], name)
        return self.node("Reshape", [pooled, self._shape((0, channels), name)], name)

    def add(self, first: str, second: str, name: str) -> str:
        """Sum of two activations of one shape."""
        return self.node("Add", [first, second], name)

    def model(
        self, name: str, source: tuple[str, Sequence[int]], result: tuple[str, Sequence[int]], output: str
    ) -> onnx.ModelProto:
        """The graph as a model.

        Args:
            name: of the graph.
            source: name and shape of the input, float32.
            result: name and shape that the output gets.
            output: the tensor that it is.
        """
        last = helper.make_node("Identity", [output], [result[0]], name=result[0])
        graph = helper.make_graph(
            [*self._nodes, last],
            name,
            [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, ["batch", *source[1]])],
            [helper.make_tensor_value_info(result[0], TensorProto.FLOAT, ["batch", *result[1]])],
            list(self._constants.values()),
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="tinyformer",
        )

    def _parameters(self, weight: NDArray[np.float32], bias: NDArray[np.float32], name: str) -> tuple[str, str]:
        return self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")

    def _shape(self, shape: Sequence[int], name: str) -> str:
        """A shape as a constant; 0 keeps the batch."""
        return self.constant(np.array(shape, np.int64), f"{name}/shape{len(shape)}")

    def _activation(self, x: str, activation: Activation, name: str) -> str:
        if activation == "relu":
            return self.node("Relu", [x], name)
        if activation == "relu6":
            limits = (self.constant(np.float32(0), "zero"), self.constant(np.float32(6), "six"))
            return self.node("Clip", [x, *limits], name)
        return x
