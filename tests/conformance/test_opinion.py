"""Second opinion: every operator in unbounded integers agrees with the golden model, and would notice if it erred."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conformance.opinion import OPERATORS, Opinion, definitions
from conformance.primitives import PRIMITIVES
from conformance.strategies import Case
from conformance.suite import compare, run_operator
from refsim.ops import OPERATORS as GOLDEN
from refsim.ops.softmax import Softmax, smallest_difference

OPINION = Opinion()


def test_there_is_an_opinion_on_every_operator() -> None:
    assert set(OPERATORS) == {*GOLDEN, PRIMITIVES}


@pytest.mark.parametrize("operator", [*GOLDEN, PRIMITIVES])
def test_the_golden_model_is_the_definition(operator: str, tmp_path: Path) -> None:
    count = 40
    (outcome,) = run_operator(operator, [OPINION], count=count, seed=7, failures=tmp_path)
    assert (outcome.mismatches, outcome.message) == (0, "")
    assert outcome.cases == count or (operator == "attention" and outcome.cases > count // 3)


@pytest.mark.parametrize("operator", ["requantize", "softmax", "layernorm"])
def test_a_fault_of_one_side_is_found_and_saved(operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = GOLDEN[operator].run

    def off_by_one(self: object, *inputs: np.ndarray) -> np.ndarray:
        y = golden(self, *inputs)
        return np.where(y == 127, y, y + 1).astype(np.int8)

    monkeypatch.setattr(GOLDEN[operator], "run", off_by_one)
    monkeypatch.setattr("conformance.exploration.SHRINK_SECONDS", 0.0)
    (outcome,) = run_operator(operator, [OPINION], count=20, seed=0, failures=tmp_path)
    assert outcome.mismatches > 0
    assert outcome.vector is not None
    assert "golden model" in outcome.message


def test_a_difference_names_the_element() -> None:
    case = Case(Softmax(2**30, 20, smallest_difference(20)), (np.zeros((1, 2), np.int8),))
    golden = case.op.run(*case.inputs)[0]
    assert compare(case, golden, OPINION) is None
    failure = compare(case, golden + np.int8(1), OPINION)
    assert failure is not None
    assert "2 of 2 bytes differ" in failure.message


def test_definitions_by_hand() -> None:
    assert definitions.truncating(-7, 2) == -3
    assert [definitions.nearest(v, 2) for v in (-3, -1, 1, 3)] == [-2, -1, 1, 2]
    assert [definitions.round_half_away(Fraction(v, 2)) for v in (-3, -1, 1, 3)] == [-2, -1, 1, 2]
    assert definitions.srdhm(-(2**31), -(2**31)) == 2**31 - 1
    # Halves: once rounded up, twice rounded away from zero.
    assert [definitions.requant(v, 2**30, 0, definitions.SINGLE) for v in (-3, -1, 1, 3)] == [-1, 0, 1, 2]
    assert [definitions.requant(v, 2**30, -1, definitions.DOUBLE) for v in (-6, -2, 2, 6)] == [-2, -1, 1, 2]
    assert definitions.expneg(0) == 2**31 - 1
    assert abs(definitions.expneg(-(2**26)) / 2**31 - np.exp(-1)) < 1e-6
    assert abs(definitions.reciprocal(2**30) / 2**31 - 1 / 1.5) < 1e-6
