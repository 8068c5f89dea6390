"""Firmware that boots: its start-up code, its faults, whole models against the golden model, and QEMU being absent."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codegen.generate import GeneratedModel, generate
from codegen.target import load_target
from conformance import qemu
from conformance.firmware.build import FIRMWARE, board_for, boards, build_board_firmware, build_program_firmware
from conformance.models import ModelUnderTest, compare_model, random_samples
from conformance.toolchain import NATIVE, Toolchain, arm_toolchains, elf_symbols
from conformance.verify.result import Outcome
from conformance.verify.samples import Sample, samples
from refsim import Graph
from refsim.errors import EmulationError, TargetError, ToolchainError
from tests.ckernels.compilers import STRICT
from tests.codegen.graphs import hybrid_graph

CHIPS = {"cortex-m3": "stm32f103", "cortex-m4": "stm32f407", "cortex-m7": "stm32f746", "cortex-m33": "stm32u575"}
BUILDS = [(core, tool) for core in CHIPS for tool in arm_toolchains() if tool.name == "zig" or core == "cortex-m4"]
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return hybrid_graph()


@pytest.fixture(scope="module")
def generated(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> GeneratedModel:
    return generate(graph, load_target("stm32f746"), tmp_path_factory.mktemp("qemu") / "model")


@pytest.fixture
def without_qemu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    qemu.find_qemu.cache_clear()
    yield
    qemu.find_qemu.cache_clear()


def three(graph: Graph) -> tuple[Sample, ...]:
    return samples(graph, random_samples(graph, 3), seed=0)[:3]


def boot(folder: Path, body: str, *, core: str = "cortex-m4", seconds: float = qemu.SECONDS) -> tuple[int, str]:
    """Boot a program whose `tnf_program` has this body."""
    source = folder / "program.c"
    before, _, body = body.rpartition("---")
    source.write_text(
        f'#include "boot.h"\n#include "semihosting.h"\n{before}\nuint32_t tnf_program(void)\n{{\n{body}\n}}\n'
    )
    board = boards()[core]
    return qemu.run_image(build_program_firmware([source], board), board, folder, seconds=seconds)


@pytest.mark.parametrize("tool", arm_toolchains(), ids=lambda tool: tool.name)
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m33"])
def test_links_with_a_whole_vector_table_at_the_start_of_the_code(core: str, tool: Toolchain, tmp_path: Path) -> None:
    board = boards()[core]
    source = tmp_path / "program.c"
    source.write_text('#include "boot.h"\nuint32_t tnf_program(void) { return 0u; }\n')
    symbols = elf_symbols(build_program_firmware([source], board, toolchain=tool))
    assert symbols["tnf_vectors"] == board.code.origin
    assert board.data.origin <= symbols["tnf_stack_bottom"] < symbols["tnf_stack_top"] <= board.data.end


@pytest.mark.parametrize("tool", arm_toolchains(), ids=lambda tool: tool.name)
@pytest.mark.parametrize("source", ["boot.c", "semihosting.c", "model.c", "startup.c"])
def test_sources_compile_without_a_warning(source: str, tool: Toolchain, tmp_path: Path) -> None:
    cpu = "cortex_m4" if tool.name == "zig" else "cortex-m4"
    core = ["-target", "thumb-freestanding-eabi"] if tool.name == "zig" else ["-mthumb"]
    model = ["-DTNF_RUN=model_run", "-DTNF_ARENA_BYTES=64u", "-DTNF_INPUTS={0u,8u}", "-DTNF_OUTPUTS={8u,4u}"]
    path = (NATIVE if source == "startup.c" else FIRMWARE) / source
    command = [*tool.command, *core, f"-mcpu={cpu}", *STRICT, "-O2", "-DTNF_BOOT=1", *model, "-c", str(path)]
    done = subprocess.run([*command, "-o", str(tmp_path / "out.o")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_qemu
@pytest.mark.parametrize("core", CHIPS)
def test_start_up_readies_data_bss_and_fpu(core: str, tmp_path: Path) -> None:
    body = """
        static volatile uint32_t initialised = 41u, zeroed;
        static volatile float half = 0.5f;
        ---
        tnf_print("ready");
        return initialised == 41u && zeroed == 0u && half * 3.0f > 1.4f ? 0u : 1u;
    """
    assert boot(tmp_path, body, core=core) == (0, "ready")


@needs_qemu
def test_the_exit_code_is_the_program_s(tmp_path: Path) -> None:
    assert boot(tmp_path, "return 7u;") == (7, "")


@needs_qemu
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m33"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return *(volatile uint32_t *)0xB0000000u;", "where there is no memory.*address 0xb0000000.*tnf_program"),
        ('__asm__ volatile("udf #0"); return 0u;', "undefined instruction.*tnf_program.*program.c:"),
        (
            "static uint32_t deeper(volatile uint32_t *n) { volatile uint32_t room[64] = {*n + 1u}; "
            "return *n == 99999u ? 0u : deeper(room) + room[0]; } --- uint32_t n = 0u; return deeper(&n);",
            "stack overflow",
        ),
    ],
    ids=["bus", "instruction", "stack"],
)
def test_a_fault_ends_the_firmware_and_is_explained(body: str, message: str, core: str, tmp_path: Path) -> None:
    with pytest.raises(EmulationError, match=f"(?s)HardFault: .*({message})"):
        boot(tmp_path, body, core=core, seconds=20)


@needs_qemu
def test_a_firmware_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(EmulationError, match=r"had not ended after 0\.5 s"):
        boot(tmp_path, 'for (;;) { __asm__ volatile(""); }', seconds=0.5)


@needs_qemu
@pytest.mark.parametrize(("core", "tool"), BUILDS, ids=lambda value: getattr(value, "name", value))
def test_every_operator_on_every_board(core: str, tool: Toolchain, graph: Graph, tmp_path: Path) -> None:
    generated = generate(graph, load_target(CHIPS[core]), tmp_path / "model")
    check, divergence = qemu.qemu_check(generated, three(graph), tool)
    assert divergence is None
    assert (check.outcome, check.figure) == (Outcome.PASSED, 0), check.detail
    assert check.place == f"qemu {boards()[core].name} {tool.name} -O2 ({CHIPS[core]})"


@needs_qemu
def test_serves_as_a_place_of_the_conformance_run(graph: Graph, generated: GeneratedModel) -> None:
    model = ModelUnderTest(graph, random_samples(graph, 2))
    outcome = compare_model(model, qemu.QemuModel(generated), "qemu", 2)
    assert (outcome.samples, outcome.mismatches, outcome.message) == (2, 0, "")


@needs_qemu
def test_a_wrong_byte_fails(graph: Graph, tmp_path: Path) -> None:
    generated = generate(graph, load_target("stm32f746"), tmp_path / "model")
    kernel = generated.folder / "kernels" / "softmax_dsp.c"
    text = kernel.read_text()
    assert "- 128" in text
    kernel.write_text(text.replace("- 128", "- 127"))
    files: dict[str, bytes] = {}
    check, divergence = qemu.qemu_check(generated, three(graph), attachments=files)
    assert (check.outcome, check.figure, check.limit) == (Outcome.FAILED, 3, 0)
    assert "(softmax)" in check.detail
    assert divergence is not None
    assert (divergence.operator, divergence.place, list(files)) == ("softmax", check.place, [divergence.reproducer])


def test_without_qemu_nothing_passes(graph: Graph, generated: GeneratedModel, without_qemu: None) -> None:
    check, _ = qemu.qemu_check(generated, three(graph), arm_toolchains()[0])
    assert check.outcome is Outcome.NOT_RUN
    assert "install QEMU" in check.detail
    with pytest.raises(ToolchainError, match="install QEMU"):
        qemu.QemuModel(generated)


def test_a_core_without_a_board_is_not_run(graph: Graph, tmp_path: Path) -> None:
    generated = generate(graph, load_target("rp2040"), tmp_path / "model")
    check, _ = qemu.qemu_check(generated, three(graph))
    assert check.outcome is Outcome.NOT_RUN
    assert "cortex-m0plus" in check.detail
    with pytest.raises(TargetError, match="cortex-m0plus"):
        qemu.QemuModel(generated)


def test_the_image_does_not_depend_on_samples_and_keeps_the_target_s_fpu(generated: GeneratedModel) -> None:
    board = board_for(generated.target)
    assert board is not None
    assert (board.name, board.core, board.fpu) == ("mps2-an500", "cortex-m7", generated.target.fpu)
    assert build_board_firmware(generated, board) == build_board_firmware(generated, board)
