"""Kernels that stand for published programs compute what they should; figures and bands are read as stated."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from codegen.target import CORES, load_target
from conformance.host import HostLibrary
from conformance.timing.cycles import Timing
from conformance.toolchain import arm_toolchains, build_shared_library
from conformance.validation import band as band_module
from conformance.validation import workloads
from conformance.validation.band import Band, Deviation, band_compiler, bands, bands_as_json, error_band
from conformance.validation.cases import Case, Unit, Use, load_cases
from conformance.validation.report import as_json, markdown, plot, render
from conformance.validation.runner import Chip, Outcome, Validation, choose_toolchain, outside, validate
from conformance.validation.workloads import WORKLOADS, Buffer, Constant, Parameters, Scheme, Step, Workload
from conformance.validation_cli import validate_timing
from refsim.errors import ConformanceError, DataError, ToolchainError

SOURCES = (workloads.NATIVE / "dense.c", workloads.NATIVE / "plain.c")


def int8(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape, dtype=np.int8)


def shifted(total: np.ndarray, bias: np.ndarray, bias_shift: int, shift: int) -> np.ndarray:
    rounding = (1 << shift) >> 1
    return np.clip((total + (bias.astype(np.int64) << bias_shift) + rounding) >> shift, -128, 127).astype(np.int8)


def requantised(x: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    left, right = np.maximum(shift, 0), np.maximum(-np.asarray(shift), 0)
    high = ((x.astype(np.int64) << left) * multiplier + (1 << 30)) >> 31
    magnitude = (np.abs(high) + ((1 << right) >> 1)) >> right
    return np.where(high < 0, -magnitude, magnitude)


def convolved(x: np.ndarray, weight: np.ndarray, stride: int, pad: int, size: tuple[int, int]) -> np.ndarray:
    kernel = weight.shape[1]
    far = [(n - 1) * stride + kernel - length - pad for n, length in zip(size, x.shape[:2], strict=True)]
    padded = np.pad(x.astype(np.int64), ((pad, max(far[0], 0)), (pad, max(far[1], 0)), (0, 0)))
    y = np.zeros((*size, weight.shape[0]), np.int64)
    for i in range(size[0]):
        for j in range(size[1]):
            window = padded[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            y[i, j] = np.tensordot(weight.astype(np.int64), window, 3)
    return y


def conv_case(
    channels: int, filters: int, kernel: int, stride: int, side: int
) -> tuple[Step, list, Buffer, np.ndarray]:
    x, out = int8(1, side, side, channels), -(-side // stride)
    a, y = Buffer(0, x.size), Buffer(x.size + -x.size % 4, out * out * filters)
    columns = Buffer(y.offset + y.size + -y.size % 4, 4 * kernel * kernel * channels + 8)
    rng = np.random.default_rng(8)
    step = workloads.convolution(Scheme.Q7, "conv", a, y, columns, x.shape, filters, kernel, stride, rng)
    words = step.arguments[0].words
    weight = np.frombuffer(words[-2].data, np.int8).reshape(filters, kernel, kernel, channels)
    total = convolved(x, weight, stride, words[9], (out, out))
    return step, [(a, x.tobytes())], y, shifted(total, np.frombuffer(words[-1].data, np.int8), 4, 11)


def int8_conv_case(channels: int, filters: int, kernel: int, stride: int, side: int):
    x, out = int8(9, side, side, channels), -(-side // stride)
    a, y = Buffer(0, x.size), Buffer(x.size + -x.size % 4, out * out * filters)
    columns = Buffer(y.offset + y.size + -y.size % 4, 4 * kernel * kernel * channels + 8)
    rng = np.random.default_rng(10)
    step = workloads.convolution(Scheme.INT8, "conv", a, y, columns, x.shape, filters, kernel, stride, rng)
    sizes, (input_offset, output_offset, low, high) = step.arguments[0].words[:11], step.arguments[0].words[11:15]
    weight = np.frombuffer(step.arguments[0].words[15].data, np.int8).reshape(filters, kernel, kernel, channels)
    bias, multiplier, shift = (np.frombuffer(word.data, np.int32) for word in step.arguments[0].words[16:])
    total = convolved(x.astype(np.int64) + input_offset, weight, stride, sizes[9], (out, out)) + bias
    expected = np.clip(requantised(total, multiplier, shift) + output_offset, low, high).astype(np.int8)
    return step, [(a, x.tobytes())], y, expected


def int8_linear_case(inputs: int, outputs: int) -> tuple[Step, list, Buffer, np.ndarray]:
    x = int8(11, inputs)
    a, y = Buffer(0, inputs), Buffer(inputs, outputs)
    step = workloads.linear(Scheme.INT8, "linear", a, y, a, inputs, outputs, np.random.default_rng(12))
    _, _, input_offset, output_offset, low, high, multiplier, shift, weight, bias = step.arguments[0].words
    matrix = np.frombuffer(weight.data, np.int8).reshape(outputs, inputs).astype(np.int64)
    total = matrix @ (x.astype(np.int64) + input_offset) + np.frombuffer(bias.data, np.int32)
    expected = np.clip(requantised(total, multiplier, shift) + output_offset, low, high).astype(np.int8)
    return step, [(a, x.tobytes())], y, expected


def wide_conv_case() -> tuple[Step, list, Buffer, np.ndarray]:
    """A window that is no square, and an odd number of outputs."""
    x = int8(13, 9, 5, 1)
    a, y, columns = Buffer(0, 48), Buffer(48, 5 * 3 * 4), Buffer(108, 4 * 40)
    step = workloads.convolution(Scheme.Q7, "conv", a, y, columns, x.shape, 4, (10, 4), 2, np.random.default_rng(14))
    weight, bias = (np.frombuffer(word.data, np.int8) for word in step.arguments[0].words[-2:])
    padded = np.pad(x[:, :, 0].astype(np.int64), ((4, 5), (1, 2)))  # same padding: the smaller half in front
    windows = [[padded[2 * i : 2 * i + 10, 2 * j : 2 * j + 4].ravel() for j in range(3)] for i in range(5)]
    total = np.array(windows) @ weight.reshape(4, 40).astype(np.int64).T
    return step, [(a, x.tobytes())], y, shifted(total, bias, 4, 11)


def depthwise_case(kernel: int) -> tuple[Step, list, Buffer, np.ndarray]:
    x = int8(15, 6, 5, 8)
    a, y, window = Buffer(0, 240), Buffer(240, 240), Buffer(480, kernel * kernel * 8)
    step = workloads.depthwise("depthwise", a, y, window, x.shape, kernel, np.random.default_rng(16))
    weight, bias = (np.frombuffer(word.data, np.int8) for word in step.arguments[0].words[-2:])
    front = (kernel - 1) // 2
    padded = np.pad(x.astype(np.int64), ((front, kernel - 1 - front), (front, kernel - 1 - front), (0, 0)))
    factors = weight.reshape(kernel, kernel, 8).astype(np.int64)
    rows = [[(padded[i : i + kernel, j : j + kernel] * factors).sum((0, 1)) for j in range(5)] for i in range(6)]
    return step, [(a, x.tobytes())], y, shifted(np.array(rows), bias, 4, 9)


def linear_case(scheme: Scheme, inputs: int, outputs: int) -> tuple[Step, list, Buffer, np.ndarray]:
    x = int8(2, inputs)
    a, y, wide = Buffer(0, inputs), Buffer(inputs, outputs), Buffer(inputs + outputs + 2, 2 * inputs)
    step = workloads.linear(scheme, "linear", a, y, wide, inputs, outputs, np.random.default_rng(3))
    weight, bias = (np.frombuffer(word.data, np.int8) for word in step.arguments[0].words[-2:])
    total = weight.reshape(outputs, inputs).astype(np.int64) @ x.astype(np.int64)
    return step, [(a, x.tobytes())], y, shifted(total, bias, 4, 10)


def pool_case(side: int, kernel: int, stride: int) -> tuple[Step, list, Buffer, np.ndarray]:
    x, out = int8(4, side, side, 8), -(-side // stride)
    a, y = Buffer(0, x.size), Buffer(x.size, out * out * 8)
    step = workloads.pool("pool", a, y, x.shape, kernel, stride)
    rows = [slice(i * stride, i * stride + kernel) for i in range(out)]
    return step, [(a, x.tobytes())], y, np.array([[x[r, c].max((0, 1)) for c in rows] for r in rows])


def relu_case() -> tuple[Step, list, Buffer, np.ndarray]:
    x, a = np.arange(-128, 128).astype(np.int8), Buffer(0, 256)
    return workloads.relu("relu", a, 256), [(a, x.tobytes())], a, np.maximum(x, 0)


def mean_case() -> tuple[Step, list, Buffer, np.ndarray]:
    x, a, y = int8(5, 64, 12), Buffer(0, 768), Buffer(768, 12)
    total = x.astype(int).sum(0)
    expected = (np.sign(total) * ((np.abs(total) + 32) // 64)).astype(np.int8)
    return Step("mean", "tnf_dense_mean", (a, y, 64, 12)), [(a, x.tobytes())], y, expected


def add_case() -> tuple[Step, list, Buffer, np.ndarray]:
    x, z = int8(6, 512), int8(7, 512)
    a, b, y = Buffer(0, 512), Buffer(512, 512), Buffer(1024, 512)
    scales = ((7, 1_518_500_250, -1), (-4, 1_900_000_001, 1), (-3, 1_073_741_824, -18))
    inputs = ((v.astype(np.int64) + offset) << 20 for v, (offset, _, _) in zip((x, z), scales, strict=False))
    left, right = (requantised(v, *scale[1:]) for v, scale in zip(inputs, scales, strict=False))
    words = (512, *(number for scale in scales for number in scale), -120, 127)
    step = Step("add", "tnf_dense_add", (Parameters(words), a, b, y))
    expected = np.clip(requantised(left + right, *scales[2][1:]) - 3, -120, 127).astype(np.int8)
    return step, [(a, x.tobytes()), (b, z.tobytes())], y, expected


KERNELS = {
    "conv 3 channels": lambda: conv_case(3, 4, 5, 1, 8),
    "conv 5 channels, stride 2": lambda: conv_case(5, 2, 3, 2, 8),
    "conv 8 channels": lambda: conv_case(8, 6, 5, 1, 8),
    "conv 4 channels, stride 2": lambda: conv_case(4, 4, 3, 2, 12),
    "conv 1x1, stride 2": lambda: conv_case(16, 8, 1, 2, 8),
    "conv 10x4, odd number of outputs": wide_conv_case,
    "conv 8 channels, odd number of outputs": lambda: conv_case(8, 6, 3, 1, 5),
    "depthwise 3x3": lambda: depthwise_case(3),
    "depthwise 2x2": lambda: depthwise_case(2),
    "linear": lambda: linear_case(Scheme.Q7, 36, 10),
    "plain linear": lambda: linear_case(Scheme.PLAIN, 35, 9),
    "int8 conv 3 channels": lambda: int8_conv_case(3, 4, 3, 1, 8),
    "int8 conv 8 channels": lambda: int8_conv_case(8, 6, 3, 1, 8),
    "int8 conv 1x1, stride 2": lambda: int8_conv_case(16, 8, 1, 2, 8),
    "int8 linear": lambda: int8_linear_case(36, 10),
    "pool clipped": lambda: pool_case(8, 3, 2),
    "pool 2x2": lambda: pool_case(6, 2, 2),
    "relu": relu_case,
    "mean": mean_case,
    "add": add_case,
}


@pytest.fixture(scope="module")
def host() -> HostLibrary:
    library = build_shared_library(list(SOURCES), name="dense", sanitize=True)
    return HostLibrary(library, [workloads.NATIVE / "dense.h"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_host_kernels_equal_numpy(host: HostLibrary, kernel: str) -> None:
    step, inputs, output, expected = KERNELS[kernel]()
    ffi, alive = host.ffi, []
    size = max(a.offset + a.size for a in step.arguments if isinstance(a, Buffer))
    memory = ffi.new("uint64_t[]", size // 8 + 1)
    start = ffi.cast("char *", memory)
    for buffer, data in inputs:
        ffi.memmove(start + buffer.offset, data, len(data))
    function = getattr(host.lib, step.function)

    def constant(data: bytes) -> object:
        alive.append(ffi.new("int8_t[]", list(np.frombuffer(data, np.int8))))
        return ffi.cast("void *", alive[-1])

    def value(argument: object, kind: object) -> object:
        if isinstance(argument, Parameters):
            words = [constant(word.data) if isinstance(word, Constant) else word for word in argument.words]
            alive.append(ffi.new(kind, words))
            return alive[-1]
        return ffi.cast(kind, start + argument.offset) if isinstance(argument, Buffer) else argument

    kinds = ffi.typeof(function).args
    function(*(value(argument, kind) for argument, kind in zip(step.arguments, kinds, strict=True)))
    found = np.frombuffer(ffi.buffer(start + output.offset, output.size)[:], np.int8)
    np.testing.assert_array_equal(found, expected.ravel())


@pytest.fixture(scope="module", params=[tool.name for tool in arm_toolchains()])
def chip(request: pytest.FixtureRequest) -> Chip:
    steps = tuple(make()[0] for make in KERNELS.values())
    return Chip(Workload("test", SOURCES, steps), load_target("stm32l4r5"), choose_toolchain(request.param))


@pytest.mark.parametrize("kernel", KERNELS)
def test_emulated_kernels_equal_numpy(chip: Chip, kernel: str) -> None:
    step, inputs, output, expected = KERNELS[kernel]()
    for buffer, data in inputs:
        chip.fill(buffer, data)
    chip.run(step)
    np.testing.assert_array_equal(np.frombuffer(chip.contents(output), np.int8), expected.ravel())


@pytest.mark.parametrize("function", ["tnf_float_layernorm", "tnf_double_layernorm"])
def test_float_layernorm(function: str) -> None:
    workload = workloads.float_layernorm(3, 44, function)
    (step,) = workload.steps
    chip = Chip(workload, load_target("stm32f746"), choose_toolchain(None))
    chip.run(step)
    x = np.frombuffer(workload.inputs[0][1], np.float32).reshape(3, 44).astype(np.float64)
    gamma, beta = (np.frombuffer(step.arguments[i].data, np.float32) for i in (2, 3))
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * gamma + beta
    found = np.frombuffer(chip.contents(step.arguments[1]), np.float32).reshape(3, 44)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_networks_have_the_published_sizes() -> None:
    def weights(workload: Workload) -> int:
        words = [a.words for step in workload.steps for a in step.arguments if isinstance(a, Parameters)]
        return sum(len(word.data) for row in words for word in row[-2:-1] if isinstance(word, Constant))

    assert weights(WORKLOADS["cifar10"]()) == 89_440
    assert weights(WORKLOADS["autoencoder q7"]()) == 2 * (640 * 128 + 3 * 128 * 128 + 128 * 8)
    assert weights(WORKLOADS["resnet8 q7"]()) == 77_360


def test_every_case_is_read() -> None:
    cases = load_cases()
    assert {case.use for case in cases} <= set(Use)
    assert all(case.source for case in cases)
    assert {case.published for case in cases if case.workload == "cifar10"} == {31.4, 42.8, 22.6, 99.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('workload = "lenet"', "there is no workload 'lenet'"),
        ('steps = ["conv9"]', "no step conv9"),
        ('unit = "furlongs"', "furlongs"),
        ("clock_hz = 0", "needs clock_hz"),
        ("clock = 1", "unexpected keyword"),
        ('timings = "memory"', "must be a list"),
    ],
)
def test_wrong_cases_say_what_is_wrong(tmp_path: Path, change: str, message: str) -> None:
    entry = {
        "name": '"here"',
        "workload": '"cifar10"',
        "target": '"stm32f746"',
        "published": "1.5",
        "unit": '"ms"',
        "clock_hz": "216_000_000",
        "use": '"predicted"',
        "source": '"a paper"',
    }
    key, value = change.split(" = ")
    text = "[[case]]\n" + "\n".join(f"{k} = {v}" for k, v in (entry | {key: value}).items())
    (tmp_path / "cases.toml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_cases(tmp_path / "cases.toml")
    assert "'here'" in str(caught.value)


def test_missing_cases_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no readable \[\[case\]\]"):
        load_cases(tmp_path / "none.toml")


def test_unknown_compiler_is_an_error() -> None:
    with pytest.raises(ToolchainError, match="armcc"):
        choose_toolchain("armcc")


def test_bands_follow_their_rule() -> None:
    def deviation(core: str, program: str, relative: float, timing: Timing = Timing.MEMORY) -> Deviation:
        return Deviation(core, timing, program, relative)

    found = bands(
        [
            deviation("cortex-m4", "a", 0.031),
            deviation("cortex-m4", "b", -0.102),
            deviation("cortex-m7", "a", 0.21),
            deviation("cortex-m7", "a", 0.20),
            deviation("cortex-m3", "a", 0.9, Timing.ZERO_WAIT),
        ],
        ["cortex-m4", "cortex-m7", "cortex-m0plus"],
    )
    every = ("cortex-m4", "cortex-m7")
    assert found["cortex-m4", "MEMORY"] == Band(15, 2, ("cortex-m4",))  # of its two programs, rounded up
    assert found["cortex-m7", "MEMORY"] == Band(25, 4, every)  # one program: those of all cores count
    assert found["cortex-m0plus", "MEMORY"] == Band(50, 4, every)  # none: twice as wide
    assert bands([], ["cortex-m4"]) == {}
    exact = bands([deviation("cortex-m4", "a", 0.1), deviation("cortex-m4", "b", 0.0)], ["cortex-m4"])
    assert exact["cortex-m4", "MEMORY"].percent == 10


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(band_module, "BANDS_FILE", tmp_path / "bands.json")
    band_module._stored.cache_clear()
    yield tmp_path / "bands.json"
    band_module._stored.cache_clear()


def test_there_may_be_no_bands(stored: Path) -> None:
    assert error_band("cortex-m7", Timing.MEMORY) is None
    assert band_compiler() is None


def test_stored_bands_are_those_that_estimates_get(stored: Path) -> None:
    stored.write_text(bands_as_json({("cortex-m7", "MEMORY"): Band(15, 4, ("cortex-m7",))}, "zig", "0.13"))
    assert error_band("cortex-m7", Timing.MEMORY) == Band(15, 4, ("cortex-m7",))
    assert str(error_band("cortex-m7", Timing.MEMORY)) == "± 15 %"
    assert error_band("cortex-m7", Timing.ZERO_WAIT) is None
    assert band_compiler() == "zig"


def test_every_core_has_a_band_of_its_own_program_or_a_wider_one() -> None:
    measured = error_band("cortex-m7", Timing.MEMORY)
    other = error_band("cortex-m3", Timing.MEMORY)
    assert measured is not None
    assert other is not None
    assert other.percent >= 2 * measured.percent
    assert all(error_band(core, timing) for core in CORES for timing in Timing)


@pytest.mark.parametrize("compiler", [tool.name for tool in arm_toolchains()])
def test_sequences_take_the_published_cycles(compiler: str) -> None:
    cases = [case for case in load_cases() if case.use is Use.SEQUENCE]
    found = validate(cases, choose_toolchain(compiler), lambda what: None)
    differ = {
        ("Delay loop", "cortex-m4"),  # the model refills the pipeline in two cycles after each branch, this loop in one
        ("ADD to ADD", "cortex-m7"),  # the model has no early ALU
    }
    for outcome in found.outcomes:
        exact = outcome.estimates[Timing.ZERO_WAIT] == pytest.approx(outcome.case.published, rel=0.01)
        assert exact == ((outcome.case.name, outcome.case.target.core) not in differ), outcome.case.name


@pytest.fixture(scope="module")
def validation() -> Validation:
    cases = [case for case in load_cases() if case.workload == "autoencoder q7" and len(case.timings) == 2]
    return validate(cases, choose_toolchain(None), lambda what: None)


def test_estimates_are_those_of_the_cycles(validation: Validation) -> None:
    outcome = validation.outcomes[0]
    for timing in Timing:
        total = outcome.cycles[timing].total
        assert outcome.estimates[timing] == pytest.approx(total / outcome.case.clock_hz * 1000)
        assert outcome.error(timing) == pytest.approx(outcome.estimates[timing] / outcome.case.published - 1)
        deviation = outcome.deviation(timing)
        assert outcome.estimates[timing] * (1 + deviation.relative) == pytest.approx(outcome.case.published)
    assert outcome.cycles[Timing.ZERO_WAIT].data == 0
    assert outcome.cycles[Timing.MEMORY].data > 0  # every weight comes from flash


def test_weights_from_flash_bring_the_estimate_closer(validation: Validation) -> None:
    for outcome in validation.outcomes:
        assert abs(outcome.error(Timing.MEMORY)) < abs(outcome.error(Timing.ZERO_WAIT))


def test_a_measurement_outside_its_band_is_told(validation: Validation, stored: Path) -> None:
    def store(percent: int) -> None:
        stored.write_text(bands_as_json({("cortex-m4", "MEMORY"): Band(percent, 2, ("cortex-m4",))}, "zig", ""))
        band_module._stored.cache_clear()

    store(0)
    told = outside(validation)
    assert len(told) == len(validation.outcomes)
    assert all("memory" in line and "± 0 %" in line for line in told)
    store(90)
    assert outside(validation) == []


def test_reports_hold_every_figure(validation: Validation) -> None:
    told = json.loads(as_json(validation))
    assert [case["published"] for case in told["cases"]] == [o.case.published for o in validation.outcomes]
    assert set(told["cases"][0]["estimates"]) == {timing.value for timing in Timing}
    page = markdown(validation)
    drawn = plot(validation)
    for outcome in validation.outcomes:
        assert outcome.case.source in page
        assert outcome.case.name in drawn
    assert drawn.count("<title>") == len(validation.outcomes)
    assert render(validation)


def test_the_page_shows_the_cases_and_the_bands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cycle-model.md").read_text(encoding="utf-8")
    for case in load_cases():
        assert f"{case.published:.4g} {case.unit}" in page, case.name
        assert case.source in page, case.name
    for core in CORES:
        for timing in Timing:
            band = error_band(core, timing)
            assert f"| {core} | {timing.value} | {band} |" in page


def test_command_writes_what_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"new.{name}" for name in ("json", "markdown", "plot")}
    validate_timing(case=["cortex-m7", "delay"], **files)
    assert "Delay loop" in capsys.readouterr().out
    assert {case["name"] for case in json.loads(files["json"].read_text())["cases"]} == {"Delay loop"}
    assert "Delay loop" in files["markdown"].read_text()
    assert files["plot"].read_text().startswith("<svg")


def test_command_refuses_what_it_cannot_do(stored: Path) -> None:
    with pytest.raises(DataError, match="no case is called lenet; there are CIFAR-10"):
        validate_timing(case=["LeNet"])
    with pytest.raises(DataError, match="--update needs every case"):
        validate_timing(case=["delay"], update=True)
    with pytest.raises(ToolchainError, match="armcc"):
        validate_timing(case=["delay"], compiler="armcc")
    assert not stored.exists()


def test_command_fails_outside_the_bands_of_the_same_compiler(stored: Path) -> None:
    tool = choose_toolchain(None)
    narrow = {("cortex-m4", "MEMORY"): Band(0, 2, ("cortex-m4",))}
    stored.write_text(bands_as_json(narrow, tool.name, tool.version))
    with pytest.raises(ConformanceError, match=r"outside the error band: Autoencoder, q7, Zephyr, memory: [+-]"):
        validate_timing(case=["autoencoder, q7, zephyr"])
    stored.write_text(bands_as_json(narrow, "another compiler", ""))
    band_module._stored.cache_clear()
    validate_timing(case=["autoencoder, q7, zephyr"])


def test_case_units() -> None:
    base = load_cases()[0]
    fields = {name: getattr(base, name) for name in ("name", "workload", "target", "use", "source")}
    milliseconds = Case(**fields, published=1, unit=Unit.MILLISECONDS, clock_hz=100_000_000)
    assert milliseconds.estimate(250_000) == 2.5
    assert Case(**fields, published=1, unit=Unit.CYCLES, scale=10).estimate(250) == 25
    assert Case(**fields, published=1, unit=Unit.MEGACYCLES).estimate(2_500_000) == 2.5
    assert Outcome(milliseconds, {}, {}).case is milliseconds
