"""Generated folders: complete, deterministic, free of warnings, replaced safely, and equal to the golden model."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cffi import FFI

import ckernels
import refsim
from codegen.emit import kernel_calls
from codegen.generate import GeneratedModel, generate
from codegen.planner import plan_arena
from codegen.program import build_program, graph_hash
from codegen.render import marked_files
from codegen.target import MemoryRegion, Target, load_target
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, build_shared_library, host_toolchains
from refsim import Graph, TensorType
from refsim.errors import TargetError, TinyFormerError, UnsupportedError
from refsim.numerics import Int8Array
from refsim.ops import Requantization
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.pad import Pad
from refsim.ops.reshape import Reshape
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from tests.codegen.graphs import Builder, hybrid_graph, two_branches

TARGET = load_target("stm32f746")
WARNINGS = ("-ffreestanding", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-pedantic", "-Werror")
TRACE = """
#include <stdint.h>
static int8_t *next;
void trace_start(int8_t *log);
void tnf_trace_mark(int32_t step);
void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes);
void trace_start(int8_t *log) { next = log; }
void tnf_trace_mark(int32_t step) { *next++ = (int8_t)step; }
void tnf_trace_tensor(int32_t step, const int8_t *data, int32_t bytes)
{
    int32_t i;
    for (i = 0; i < bytes; i++) { *next++ = data[i]; }
    *next++ = (int8_t)(step + 1);
}
"""


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    return generate(hybrid_graph(), TARGET, tmp_path_factory.mktemp("generated") / "out")


def small_graph(names: tuple[str, str] = ("reverse", "lookup")) -> Graph:
    b = Builder("small")
    x = b.input("x", (2, 6), 1 / 64, 0)
    reversed_axes = b.add(names[0], Transpose((1, 0)), x)
    return b.graph(b.add(names[1], Lookup(np.arange(-128, 128).astype(np.int8)), reversed_axes))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run_traced(model: GeneratedModel, tmp_path: Path, inputs: dict[str, Int8Array]) -> dict[str, Int8Array]:
    """Every node's output for a batch, from C built with the trace hooks and run-time checks."""
    harness = tmp_path / "trace.c"
    harness.write_text(TRACE)
    library = build_shared_library(
        [*model.sources, harness], include_dirs=model.include_dirs, defines={"TNF_TRACE": 1}, sanitize=True
    )
    ffi = FFI()
    ffi.cdef(f"void {model.prefix}_run(void *arena); void trace_start(int8_t *log);")
    lib = ffi.dlopen(str(library))
    guard = 64
    memory = np.zeros(model.arena_bytes + 2 * guard + 8, np.int8)
    start = guard + (-(memory.ctypes.data + guard)) % 8
    arena = memory[start : start + model.arena_bytes]
    log = np.zeros(sum(step.bytes + 2 for step in model.steps), np.int8)
    shapes = model.program.graph.tensors
    found: dict[str, list[Int8Array]] = {step.output: [] for step in model.steps}
    for n in range(len(next(iter(inputs.values())))):
        memory[:] = 0x55
        for port in model.inputs:
            arena[port.offset : port.offset + port.bytes] = inputs[port.tensor][n].ravel()
        lib.trace_start(ffi.cast("int8_t *", log.ctypes.data))
        getattr(lib, f"{model.prefix}_run")(ffi.cast("void *", arena.ctypes.data))
        assert (memory[:start] == 0x55).all()
        assert (memory[start + model.arena_bytes :] == 0x55).all()
        at = 0
        for step in model.steps:
            assert (log[at], log[at + 1 + step.bytes]) == (step.index, step.index + 1)
            found[step.output].append(log[at + 1 : at + 1 + step.bytes].reshape(shapes[step.output].shape).copy())
            at += step.bytes + 2
        for port in model.outputs:
            result = arena[port.offset : port.offset + port.bytes].reshape(port.shape)
            np.testing.assert_array_equal(result, {**inputs, **found}[port.tensor][n])
    return {name: np.stack(tensors) for name, tensors in found.items()}


def test_every_tensor_equals_the_golden_model(hybrid: GeneratedModel, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(-128, 128, (32, 9, 8, 3)).astype(np.int8)
    expected = refsim.run(hybrid.program.graph, images, trace=True)
    found = run_traced(hybrid, tmp_path, {"image": images})
    assert set(found) == set(expected) - {"image"}
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_two_inputs_and_a_reshaped_constant(tmp_path: Path) -> None:
    from refsim.ops.add import Add

    b = Builder("pair")
    y = TensorType((), 1 / 64, 3)
    left, right = b.input("left", (3, 4), 1 / 64, 3), b.input("right", (12,), 1 / 64, 3)
    constant = b.add("table", Reshape((3, 4)), b.constant("c", np.arange(12, dtype=np.int8), 1 / 64, 3))
    shaped = b.add("shaped", Reshape((3, 4)), right)
    total = b.add("total", Add.from_types(y, y, y), left, b.add("sum", Add.from_types(y, y, y), shaped, constant))
    graph = b.graph(total, "left")
    model = generate(graph, TARGET, tmp_path / "pair", prefix="pair")
    rng = np.random.default_rng(1)
    inputs = {p.tensor: rng.integers(-128, 128, (4, *p.shape)).astype(np.int8) for p in model.inputs}
    expected = refsim.run(graph, inputs, trace=True)
    for name, tensor in run_traced(model, tmp_path, inputs).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_operators_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    graph = two_branches()
    model = generate(graph, TARGET, tmp_path / "out")
    assert [step.node for step in model.steps] != [node.name for node in graph.nodes]
    inputs = {"x": np.random.default_rng(6).integers(-128, 128, (8, 64)).astype(np.int8)}
    expected = refsim.run(graph, inputs, trace=True)
    for name, tensor in run_traced(model, tmp_path, inputs).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


@pytest.mark.parametrize("toolchain", host_toolchains(), ids=lambda tool: tool.name)
@pytest.mark.parametrize("traced", [False, True])
def test_host_builds_are_free_of_warnings(
    hybrid: GeneratedModel, toolchain: Toolchain, traced: bool, tmp_path: Path
) -> None:
    harness = tmp_path / "trace.c"
    harness.write_text(TRACE)
    build_shared_library(
        [*hybrid.sources, harness],
        include_dirs=hybrid.include_dirs,
        toolchain=toolchain,
        defines={"TNF_TRACE": 1} if traced else None,
        extra_flags=WARNINGS,
    )


@pytest.mark.parametrize("toolchain", arm_toolchains(), ids=lambda tool: tool.name)
def test_cortex_m_build_is_free_of_warnings(hybrid: GeneratedModel, toolchain: Toolchain) -> None:
    build_firmware(
        hybrid.sources,
        TARGET,
        ["model_run"],
        include_dirs=hybrid.include_dirs,
        toolchain=toolchain,
        extra_flags=WARNINGS[1:],
        arena_bytes=hybrid.arena_bytes,
    )


def test_header_serves_cpp(hybrid: GeneratedModel, tmp_path: Path) -> None:
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "model.h"\n'
        "alignas(MODEL_ARENA_ALIGNMENT) static signed char arena[MODEL_ARENA_BYTES];\n"
        "extern const int shape[] = MODEL_INPUT_0_SHAPE;\n"
        "extern const float scale = MODEL_OUTPUT_0_SCALE;\n"
        "signed char first(void);\n"
        "signed char first(void) { *model_input_0(arena) = 1; model_run(arena); return *model_output_1(arena); }\n"
    )
    command = [sys.executable, "-m", "ziglang", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-c"]
    command += [f"-I{hybrid.folder}", str(source), "-o", str(tmp_path / "use.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_folder_is_complete_and_nothing_more(hybrid: GeneratedModel) -> None:
    files = contents(hybrid.folder)
    used = {source for step in hybrid.steps for source in step.call.sources} - {"reshape"}  # all reshapes are in place
    kernels = {f"kernels/{name}.c" for name in used}
    headers = {f"kernels/tinyformer/{path.name}" for path in ckernels.headers()}
    build = {"CMakeLists.txt", "library.json", "zephyr/module.yml", "zephyr/CMakeLists.txt"}
    assert set(files) == kernels | headers | build | {"model.c", "model.h", "arena.svg", "README.md"}
    assert marked_files(files["README.md"].decode()) == tuple(sorted(files))
    listed = re.findall(r"^  (\S+\.c)$", files["CMakeLists.txt"].decode(), re.MULTILINE)
    assert sorted(listed) == sorted(name for name in files if name.endswith(".c"))
    assert sorted(p.relative_to(hybrid.folder).as_posix() for p in hybrid.sources) == sorted(listed)


def test_the_same_model_gives_the_same_bytes(hybrid: GeneratedModel, tmp_path: Path) -> None:
    again = generate(hybrid_graph(), TARGET, tmp_path / "again")
    assert contents(again.folder) == contents(hybrid.folder)


def test_release_code_has_no_trace_and_no_mutable_state(hybrid: GeneratedModel) -> None:
    text = (hybrid.folder / "model.c").read_text()
    released = re.sub(r"#ifdef TNF_TRACE.*?#else", "", text, flags=re.DOTALL)
    assert "tnf_trace" not in released
    assert re.findall(r"^static (?!const )", text, re.MULTILINE) == []


def test_readme_tells_the_memory_and_every_layer(hybrid: GeneratedModel) -> None:
    readme = (hybrid.folder / "README.md").read_text()
    plan = hybrid.program.plan
    assert f"| RAM: arena | {plan.arena_bytes} |" in readme
    assert f"| {plan.lower_bound} |" in readme
    for strategy, peak in plan.peaks.items():
        assert f"| {strategy} | {peak} |" in readme
    for step in hybrid.steps:
        assert f"| {step.index} | {step.node} | {step.operator} |" in readme
    assert hybrid.program.model_hash in readme


def test_constant_bytes_are_those_of_the_arrays(hybrid: GeneratedModel) -> None:
    text = (hybrid.folder / "model.c").read_text()
    arrays = re.findall(r"^static const int(\d+)_t \w+\[(\d+)\]", text, re.MULTILINE)
    words = len(re.findall(r"^    \.\w+ = ", text, re.MULTILINE))
    assert hybrid.program.constant_bytes == sum(int(bits) // 8 * int(n) for bits, n in arrays) + 4 * words


def test_macs_are_counted(hybrid: GeneratedModel) -> None:
    macs = {step.node: step.call.macs for step in hybrid.steps}
    assert macs["stem/Conv"] == 9 * 8 * 6 * 3 * 3 * 3
    assert macs["block/depthwise"] == 5 * 4 * 12 * 9
    assert macs["block/project"] == 5 * 4 * 6 * 6
    assert macs["encoder/mix"] == 2 * 25 * 25 * (3 + 3)  # fused: scores and context
    assert macs["encoder/fc1"] == 25 * 6 * 10
    assert hybrid.program.macs == sum(macs.values())


def test_hash_follows_every_byte_of_the_model() -> None:
    graph = hybrid_graph()
    assert graph_hash(graph) == graph_hash(hybrid_graph())
    embedding = graph.constants["embedding"].copy()
    embedding[0, 0] ^= 1
    assert graph_hash(replace(graph, constants={"embedding": embedding})) != graph_hash(graph)
    assert graph_hash(small_graph()) != graph_hash(small_graph(("a", "b")))


def test_names_from_the_model_cannot_break_the_c(tmp_path: Path) -> None:
    names = ("/* a */ |\n<b>", '*/ #error "no" \\')
    model = generate(small_graph(names), TARGET, tmp_path / "out", prefix="Odd_1")
    assert model.header.name == "Odd_1.h"
    assert "#define ODD_1_ARENA_BYTES" in model.header.read_text()
    build_shared_library(model.sources, include_dirs=model.include_dirs, extra_flags=WARNINGS)


@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "ä", "tnf_x", "a\n"])
def test_a_prefix_that_is_no_identifier_is_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(TinyFormerError, match="prefix .* cannot start C names"):
        generate(small_graph(), TARGET, tmp_path / "out", prefix=prefix)
    assert list(tmp_path.iterdir()) == []


def test_a_generated_folder_is_replaced(tmp_path: Path) -> None:
    generate(hybrid_graph(), TARGET, tmp_path / "out")
    generate(small_graph(), TARGET, tmp_path / "out")
    assert not (tmp_path / "out" / "kernels" / "conv2d.c").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("begin", ["generated", "foreign"])
def test_other_files_are_not_overwritten_without_force(begin: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if begin == "generated":
        generate(small_graph(), TARGET, out)
    else:
        out.mkdir()
        (out / "README.md").write_text("mine")
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    with pytest.raises(TinyFormerError, match="holds files that were not generated"):
        generate(hybrid_graph(), TARGET, out)
    assert contents(out) == before
    generate(hybrid_graph(), TARGET, out, force=True)
    assert not (out / "notes.txt").exists()


def test_an_empty_folder_is_used_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert generate(small_graph(), TARGET, tmp_path / "empty").header.is_file()
    assert generate(small_graph(), TARGET, tmp_path / "a" / "b").header.is_file()


def test_what_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TinyFormerError, match="not a folder|cannot be written"):
            generate(small_graph(), TARGET, out, force=True)
    assert (tmp_path / "file").read_text() == "mine"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TinyFormerError, match="holds the current folder"):
        generate(small_graph(), TARGET, tmp_path, force=True)
    with pytest.raises(TinyFormerError, match="holds the current folder"):
        generate(small_graph(), TARGET, Path("missing", ".."), force=True)
    assert (tmp_path / "file").exists()


def tiny_target(flash: int, ram: int) -> Target:
    return replace(
        TARGET,
        name="tiny",
        memory=(
            MemoryRegion("flash", "flash", "rx", 0x0800_0000, flash, "test"),
            MemoryRegion("sram", "ram", "rw", 0x2000_0000, ram, "test"),
        ),
        stack_bytes=512,
    )


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    graph = hybrid_graph()
    with pytest.raises(
        TargetError, match=r"bytes of constants, \d+ more than the 2048 of flash on tiny; .*stem/Conv \("
    ):
        generate(graph, tiny_target(2048, 65536), tmp_path / "out")
    plan = build_program(graph, tiny_target(65536, 2048)).plan
    more = plan.arena_bytes + 512 - 2048
    needs = f"{plan.arena_bytes} bytes of arena and 512 of stack, {more} more than the 2048 of sram on tiny"
    with pytest.raises(TargetError, match=rf"{needs}; .*scratch \({plan.scratch_bytes}\)"):
        generate(graph, tiny_target(65536, 2048), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_no_kernel_does_is_refused_with_the_node(tmp_path: Path) -> None:
    b = Builder("deep")
    x = b.input("x", (2,) * 8)
    graph = b.graph(b.add("/deep/Pad", Pad((1,) * 8, (0,) * 8, 0), x))
    with pytest.raises(UnsupportedError, match=r"node '/deep/Pad' \(pad\).*8 axes"):
        generate(graph, TARGET, tmp_path / "out")
    empty = Builder("empty")
    empty.input("x", (2,))
    with pytest.raises(UnsupportedError, match="no operators"):
        generate(empty.graph("x"), TARGET, tmp_path / "out")


def attention_graph(tokens: int, heads: int = 2, channels: int = 8) -> Graph:
    """Attention alone; `channels` of each head."""
    b = Builder("attention")
    kind = TensorType((), 1 / 64, -3)
    q, k, v = (b.input(name, (heads, tokens, channels)) for name in "qkv")
    scores = b.add("scores", MatMul(-3, -3, Requantization.from_real(1 / 64, -3), transpose_b=True), q, k)
    shares = b.add("softmax", Softmax.from_scale(1 / 64), scores, like=TensorType((), 1 / 256, -128))
    b.add("context", MatMul(-128, -3, Requantization.from_real(1 / 256, -3)), shares, v, like=kind)
    return b.graph("context")


@pytest.mark.parametrize("dsp", [False, True])
def test_attention_is_fused_where_that_makes_the_arena_smaller(dsp: bool) -> None:
    graph = attention_graph(256, heads=4, channels=11)
    few, many = (build_program(one, dsp=dsp) for one in (attention_graph(6), graph))
    assert [step.operator for step in few.steps] == ["matmul", "softmax", "matmul"]
    assert [step.operator for step in many.steps] == ["attention"]
    apart = plan_arena(
        graph,
        [kernel_calls(node.op, tuple(graph.tensors[t].shape for t in node.inputs), dsp=dsp)[0] for node in graph.nodes],
    )
    assert 5 * many.plan.arena_bytes <= apart.arena_bytes
    assert many.model_hash == graph_hash(graph)
    assert many.macs == 2 * 256 * 256 * 44
