"""`Network` -> refsim.Graph: one integer operator for each, channels last for images, the batch axis dropped."""

from codegen.onnx.building import GraphBuilder
from codegen.onnx.inherit import inherit
from codegen.onnx.lower_layers import LAYERS
from codegen.onnx.lower_moves import MOVES
from codegen.onnx.network import Network
from refsim import Graph


def lower(network: Network) -> Graph:
    """Turn a fused network into integer operators.

    Raises:
        UnsupportedError: naming node and tensor, for what would have to run in float or mixes the samples of a batch.
        QuantizationError, ShapeError: naming the node, for parameters that the operator refuses.
    """
    inherit(network)
    return GraphBuilder(network).build({**LAYERS, **MOVES})
