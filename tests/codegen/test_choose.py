"""Choices between kernel calls: by bytes, by time, and by what their scratch adds to the arena."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from codegen.choose import Candidate, Choice, Costs, Optimise, choose, estimated
from codegen.emit import KernelCall, kernel_calls
from codegen.encoding import BLOCKS
from codegen.predictor import costs, load_predictor
from codegen.target import load_target
from refsim.errors import DataError
from refsim.ops import Requantization
from refsim.ops.linear import Linear
from tests.codegen.test_encoding import random_weight


def candidate(time: float, size: int, block: int = 0, scratch: int = 0) -> Candidate:
    """A call with so many bytes of weights."""
    call = KernelCall("tnf_test", {"weight": np.zeros(size - 4, np.int8)}, (), scratch, sparse_block=block)
    return Candidate(call, time)


def chosen(candidates: list[Candidate], optimise: Optimise) -> int:
    """Index of the candidate chosen; a scratch makes the arena larger by what is above 1000."""
    call = choose(candidates, optimise, lambda call: max(0, call.scratch_bytes - 1000)).call
    return next(index for index, one in enumerate(candidates) if one.call is call)


@pytest.mark.parametrize(
    ("optimise", "index"), [(Optimise.SIZE, 3), (Optimise.BALANCED, 2), (Optimise.SPEED, 1)], ids=str
)
def test_the_fewest_bytes_among_what_is_quick_enough(optimise: Optimise, index: int) -> None:
    found = [candidate(100, 500), candidate(100.9, 400, 4), candidate(109, 300, 2), candidate(400, 200, 1)]
    assert chosen(found, optimise) == index
    assert chosen(found[:1], optimise) == 0


@pytest.mark.parametrize("optimise", Optimise)
def test_scratch_counts_where_it_makes_the_arena_larger(optimise: Optimise) -> None:
    assert chosen([candidate(100, 500, scratch=1100), candidate(100.5, 500)], optimise) == 1
    assert chosen([candidate(100, 500, scratch=1000), candidate(100.5, 500)], optimise) == 0
    assert chosen([candidate(100, 500, scratch=1100), candidate(100.5, 601, 4)], optimise) == 0


def test_the_first_of_equals_is_taken() -> None:
    assert chosen([candidate(7, 50), candidate(7, 50, 4), candidate(7, 50, 1)], Optimise.BALANCED) == 0
    assert chosen([candidate(0, 50), candidate(0, 40)], Optimise.SPEED) == 1


def test_reasons_compare_with_the_quickest_of_the_other_kind() -> None:
    dense, four, one = candidate(100, 400), candidate(80, 300, 4), candidate(90, 200, 1)
    assert choose([dense], Optimise.SPEED).reason == ""
    assert choose([dense, four, one], Optimise.SPEED).reason == "bytes -25%, time -20% beside dense"
    slow = candidate(200, 100, 2)
    assert choose([dense, slow], Optimise.SPEED).reason == "bytes +300%, time -50% beside sparse, blocks of 2"


# ---- layers ----


def linear(sparsity: float, block: int = 4) -> Linear:
    weight = random_weight((96, 1, 128), block, sparsity)[:, 0]
    return Linear(weight, np.zeros(96, np.int32), 0, Requantization.from_real(0.001, 0))


ESTIMATES = {"portable": estimated(False, "of the test"), "dsp": estimated(True, "of the test")}
PREDICTIONS = {name: costs(load_target(name)) for name in ("stm32f746", "stm32f407", "rp2040")}


def choice(op: Linear, rows: int, known: Costs, optimise: Optimise = Optimise.BALANCED) -> Choice:
    calls = kernel_calls(op, ((rows, 128),), dsp=known.dsp)
    return choose([Candidate(call, known.time(call, rows * (128 + 96))) for call in calls], optimise)


@pytest.mark.parametrize("optimise", Optimise)
def test_dense_layers_stay_dense(optimise: Optimise) -> None:
    assert choice(linear(0.0), 64, ESTIMATES["dsp"], optimise).call.sparse_block == 0


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("known", ESTIMATES.values(), ids=ESTIMATES)
def test_sparse_layers_become_smaller(block: int, known: Costs) -> None:
    op = linear(0.8, block)
    found = choice(op, 64, known)
    assert found.call.sparse_block == block
    assert found.call.constant_bytes < kernel_calls(op, ((64, 128),), dsp=known.dsp)[0].constant_bytes
    assert found.call.work == 64 * np.count_nonzero(op.weight)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_the_quickest_call_is_the_one_that_is_predicted_to_be(name: str, sparsity: float) -> None:
    known, op = PREDICTIONS[name], linear(sparsity, 2)
    assert known.source.startswith("predicted for ")
    calls = kernel_calls(op, ((40, 128),), dsp=known.dsp)
    least = min(known.time(call, 40 * 224) for call in calls)
    assert least <= choice(op, 40, known, Optimise.SPEED).time <= 1.01 * least
    assert choice(op, 40, known, Optimise.BALANCED).time <= 1.1 * least


def test_an_estimate_knows_blocks_that_were_not_measured() -> None:
    known = estimated(True, "of the test")
    call = kernel_calls(linear(0.5), ((8, 128),))[1]
    of_two, of_three = (dataclasses.replace(call, sparse_block=block) for block in (2, 3))
    assert known.time(of_two, 0) == known.time(of_three, 0) > 0


def test_costs_say_where_they_are_from(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("stm32f746")
    assert costs(target).source == "predicted for stm32f746"
    mine = dataclasses.replace(target, name="mine")
    assert costs(mine).source == "predicted for cortex-m7, without waiting for memories"
    none = costs(None, dsp=True)
    assert none.dsp and none.source.startswith("estimated from the number of multiplications, since no target is given")

    def stale(_: object) -> None:
        raise DataError("somewhere: stale")

    monkeypatch.setattr("codegen.predictor.load_predictor", stale)
    assert costs(target).source.endswith("is of other kernels or memories: run `tinyformer fit-predictor`")


def test_a_core_without_a_fit_is_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen.predictor.BUILT_IN", tmp_path)
    load_predictor.cache_clear()
    known = costs(load_target("stm32u575"))
    assert known.dsp and known.source.endswith("since there is no predictor for cortex-m33")
