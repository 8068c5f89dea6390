"""What makes a quantisation better: each technique on a network in which it must help, and all of them together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import refsim
from codegen.onnx import load, quantize
from codegen.onnx.batch_norm import fold_batch_norms
from codegen.onnx.constants import affine
from codegen.onnx.equalisation import Equalisation, equalise
from codegen.onnx.layers import float_layers, fused
from codegen.onnx.mse_range import Histogram, mse_range
from codegen.onnx.reader import ModelFile, read_file, read_proto
from codegen.onnx.runner import Runner
from codegen.onnx.search import Score
from codegen.onnx.weight_rounding import add_gram, clip_weight, round_weight
from refsim.comparison import decibels
from refsim.errors import DataError, ModelError
from refsim.ops.linear import Linear
from tests.codegen.onnx_models import PATTERNS, Net
from tests.codegen.test_onnx_errors import saved
from tests.codegen.test_onnx_patterns import STEPS, likeness, operators, run_file, steps_apart

EVERYTHING: dict[str, Any] = {"method": "mse", "equalise": True, "bias_correction": True}


def sqnr(found: NDArray[np.float32], real: NDArray[np.float32]) -> float:
    error = found.astype(np.float64) - real
    return decibels(float(np.square(real.astype(np.float64)).sum()), float(np.square(error).sum()))


def quality(path: Path, x: NDArray[np.float32], **options: Any) -> float:
    """SQNR of the integer model's output in dB, on the calibration samples."""
    out = path.with_name("qdq.onnx")
    onnx.save(quantize(path, x, **options), out)
    (found,) = refsim.predict(load(out), x).values()
    return sqnr(found, run_file(path, x))


# all together -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_stays_what_it_is(name: str, tmp_path: Path) -> None:
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    x = net.samples(16)
    onnx.save(quantize(tmp_path / "float.onnx", x, **EVERYTHING), tmp_path / "qdq.onnx")
    onnx.checker.check_model(str(tmp_path / "qdq.onnx"))
    graph = load(tmp_path / "qdq.onnx")
    assert operators(graph) == PATTERNS[name].operators
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, run_file(tmp_path / "qdq.onnx", x)) <= STEPS
    assert likeness(found, run_file(tmp_path / "float.onnx", x)) > 0.98


def pruned(tmp_path: Path) -> tuple[Path, NDArray[np.float32]]:
    """Convolutions and linear layers, two weights of three zero, rows of zeros among them."""
    net = Net(4, 8, 8)
    y = net.add("Relu", net.conv("x", 4, 8, 3, pads=[1, 1, 1, 1]))
    y = net.add("Relu", net.conv(y, 8, 8, 3, pads=[1, 1, 1, 1], group=8))
    y = net.add("Relu", net.conv(y, 8, 6, 1, bias=False))
    y = net.linear(net.add("Flatten", net.add("GlobalAveragePool", y)), 6, 12)
    path = saved(net, net.linear(net.add("Relu", y), 12, 5), tmp_path / "float.onnx")
    model = onnx.load(path)
    random = np.random.default_rng(3)
    for tensor in model.graph.initializer:
        weight = onnx.numpy_helper.to_array(tensor)
        if weight.ndim > 1:
            kept = np.where(random.random(weight.shape) < 1 / 3, weight, 0).astype(np.float32)
            kept[..., -1:] = 0 if weight.ndim == 2 else kept[..., -1:]
            tensor.CopyFrom(onnx.numpy_helper.from_array(kept, tensor.name))
    onnx.save(model, path)
    return path, net.samples(12)


@pytest.mark.parametrize("options", [{}, {"bias_correction": True}, {"equalise": True}, {**EVERYTHING, "search": 40}])
def test_pruned_weights_stay_zero(options: dict[str, Any], tmp_path: Path) -> None:
    path, x = pruned(tmp_path)
    proto = quantize(path, x, **options)
    file, stored = read_file(path), read_proto(proto)
    quantized = {node.name: node for node in proto.graph.node}
    writers = {name: node for node in proto.graph.node for name in node.output}
    layers = float_layers(file, fused(file))
    assert len(layers) == 5
    for layer in layers:
        source = writers[quantized[layer.node.name].input[1]]
        assert source.op_type == "DequantizeLinear"
        integers = stored.values[source.input[0]]
        assert integers.dtype == np.int8
        assert (layer.weight == 0).mean() > 0.4
        assert not integers[layer.weight == 0].any()


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    path, x = pruned(tmp_path)
    first, second = (quantize(path, x, search=12, **EVERYTHING).SerializeToString() for _ in range(2))
    assert first == second


# ranges of least squared error ------------------------------------------------------------------------------------


def test_mse_range_cuts_off_what_is_not_worth_its_steps() -> None:
    random = np.random.default_rng(0)
    x = np.concatenate([random.standard_normal(1_000_000), [40.0]]).astype(np.float32)
    histogram = Histogram(float(x.min()), float(x.max()))
    histogram.add(x)
    low, high = mse_range(histogram)

    def error(limits: tuple[float, float]) -> float:
        scale, zero_point = affine(*limits)
        q = np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point
        return float(np.square(q * scale - x.astype(np.float64)).mean())

    assert 3 < high < 20
    assert -5 < low < -3
    assert error((low, high)) < 0.5 * error((float(x.min()), 40.0))


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0, 3.0], [-1.0, -1.0], list(range(256))])
def test_mse_range_of_values_that_fit_is_exact(values: list[float]) -> None:
    """All values lie on steps of the full range, as the pixels of an image do: nothing is gained by another."""
    x = np.array(values, np.float32)
    histogram = Histogram(float(x.min()), float(x.max()))
    histogram.add(x)
    assert mse_range(histogram) == (min(0.0, x.min()), max(0.0, x.max()))


def test_mse_helps_where_few_values_are_large(tmp_path: Path) -> None:
    net = Net(512, 16)
    path = saved(net, net.linear("x", 16, 8), tmp_path / "float.onnx")
    x = net.samples(100)
    x[0, 0, 0] = 40
    assert quality(path, x, method="mse") > quality(path, x, method="minmax") + 1


# equalisation -----------------------------------------------------------------------------------------------------


def scaled_depthwise(activation: str = "Relu", spread: float = 100.0) -> tuple[Net, str]:
    """A separable block whose channels differ in size by `spread` from one layer to the next, as trained ones do."""
    net = Net(4, 8, 8)
    size = np.geomspace(1, spread, 8)

    def conv(x: str, weight: NDArray[np.float64], **attributes: Any) -> str:
        name, bias = net.const(weight), net.weight(len(weight), scale=0.01)
        y: str = net.add("Conv", x, name, bias, kernel_shape=list(weight.shape[2:]), **attributes)
        if activation == "Relu":
            return str(net.add("Relu", y))
        return str(net.add("Clip", y, net.const(0), net.const(6)))

    y = conv("x", net.random.standard_normal((8, 4, 1, 1)) * size.reshape(-1, 1, 1, 1) / spread)
    y = conv(y, np.abs(net.random.standard_normal((8, 1, 3, 3))) / size.reshape(-1, 1, 1, 1), pads=[1] * 4, group=8)
    y = net.add("Flatten", net.add("MaxPool", y, kernel_shape=[4, 4], strides=[4, 4]))
    columns = np.repeat(size[::-1], 4).reshape(-1, 1)
    return net, net.add("Gemm", y, net.const(net.random.standard_normal((32, 5)) * columns), net.weight(5))


def equalised(path: Path) -> tuple[ModelFile, Equalisation]:
    file = read_proto(fold_batch_norms(read_file(path).proto))
    return file, equalise(file)


def test_equalisation_keeps_the_float_model_and_balances_it(tmp_path: Path) -> None:
    net, output = scaled_depthwise()
    path = saved(net, output, tmp_path / "float.onnx")
    file, result = equalised(path)
    assert result.pairs == (("/conv_0", "/conv_2"), ("/conv_2", "/gemm_6"))
    assert result.bounded == ()
    onnx.save(result.proto, tmp_path / "equalised.onnx")
    x = net.samples(16)
    assert sqnr(run_file(tmp_path / "equalised.onnx", x), run_file(path, x)) > 110
    balanced = read_proto(result.proto)
    for before, after in zip(float_layers(file, fused(file)), float_layers(balanced, fused(balanced)), strict=True):
        ratio = [
            np.ptp(np.log(np.abs(layer.weight.reshape(len(layer.weight), -1)).max(axis=1))) for layer in (before, after)
        ]
        assert ratio[1] < max(0.5 * ratio[0], 2.5), before.op.name


def test_equalisation_helps_one_scale_a_weight(tmp_path: Path) -> None:
    net, output = scaled_depthwise()
    path = saved(net, output, tmp_path / "float.onnx")
    x = net.samples(32)
    assert quality(path, x, per_channel=False, equalise=True) > quality(path, x, per_channel=False) + 10


def test_an_activation_with_other_bounds_is_left_alone(tmp_path: Path) -> None:
    net, output = scaled_depthwise("Clip")
    path = saved(net, output, tmp_path / "float.onnx")
    _, result = equalised(path)
    assert result.pairs == ()
    assert result.bounded == (("/conv_0", "/conv_2"), ("/conv_2", "/gemm_6"))


def _grouped() -> tuple[Net, str]:
    net = Net(4, 6, 6)
    y = net.add("LeakyRelu", net.conv("x", 4, 6, 3), alpha=0.1)
    y = net.add("Relu", net.conv(y, 6, 8, 3, group=2))
    y = net.add("AveragePool", y, kernel_shape=[2, 2])
    return net, net.conv(y, 8, 4, 1)


def _not_finite() -> tuple[Net, str]:
    net = Net(8)
    y = net.add("Relu", net.add("MatMul", "x", net.const(np.full((8, 8), np.inf))))
    return net, net.linear(y, 8, 8)


def test_weights_that_are_not_finite_are_refused_as_ever(tmp_path: Path) -> None:
    net, output = _not_finite()
    path = saved(net, output, tmp_path / "float.onnx")
    with pytest.raises(ModelError, match="not finite"):
        quantize(path, net.samples(4), **EVERYTHING)


def _read_twice() -> tuple[Net, str]:
    net = Net(8)
    hidden = net.add("Relu", net.linear("x", 8, 8))
    return net, net.add("Add", net.linear(hidden, 8, 8), hidden)


def _gelu() -> tuple[Net, str]:
    net = Net(8)
    return net, net.linear(net.add("Gelu", net.linear("x", 8, 8), domain="com.microsoft"), 8, 8)


def _transposed() -> tuple[Net, str]:
    net = Net(8)
    y = net.add("Relu", net.add("Gemm", "x", net.weight(12, 8), net.weight(1, 12), transB=1, beta=0.5))
    y = net.add("Relu", net.add("Gemm", y, net.weight(6, 12), net.weight(6), transB=1))
    return net, net.add("Gemm", y, net.weight(6, 4))


@pytest.mark.parametrize(
    ("build", "pairs"),
    [(_grouped, 2), (_read_twice, 0), (_gelu, 0), (_transposed, 1)],
    ids=["groups, leaky ReLU and pooling", "read twice", "GELU", "transposed weights; a bias that is not plain"],
)
def test_which_layers_are_balanced(build: Callable[[], tuple[Net, str]], pairs: int, tmp_path: Path) -> None:
    net, output = build()
    path = saved(net, output, tmp_path / "float.onnx")
    _, result = equalised(path)
    assert len(result.pairs) == pairs
    onnx.save(result.proto, tmp_path / "equalised.onnx")
    x = net.samples(8)
    assert sqnr(run_file(tmp_path / "equalised.onnx", x), run_file(path, x)) > 110


# bias correction --------------------------------------------------------------------------------------------------


def biased(tmp_path: Path, bias: bool) -> tuple[Path, NDArray[Any]]:
    """Weights that one scale rounds badly, behind inputs that are all positive: rounding moves every mean."""
    net = Net(32)
    y = "x"
    for _ in range(2):
        weight = net.random.standard_normal((32, 32)) * 0.05
        weight[0, 0] = 3
        y = net.add("MatMul", y, net.const(weight))
        y = net.add("Relu", net.add("Add", y, net.weight(32, scale=0.1)) if bias else y)
    y = net.add("MatMul", y, net.weight(32, 6))
    return saved(net, y, tmp_path / "float.onnx"), np.abs(net.samples(64)) * 0.1 + 1


@pytest.mark.parametrize("bias", [True, False])
def test_bias_correction_helps_where_means_move(bias: bool, tmp_path: Path) -> None:
    path, x = biased(tmp_path, bias)
    plain = quality(path, x, per_channel=False)
    assert quality(path, x, per_channel=False, bias_correction=True) > plain + 4
    graph = load(tmp_path / "qdq.onnx")
    assert operators(graph) == "linear linear linear"
    (found,) = refsim.predict(graph, x).values()
    assert steps_apart(graph, found, run_file(tmp_path / "qdq.onnx", x)) <= STEPS
    shift = (found - run_file(path, x)).mean(axis=0)
    assert np.abs(shift).max() < graph.tensors[graph.outputs[0].tensor].scale


def test_bias_correction_leaves_weights_alone(tmp_path: Path) -> None:
    path, x = biased(tmp_path, True)
    weights = []
    for correction in (False, True):
        onnx.save(quantize(path, x, bias_correction=correction), tmp_path / "qdq.onnx")
        ops = [node.op for node in load(tmp_path / "qdq.onnx").nodes]
        weights.append([op.weight for op in ops if isinstance(op, Linear)])
    assert len(weights[0]) == 3
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


# weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, None])
def test_clipped_weights_err_less(axis: int | None) -> None:
    random = np.random.default_rng(1)
    shape = (20_000, 4) if axis == 1 else (4, 20_000)  # many weights share a scale: then fewer may well be cut off
    weight = random.standard_normal(shape) ** 3 * (random.random(shape) < 0.7)
    clipped = clip_weight(weight, axis)

    def error(limits: NDArray[np.float64]) -> float:
        steps = np.abs(limits).max(axis=None if axis is None else 1 - axis, keepdims=True) / 127
        return float(np.square(np.clip(np.rint(weight / steps), -127, 127) * steps - weight).sum())

    assert error(clipped) < error(weight)
    assert not clipped[weight == 0].any()
    assert np.array_equal(np.sign(clipped), np.sign(weight))
    assert (np.abs(clipped) <= np.abs(weight)).all()


@pytest.mark.parametrize("name", ["convolutional", "inverted_residual", "one_dimensional"])
def test_gram_matrix_is_what_a_layer_sees(name: str, tmp_path: Path) -> None:
    """w' G w is the mean square of the layer's sums without bias, as ONNX Runtime computes them."""
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    file = read_proto(fold_batch_norms(read_file(tmp_path / "float.onnx").proto))
    x = {"x": net.samples(4)}
    for layer in float_layers(file, fused(file)):
        node = layer.node
        bias = np.zeros(layer.channels) if len(node.input) < 3 else np.asarray(file.values[node.input[2]], np.float64)
        gram, signal, count = None, np.zeros(layer.channels), 0
        for values in Runner(file.proto, [node.input[0], node.output[0]], file.batch).run(x):
            gram = add_gram(gram, layer, values[node.input[0]])
            axis = 1 if layer.op.kind == "Conv" else -1
            rows = np.moveaxis(values[node.output[0]], axis, -1).reshape(-1, layer.channels) - bias
            signal += np.square(rows).sum(axis=0)
            count += len(rows)
        assert gram is not None
        weights = np.moveaxis(layer.weight, layer.axis, 0).reshape(len(gram), -1, gram.shape[1])
        found = np.einsum("gok,gkl,gol->go", weights, gram, weights).reshape(-1)
        np.testing.assert_allclose(found, signal, rtol=1e-4)


@pytest.mark.parametrize("per_channel", [True, False])
def test_rounded_weights_err_less_in_sums(per_channel: bool) -> None:
    random = np.random.default_rng(2)
    inputs = random.standard_normal((500, 12)) @ random.standard_normal((12, 30)) + 1  # correlated
    weight = random.standard_normal((30, 9)) * (random.random((30, 9)) < 0.6)
    gram = (inputs.T @ inputs)[None]
    rounded = round_weight(weight, gram, 1, per_channel=per_channel)
    steps = np.abs(weight).max(axis=0 if per_channel else None, keepdims=True) / 127
    nearest = np.rint(weight / steps) * steps
    assert np.square(inputs @ (rounded - weight)).sum() < 0.5 * np.square(inputs @ (nearest - weight)).sum()
    assert (np.abs(rounded - weight) < 1.001 * steps).all()
    assert np.abs(rounded / steps - np.rint(rounded / steps)).max() < 1e-4
    assert not rounded[weight == 0].any()
    again = round_weight(rounded, gram, 1, per_channel=per_channel)
    np.testing.assert_array_equal(again, rounded)


# search -----------------------------------------------------------------------------------------------------------


def test_search_finds_what_costs_most_within_its_budget(tmp_path: Path) -> None:
    """A large channel that no weight reads wastes the input's range, which only the output's error can show."""
    net = Net(16, 16)
    weight = net.random.standard_normal((16, 4))
    weight[0] = 0
    path = saved(net, net.add("MatMul", "x", net.const(weight)), tmp_path / "float.onnx")
    x = net.samples(32)
    x[:, :, 0] *= 50
    plain = quality(path, x)
    lines: list[str] = []
    done: list[tuple[int, int | None]] = []
    found = quality(path, x, search=30, report=lines.append, progress=lambda n, total: done.append((n, total)))
    assert found > plain + 10
    assert any(f"{found:.1f} dB after" in line for line in lines)
    assert [n for n, total in done if total == 30] == list(range(1, len(done) + 1))
    assert len(done) <= 30


def test_what_chance_could_bring_is_no_gain() -> None:
    noise = np.full(16, 1.0)
    assert Score(100, noise - 0.1).beats(Score(100, noise))
    assert not Score(100, noise - 1e-4).beats(Score(100, noise))  # sure, but nothing to speak of
    lucky = noise.copy()
    lucky[0] = 0.1  # one sample alone gains, and enough to move the mean
    assert Score(100, lucky).sqnr_db > Score(100, noise).sqnr_db + 0.2
    assert not Score(100, lucky).beats(Score(100, noise))
    assert not Score(100, np.array([0.1])).beats(Score(100, np.array([1.0])))


@pytest.mark.parametrize("name", ["inverted_residual", "convolutional"])
def test_search_is_never_worse_on_its_samples(name: str, tmp_path: Path) -> None:
    net = PATTERNS[name].write(tmp_path / "float.onnx")
    x = net.samples(16)
    for options in ({}, EVERYTHING):
        plain = quality(tmp_path / "float.onnx", x, **options)
        assert quality(tmp_path / "float.onnx", x, search=25, **options) >= plain - 1e-6


def test_search_of_one_sample_and_of_a_fixed_batch(tmp_path: Path) -> None:
    net = Net(8, batch=4)
    path = saved(net, net.linear(net.add("Relu", net.linear("x", 8, 8)), 8, 3), tmp_path / "float.onnx")
    for count in (1, 6):
        onnx.save(quantize(path, net.samples(count), search=6, **EVERYTHING), tmp_path / "qdq.onnx")
        assert operators(load(tmp_path / "qdq.onnx")) == "linear linear"


def test_a_negative_budget_is_refused(tmp_path: Path) -> None:
    path, x = pruned(tmp_path)
    with pytest.raises(DataError, match="at least 0 evaluations, found -1"):
        quantize(path, x, search=-1)


# from the library -------------------------------------------------------------------------------------------------


def test_load_takes_a_calibration(tmp_path: Path) -> None:
    path, x = biased(tmp_path, True)
    model = refsim.load(path, calibration=refsim.Calibration(x, **EVERYTHING))
    onnx.save(quantize(path, x, **EVERYTHING), tmp_path / "qdq.onnx")
    (expected,) = refsim.predict(load(tmp_path / "qdq.onnx"), x).values()
    np.testing.assert_array_equal(model.predict(x), expected)
    assert not np.array_equal(refsim.load(path, calibration=x).predict(x), expected)
