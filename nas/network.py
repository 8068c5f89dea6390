"""The torch network of a description (`nas.layers`): same names, same weights, no graph export between.

In training a convolution has batch normalisation behind it and no bias. `folded` makes a network without, whose
parameters are those of the description and hence of the ONNX file that `nas.writer` writes.
"""

# mypy: allow-subclassing-any
# (torch is optional: where it is not installed its classes have no types)
# ruff: noqa: D102 - a module's `forward` is what its docstring describes

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from codegen.onnx.writer import LAYER_NORM_EPS
from nas.layers import MODULE_INPUT, Activation, Kind, Layer, Module, Network
from refsim.errors import ModelError

_CACHED_SCORES = 2**20
"""Attention scores that are computed at a time on a CPU."""

PARAMETRIC = (Kind.CONV, Kind.LINEAR)
"""Kinds with a weight that is pruned and quantised to int8."""


class Rounding(Protocol):
    """Stands between the operations of a network and sees, or changes, what passes (`nas.quantisation_aware`)."""

    def activation(self, name: str, x: Tensor) -> Tensor:
        """A tensor that one integer operator hands to the next: a layer's output, or one inside an attention."""
        ...

    def weight(self, layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
        """The weight of a convolution or linear layer that is about to meet its input `x`."""
        ...


class Convolution(nn.Conv2d):
    """Convolution with "same" padding for odd kernels; with `norm`, batch normalisation instead of a bias."""

    def __init__(self, layer: Layer, norm: bool) -> None:
        assert layer.weight is not None
        outputs, inputs, height, width = layer.weight
        super().__init__(
            inputs * layer.groups,
            outputs,
            layer.kernel,
            stride=layer.stride,
            padding=(height // 2, width // 2),
            groups=layer.groups,
            bias=not norm,
        )
        self.bn = nn.BatchNorm2d(outputs) if norm else None


Parametric: TypeAlias = Convolution | nn.Linear | nn.LayerNorm
"""A torch layer with a weight and, but for batch normalisation, a bias."""


class Candidate(nn.Module):
    """One module of a description: its layers with parameters as children, called as the layers are."""

    def __init__(self, module: Module, norm: bool) -> None:
        super().__init__()
        self.description = module
        self.prefix, _, _ = module.layers[0].name.rpartition(".")
        for layer in module.layers:
            if layer.weight is not None:
                self.add_module(layer.name.removeprefix(f"{self.prefix}."), _parametric(layer, norm))

    def layer(self, layer: Layer) -> Parametric:
        """The torch layer that holds the parameters of `layer`."""
        return cast(Parametric, self.get_submodule(layer.name.removeprefix(f"{self.prefix}.")))

    def forward(self, x: Tensor, rounding: Rounding | None = None) -> Tensor:
        tensors = {MODULE_INPUT: x}
        for layer in self.description.layers:
            tensors[layer.name] = self._run(layer, [tensors[name] for name in layer.inputs], rounding)
        return tensors[self.description.output.name]

    def _run(self, layer: Layer, inputs: list[Tensor], rounding: Rounding | None) -> Tensor:
        x = inputs[0]
        match layer.kind:
            case Kind.TO_TOKENS:
                return x.flatten(2).transpose(1, 2)
            case Kind.TO_MAP:
                return x.transpose(1, 2).reshape(-1, *layer.shape)
            case Kind.MAX_POOL:
                return functional.max_pool2d(x, layer.kernel, layer.stride, ceil_mode=True)
            case Kind.CONV | Kind.LINEAR:
                y = _activate(self._weighted(layer, x, rounding), layer.activation)
            case Kind.LAYER_NORM:
                y = self.layer(layer)(x)
            case Kind.ATTENTION:
                y = _attention(layer, rounding, *inputs)
            case Kind.ADD:
                y = x + inputs[1]
            case Kind.SEQUENCE_POOL:
                y = _sequence_pool(layer, x, inputs[1], rounding)
            case Kind.MEAN:
                y = x.mean(dim=(2, 3))
        return rounding.activation(layer.name, y) if rounding else y

    def _weighted(self, layer: Layer, x: Tensor, rounding: Rounding | None) -> Tensor:
        module = self.layer(layer)
        weight = module.weight if rounding is None else rounding.weight(layer, module.weight, x)
        if not isinstance(module, Convolution):
            return functional.linear(x, weight, module.bias)
        y = functional.conv2d(x, weight, module.bias, module.stride, module.padding, groups=module.groups)
        return y if module.bn is None else cast(Tensor, module.bn(y))


class PathNetwork(nn.Module):
    """A single path: (batch, channels, height, width) float32 -> logits (batch, classes).

    Attributes:
        network: its description.
        batch_norm: whether its convolutions have batch normalisation, for training, or biases.
        rounding: None, or what stands between the operations.
    """

    def __init__(self, network: Network, *, batch_norm: bool = True) -> None:
        super().__init__()
        self.network = network
        self.batch_norm = batch_norm
        self.rounding: Rounding | None = None
        self.candidates = [Candidate(module, batch_norm) for module in network.modules]
        for candidate in self.candidates:
            attach(self, candidate)

    def forward(self, x: Tensor) -> Tensor:
        if self.rounding:
            x = self.rounding.activation(MODULE_INPUT, x)
        for candidate in self.candidates:
            x = candidate(x, self.rounding)
        return x

    def layers(self) -> Iterator[tuple[Layer, Parametric]]:
        """The layers that hold parameters, with their descriptions, in execution order."""
        for candidate in self.candidates:
            for layer in candidate.description.layers:
                if layer.weight is not None:
                    yield layer, candidate.layer(layer)


def attach(root: nn.Module, candidate: Candidate) -> None:
    """Make a candidate the child of `root` that its layers' names say: ``stages.0.downsample.conv-stride2``."""
    *containers, last = candidate.prefix.split(".")
    for name in containers:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, candidate)


def folded(model: PathNetwork) -> PathNetwork:
    """A copy in evaluation mode without batch normalisation, which computes the same; zero weights stay zero."""
    result = PathNetwork(model.network, batch_norm=False)
    result.eval()
    result.load_state_dict(_folded_state(model))
    result.to(next(model.parameters()).device)
    return result


def weights(model: PathNetwork) -> dict[str, NDArray[np.float32]]:
    """The parameters of the description, float32, batch normalisation folded (`nas.writer.Weights`)."""
    return {name: tensor.float().cpu().numpy() for name, tensor in _folded_state(model).items()}


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Take the statistics of batch normalisation anew, as the mean over `batches` of normalised images.

    A supernet's are those of all its paths mixed; a single path, or a pruned one, needs its own (Guo et al., 2020).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean of the batches
    was_training = model.training
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _parametric(layer: Layer, norm: bool) -> Parametric:
    assert layer.weight is not None
    if layer.kind is Kind.CONV:
        return Convolution(layer, norm)
    if layer.kind is Kind.LINEAR:
        return nn.Linear(layer.weight[1], layer.weight[0])
    if layer.kind is Kind.LAYER_NORM:
        return nn.LayerNorm(layer.weight[0], eps=LAYER_NORM_EPS)
    raise ModelError(f"layer {layer.name!r}: a {layer.kind.value} layer has no parameters")


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation is Activation.RELU:
        return functional.relu(x)
    return functional.relu6(x) if activation is Activation.RELU6 else x


def _attention(layer: Layer, rounding: Rounding | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    tokens, _ = layer.shape
    if rounding is None and query.device.type == "cpu":
        # Scores that stay in the cache: up to five times as fast as torch's own scaled_dot_product_attention.
        count = max(1, _CACHED_SCORES // (layer.heads * tokens**2))
        parts = zip(query.split(count), key.split(count), value.split(count), strict=True)
        return torch.cat([_attend(layer, None, *part) for part in parts])
    return _attend(layer, rounding, query, key, value)


def _attend(layer: Layer, rounding: Rounding | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    tokens, dim = layer.shape

    def apart(x: Tensor) -> Tensor:
        return x.reshape(-1, tokens, layer.heads, dim // layer.heads).transpose(1, 2)

    query, key, value = apart(query), apart(key), apart(value)
    scale = (dim // layer.heads) ** -0.5
    if rounding is None:
        y = torch.softmax(query * scale @ key.transpose(-2, -1), dim=-1) @ value
    else:
        scores = rounding.activation(f"{layer.name}.scores", query @ key.transpose(-2, -1))
        y = rounding.activation(f"{layer.name}.softmax", torch.softmax(scores * scale, dim=-1)) @ value
    return y.transpose(1, 2).reshape(-1, tokens, dim)


def _sequence_pool(layer: Layer, scores: Tensor, tokens: Tensor, rounding: Rounding | None) -> Tensor:
    shares = torch.softmax(scores.transpose(1, 2), dim=-1)
    if rounding is not None:
        shares = rounding.activation(f"{layer.name}.softmax", shares)
    return (shares @ tokens).squeeze(1)


def _folded_state(model: PathNetwork) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for layer, module in model.layers():
        weight, bias = module.weight.detach(), module.bias
        norm = module.bn if isinstance(module, Convolution) else None
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            factor = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
            weight = weight * factor.reshape(-1, 1, 1, 1)
            bias = norm.bias - norm.running_mean * factor
        assert bias is not None
        state[f"{layer.name}.weight"], state[f"{layer.name}.bias"] = weight.contiguous(), bias.detach().clone()
    return state
