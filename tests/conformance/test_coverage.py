"""Coverage: what was never reached is found, on the host and in assembly, and arguments are held to what happened."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ckernels
from conformance.coverage import report
from conformance.coverage.__main__ import measure
from conformance.coverage.result import (
    Argument,
    Assembly,
    Branch,
    Coverage,
    Instruction,
    SourceFile,
    arguments,
)
from conformance.places import Library
from refsim.errors import DataError, ToolchainError

FAULTS = {
    "    do {\n": "    if (p->rank > 6) {\n        return;\n    }\n    down_to_zero(3);\n    do {\n",
    "void tnf_transpose": """#if defined(__ARM_FEATURE_DSP)
__attribute__((naked, noinline)) static int32_t down_to_zero(int32_t n)
{
    __asm__("1:\\n\\tsubs r0, #1\\n\\tbne 1b\\n\\tbeq 2f\\n\\tmovs r0, #1\\n\\t2:\\n\\tbx lr");
}
#else
static void down_to_zero(int32_t n)
{
    while (n > 0) {
        n--;
    }
}
#endif

void tnf_transpose""",
}


def example(**changes: object) -> Coverage:
    """One file of four lines with one condition that never held, and one function in assembly."""
    text = ["int f(int a)", "{", "    return a == 7", "        ? 1 : 2;"]
    file = SourceFile(
        text, {3: 5, 4: 5}, {(3, 12, 3, 18): Branch("f", "a == 7", (0, 5))}, {(2, 1, 4, 18): 5, (4, 11, 4, 12): 0}
    )
    code = {
        0: Instruction("subs r0, #1", True),
        2: Instruction("bne -0x2", True, (3, 1)),
        4: Instruction("bx lr", True),
    }
    found = Coverage({"src/f.c": file}, [Assembly("g", "cortex-m7", "src/f.c", 9, code)], (), 4, ["host: clang"])
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def argued(outcome: str = "true", condition: str = "a == 7") -> Argument:
    return Argument("src/f.c", "f", condition, outcome, "nobody calls it with 7")


def test_an_outcome_that_never_was_is_named() -> None:
    assert example().missed() == ["src/f.c:3: `a == 7` in f is never true"]


def test_an_argument_is_accepted_and_held_to_what_happened() -> None:
    assert example(arguments=(argued(),)).missed() == []
    (line,) = example(arguments=(argued(), argued("false"))).missed()
    assert line == "src/f.c: `a == 7` in f is listed as never false, but is false at times"
    assert example(arguments=(argued(), argued(condition="a == 8"))).missed() == [
        "src/f.c: `a == 8` in f is listed as never true, but is not there"
    ]


def test_lines_behind_an_argued_condition_are_out_of_reach() -> None:
    found = example(arguments=(argued(),))
    found.files["src/f.c"].lines[4] = 0
    assert found.missed() == []
    found.arguments = ()
    assert "src/f.c:4: never executed" in found.missed()


def test_assembly_must_run_and_branch_both_ways() -> None:
    found = example(arguments=(argued(),))
    code = found.assembly[0].instructions
    code[2].ways = (0, 1)
    code[4].executed = False
    assert found.missed() == [
        "src/f.c:9: g on cortex-m7: +0x2 `bne -0x2` is never taken",
        "src/f.c:9: g on cortex-m7: +0x4 `bx lr` is never executed",
    ]


def test_reports_tell_the_same() -> None:
    found = example(arguments=(argued(),))
    data = json.loads(json.dumps(report.as_json(found)))
    numbers = {
        name: data["files"]["src/f.c"][name]
        for name in ("lines_run", "lines", "outcomes_met", "outcomes", "outcomes_argued")
    }
    assert numbers == {"lines_run": 2, "lines": 2, "outcomes_met": 1, "outcomes": 1, "outcomes_argued": 1}
    assert "nobody calls it with 7" in report.page(found)
    assert report.table(found).row_count == 2
    assert report.assembly_table(found).row_count == 1


@pytest.mark.parametrize(
    "text",
    [
        "[[branch]]\nfile = 'a.c'\n",
        "[[branch]]\nfile='a.c'\nfunction='f'\ncondition='a'\noutcome='perhaps'\nwhy='b'\n",
        "[[branch]]\nfile='a.c'\nfunction='f'\ncondition='a'\noutcome='true'\nwhy=' '\n",
        "[[branch]\n",
    ],
)
def test_a_list_that_is_not_as_it_should_be_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "unreachable.toml"
    path.write_text(text)
    with pytest.raises(DataError, match="unreachable.toml"):
        arguments(path)


def test_the_list_names_conditions_of_the_sources() -> None:
    root = ckernels.include_dir().parent
    for argument in arguments():
        text = (root / argument.file).read_text()
        assert argument.condition in text.split(f"{argument.function}(")[1], argument


def test_the_preprocessor_chooses_by_what_the_builds_differ_in() -> None:
    # A line that no build of the coverage compiles would never be missed.
    known = {"TNF_DSP_INSTRUCTIONS", "TNF_DUAL_ISSUE", "TNF_NO_BUILTINS", "__GNUC__", "__ARM_FEATURE_DSP"}
    for path in (*ckernels.headers(), *ckernels.sources().values()):
        for line in path.read_text().splitlines():
            if line.lstrip().startswith(("#if ", "#ifdef", "#elif")):
                words = line.split("/*")[0].replace("(", " ").replace(")", " ").replace("!", " ").split()
                names = {w for w in words[1:] if w.isidentifier()} - {"defined", "if"}
                assert names <= known, f"{path.name}: {line}"


def test_what_cases_do_not_reach_is_found_on_the_host_and_in_assembly(tmp_path: Path) -> None:
    root = ckernels.include_dir().parent
    for path in (*ckernels.headers(), ckernels.source("transpose")):
        text = path.read_text()
        for right, wrong in FAULTS.items() if path.stem == "transpose" else ():
            assert text.count(right) == 1
            text = text.replace(right, wrong)
        copy = tmp_path / "ckernels" / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    library = Library((tmp_path / "ckernels/src/transpose.c",), tmp_path / "ckernels/include")
    try:
        found = measure(library, ["transpose"], 30, 0, tmp_path / "failures")
    except ToolchainError as error:
        pytest.skip(f"coverage cannot be measured here: {error}")
    missed = [line for line in found.missed() if line.startswith("src/")]
    number = found.files["src/transpose.c"].text.index("    if (p->rank > 6) {") + 1
    assert [line for line in missed if "down_to_zero" not in line] == [
        f"src/transpose.c:{number + 1}: never executed",
        f"src/transpose.c:{number + 2}: never executed",
        f"src/transpose.c:{number}: `p->rank > 6` in tnf_transpose is never true",
    ]
    for core in ("cortex-m4", "cortex-m7"):
        (function,) = (each for each in found.assembly if (each.name, each.core) == ("down_to_zero", core))
        assert [line.split("`")[1].split()[0] + line.split("`")[2] for line in function.missed()] == [
            "beq is never passed by",
            "movs is never executed",
        ]


def test_a_missing_tool_is_one_clear_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conformance.coverage", "--cases", "1", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2]), "TINYFORMER_CACHE": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "clang" in done.stderr
    assert "Traceback" not in done.stderr
