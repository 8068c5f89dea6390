"""TensorFlow Lite files: the bytes of LiteRT's reference kernels, operator by operator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import codegen
import refsim
from codegen.tflite import load, read_graph
from codegen.tflite.profiles import find_profile
from conformance.litert import compare, random_samples, run_ports
from refsim.errors import ModelError, UnsupportedError
from refsim.numerics import Rounding
from refsim.ops.conv2d import Conv2D
from refsim.ops.linear import Linear
from tests.codegen.tflite_cases import CASES, build, samples
from tests.codegen.tflite_models import TFLiteNet

GOLDEN = np.load(Path(__file__).with_name("tflite_golden.npz"))
STORED = sorted({name.rsplit("/model")[0] for name in GOLDEN.files if name.endswith("/model")})


@pytest.mark.parametrize("key", STORED)
def test_stored_results_of_the_reference_kernels(key: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(GOLDEN[f"{key}/model"].tobytes())
    start = f"{key}/input/"
    inputs = {name.removeprefix(start): GOLDEN[name] for name in GOLDEN.files if name.startswith(start)}
    graph = load(path)
    found = run_ports(graph, inputs)[graph.outputs[0].name]
    np.testing.assert_array_equal(found.reshape(found.shape[0], -1), GOLDEN[f"{key}/output"])


def test_every_kind_has_stored_results() -> None:
    assert {key.split("/")[0] for key in STORED} == set(CASES)


@pytest.mark.parametrize("kind", CASES)
def test_random_networks_against_litert(kind: str, tmp_path: Path) -> None:
    """All tensors before the passes, and the outputs behind them."""
    pytest.importorskip("ai_edge_litert", reason='LiteRT is not installed: pip install "tinyformer[litert]"')
    path = tmp_path / "m.tflite"
    for seed in range(1000, 1012):
        net = build(kind, seed)
        net.write(path)
        found = compare(path, samples(net, np.random.default_rng(seed), 2))
        assert not found.differing, f"seed {seed}"
        assert found.tensors >= 3 and found.bytes > 0


@pytest.mark.parametrize("kind", sorted(set(CASES) - set(find_profile("cmsis-nn").refused)))
def test_random_networks_against_tensorflow_lite_micro(kind: str, tmp_path: Path) -> None:
    """The profile cmsis-nn, by the portable kernels."""
    runtime = pytest.importorskip("tflite_micro", reason="tflite-micro is not installed").runtime
    path = tmp_path / "m.tflite"
    for seed in range(2000, 2012):
        net = build(kind, seed)
        inputs = samples(net, np.random.default_rng(seed), 2)
        graph = load(net.write(path), profile="cmsis-nn")
        found = run_ports(graph, inputs)[graph.outputs[0].name]
        micro = runtime.Interpreter.from_file(str(path), arena_size=2**20)
        for index, y in enumerate(found):
            for position, x in enumerate(inputs.values()):
                micro.set_input(x[index : index + 1], position)
            micro.invoke()
            np.testing.assert_array_equal(micro.get_output(0).reshape(y.shape), y, err_msg=f"seed {seed}")


def _convolution(tmp_path: Path) -> tuple[TFLiteNet, int, int, Path]:
    rng = np.random.default_rng(0)
    net = TFLiteNet()
    x = net.input([1, 4, 4, 2], 0.5, 3)
    w = net.constant(rng.integers(-127, 128, (3, 1, 1, 2)).astype(np.int8), [0.01, 0.02, 0.03])
    b = net.constant(np.array([5, -6, 7], np.int32), 0.005)
    y = net.tensor([1, 4, 4, 3], 0.7, -4)
    net.add("CONV_2D", [x, w, b], y, {0: ("b", 1), 1: ("i", 1), 2: ("i", 1)})
    return net, x, y, tmp_path / "model.tflite"


def test_float_edges_become_ports(tmp_path: Path) -> None:
    plain, _, y, path = _convolution(tmp_path)
    plain.write(path, y)
    bare = load(path)
    net, x, y, path = _convolution(tmp_path)
    real_in, real_out = net.input([1, 4, 4, 2], None, dtype="float32"), net.tensor([1, 4, 4, 3], dtype="float32")
    net.inputs = [real_in]
    net.operators.insert(0, ("QUANTIZE", [real_in], [x], {}, None))
    net.add("DEQUANTIZE", [y], real_out)
    net.write(path, real_out)
    graph = codegen.load(path)
    assert [port.name for port in (*graph.inputs, *graph.outputs)] == [f"t{real_in}", f"t{real_out}"]
    assert [node.op.name for node in graph.nodes] == ["conv2d"]
    q = random_samples(bare, 3, seed=1)
    real = (q["t0"].astype(np.float32) - 3) * np.float32(0.5)
    tensor = bare.outputs[0].tensor
    expected = bare.tensors[tensor].dequantize(refsim.run(bare, q)[tensor])
    np.testing.assert_array_equal(refsim.predict(graph, real)[f"t{real_out}"], expected)


def test_uint8_edges_become_ports(tmp_path: Path) -> None:
    net, x, y, path = _convolution(tmp_path)
    byte_in, byte_out = (
        net.input([1, 4, 4, 2], 0.5, 131, dtype="uint8"),
        net.tensor([1, 4, 4, 3], 0.7, 124, dtype="uint8"),
    )
    net.inputs = [byte_in]
    net.operators.insert(0, ("QUANTIZE", [byte_in], [x], {}, None))
    net.add("QUANTIZE", [y], byte_out)
    graph = load(net.write(path, byte_out))
    assert [port.name for port in (*graph.inputs, *graph.outputs)] == [f"t{byte_in}", f"t{byte_out}"]
    assert [node.op.name for node in graph.nodes] == ["conv2d"]
    net.tensors[byte_in]["zero_point"] = np.array([130])
    with pytest.raises(UnsupportedError, match="quantised otherwise"):
        load(net.write(path))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_litert_compares_at_other_edges(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason='LiteRT is not installed: pip install "tinyformer[litert]"')
    net, x, y, path = _convolution(tmp_path)
    edges = ((0.5, 131), (0.7, 124)) if dtype == "uint8" else ((None, 0), (None, 0))
    outside, result = net.input([1, 4, 4, 2], *edges[0], dtype=dtype), net.tensor([1, 4, 4, 3], *edges[1], dtype=dtype)
    net.inputs = [outside]
    net.operators.insert(0, ("QUANTIZE", [outside], [x], {}, None))
    net.add("QUANTIZE" if dtype == "uint8" else "DEQUANTIZE", [y], result)
    graph = load(net.write(path, result))
    samples = random_samples(graph, 3, 0)
    found = compare(path, samples)
    assert not found.differing and found.same_class == 3 and found.bytes == 3 * (32 + 48 + 48)
    (node,) = graph.nodes
    assert isinstance(node.op, Conv2D)
    other = replace(node.op, bias=node.op.bias + np.int32(1000))
    broken = replace(graph, nodes=(replace(node, op=other),))
    monkeypatch.setattr("conformance.litert.load", lambda path: broken)
    assert set(compare(path, samples).differing) == {f"t{result}"}


def test_profiles(tmp_path: Path) -> None:
    net = build("FULLY_CONNECTED", 1)
    path = net.write(tmp_path / "m.tflite")
    roundings = {}
    for profile in ("litert", "cmsis-nn"):
        (linear,) = (n.op for n in load(path, profile=profile).nodes if isinstance(n.op, Linear))
        roundings[profile] = linear.output.rounding
    assert roundings == {"litert": Rounding.SINGLE, "cmsis-nn": Rounding.DOUBLE}
    with pytest.raises(UnsupportedError, match="TANH 't1': this operator is not supported in the profile 'cmsis-nn'"):
        load(build("TANH", 0).write(tmp_path / "t.tflite"), profile="cmsis-nn")
    with pytest.raises(UnsupportedError, match="'tflm' is unknown; litert and cmsis-nn"):
        codegen.load(path, profile="tflm")


def test_names_and_shapes(tmp_path: Path) -> None:
    net, _, y, path = _convolution(tmp_path)
    net.tensors[y]["name"] = "model/relu;model/conv;model/bias"
    graph = codegen.load(net.write(path, y), name="net")
    assert graph.name == "net" and load(path).name == "model"
    (node,) = graph.nodes
    assert node.name == "model/relu" and node.output == "model/relu;model/conv;model/bias"
    assert isinstance(node.op, Conv2D) and graph.tensors[node.output].shape == (4, 4, 3)


def test_shapes_computed_in_the_file_are_taken_from_it(tmp_path: Path) -> None:
    """What converters write for a reshape of a free batch: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    net, x, y, path = _convolution(tmp_path)
    whole, first, shape = (net.tensor(s, dtype="int32") for s in ([4], [], [2]))
    flat = net.tensor([1, 48], 0.7, -4)
    net.tensors[x]["signature"] = [-1, 4, 4, 2]
    net.add("SHAPE", [y], whole)
    net.add("STRIDED_SLICE", [whole, *(net.integers(n) for n in (0, 1, 1))], first, {4: ("i", 1)})
    net.add("PACK", [first, net.constant(np.array(48, np.int32))], shape, {0: ("i", 2)})
    net.add("RESHAPE", [y, shape], flat)
    graph = load(net.write(path, flat))
    assert [node.op.name for node in graph.nodes] == ["conv2d", "reshape"]


def test_the_door_of_the_simulator(tmp_path: Path) -> None:
    from codegen.tflite.load import read
    from refsim.samples import Preprocessing

    net, _, y, path = _convolution(tmp_path)
    net.write(path, y)
    plain: dict[str, object] = {"calibration": None, "profile": None, "preprocessing": Preprocessing()}
    assert len(read(path, **plain).nodes) == 1
    with pytest.raises(ModelError, match="quantised already"):
        read(path, **{**plain, "calibration": "samples.npz"})


def test_tensors_keep_the_names_of_the_file(tmp_path: Path) -> None:
    net = build("movement", 3)
    path = net.write(tmp_path / "m.tflite")
    graph = read_graph(path)
    written = {f"t{index}" for _, _, outputs, _, _ in net.operators for index in outputs}
    assert written <= set(graph.tensors)
