"""ONNX nodes -> the importer's few kinds of operators, with every attribute resolved.

| kind | inputs | attributes |
|---|---|---|
| Conv | x, weight, bias? | strides, pads (all begins, then all ends), dilations, group; bias_at |
| Linear | x, weight, bias? | transposed: the weight is (O, I) rather than (I, O); bias_at |
| MatMul, Add, Sub, Mul, Div | a, b | factor (MatMul) |
| BatchNorm | x, gamma, beta, mean, variance | epsilon |
| LayerNorm | x, gamma?, beta? | epsilon |
| Softmax | x | axis |
| Unary | x | function; of (operator type) and operand (a scalar constant), where one node |
| Clip | x | low, high |
| Scale | x | factor |
| Mean | x | axes |
| MaxPool, AveragePool | x | kernel, strides, pads |
| Reshape | x | |
| Transpose | x | permutation |
| Slice | x | starts, sizes, steps |
| Concat | any number | axis |
| Pad | x | before, after, value; byte instead where the file pads integers |
| Repeat | x | factors: of the axes behind batch and channels |
| Requantize | x | |

Axes count the batch axis and are not negative. bias_at says which node of the file reads the bias as it is, and as
which of its inputs; None if no node does.
"""

from codegen.onnx.context import Normalizer
from codegen.onnx.normalize_elementwise import ELEMENTWISE
from codegen.onnx.normalize_layers import LAYERS
from codegen.onnx.normalize_moves import MOVES

NORMALIZERS: dict[str, Normalizer] = {**ELEMENTWISE, **LAYERS, **MOVES}
"""By ONNX operator type; quantisation, constants and no-ops are `codegen.onnx.build`'s."""
