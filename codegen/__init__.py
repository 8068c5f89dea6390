"""From model files to C: import, quantise, plan memory, generate."""

from typing import TYPE_CHECKING, Any

from codegen.generate import GeneratedModel, generate
from codegen.target import Target, load_target

if TYPE_CHECKING:
    from codegen.onnx import load, quantize

__all__ = ["GeneratedModel", "Target", "generate", "load", "load_target", "quantize"]


def __getattr__(name: str) -> Any:
    # Reading ONNX brings onnx and onnxruntime with it: they are imported when they are first needed.
    if name in ("load", "quantize"):
        import codegen.onnx  # noqa: PLC0415 - onnx and onnxruntime are slow to import, and needed for files only

        return getattr(codegen.onnx, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
