"""The kernels' benchmark measures what it says, and refuses figures of a wrong computation."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from codegen.encoding import BLOCKS
from conformance import kernel_bench
from conformance.kernel_bench import CASES, choose_cases, measure
from conformance.kernel_bench_report import as_json, plot, read_cycles, tables
from refsim.errors import ConformanceError, DataError, TinyFormerError

TARGETS = ["stm32f746", "stm32f407"]


@pytest.fixture(scope="module")
def report():
    return measure(choose_cases(["linear 256x44", "table"]), TARGETS, sparsities=[70])


def test_every_kernel_of_every_case_is_measured_on_every_chip(report):
    dense = [(m.case.split()[0], m.target, m.variant) for m in report.measured if m.unit != "non-zero MAC"]
    assert set(dense) >= {(case, target, "portable") for case in ("linear", "table") for target in TARGETS}
    assert {("linear", target, "dsp") for target in TARGETS} <= set(dense)
    assert len(dense) == len(set(dense)) == len(report.measured) - len(TARGETS) * len(BLOCKS)


def test_sparse_kernels_are_measured_by_what_is_not_zero(report):
    dense, sparse = (
        [m for m in report.measured if m.target == TARGETS[0] and m.variant.startswith(variant)]
        for variant in ("dsp", "sparse")
    )
    assert [m.variant for m in sparse] == [f"sparse 70 %/{block}" for block in BLOCKS]
    for m in sparse:
        assert m.kernel == "tnf_linear_sparse"
        assert m.units == pytest.approx(0.3 * 256 * 44 * 88, rel=1e-2)
        assert m.cycles < dense[0].cycles
        assert m.baseline.cycles == pytest.approx(1.70 / 0.3, rel=1e-2)


def test_units_are_multiplications_or_elements(report):
    dense = {m.case: m.units for m in report.measured if m.unit != "non-zero MAC"}
    assert dense == {"linear 256x44 -> 88": 256 * 44 * 88, "table 16x16x44": 11264}
    assert all(m.units < m.instructions for m in report.measured)


def test_instructions_do_not_depend_on_what_else_is_measured(report):
    alone = measure(choose_cases(["table"]), TARGETS[:1])
    assert alone.measured[0] == next(m for m in report.measured if m.case.startswith("table"))


def test_the_report_is_json_and_tables(report):
    written = json.loads(as_json(report))
    assert written["measured"][0]["baseline"]["goal"] == 1.1
    assert written["versions"]["unicorn"] and written["seed"] == 0 and "-O2" in written["compiler"]
    assert [table.row_count for table in tables(report)] == [len(report.measured) // 2] * 2


def test_cases_are_chosen_by_a_part_of_their_name():
    assert choose_cases([]) == CASES
    assert [case.name for case in choose_cases(["depthwise"])] == ["depthwise 3x3 16x16x132", "depthwise 3x3 8x8x384"]
    with pytest.raises(TinyFormerError, match="'pool'.* softmax 256x256"):
        choose_cases(["softmax", "pool"])


def test_a_byte_that_differs_is_refused(monkeypatch):
    prepare = kernel_bench._prepare

    def wrong(*args):
        for prepared in prepare(*args):
            yield replace(prepared, golden=prepared.golden ^ np.int8(1))

    monkeypatch.setattr(kernel_bench, "_prepare", wrong)
    with pytest.raises(ConformanceError, match="table 16x16x44, portable on stm32f746"):
        measure(choose_cases(["table"]), TARGETS[:1])


def test_a_run_is_compared_with_an_earlier_one(report, tmp_path):
    file = tmp_path / "earlier.json"
    file.write_text(as_json(report).replace('"variant": "portable"', '"variant": "gone"'))
    (table, _) = tables(report, read_cycles(file))
    shown = dict(zip(table.columns[2]._cells, table.columns[-1]._cells, strict=True))
    assert shown["portable"] == "new" and shown["dsp"] == "[dim]1.000[/]"


@pytest.mark.parametrize("content", ["", "[]", '{"measured": [{}]}', '{"measured": 3}'])
def test_a_file_that_is_no_report_is_refused(tmp_path, content):
    file = tmp_path / "earlier.json"
    file.write_text(content)
    with pytest.raises(DataError, match="no report"):
        read_cycles(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_cycles(tmp_path / "none.json")


def test_the_plot_has_a_line_for_each_block_beside_the_dense_kernels(report):
    svg = plot(report)
    ElementTree.fromstring(svg)
    assert svg.count('class="title"') == len(TARGETS)
    for name in ("portable", "dsp", "peer", *(f"sparse, blocks of {block}" for block in BLOCKS)):
        assert f">{name}</text>" in svg
