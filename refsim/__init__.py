"""The golden model: an integer-only reference simulator of the sparse INT8 engine (docs/numerics.md).

graph = codegen.load("model.onnx")
outputs = refsim.predict(graph, images)          # float in, float out
tensors = refsim.run(graph, q, trace=True)       # int8 in, every int8 tensor out
"""

from refsim.engine import predict, quantize_input, run
from refsim.graph import Graph, Node, Port
from refsim.numerics import Rounding
from refsim.tensor import TensorType

__all__ = ["Graph", "Node", "Port", "Rounding", "TensorType", "predict", "quantize_input", "run"]
