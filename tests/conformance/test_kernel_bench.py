"""The kernels' benchmark measures what it says, and refuses figures of a wrong computation."""

import json

import numpy as np
import pytest

from codegen.target import load_target
from conformance import kernel_bench
from conformance.kernel_bench import CASES, choose_cases, measure, tables
from conformance.predictor_samples import Space
from refsim.errors import ConformanceError, TinyFormerError

TARGETS = ["stm32f746", "stm32f407"]


@pytest.fixture(scope="module")
def report():
    return measure(choose_cases(["linear 256x44", "table"]), TARGETS)


def test_every_kernel_of_every_case_is_measured_on_every_chip(report):
    found = [(m.case, m.target, m.kernel) for m in report.measured]
    assert found == [
        (case.name, target, call.kernel)
        for target in TARGETS
        for case in choose_cases(["linear 256x44", "table"])
        for call in kernel_bench.variants(
            *case.build(Space(np.random.default_rng(0), True)), load_target(target)
        ).values()
    ]
    assert {"tnf_linear", "tnf_linear_dsp", "tnf_lookup"} <= {kernel for _, _, kernel in found}


def test_units_are_multiplications_or_elements(report):
    assert {m.case: m.units for m in report.measured} == {"linear 256x44 -> 88": 256 * 44 * 88, "table 16x16x44": 11264}
    assert all(m.units < m.instructions for m in report.measured)


def test_instructions_do_not_depend_on_what_else_is_measured(report):
    alone = measure(choose_cases(["table"]), TARGETS[:1])
    assert alone.measured[0] == next(m for m in report.measured if m.case.startswith("table"))


def test_the_report_is_json_and_tables(report):
    written = json.loads(kernel_bench.as_json(report))
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

    def wrong(case, seed):
        prepared = prepare(case, seed)
        prepared.golden[-1, -1, -1] ^= np.int8(1)
        return prepared

    monkeypatch.setattr(kernel_bench, "_prepare", wrong)
    with pytest.raises(ConformanceError, match="table 16x16x44, tnf_lookup on stm32f746"):
        measure(choose_cases(["table"]), TARGETS[:1])
