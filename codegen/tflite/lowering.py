"""A .tflite file's operators -> refsim.Graph, one integer operator for each where that is possible."""

from codegen.tflite.building import GraphBuilder
from codegen.tflite.layers import LAYERS
from codegen.tflite.moves import MOVES
from codegen.tflite.profiles import Profile
from codegen.tflite.reader import ModelFile
from refsim import Graph


def lower(file: ModelFile, name: str, profile: Profile) -> Graph:
    """Turn a file into integer operators.

    Raises:
        UnsupportedError, ModelError: naming the operator and its output, what is not supported or inconsistent.
        QuantizationError, ShapeError: naming the operator's output, parameters that the operator refuses.
    """
    return GraphBuilder(file, name, profile).build({**LAYERS, **MOVES})
