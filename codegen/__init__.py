"""From model files to C: import, quantise, plan memory, generate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codegen.generate import GeneratedModel, generate
from codegen.target import Target, load_target
from refsim import Graph
from refsim.model_zoo import model_file

if TYPE_CHECKING:
    from codegen.onnx import quantize

__all__ = ["GeneratedModel", "Target", "generate", "load", "load_target", "quantize"]


def load(path: str | Path, *, name: str | None = None, profile: Literal["litert", "cmsis-nn"] = "litert") -> Graph:
    """Read a quantised model: QDQ ONNX, or TensorFlow Lite where the file ends in .tflite.

    Args:
        path: the model file, or the name of a model of the zoo (`refsim.model_zoo`).
        name: of the graph; the file's stem by default.
        profile: whose bytes a .tflite file gives (see `codegen.tflite.load`); ONNX has one numerics only.

    Returns:
        The integer graph for one sample, passes applied.

    Raises:
        ModelError: the file is missing, corrupt, inconsistent or not quantised.
        UnsupportedError: naming the operator, what is not supported.
        QuantizationError, ShapeError: naming the operator, a parameter that it refuses.
    """
    name, path = name or Path(path).stem, model_file(path)
    # What reads a format is imported when a file of it is: onnx and onnxruntime take long.
    if path.suffix.lower() == ".tflite":
        import codegen.tflite  # noqa: PLC0415 - see above

        return codegen.tflite.load(path, name=name, profile=profile)
    import codegen.onnx  # noqa: PLC0415 - see above

    return codegen.onnx.load(path, name=name)


def __getattr__(name: str) -> Any:
    if name == "quantize":
        import codegen.onnx  # noqa: PLC0415 - as for `load`

        return codegen.onnx.quantize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
