"""Strategies give legal cases only, reach the ends of each domain, and shrink to the smallest."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase

from codegen.emit import kernel_call
from conformance.exploration import explore
from conformance.layout import lay_out
from conformance.places import ARENA_BYTES
from conformance.strategies import Case, cases
from conformance.strategies.base import MOST_AXES, Scaling, largest_shift
from refsim.numerics import INT32_MAX, Rounding
from refsim.ops import OPERATORS, Requantization
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.layernorm import LONGEST_ROW, LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.matmul import MatMul
from refsim.ops.softmax import Softmax

ROUNDS = 40


@pytest.fixture(scope="module")
def drawn() -> Callable[[str], list[Case]]:
    known: dict[str, list[Case]] = {}

    def draw(operator: str) -> list[Case]:
        if operator not in known:
            known[operator] = []
            for seed in range(ROUNDS):
                explore(cases(operator), lambda case, _: known[operator].append(case), 1000 + seed, skip=min(seed, 1))
        return known[operator]

    return draw


def stages(found: list[Case]) -> list[Requantization]:
    return [case.op.output for case in found]


@pytest.mark.parametrize("operator", OPERATORS)
def test_cases_are_legal_and_fit_the_emulated_arena(operator: str, drawn: Callable[[str], list[Case]]) -> None:
    for case in drawn(operator):
        assert type(case.op) is OPERATORS[operator]
        for x in case.inputs:
            assert x.dtype == np.int8
            assert x.shape[0] == 1
            assert x.ndim - 1 <= MOST_AXES
        golden = case.op.run(*case.inputs)
        assert golden.shape == (1, *case.op.output_shape(*case.shapes))
        call = kernel_call(case.op, case.shapes)
        assert len(lay_out(call, case.inputs, golden.size, None, 0).image) <= ARENA_BYTES


@pytest.mark.parametrize("operator", OPERATORS)
def test_most_cases_are_different_and_many_outputs_are_rich(operator: str, drawn: Callable[[str], list[Case]]) -> None:
    found = drawn(operator)
    assert len({repr(case) for case in found}) > 0.8 * len(found)
    outputs = [case.op.run(*case.inputs) for case in found]
    rich = [len(np.unique(y)) > 2 for y in outputs if y.size > 4]
    assert sum(rich) > 0.15 * len(found)


@pytest.mark.parametrize(
    "operator", ["conv2d", "depthwise_conv2d", "linear", "matmul", "mul", "requantize", "mean", "layernorm", "add"]
)
def test_requantisation_reaches_its_ends(operator: str, drawn: Callable[[str], list[Case]]) -> None:
    found = stages(drawn(operator))
    assert {stage.rounding for stage in found} == set(Rounding)
    assert {-128, 0, 127} <= {stage.zero_point for stage in found}
    multipliers = {int(m) for stage in found for m in stage.multiplier}
    assert {0, 2**30, 2**31 - 1} <= multipliers
    assert -31 in {int(s) for stage in found for s in stage.shift}
    assert any(stage.act_min == stage.act_max for stage in found)
    assert any((stage.act_min, stage.act_max) == (stage.zero_point, 127) for stage in found)
    assert any(stage.multiplier.size > 1 for stage in found) is (operator in ("conv2d", "depthwise_conv2d", "linear"))


@pytest.mark.parametrize("operator", ["conv2d", "linear", "matmul", "mul", "requantize", "mean"])
def test_largest_legal_shifts_are_drawn(operator: str, drawn: Callable[[str], list[Case]]) -> None:
    """One shift further, and the operator would refuse."""
    at_the_end = 0
    for case in drawn(operator):
        output: Requantization = case.op.output
        if output.multiplier.size > 1 or output.multiplier[0] == 0 or output.shift[0] == 30:
            continue
        further = Requantization(
            output.multiplier, output.shift + np.int32(1), output.zero_point, -128, 127, output.rounding
        )
        try:
            replace(case.op, output=further).output_shape(*case.shapes)
        except Exception as error:
            assert "beyond" in str(error) or "leaves int32" in str(error)
            at_the_end += 1
    assert at_the_end > 0


def test_biases_reach_the_end_of_int32(drawn: Callable[[str], list[Case]]) -> None:
    for operator in ("conv2d", "linear"):
        bounds = []
        for case in drawn(operator):
            op: Any = case.op
            distance = max(127 - op.input_zero_point, 128 + op.input_zero_point)
            sums = np.abs(op.weight.astype(np.int64)).reshape(len(op.bias), -1).sum(axis=1)
            bounds.append(int((np.abs(op.bias.astype(np.int64)) + distance * sums).max()))
        assert max(bounds) == INT32_MAX


def some(found: list[Case], condition: Callable[[Any, Case], bool]) -> bool:
    return any(condition(case.op, case) for case in found)


def test_convolutions_cover_their_geometry(drawn: Callable[[str], list[Case]]) -> None:
    found = drawn("conv2d")
    assert some(found, lambda op, case: op.groups > 1 and op.weight.shape[3] > 1)
    assert some(found, lambda op, case: op.dilation[0] > 1 and op.dilation[1] == 1)
    assert some(found, lambda op, case: op.stride[0] != op.stride[1])
    assert some(found, lambda op, case: op.padding[0] != op.padding[2])
    assert some(found, lambda op, case: op.padding[0] >= op.dilation[0] * (op.weight.shape[1] - 1) + 1)
    assert some(found, lambda op, case: 1 in case.shapes[0][:2])
    assert some(drawn("depthwise_conv2d"), lambda op, case: op.weight.shape[2] > case.shapes[0][2])


def test_pooling_covers_its_geometry(drawn: Callable[[str], list[Case]]) -> None:
    for operator in ("max_pool2d", "average_pool2d"):
        found = drawn(operator)
        assert some(found, lambda op, case: op.kernel[0] >= case.shapes[0][0] > 1)
        assert some(found, lambda op, case: op.padding[0] == op.kernel[0] - 1 > 0)
        assert some(found, lambda op, case: op.padding[2] >= op.kernel[0])


def test_rows_cover_their_domain(drawn: Callable[[str], list[Case]]) -> None:
    found = drawn("softmax")
    assert {op.shift for case in found if isinstance(op := case.op, Softmax)} >= {1, 18, 19, 20, 21, 22, 23, 24, 31}
    assert some(found, lambda op, case: case.shapes[0][-1] > 512)
    assert some(found, lambda op, case: case.shapes[0][-1] == 1)
    assert some(found, lambda op, case: case.shapes[0][-1] > 1 and len(np.unique(case.inputs[0])) == 1)
    assert some(found, lambda op, case: int(case.inputs[0].max()) - int(case.inputs[0].min()) == 255)
    found = drawn("layernorm")
    layernorms = [op for case in found if isinstance(op := case.op, LayerNorm)]
    assert {op.scale_bits for op in layernorms} >= {0, 1, 7, 13, 14}
    assert {0, 1} <= {op.epsilon for op in layernorms}
    assert max(op.epsilon for op in layernorms) == 2**62 - 1
    assert some(found, lambda op, case: case.shapes[0][-1] > 512)
    assert LONGEST_ROW in {case.shapes[0][-1] for case in found}
    assert some(found, lambda op, case: op.epsilon == 0 and len(np.unique(case.inputs[0])) == 1)


def test_attention_covers_both_kernels_tiles_and_work_in_place(drawn: Callable[[str], list[Case]]) -> None:
    for dsp in (False, True):
        kernel = "tnf_attention_dsp" if dsp else "tnf_attention"
        found = [(kernel_call(case.op, case.shapes, dsp=dsp), case) for case in drawn("attention")]
        calls = [call for call, _ in found if call.kernel == kernel]
        assert len(calls) > 0.1 * len(found)
        assert any(call.in_place for call in calls) and not all(call.in_place for call in calls)
        tiled = [call.params for call in calls if call.params["m"] > call.params["tile_rows"]]
        assert any(p["m"] % p["tile_rows"] for p in tiled)
        assert any(p["batch"] > 1 for p in tiled)


def test_shapes_cover_ranks_and_broadcasting(drawn: Callable[[str], list[Case]]) -> None:
    for operator in ("add", "mul"):
        found = drawn(operator)
        pairs = [case.shapes for case in found]
        assert {max(map(len, pair)) for pair in pairs} == set(range(MOST_AXES + 1))
        assert any(len(a) < len(b) for a, b in pairs)
        assert any(len(a) > len(b) for a, b in pairs)
        assert some(found, lambda op, case: case.op.output_shape(*case.shapes) not in case.shapes)
    for operator in ("transpose", "slice", "pad", "reshape"):
        assert {len(case.shapes[0]) for case in drawn(operator)} == set(range(MOST_AXES + 1))
    assert {op.transpose_b for case in drawn("matmul") if isinstance(op := case.op, MatMul)} == {False, True}
    concats = [op for case in drawn("concat") if isinstance(op := case.op, Concat)]
    assert any(len(op.rescale) == 1 for op in concats)
    assert any(None in op.rescale and any(op.rescale) for op in concats)


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("bound", [1, 255, 65025, 2**28, INT32_MAX])
@pytest.mark.parametrize("multiplier", [2**30, 3 * 2**29, 2**31 - 1])
def test_largest_shift_is_the_last_legal_one(bound: int, multiplier: int, rounding: Rounding) -> None:
    def legal(shift: int) -> bool:
        stage = Requantization(np.array([multiplier], np.int32), np.array([shift], np.int32), 0, rounding=rounding)
        try:
            stage.check([bound])
        except Exception:
            return False
        return True

    largest = largest_shift(bound, multiplier, rounding)
    assert [shift for shift in range(-31, 31) if legal(shift)] == list(range(-31, largest + 1))


def test_a_useful_scaling_brings_the_usual_accumulator_to_eight_bits() -> None:
    picked = Scaling(2**30, 8, 0).pick(10**8, 10**5, Rounding.SINGLE)
    assert 128 <= 10**5 * picked.multiplier * 2.0 ** (picked.shift - 31) < 256


def smallest(operator: str, condition: Callable[[Case], bool]) -> Case:
    settings = hypothesis.settings(
        max_examples=2000,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    return hypothesis.find(cases(operator), condition, settings=settings)


def test_shrinking_ends_at_the_smallest_case() -> None:
    case = smallest("linear", lambda case: bool((case.op.run(*case.inputs) == 127).any()))
    assert isinstance(case.op, Linear)
    assert case.inputs[0].size == 1
    assert case.op.weight.size == 1
    case = smallest("conv2d", lambda case: isinstance(case.op, Conv2D) and case.op.groups == 2)
    assert case.inputs[0].size == 2
