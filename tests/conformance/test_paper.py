"""`tinyformer paper`: sections are what was measured, results are kept, the document is rewritten between its marks."""

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from conformance import network_bench, profile
from conformance.network_bench import NetworkBenchReport, NetworkCost
from conformance.networks import Stage
from conformance.paper import fig9, fig10, fig11, spaces, table2, table3, table4
from conformance.paper.published import TABLE_II, TABLE_III
from conformance.paper.stacked_bars import Bar, render_bars
from conformance.paper.workspace import Claim, Section, Workspace, table
from conformance.paper_cli import SECTIONS
from conformance.timing.cycles import Timing
from refsim import model_zoo
from refsim.errors import DataError, TinyFormerError
from refsim.model_zoo import Accuracy, Card, Measured, card_text
from tests.refsim.conftest import Files, files  # noqa: F401 - a fixture: the small classifier and its samples
from tinyformer import app

ROOT = Path(__file__).parent.parent.parent
SMALL = (Stage(8, 2, 2, 8), Stage(12, 2, 2, 16))
MEASURED = Measured("stm32f746", "zig", "abc", True, 1000, 400, 100, 1000, 200_000, 300, 50_000, 21_600_000, 100.0, 15)
CARD = Card("A.", "CIFAR-10", "train", Accuracy(10_000, 0.91, 0.92, 0.93), epochs=40, measured=MEASURED)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty document and an empty zoo."""
    marks = (f"<!-- paper: {name} -->old<!-- end: {name} -->" for name in ("summary", *SECTIONS))
    document = tmp_path / "paper.md"
    document.write_text("# Kept\n" + "\nkept\n".join(marks), encoding="utf-8")
    (tmp_path / "zoo").mkdir()
    monkeypatch.setattr(model_zoo, "FOLDER", tmp_path / "zoo")
    return Workspace(document)


def rows(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table's rows, by the first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in lines}


def test_results_are_kept_until_a_setting_changes(workspace: Workspace) -> None:
    made = []

    def make() -> dict[str, object]:
        made.append(1)
        return {"value": (len(made),)}

    assert workspace.kept("x") is None
    assert workspace.stored("x", {"seed": 0}, make) == {"value": [1]}
    assert workspace.stored("x", {"seed": 0}, make) == workspace.kept("x") == {"value": [1]}
    assert workspace.kept("x", {"seed": 1}) is None
    assert workspace.stored("x", {"seed": 1}, make) == {"value": [2]}
    assert workspace.stored("x", {"seed": 1}, make, files=("x.svg",)) == {"value": [3]}, "its picture is gone"
    assert dataclasses.replace(workspace, fresh=True).stored("x", {"seed": 1}, make) == {"value": [4]}
    for text in ("{", "[]"):
        (workspace.folder / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json .*delete it"):
            workspace.stored("x", {}, make)


def test_a_section_is_written_between_its_marks(workspace: Workspace) -> None:
    workspace.stored("r", {"seed": 3, "compiler": "cc 1"}, lambda: 1)
    claims = (Claim("speed", "1", "2", "better"),)
    workspace.write("fig10", Section("new \\1 text", claims, ("r",), {"a.svg": "<svg/>"}))
    workspace.write("table2", Section("table", (Claim("size", "3", "4", "same"),)))
    text = workspace.document.read_text(encoding="utf-8")
    assert text.startswith("# Kept") and text.count("kept") == len(SECTIONS)
    assert "new \\1 text" in text and text.count("old") == len(SECTIONS) - 2
    assert re.search(r"\*`tinyformer paper fig10`; r\.json: compiler cc 1, seed 3, tinyformer \S+, numpy", text)
    assert (workspace.folder / "a.svg").read_text() == "<svg/>"
    assert list(rows(text.split("end: summary")[0]))[2:] == ["size", "speed"], "in the paper's order"
    workspace.write("fig10", Section("newer"))
    text = workspace.document.read_text(encoding="utf-8")
    assert "newer" in text and "new \\1" not in text and "speed" not in text


def test_a_document_without_marks_is_refused_before_anything_is_measured(workspace: Workspace) -> None:
    workspace.document.write_text("nothing", encoding="utf-8")
    with pytest.raises(DataError, match="must hold the marks <!-- paper: fig10 --> and <!-- end: fig10 --> once"):
        run("fig10", "--document", workspace.document)
    with pytest.raises(DataError, match="cannot be read"):
        run("fig10", "--document", workspace.document.with_name("none.md"))
    with pytest.raises(DataError, match=r"none\.tflite cannot be read"):
        table2.build(dataclasses.replace(workspace, resnet8=Path("none.tflite"), data=Path("none.npz")))
    with pytest.raises(TinyFormerError, match=r"no 'table1' here; there are table2, table3"):
        run("table1", "--document", workspace.document)


def run(*arguments: object) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["paper", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def cost(target: str, sparsity: int, constants: int, cycles: int | None) -> NetworkCost:
    return NetworkCost(
        target=target,
        core="cortex-m7",
        constant_bytes=constants,
        arena_bytes=1,
        macs=2_000_000,
        cycles=cycles,
        milliseconds=cycles and cycles / 216e3,
        sparsity=sparsity,
        peer_cycles=80e6,
    )


def test_fig10_is_the_network_benchmark(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = [cost(target, 0, 2_048_000, cycles) for target, cycles in zip(fig10.TARGETS, (None, 40e6), strict=True)]
    sparse = [cost(target, 75, 512_000, 10_800_000) for target in fig10.TARGETS]
    report = NetworkBenchReport((*dense, *sparse), 4, "balanced", 0, "zig", "abc", {})
    monkeypatch.setattr(network_bench, "measure", lambda targets, sparsities, *, progress: report)
    section = fig10.build(workspace)
    assert rows(section.text)["0 %"] == ["2000", "0%", "no room", "-", "185", "2.0"]
    assert rows(section.text)["75 %"] == ["500", "75%", "50", "7.4", "50", "7.4"]
    ElementTree.fromstring(section.pictures["fig10.svg"])
    assert [claim.here for claim in section.claims] == [
        "2.0 to 7.4 times (0 to 75 % zeros)",
        "75 to 75 % (75 to 75 % zeros), exact",
    ]


def test_fig11_takes_every_cycle_apart(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    under_test = network_bench.network(60, stages=SMALL)
    found = profile.measure(under_test, fig11.TARGET, timing=Timing.ZERO_WAIT)
    kinds = fig11.by_kind(found)
    assert sum(kinds.values()) == pytest.approx(found.counts.cycles)
    attention = next(each for each in found.operators if each.operator == "attention").counts.cycles
    elements = 2 * 16**4 + 2 * 8**4
    assert 8 < kinds["softmax"] / elements < 20 and kinds["softmax"] < attention
    monkeypatch.setattr(network_bench, "network", lambda sparsity: under_test)
    monkeypatch.setattr(fig11, "CASES", ("linear 64x192", "softmax"))
    section = fig11.build(workspace)
    table_a = rows(section.text)
    peer = network_bench.peer_cycles(under_test.graph, fig11.CORE)
    assert peer is not None
    assert table_a["all"][:2] == [f"{peer / 1e6:.1f}", f"{found.counts.cycles / 1e6:.1f}"]
    linear, softmax = table_a["linear 64x192 -> 384, MAC"], table_a["softmax 256x256, element"]
    assert linear[0] == "1.09" and softmax[0] == "378"
    assert float(linear[3]) < float(linear[2]) < 1.09
    assert float(softmax[-1]) == pytest.approx(378 / float(softmax[2]), abs=0.1)
    ElementTree.fromstring(section.pictures["fig11a.svg"])
    assert fig11.build(workspace) == section


def test_bars_are_as_long_as_their_parts() -> None:
    root = ElementTree.fromstring(render_bars("t", [Bar("a<", {"x": 1.0, "y": 3.0}), Bar("b", {"x": 2.0, "z": 0.0})]))
    widths = [
        float(e.get("width", "0")) for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("height") != "12"
    ]
    assert widths == pytest.approx([130, 390, 260])


def test_fig9_shows_spaces_and_trained_models() -> None:
    samples = [{"parameters": 1_000_000, "fits": True}, {"parameters": 2_000_000, "fits": False}]
    drawn = [
        {"space": name, "probability": p, "samples": samples}
        for name, p in zip(fig9.SPACES, (0.2, 0.95, 0.1), strict=True)
    ]
    section = fig9.section(drawn, {})
    assert rows(section.text)["normal"] == ["1.00 to 2.00 M", "50%", "95%", "> 90 %"]
    assert [claim.verdict for claim in section.claims] == ["reproduced", "not trained"] and not section.pictures
    drawn[0]["probability"] = 0.99
    other = dataclasses.replace(CARD, accuracy=Accuracy(10_000, 0.90, None, 0.905))
    never = dataclasses.replace(CARD, measured=dataclasses.replace(MEASURED, nonzero_weights=990))
    others = {"no": dataclasses.replace(CARD, measured=None), "never": never}
    section = fig9.section(drawn, {"one": CARD, "two": other, **others})
    assert [claim.verdict for claim in section.claims] == ["not reproduced", "other models, trained for less long"]
    found = rows(section.text)
    assert found["one"] == ["60%", "93.00%", "92.00%", "91.00%", "2.00"]
    assert found["two"] == ["60%", "90.50%", "-", "90.00%", "0.50"] and not found.keys() & others.keys()
    ElementTree.fromstring(section.pictures["fig9b.svg"])


def test_table2_sets_cards_beside_the_papers_rows() -> None:
    large = dataclasses.replace(
        MEASURED, fits=False, ram_bytes=400 * 1024, flash_bytes=2048 * 1024, cycles=None, latency_ms=None
    )
    cards = {
        "tinyformer-300k": CARD,
        "mobilenetv2": dataclasses.replace(CARD, measured=large),
        "cnn": dataclasses.replace(CARD, accuracy=Accuracy(10_000, 0.95)),
        "my-own": CARD,
        "block-2": CARD,
    }
    sizes = {"constant_bytes": 1 << 21, "code_bytes": 1024, "arena_bytes": 2048, "stack_bytes": 1024, "latency_ms": 9.0}
    section = table2.section(cards, {"cct-7-3x1": sizes, "mobilevit-xs": sizes | {"constant_bytes": 0}, "cnn": sizes})
    found = rows(section.text)
    assert found["TinyFormer-300K"] == ["300 KB", "0.91 MB", "96.10 %", "92.00%", "91.00%", "49 KB", "195 KB", "100 ms"]
    assert found["MobileNetV2"][-3:] == ["400 KB*", "2048 KB*", "-"]
    assert found["CCT-7/3x1"][3:] == ["-", "not trained", "3 KB", "2049 KB*", "-"]
    assert found["MobileViT-XS"][3:] == ["-", "not trained", "3 KB", "1 KB", "9 ms"]
    assert found["plain CNN"][:5] == ["-", "-", "-", "-", "95.00%"]
    assert "my-own" in found and "block-2" not in found
    by_what = {claim.what: claim for claim in section.claims}
    assert (
        by_what["Table II: TinyFormer-300K, accuracy on CIFAR-10"].verdict == "not reached (40 epochs here, 300 there)"
    )
    assert by_what["Table II: TinyFormer-120K, accuracy on CIFAR-10"].verdict == "not trained"
    assert by_what["TinyFormer-300K, latency on an STM32F746"].verdict == "39 times faster, another network"
    best = by_what["Table II: TinyFormer is the most accurate network that fits"]
    assert (best.here, best.verdict) == ("91.00% against 95.00%", "not reproduced")


def test_table2_keeps_what_was_measured_of_resnet8(
    monkeypatch: pytest.MonkeyPatch,
    workspace: Workspace,
    files: Files,  # noqa: F811 - the fixture
) -> None:
    monkeypatch.setattr(table2, "baselines", lambda: {})
    assert table2.build(workspace).text.count("not trained") == len(TABLE_II)
    with_files = dataclasses.replace(workspace, resnet8=files.model, data=files.data)
    row = rows(table2.build(with_files).text)["ResNet-8 (MLPerf Tiny)"]
    assert row[4].endswith("%") and row[-1].endswith("ms")
    assert rows(table2.build(workspace).text)["ResNet-8 (MLPerf Tiny)"] == row


def test_table3_shows_what_has_room_or_was_trained() -> None:
    def sample(kept: int, fits: bool) -> dict[str, object]:
        sizes = {"constant_bytes": 1024 * kept, "code_bytes": 1024, "arena_bytes": 2048, "stack_bytes": 1024}
        return {"fits": fits, "resources": {"kept_parameters": 1000 * kept, "latency_ms": None} | sizes}

    largest = table3.largest([sample(5, True), sample(9, True), sample(20, False)])
    drawn = dict.fromkeys(table3.SPACES.values(), largest) | {"normal-block-4": table3.largest([sample(9, False)])}
    section = table3.section(drawn, {"block-2": CARD})
    found = rows(section.text)
    assert found["TinyFormer"][3:] == ["not trained", "9 K", "10 KB", "3 KB", "-"]
    assert found["block size 2"][3:] == ["91.00%", "0 K", "195 KB", "49 KB", "100 ms"]
    assert found["block size 4"][4] == "none fits"
    assert set(table3.SPACES) == set(TABLE_III)
    assert section.claims[0].here == "sizes only"
    full = replace(CARD, accuracy=replace(CARD.accuracy, int8=0.92))
    section = table3.section(drawn, {"block-2": CARD, table3.FULL: full})
    assert section.claims[0].here == "block size 2 1.00"


def test_table4_classifies_and_times(workspace: Workspace, files: Files) -> None:  # noqa: F811 - the fixture
    section = table4.build(workspace)
    found = [line.split("|")[1:-1] for line in section.text.splitlines() if line.startswith("|")][2:]
    assert [row[2].strip() for row in found[::2]] == ["not measured"] * 3
    double, single = (float(text) for text in re.findall(r"([\d.]+) ms", found[0][5]))
    integer = float(re.findall(r"([\d.]+) ms", found[4][5])[0])
    assert double > 10 * single > 10 * integer
    assert len(section.claims) == 1

    folder = model_zoo.FOLDER / "tinyformer-small"
    folder.mkdir()
    shutil.copy(files.model, folder / "model.onnx")
    card = dataclasses.replace(CARD, sha256=hashlib.sha256(files.model.read_bytes()).hexdigest())
    (folder / "card.toml").write_text(card_text(card), encoding="utf-8")
    assert table4.build(workspace) == section, "without images there is no accuracy"
    section = table4.build(dataclasses.replace(workspace, data=files.data))
    assert "`tinyformer-small` on 150 test images" in section.text and len(section.claims) == 2
    assert table4.build(workspace) == section, "it is kept"


def test_spaces_are_analysed_by_the_command(tmp_path: Path) -> None:
    (found,) = spaces.analyse(("tiny",), "--samples", "2", svg=tmp_path / "a.svg")
    assert found["space"] == "tiny" and len(found["samples"]) == 2
    assert found["samples"][0]["resources"]["kept_parameters"] > 0
    ElementTree.parse(tmp_path / "a.svg")
    with pytest.raises(TinyFormerError, match="analyse-space nowhere` failed"):
        spaces.analyse(("nowhere",))


def test_the_commands_sections_use_the_spaces_that_there_are(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def analyse(names: tuple[str, ...], *options: str, svg: Path | None = None) -> list[dict[str, object]]:
        asked.append((names, options))
        if svg:
            svg.parent.mkdir(exist_ok=True)
            svg.write_text("<svg/>")
        return [{"space": name, "probability": 0.5, "samples": [{"parameters": 1, "fits": False}]} for name in names]

    monkeypatch.setattr(fig9, "analyse", analyse)
    monkeypatch.setattr(table3, "analyse", analyse)
    for _ in range(2):
        run("fig9", "table3", "--document", workspace.document)
    assert [names for names, _ in asked] == [fig9.SPACES, tuple(table3.SPACES.values())]
    assert asked[1][1][-4:] == ("--max-flash", "1003520", "--max-ram", "307200")
    for name in (*fig9.SPACES, *table3.SPACES.values()):
        assert (ROOT / "nas" / "spaces" / f"{name}.toml").exists()


def test_the_rows_of_table2_are_the_commands_networks(tmp_path: Path) -> None:
    file = tmp_path / "cnn.json"
    done = CliRunner().invoke(app, ["baselines", "cnn", "--json", str(file)], catch_exceptions=False)
    assert re.search(r"cnn .* yes", done.stdout)
    (found,) = json.loads(file.read_text(encoding="utf-8")).items()
    assert found[0] in table2.UNPUBLISHED and found[1]["parameters"] > 100_000
    with pytest.raises(DataError, match="no baseline 'vgg'; there are mobilenetv2, cct-7-3x1, mobilevit-xs, cnn"):
        CliRunner().invoke(app, ["baselines", "vgg"], catch_exceptions=False)


def test_cards_of_models_that_are_not_shipped_count(workspace: Workspace) -> None:
    (workspace.folder / "trained").mkdir(parents=True)
    (workspace.folder / "trained" / "cnn.toml").write_text(card_text(CARD), encoding="utf-8")
    assert workspace.cards() == {"cnn": CARD}


def test_a_table_is_markdown() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n|---|---:|\n| 1 | 2 |"


def test_the_projects_document_is_whole() -> None:
    document = ROOT / "docs" / "paper.md"
    workspace = Workspace(document)
    for name in SECTIONS:
        workspace.check(name)
    text = document.read_text(encoding="utf-8")
    for picture in re.findall(r"\]\((paper/\S+)\)", text):
        ElementTree.parse(document.parent / picture)
    claims = json.loads((workspace.folder / "claims.json").read_text(encoding="utf-8"))
    assert set(claims) <= set(SECTIONS)
    assert np.all([claim["what"] in text for part in claims.values() for claim in part])
