"""ONNX files: import of quantised models (`load`) and quantisation of float ones (`quantize`)."""

from codegen.onnx.load import load

__all__ = ["load"]
