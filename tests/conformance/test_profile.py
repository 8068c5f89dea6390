"""Profiles: what they add up to, JSON that comes back the same, comparisons, tables, the page, and the command."""

import html.parser
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from codegen.generate import generate
from codegen.target import load_target
from conformance.cli import register
from conformance.models import CortexMModel, ModelUnderTest, random_samples, read_model
from conformance.profile import (
    CAUSES,
    BlockCounts,
    CodeBlock,
    Counts,
    Layer,
    Profile,
    as_json,
    compare_profiles,
    measure,
    read_profile,
)
from conformance.profile_report import estimate, page, render, render_comparison
from conformance.timing.cycles import Timing
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware
from conformance.validation.band import Band
from refsim.errors import ConformanceError, DataError, TargetError, TinyFormerError
from tests.codegen.graphs import hybrid_graph
from tests.codegen.test_cli import classifier

APP = typer.Typer()
register(APP)
EVIL = '@DATA@</script><script>alert("1")</script>[red]&amp;'


def layer(index: int, name: str, operator: str = "linear", cycles: float = 1000, macs: int = 500) -> Layer:
    counts = Counts(0.8 * cycles, cycles, 0.1 * cycles, 0.05 * cycles, 0.025 * cycles, 0.125 * cycles)
    blocks = (BlockCounts(0, 10.0, counts),)
    return Layer(index, name, operator, macs, counts, int(0.9 * cycles), int(1.1 * cycles), blocks)


def profile(*layers: Layer, **changes: Any) -> Profile:
    return replace(
        Profile(
            schema=1,
            model="net",
            model_hash="ab" * 32,
            target="chip",
            description="A chip",
            core="cortex-m4",
            clock_hz=100_000_000,
            milliwatts=50.0,
            timing="memory",
            band=Band(15, 4, ("cortex-m4",)),
            compiler="zig",
            compiler_version="1.0",
            opt="-O2",
            data="random bytes",
            seed=7,
            samples=3,
            fewest=900,
            most=1100,
            arena_bytes=64,
            stack_bytes=32,
            versions={"tinyformer": "0.1.0"},
            layers=layers or (layer(0, "first"), layer(1, "second", "softmax", 3000, 0), layer(2, "third", cycles=500)),
            code=(CodeBlock(0x0800_0100, "tnf_linear", 16, "linear.c:5", ("ldr r0, [r1]", "bx lr")),),
        ),
        **changes,
    )


def shown(what: RenderableType, width: int = 160) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


# What figures mean


def test_issuing_cycles_are_what_the_stalls_leave() -> None:
    assert Counts(5, 100, 10, 20, 5, 15).issuing == 50
    assert Counts(1, 2, 3, 4, 5, 6) + Counts(10, 20, 30, 40, 50, 60) == Counts(11, 22, 33, 44, 55, 66)


def test_operators_are_sums_of_their_layers_and_make_up_the_model() -> None:
    measured = profile()
    softmax, linear = measured.operators
    assert (softmax.operator, softmax.layers, softmax.counts.cycles) == ("softmax", 1, 3000)
    assert (linear.operator, linear.layers, linear.macs, linear.counts.cycles) == ("linear", 2, 1000, 1500)
    assert softmax.counts + linear.counts == measured.counts
    assert (measured.macs, measured.counts.cycles) == (1000, 4500)


def test_time_and_energy_follow_from_clock_and_power() -> None:
    measured = profile()
    assert measured.seconds(200e6) == 2.0
    assert measured.millijoules(200e6) == 100.0
    assert replace(measured, milliwatts=None).millijoules(1.0) is None


@pytest.mark.parametrize(
    ("cycles", "time"),
    [
        (99_999_999_999, "1,000 s"),
        (123_456_789, "1.23 s"),
        (38_400_000, "384 ms"),
        (3_840_000, "38.4 ms"),
        (4_500, "45.0 us"),
        (0, "0 us"),
    ],
)
def test_an_estimate_is_printed_with_its_error_band(cycles: float, time: str) -> None:
    measured = profile(layer(0, "only", cycles=cycles))
    assert estimate(measured) == (f"{time} ± 15 %", "error band: 4 published measurements on cortex-m4")


@pytest.mark.parametrize("band", [None, Band(20, 9, ("cortex-m3", "cortex-m7"))])
def test_a_core_without_measurements_has_no_error_band(band: Band | None) -> None:
    time, note = estimate(profile(band=band))
    assert (time, note) == ("45.0 us", "no validated error band for cortex-m4")
    text = shown(render(profile(band=band), 160))
    assert note in text and "±" not in text


# JSON


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    measured = profile(band=None, milliwatts=None)
    for each in (profile(), measured, profile(layer(0, EVIL), seed=None)):
        path = tmp_path / "profile.json"
        path.write_text(as_json(each))
        assert read_profile(path) == each
    total = json.loads(as_json(profile()))["total"]
    assert (total["cycles"], total["macs"], total["seconds"]) == (4500, 1000, 45e-6)
    assert total["millijoules"] == pytest.approx(2.25e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema=2), "has schema 2, this version reads 1"),
        (lambda v: v.update(schema="1"), "has schema '1'"),
        (lambda v: v.pop("schema"), "is no profile"),
        (lambda v: v.pop("clock_hz"), "lacks clock_hz"),
        (lambda v: v.update(extra=1), "has unknown extra"),
        (lambda v: v.update(clock_hz="fast"), "clock_hz is 'fast', it must be int"),
        (lambda v: v.update(clock_hz=True), "clock_hz is True, it must be int"),
        (lambda v: v.update(layers={}), "layers is {}, it must be tuple"),
        (lambda v: v["layers"][1]["counts"].update(cycles=None), "layers[1].counts.cycles is None"),
        (lambda v: v["layers"][0].update(blocks=[5]), "layers[0].blocks[0] is 5, it must be BlockCounts"),
        (lambda v: v["layers"][2]["blocks"][0].update(block=1), "layers[2] names a block that is not in code"),
        (lambda v: v["band"].pop("percent"), "band lacks percent"),
    ],
)
def test_wrong_files_are_refused_with_where_and_what(change: Any, message: str, tmp_path: Path) -> None:
    value = json.loads(as_json(profile()))
    change(value)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        read_profile(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b'"text"', b"5", b"[" * 100_000])
def test_what_is_no_profile_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"profile\.json"):
        read_profile(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_profile(tmp_path / "none.json")


# Comparisons


def test_changes_are_sorted_by_their_effect() -> None:
    before = profile(layer(0, "a", cycles=100), layer(1, "b", cycles=100), layer(2, "c", cycles=100))
    after = profile(layer(0, "a", cycles=110), layer(1, "b", cycles=20), layer(2, "c", cycles=100))
    comparison = compare_profiles(before, after)
    assert [(c.layer.name, c.effect) for c in comparison.changes] == [("b", -80), ("a", 10), ("c", 0)]
    assert [c.unchanged for c in comparison.changes] == [False, False, True]
    assert comparison.warnings == ()
    text = shown(render_comparison(comparison, 120))
    assert "-80.0%" in text and "1 layer as before." in text and "300" not in text.split("all")[0]


def test_layers_keep_their_name_when_their_operator_changes() -> None:
    before = profile(layer(0, "fc"), layer(1, "gone"))
    after = profile(layer(0, "new"), layer(1, "fc", "sparse_linear", cycles=400))
    changes = {c.layer.name: c for c in compare_profiles(before, after).changes}
    assert changes["fc"].effect == -600
    assert (changes["gone"].after, changes["new"].before) == (None, None)
    assert (changes["gone"].effect, changes["new"].effect) == (-1000, 1000)
    text = shown(render_comparison(compare_profiles(before, after), 120))
    for expected in ("fc +linear -> sparse_linear", "gone +gone", "new +new"):
        assert re.search(expected, text)


def test_layers_of_one_name_are_compared_in_their_order() -> None:
    before = profile(layer(0, "x", cycles=10), layer(1, "x", cycles=20))
    after = profile(layer(0, "x", cycles=10), layer(1, "x", cycles=25), layer(2, "x", cycles=1))
    effects = [(c.layer.index, c.effect) for c in compare_profiles(before, after).changes]
    assert effects == [(1, 5), (2, 1), (0, 0)]


def test_a_comparison_warns_of_everything_else_that_differs() -> None:
    other = profile(
        target="other", timing="zero-wait", compiler="gcc", opt="-O3", clock_hz=1, model_hash="cd", seed=8, samples=4
    )
    warnings = compare_profiles(profile(), other).warnings
    assert [warning.split(" differs")[0] for warning in warnings] == [
        *("model", "target", "clock", "timing", "compiler", "optimisation", "samples")
    ]
    text = shown(render_comparison(compare_profiles(profile(), other), 120))
    assert "warning: compiler differs: zig 1.0 before, gcc 1.0 now" in text


# Tables and the page


@pytest.mark.parametrize("width", [80, 136, 200])
def test_tables_fit_their_terminal_and_show_names_as_they_are(width: int) -> None:
    layers = [
        layer(i, f"/encoders/{i}/attention/query/[bold]MatMul", "depthwise_conv2d", 10**7, 10**7) for i in range(12)
    ]
    text = shown(render(profile(*layers), width), width)
    rows = [line for line in text.splitlines() if "MatMul" in line]
    assert len(rows) == 12
    assert all("10,000.0" in row and "8.3%" in row and "100.000" in row for row in rows)
    assert ("5.000" in rows[0]) == (width > 80), "energy"
    text = shown(render_comparison(compare_profiles(profile(), profile(*layers)), width), width)
    assert "+10,000.0" in text


def test_the_tables_say_what_was_measured_and_with_what() -> None:
    text = " ".join(shown(render(profile(), 160)).split())
    for expected in ("45.0 us ± 15 % a sample", "from 900 to 1,100", "cortex-m4 at 100 MHz, memory timing"):
        assert expected in text
    assert "gcc (GNU) 12.2 -O2" in shown(render(profile(compiler="gcc", compiler_version="gcc (GNU) 12.2"), 160))
    for expected in ("zig 1.0 -O2", "3 samples of random bytes, seed 7", "tinyformer 0.1.0", "64 bytes of arena"):
        assert expected in text


class Page(html.parser.HTMLParser):
    """The elements of a page, and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.scripts: list[str] = []
        self.title = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [f"{name}={value}" for name, value in attributes if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)
        if self.tags and self.tags[-1] == "title":
            self.title = self.title or data


def test_the_page_holds_the_profile_and_nothing_from_elsewhere() -> None:
    text = page(profile())
    found = Page(text)
    assert found.links == [] and not re.search(r"https?:|@import|url\(|//[a-z]", text)
    assert "default-src 'none'" in text
    data = json.loads(found.scripts[0])
    assert data["layers"] == json.loads(json.dumps(asdict(profile())))["layers"]
    assert data["estimate"] == {"time": "45.0 us ± 15 %", "note": estimate(profile())[1]}
    assert data["causes"] == list(CAUSES)
    assert "comparison" not in data


def test_names_cannot_become_markup() -> None:
    measured = profile(layer(0, EVIL, EVIL), model=EVIL, target=EVIL, description=EVIL, data=EVIL)
    before = profile(layer(0, EVIL + "2"), model=EVIL)
    plain, evil = Page(page(profile())), Page(page(measured, compare_profiles(before, measured)))
    assert evil.tags == plain.tags
    assert evil.title == f"{EVIL} on {EVIL}"
    data = json.loads(evil.scripts[0])
    assert data["layers"][0]["name"] == data["model"] == EVIL
    assert "innerHTML" not in evil.scripts[-1] and "insertAdjacentHTML" not in evil.scripts[-1]


def test_the_page_of_a_comparison_holds_what_was_before() -> None:
    before = profile(layer(0, "a", cycles=100), layer(1, "gone", cycles=7))
    after = profile(layer(0, "new", cycles=1), layer(1, "a", cycles=60), opt="-O3")
    data = json.loads(Page(page(after, compare_profiles(before, after))).scripts[0])["comparison"]
    assert data["total"]["cycles"] == 107
    assert {index: old["counts"]["cycles"] for index, old in data["before"].items()} == {"1": 100}
    assert [gone["name"] for gone in data["gone"]] == ["gone"]
    assert data["warnings"] == ["optimisation differs: -O2 before, -O3 now"]


# Measuring


@pytest.fixture(scope="module")
def network() -> ModelUnderTest:
    graph = hybrid_graph()
    return ModelUnderTest(graph, random_samples(graph, 2))


@pytest.fixture(scope="module")
def measured(network: ModelUnderTest) -> Profile:
    return measure(network, "stm32f746", timing=Timing.ZERO_WAIT, seed=0)


def test_every_layer_is_measured(network: ModelUnderTest, measured: Profile, tmp_path: Path) -> None:
    steps = generate(network.graph, load_target("stm32f746"), tmp_path / "out").steps
    assert [(x.index, x.name, x.operator, x.macs) for x in measured.layers] == [
        (step.index, step.node, step.operator, step.call.macs) for step in steps
    ]
    for each in measured.layers:
        assert each.fewest <= each.counts.cycles <= each.most
        assert each.counts.instructions > 0 and each.counts.issuing > 0
        assert min(asdict(each.counts).values()) >= 0
    assert measured.fewest <= measured.counts.cycles <= measured.most
    assert (measured.samples, measured.core, measured.clock_hz) == (2, "cortex-m7", 216_000_000)
    assert measured.counts.fetch == measured.counts.data == 0, "no memory waits"


def test_the_blocks_of_a_layer_make_up_its_counts(measured: Profile) -> None:
    for each in measured.layers:
        blocks = sum((block.counts for block in each.blocks), Counts())
        assert asdict(blocks) == pytest.approx(asdict(each.counts))
        cycles = [block.counts.cycles for block in each.blocks]
        assert cycles == sorted(cycles, reverse=True)
    functions = {measured.code[block.block].function for each in measured.layers for block in each.blocks}
    assert {"tnf_conv2d_dsp", "tnf_linear_dsp"} <= functions
    for each in measured.layers:
        for block in each.blocks:
            length = len(measured.code[block.block].instructions)
            assert block.counts.instructions == pytest.approx(block.executions * length)


def test_marks_cost_next_to_nothing(network: ModelUnderTest, measured: Profile, tmp_path: Path) -> None:
    """The same model without trace hooks executes as many instructions, but for some a step."""
    from conformance.emulator import CortexM

    model = generate(network.graph, load_target("stm32f746"), tmp_path / "out")
    elf = build_firmware(
        model.sources, model.target, ["model_run"], include_dirs=model.include_dirs, arena_bytes=model.arena_bytes
    )
    machine = CortexM(model.target, elf)
    found = []
    for index in range(2):
        for port in model.inputs:
            machine.write(machine.arena[0] + port.offset, network.samples[port.tensor][index].tobytes())
        found.append(machine.call("model_run", machine.arena[0]).instructions)
    more = measured.counts.instructions - sum(found) / 2
    assert 0 <= more <= 25 * len(model.steps)


def test_memory_timing_is_used_where_the_target_describes_it(network: ModelUnderTest, measured: Profile) -> None:
    found = measure(network, "stm32f746")
    assert found.timing == "memory"
    assert found.counts.instructions == measured.counts.instructions
    assert found.counts.cycles > measured.counts.cycles
    assert found.counts.fetch > 0 and found.counts.data > 0


def test_samples_do_not_depend_on_those_before_them(network: ModelUnderTest) -> None:
    turned = ModelUnderTest(network.graph, {name: x[::-1] for name, x in network.samples.items()})
    one, other = (measure(each, "stm32f746", timing=Timing.MEMORY) for each in (network, turned))
    assert one == other


@pytest.mark.parametrize("toolchain", arm_toolchains(), ids=lambda toolchain: toolchain.name)
def test_every_compiler_tells_where_its_code_comes_from(network: ModelUnderTest, toolchain: Toolchain) -> None:
    found = measure(network, "stm32f746", timing=Timing.ZERO_WAIT, toolchain=toolchain, opt="-O3")
    assert (found.compiler, found.compiler_version, found.opt) == (toolchain.name, toolchain.version, "-O3")
    sources = [block.source for block in found.code if block.function.startswith("tnf_softmax")]
    known = [source for source in sources if source]  # a compiler gives no line for what it made up
    assert len(known) > 0.9 * len(sources) and all(re.fullmatch(r"\w+\.[ch]:[1-9]\d*", source) for source in known)
    assert any(source.startswith("softmax") for source in known)


def test_wrong_code_has_no_profile(network: ModelUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flawed(self: CortexMModel, sample: Any) -> Any:
        trace = run(self, sample)
        return replace(trace, log=bytes([trace.log[0] ^ 1]) + trace.log[1:])

    run = CortexMModel.run
    monkeypatch.setattr(CortexMModel, "run", flawed)
    with pytest.raises(ConformanceError, match="1 of .* bytes differ"):
        measure(network, "stm32f407", timing=Timing.ZERO_WAIT)


def test_a_target_of_ones_own_needs_no_memory_timing(network: ModelUnderTest, tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(PLAIN_TARGET)
    found = measure(network, str(path))
    assert (found.target, found.timing, found.milliwatts) == ("plain", "zero-wait", None)
    with pytest.raises(TargetError, match="memory timing"):
        measure(network, str(path), timing=Timing.MEMORY)


PLAIN_TARGET = """
name = "plain"
description = "Without timing or power"
core = "cortex-m4"
fpu = "none"
clock_hz = 1_000_000
code_region = "flash"
data_region = "ram"
stack_bytes = 2048
source = "none"
[[memory]]
name = "flash"
kind = "flash"
permissions = "rx"
origin = 0x0
size = 1_048_576
source = "none"
[[memory]]
name = "ram"
kind = "ram"
permissions = "rw"
origin = 0x2000_0000
size = 262_144
source = "none"
"""


# The command


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from codegen.onnx import quantize

    folder = tmp_path_factory.mktemp("classifier")
    classifier(folder / "float.onnx")
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3)).astype(np.uint8)
    np.savez(folder / "samples.npz", images=images)
    real = (images.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 128
    onnx.save(quantize(folder / "float.onnx", {"image": real}), folder / "small.onnx")
    return folder


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(APP, [str(a) for a in ("profile", *arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_command_measures_writes_and_compares(quantised: Path, tmp_path: Path) -> None:
    model, first, second = quantised / "small.onnx", tmp_path / "new" / "first.json", tmp_path / "second.json"
    code, text = invoke(model, "--target", "stm32f407", "--images", 2, "--seed", 5, "--json", first)
    assert code == 0, text
    for expected in ("small on stm32f407", "conv2d", "2 samples of random bytes, seed 5", "by operator", "-O2"):
        assert expected in text
    assert read_profile(first).seed == 5

    options = [
        "--json",
        second,
        "--html",
        tmp_path / "page.html",
        "--compare",
        first,
        "--data",
        quantised / "samples.npz",
    ]
    code, text = invoke(model, "--target", "stm32f407", "--opt", "O3", "--timing", "zero-wait", *options)
    assert code == 0, text
    assert "what changed" in text and "optimisation differs: -O2 before, -O3 now" in text
    found = read_profile(second)
    assert (found.data, found.seed, found.samples, found.timing, found.opt) == (
        "samples.npz",
        None,
        1,
        "zero-wait",
        "-O3",
    )
    assert json.loads(Page((tmp_path / "page.html").read_text(encoding="utf-8")).scripts[0])["comparison"]["before"]


def test_the_same_command_gives_the_same_file(quantised: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        invoke(quantised / "small.onnx", "--target", "stm32f746", "--json", path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_command_refuses_what_it_cannot_do(quantised: Path, tmp_path: Path) -> None:
    model = quantised / "small.onnx"
    with pytest.raises(TargetError, match="abacus"):
        invoke(model, "--target", "abacus")
    (tmp_path / "old.json").write_text('{"schema": 0}')
    with pytest.raises(DataError, match="has schema 0"):
        invoke(model, "--target", "stm32f746", "--compare", tmp_path / "old.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(TinyFormerError, match="cannot be written"):
        invoke(model, "--target", "stm32f746", "--json", tmp_path / "file" / "profile.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "old.json"]


def test_random_samples_follow_their_seed(quantised: Path) -> None:
    same, again, other = (read_model(quantised / "small.onnx", None, 1, seed=seed) for seed in (1, 1, 2))
    name = same.graph.inputs[0].tensor
    assert (same.samples[name] == again.samples[name]).all()
    assert (same.samples[name] != other.samples[name]).any()
