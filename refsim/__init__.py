"""The golden model: an integer-only reference simulator of the sparse INT8 engine (docs/numerics.md).

model = refsim.load("model.onnx")
scores = model.predict(images)                   # float in, float out; int8 in, int8 out
print(model.evaluate("test.npz").accuracy)
print(model.compare("float.onnx", "test.npz").records())

Below it, on the graph alone:

outputs = refsim.predict(graph, images)          # float in, float out
tensors = refsim.run(graph, q, trace=True)       # int8 in, every int8 tensor out
"""

from refsim.engine import predict, quantize_input, run
from refsim.graph import Graph, Node, Port
from refsim.model import Model, load
from refsim.numerics import Rounding
from refsim.readers import Calibration
from refsim.samples import Preprocessing
from refsim.tensor import TensorType

__all__ = [
    "Calibration",
    "Graph",
    "Model",
    "Node",
    "Port",
    "Preprocessing",
    "Rounding",
    "TensorType",
    "load",
    "predict",
    "quantize_input",
    "run",
]
