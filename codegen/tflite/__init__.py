"""TensorFlow Lite files: import of models quantised to int8 (`load`)."""

from codegen.tflite.load import load, read_graph

__all__ = ["load", "read_graph"]
