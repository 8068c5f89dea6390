"""Reports of a validation: every format says what was found, whatever the names are, and all files appear together."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import jsonschema
import pytest
from rich.console import Console

from conformance.verify.reports import (
    FORMATS,
    append_step_summary,
    json_file,
    junit,
    page,
    print_report,
    sarif,
    summary,
    write_reports,
)
from conformance.verify.reports.catalogue import RULES, rule
from conformance.verify.reports.files import publish
from conformance.verify.reports.wording import ESSENTIAL, headline, measured, number, printable
from conformance.verify.result import Build, Check, Divergence, Layer, MemoryPart, MemoryRegionUse, Outcome, Report
from conformance.verify.runner import CHECKS
from refsim.errors import TinyFormerError
from tests.conformance import verify_reports

REPORTS = [verify_reports.passing, verify_reports.failing, verify_reports.empty, verify_reports.hostile]
NAMES = ["report.json", "report.html", "junit.xml", "report.sarif", "summary.md"]


def shown(report: Report, width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        print_report(report, console)
    return capture.get()


# Words


def test_the_verdict_in_words() -> None:
    assert headline(verify_reports.passing()) == "Safe to flash: 31 checks passed; 1 did not run"
    assert headline(verify_reports.failing()) == "Do not flash: 3 of 32 checks failed; 1 did not run"
    assert headline(verify_reports.empty()) == "No verdict: there was nothing to check"
    passing = verify_reports.passing()
    some = tuple(check for check in passing.checks if check.name != "stack")
    assert headline(replace(passing, checks=some)).startswith("Nothing failed, but stack did not run: 28 checks passed")
    stack = next(check for check in passing.checks if check.name == "stack")
    missing = (*passing.checks, replace(stack, place="elsewhere", outcome=Outcome.NOT_RUN))
    assert headline(replace(passing, checks=missing)).startswith("Nothing failed, but stack did not run: 31 checks")
    alone = verify_reports.passing().checks[-1]
    assert headline(replace(verify_reports.passing(), checks=(alone,))) == "No verdict: none of 1 check ran"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1_048_576.0, "1,048,576"),
        (12.345678, "12.35"),
        (0.00123456, "0.001235"),
        (-3.5, "-3.5"),
        (123_456.7, "123,457"),
        (math.inf, "infinite"),
        (-math.inf, "-infinite"),
        (math.nan, "not a number"),
    ],
)
def test_numbers_in_words(value: float, text: str) -> None:
    assert number(value) == text


def test_figures_in_words() -> None:
    check = Check("stack", "here", Outcome.PASSED, "", 12.5, 40, "ms")
    assert measured(check) == "12.5 of 40 ms"
    assert measured(replace(check, limit=None)) == "12.5 ms"
    assert measured(replace(check, limit=0, unit="samples", figure=7)) == "7 samples, none allowed"
    assert measured(replace(check, figure=None)) == ""


def test_every_check_has_a_rule() -> None:
    assert set(CHECKS) <= set(RULES)
    assert set(ESSENTIAL) <= set(CHECKS)


def test_every_rule_says_why_and_what_to_do() -> None:
    for found in RULES.values():
        assert found.title and found.why.endswith(".") and found.remedy.endswith(".")
    assert rule("some-new-check").title == "Some new check"


# report.json


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(json_file.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("make", REPORTS)
def test_the_json_file_holds_to_its_schema(make: Any, validator: Any) -> None:
    validator.validate(json.loads(json_file.render(make())))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(schema=2),
        lambda v: v.pop("verdict"),
        lambda v: v.update(verdict="fine"),
        lambda v: v["checks"][0].update(outcome="skipped"),
        lambda v: v["checks"][0].update(figure="many"),
        lambda v: v["checks"][0].pop("limit"),
        lambda v: v["builds"][0]["layers"][0].update(mismatches=-1),
        lambda v: v["builds"][0]["memory"][0].update(kind="rom"),
        lambda v: v["divergences"][0].update(element=7),
        lambda v: v.update(model_sha256="xyz"),
    ],
)
def test_the_schema_refuses_what_is_wrong(change: Any, validator: Any) -> None:
    data = json.loads(json_file.render(verify_reports.failing()))
    change(data)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("check", Check),
        ("layer", Layer),
        ("memory_part", MemoryPart),
        ("memory_region", MemoryRegionUse),
        ("build", Build),
        ("divergence", Divergence),
        ("", Report),
    ],
)
def test_the_schema_documents_every_field(name: str, type_: type) -> None:
    schema = json.loads(json_file.SCHEMA.read_text())
    found = schema["$defs"][name] if name else schema
    fields = {field.name for field in dataclasses.fields(type_)} | (set() if name else {"schema", "verdict"})
    assert set(found["properties"]) == set(found["required"]) == fields
    assert all(entry.get("description") or entry.get("$ref") for entry in found["properties"].values())


def restored(type_: Any, value: Any) -> Any:
    """A value of a type from what JSON holds of it."""
    if dataclasses.is_dataclass(type_):
        hints = typing.get_type_hints(type_)
        return type_(
            **{field.name: restored(hints[field.name], value[field.name]) for field in dataclasses.fields(type_)}
        )
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is tuple:
        return tuple(restored(arguments[0], entry) for entry in value)
    if origin is types.UnionType:
        return None if value is None else restored(arguments[0], value)
    return value if origin is dict else type_(value)


@pytest.mark.parametrize("make", REPORTS[:3])
def test_nothing_is_lost_in_the_json_file(make: Any) -> None:
    report = make()
    data = json.loads(json_file.render(report))
    assert restored(Report, data) == report
    assert data["verdict"] == report.verdict


# junit.xml


def test_one_case_a_check_and_one_suite_a_place() -> None:
    report = verify_reports.failing()
    root = ElementTree.fromstring(junit.render(report))
    assert [suite.attrib["name"] for suite in root] == list(verify_reports.PLACES)
    cases = [(f"verify.{check.place}", check.name) for check in report.checks]
    assert sorted((c.attrib["classname"], c.attrib["name"]) for c in root.iter("testcase")) == sorted(cases)
    assert (root.attrib["tests"], root.attrib["failures"]) == ("32", "3")
    for suite in root:
        for key, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            assert suite.attrib[key] == str(len(list(suite.iter(tag))))
        assert suite[0].tag == "properties"
    messages = [f.attrib["message"] for f in root.iter("failure")]
    assert sorted(messages) == sorted(check.detail for check in report.checks if check.outcome is Outcome.FAILED)
    skipped = next(root.iter("skipped"))
    assert skipped.attrib["message"] == "qemu-system-arm is not on the PATH; install it"
    assert "542,592 of 524,288 bytes" in "".join(f.text or "" for f in root.iter("failure"))
    output = next(root.iter("system-out")).text or ""
    assert "-11, the golden model's -12" in output and "reproducer: reproducer_stm32f746.c" in output


def test_cases_hold_what_readers_of_junit_files_know() -> None:
    """Elements, their attributes and their order as the schema of Jenkins's xUnit plugin has them."""
    attributes = {
        "testsuites": {"name", "tests", "failures", "errors", "time"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        "properties": set(),
        "property": {"name", "value"},
        "testcase": {"name", "classname", "time"},
        "failure": {"message", "type"},
        "skipped": {"message"},
        "system-out": set(),
    }
    order = ["properties", "testcase", "system-out"]
    for make in REPORTS:
        root = ElementTree.fromstring(junit.render(make()))
        for element in root.iter():
            assert set(element.attrib) == attributes[element.tag]
        for suite in root:
            tags = [order.index(child.tag) for child in suite]
            assert tags == sorted(tags) and tags.count(0) == 1 and tags.count(2) <= 1
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])


# report.sarif


def check_sarif(log: Any) -> None:
    """What GitHub asks of a SARIF file, beyond the types of its fields."""
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] and isinstance(driver["version"], str)
    for entry in driver["rules"]:
        assert entry["id"] and entry["shortDescription"]["text"] and entry["fullDescription"]["text"]
        assert entry["help"]["text"] and entry["help"]["markdown"]
        assert entry["defaultConfiguration"]["level"] == "error"
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"] and result["level"] == "error"
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] == 1
        uri = location["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"(?:[\w.~/-]|%[0-9A-F]{2})+", uri, re.ASCII)
        assert uri == run["artifacts"][location["physicalLocation"]["artifactLocation"]["index"]]["location"]["uri"]
        assert result["partialFingerprints"]["primaryLocationLineHash"]
    for invocation in run["invocations"]:
        assert invocation["executionSuccessful"] is True
        for notification in invocation["toolExecutionNotifications"]:
            assert (
                driver["rules"][notification["associatedRule"]["index"]]["id"] == notification["associatedRule"]["id"]
            )


@pytest.mark.parametrize("make", REPORTS)
def test_sarif_has_the_structure_that_github_asks_for(make: Any) -> None:
    check_sarif(json.loads(sarif.render(make())))


def test_only_failed_checks_are_results() -> None:
    report = verify_reports.failing()
    (run,) = json.loads(sarif.render(report))["runs"]
    assert [result["ruleId"] for result in run["results"]] == ["bit-exact", "flash", "latency"]
    texts = [result["message"]["text"] for result in run["results"]]
    assert "First divergence: sample 3 (random), step 12" in texts[0]
    assert texts[1].startswith("rp2040 zig -Os: image is 18,304 bytes too large")
    assert "(542,592 of 524,288 bytes)" in texts[1]
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notification["associatedRule"]["id"] == "qemu" and "not run" in notification["message"]["text"]
    assert run["automationDetails"]["id"].startswith("tinyformer-verify/tinyformer_cifar10.onnx/stm32f746+rp2040")
    (run,) = json.loads(sarif.render(verify_reports.passing()))["runs"]
    assert run["results"] == []


def test_an_alert_stays_the_same_when_its_figure_changes() -> None:
    def prints(report: Report) -> list[str]:
        (run,) = json.loads(sarif.render(report))["runs"]
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]

    report = verify_reports.failing()
    changed = tuple(replace(check, detail="other", figure=1.0) for check in report.checks)
    assert prints(report) == prints(replace(report, checks=changed))
    assert len(set(prints(report))) == 3


# The step summary


def test_the_summary_puts_what_failed_first() -> None:
    text = summary.render(verify_reports.failing())
    assert text.startswith("## ❌ Do not flash: 3 of 32 checks failed; 1 did not run")
    assert text.index("| latency |") < text.index("First divergence at") < text.index("<details>")
    assert text.count("| ❌ |") == 3 and text.count("| ✅ |") == 28 and text.count("| ⚪ |") == 1
    assert "Other checks: 28 passed, 1 not run" in text
    assert "| rp2040 zig -Os | flash | 542,592 (103.5%) | 524,288 |" in text
    passed = summary.render(verify_reports.passing())
    assert passed.startswith("## ✅ Safe to flash") and "❌" not in passed


def test_the_summary_stays_within_what_github_takes() -> None:
    report = verify_reports.failing()
    flood = replace(report, checks=report.checks * 1000)
    text = summary.render(flood)
    assert len(text.encode()) < 2**20
    assert "and 2800 more, in report.json" in text


def test_the_summary_goes_where_github_says(tmp_path: Path) -> None:
    report = verify_reports.passing()
    assert append_step_summary(report, {}) is None
    path = tmp_path / "step.md"
    path.write_text("before\n")
    assert append_step_summary(report, {"GITHUB_STEP_SUMMARY": str(path)}) == path
    assert path.read_text() == f"before\n{summary.render(report)}\n"


# The terminal


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_every_check_and_the_verdict_last(width: int) -> None:
    text = shown(verify_reports.failing(), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("✗ failed") == 3 and text.count("\N{EN DASH} not run") == 1 and text.count("✓ passed") == 28
    assert text.splitlines()[-1].startswith("✗ Do not flash")
    assert "product -12125" in text and "542,592" in text
    shown_words = set(re.sub("[│╭╮─]", " ", text).split())
    for check in verify_reports.failing().checks:
        assert set(f"{check.name} {check.place} {measured(check)} {check.detail}".split()) <= shown_words
    assert shown(verify_reports.passing(), width).splitlines()[-1].startswith("✓ Safe to flash")
    assert shown(verify_reports.empty(), width) == "\N{EN DASH} No verdict: there was nothing to check\n"


# Names from a model


def test_names_cannot_leave_their_place_in_any_format() -> None:
    report = verify_reports.hostile()
    evil = verify_reports.EVIL
    assert not re.search("[\x00\x1b\x85\ud800]", shown(report)), "control characters on the terminal"
    plain, hostile = page.render(verify_reports.failing()), page.render(report)
    assert hostile.lower().count("<script") == plain.lower().count("<script") == 2
    assert hostile.lower().count("</script") == 2
    assert json.loads(hostile.split('type="application/json">')[1].split("</script>")[0])["report"]["model"] == evil
    root = ElementTree.fromstring(junit.render(report))
    assert {case.attrib["name"] for case in root.iter("testcase")} == {" ".join(printable(evil).split())}
    (run,) = json.loads(sarif.render(report))["runs"]
    assert run["results"][0]["ruleId"] == evil
    uri = run["artifacts"][0]["location"]["uri"]
    assert unquote(uri, errors="strict") == evil.replace("\ud800", r"\ud800")
    text = summary.render(report)
    assert "<script" not in text and "`*x*`" not in text and "[red]" not in text
    for line in text.splitlines():
        if line.startswith("| ") and "script" in line and "|---" not in line:
            assert line.count("|") in {5, 6}


# Files


@pytest.mark.parametrize("make", REPORTS)
def test_all_files_are_written(make: Any, tmp_path: Path) -> None:
    report = make()
    found = write_reports(report, tmp_path / "deep" / "out", {"reproducer.c": b"int main;"})
    assert [path.name for path in found] == ["reproducer.c", *NAMES] and list(FORMATS) == NAMES
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == sorted(["reproducer.c", *NAMES])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    for path in found:
        path.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "deep/out/report.json").read_bytes())["seconds"] == report.seconds


def test_files_of_an_earlier_run_are_replaced_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    write_reports(verify_reports.passing(), tmp_path)
    write_reports(verify_reports.failing(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["mine.txt", *NAMES])
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "failed"
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_reproducers_go_with_their_report(tmp_path: Path) -> None:
    failing = verify_reports.failing()
    name = failing.divergences[0].reproducer
    write_reports(failing, tmp_path, {name: b"first"})
    write_reports(failing, tmp_path, {name: b"second"})
    assert (tmp_path / name).read_bytes() == b"second"
    write_reports(verify_reports.passing(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"divergences": [{"reproducer": 5}, {"reproducer": "../mine.txt"}]}'])
def test_what_lies_there_is_not_trusted(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text(text)
    write_reports(verify_reports.passing(), tmp_path / "out")
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(NAMES)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("failing_step", range(8))
def test_where_writing_fails_everything_is_as_it_was(
    failing_step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(dict.fromkeys("abd", b"old"), tmp_path / "out")
    before = contents(tmp_path / "out")
    moves = 0
    move = Path.replace

    def fails(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == failing_step + 1:
            raise OSError(28, "No space left on device")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    new = dict.fromkeys("abcd", b"new")
    if failing_step < 7:
        with pytest.raises(TinyFormerError, match=r"reports cannot be written to .*out: No space left on device"):
            publish(new, tmp_path / "out")
        assert contents(tmp_path / "out") == before
    else:
        publish(new, tmp_path / "out")
        assert contents(tmp_path / "out") == new


def test_a_place_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TinyFormerError, match="reports cannot be written to"):
            write_reports(verify_reports.passing(), folder)


@pytest.mark.parametrize("there", [False, True])
def test_runs_at_once_do_not_mix(there: bool, tmp_path: Path) -> None:
    """Writers of whole sets, and a reader: the set at the end is one writer's."""
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
    names = [f"{index}.txt" for index in range(20)]
    errors: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            for _ in range(10):
                publish(dict.fromkeys(names, b"%d" % writer), folder)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = contents(folder)
    assert sorted(found) == sorted(names) and len(set(found.values())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


_KILLED = """
import os, sys
from pathlib import Path
from conformance.verify.reports.files import publish
left = int(sys.argv[2])
def counted(original):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return original(*arguments, **options)
    return call
for name in ("write_bytes", "replace", "rename", "mkdir"):
    setattr(Path, name, counted(getattr(Path, name)))
publish({name: b"new" * 1000 for name in "abc"}, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_killed_leaves_no_half_and_no_mixture(there: bool, tmp_path: Path) -> None:
    for left in range(0, 30, 1 if there else 2):
        folder = tmp_path / str(left) / "out"
        folder.parent.mkdir()
        if there:
            publish(dict.fromkeys("abc", b"old"), folder)
        code = subprocess.run([sys.executable, "-c", _KILLED, str(folder), str(left)], check=False).returncode
        assert code in {0, 9}
        seen = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} if folder.exists() else {}
        assert len(set(seen.values())) <= 1, "files of two runs"
        assert set(seen.values()) <= {b"old", b"new" * 1000}, "half a file"
        if not there:
            assert set(seen) in (set(), set("abc")), "some files"
        publish(dict.fromkeys("abc", b"next"), folder)
        assert contents(folder) == dict.fromkeys("abc", b"next"), "what the killed run left is gone"
        if code == 0:
            break
    else:
        pytest.fail("never came to its end")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_interrupt_waits_for_the_last_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(dict.fromkeys("abc", b"old"), tmp_path / "out")
    move = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(dict.fromkeys("abc", b"new"), tmp_path / "out")
    assert contents(tmp_path / "out") == dict.fromkeys("abc", b"new")
