"""PyTorch network -> one float ONNX file that is small, readable and says nothing about the machine that made it."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nas.blocks import ConvBN
from refsim.errors import ModelError

OPSET = 20
"""The first opset with a Gelu operator."""

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

_TOLERANCE = 1e-4
"""Largest difference of a logit between PyTorch and ONNX Runtime, relative to the largest logit."""

_CONSTANT_ROLES = {
    ("Clip", 1): "min",
    ("Clip", 2): "max",
    ("MatMul", 1): "weight",
    ("Mul", 1): "factor",
    ("Reshape", 1): "shape",
}


def export_onnx(model: nn.Module, path: Path, input_shape: tuple[int, int, int]) -> None:
    """Write `model` to `path` as float32 ONNX, opset 20, one file, with a free batch axis.

    The input is ``image``, float32, a batch of `input_shape`, the output ``logits``. BatchNorm is folded into the
    convolutions. Nodes and their outputs are named after their modules (``/encoders/0/attention/query/MatMul``).
    The file is checked by onnx.checker and compared with `model` in ONNX Runtime before it appears at `path`.

    Raises ModelError when the file does not compute what `model` computes.
    """
    folded = fold_batch_norm(model)
    example = torch.zeros(2, *input_shape)
    program = torch.onnx.export(
        folded,
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    if program is None:
        raise ModelError(f"torch.onnx.export produced nothing for {type(model).__name__}")
    proto = program.model_proto
    _name_after_modules(proto, {name for name, _ in folded.named_parameters()})
    _strip(proto, type(model).__name__)
    onnx.checker.check_model(proto, full_check=True)
    _compare(proto, folded, input_shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(proto.SerializeToString())
    part.replace(path)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of `model` in evaluation mode whose `ConvBN` layers are plain convolutions with bias."""
    folded = copy.deepcopy(model).eval()
    for layer in folded.modules():
        if isinstance(layer, ConvBN) and isinstance(layer.bn, nn.BatchNorm2d):
            assert isinstance(layer.conv, nn.Conv2d)
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.bn)
            layer.bn = nn.Identity()
    return folded


def _module_path(node: onnx.NodeProto) -> str:
    """Module that a node comes from, as a path: ``/encoders/0/norm1``; the empty string for the network itself."""
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "['', '']")
    *modules, _operation = ast.literal_eval(scopes)
    return "/" + modules[-1].replace(".", "/") if modules and modules[-1] else ""


def _name_after_modules(proto: onnx.ModelProto, parameters: set[str]) -> None:
    """Rename nodes, their outputs and the exporter's constants; inputs, outputs and `parameters` keep their names."""
    graph = proto.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    constants = {constant.name for constant in graph.initializer} - parameters
    renamed: dict[str, str] = {}
    used: Counter[str] = Counter()

    def unique(name: str) -> str:
        used[name] += 1
        return name if used[name] == 1 else f"{name}_{used[name] - 1}"

    for node in graph.node:
        node.name = unique(f"{_module_path(node)}/{node.op_type}")
        for position, name in enumerate(node.input):
            if name in constants and name not in renamed:
                role = _CONSTANT_ROLES.get((node.op_type, position), f"input{position}")
                renamed[name] = unique(f"{node.name}/{role}")
        for position, name in enumerate(node.output):
            if name and name not in kept:
                renamed[name] = node.name if position == 0 else f"{node.name}/output{position}"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for constant in graph.initializer:
        constant.name = renamed.get(constant.name, constant.name)


def _strip(proto: onnx.ModelProto, graph_name: str) -> None:
    """Remove what the exporter leaves behind: stack traces with file paths, signatures, inferred shapes."""
    graph = proto.graph
    graph.name = graph_name
    graph.doc_string = proto.doc_string = ""
    proto.producer_name, proto.producer_version = "tinyformer", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    for constant in graph.initializer:
        constant.doc_string = ""
        del constant.metadata_props[:]


def _compare(proto: onnx.ModelProto, model: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Run both on random images, batches of 1 and 5, and insist on the same logits up to float rounding."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 5):
        images = torch.rand(batch, *input_shape, generator=generator) * 2 - 1
        with torch.no_grad():
            expected = model(images).numpy()
        (found,) = session.run([OUTPUT_NAME], {INPUT_NAME: images.numpy()})
        if found.shape != expected.shape:
            raise ModelError(f"exported network gives logits {found.shape}, PyTorch gives {expected.shape}")
        difference = float(np.abs(found - expected).max())
        if difference > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ModelError(f"exported network differs from PyTorch by {difference:.2e} in a logit")
