"""ONNX files: import of quantised models (`load`) and quantisation of float ones (`quantize`)."""

from codegen.onnx.load import load
from codegen.onnx.quantizer import quantize

__all__ = ["load", "quantize"]
