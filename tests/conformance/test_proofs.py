"""Proofs: the reading of C is C's, theorems hold, and would not if the C were wrong."""

import random
from pathlib import Path

import pytest

z3 = pytest.importorskip("z3", reason="z3 is not installed: pip install tinyformer[proofs]")

import ckernels
from conformance.opinion import definitions
from conformance.proofs import bounds
from conformance.proofs.bounds import BOUNDS
from conformance.proofs.c_semantics import Products, Program
from conformance.proofs.exhaustive import DOMAINS, Trial
from conformance.proofs.prove import ask, prove
from conformance.proofs.theorems import THEOREMS, Query, Theorem
from refsim.errors import QuantizationError
from refsim.numerics import INT32_MAX, Rounding, requantized_bound


@pytest.fixture(scope="module")
def program() -> Program:
    return Program()


def value(program: Program, name: str, *arguments: int) -> int:
    """A function of numbers, by the formulas."""
    meaning = program.call(name, [z3.BitVecVal(a, 32) for a in arguments], Products())
    for what, obligation in meaning.obligations:
        assert z3.is_true(z3.simplify(obligation)), what
    return z3.simplify(meaning.result.bits).as_signed_long()


def test_formulas_compute_what_c_computes(program: Program) -> None:
    rng = random.Random(1)
    for _ in range(12):
        a, b = (rng.getrandbits(32) - 2**31 for _ in range(2))
        n, m, shift = rng.randrange(32), rng.randrange(2**30, 2**31), rng.randrange(-31, 0)
        assert value(program, "tnf_srdhm_unsaturated", a, b) == definitions.srdhm(a, b)
        assert value(program, "tnf_rdbpot", a, n) == definitions.rdbpot(a, n)
        for rounding in (0, 1):
            expected = definitions.requant(a, m, shift, rounding)
            assert value(program, "tnf_requantize_value", a, m, shift, rounding) == expected
        assert value(program, "tnf_exp_negative", -abs(a)) == definitions.expneg(-abs(a))
        assert value(program, "tnf_reciprocal", abs(a) >> 1) == definitions.reciprocal(abs(a) >> 1)


@pytest.mark.parametrize("theorem", THEOREMS, ids=lambda theorem: theorem.function.replace(" ", ""))
def test_theorems(program: Program, theorem: Theorem) -> None:
    # Those with a query for every shift are asked in part; `nox -s proofs` asks all.
    every = 23 if "tnf_scale" in theorem.function or "requantize" in theorem.function else 1
    (proof,) = prove([theorem], program, chosen=lambda number: number % every == every // 2)
    assert proof.failure == ""
    assert proof.queries > 0


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("tnf_rdbpot ", "(mask >> 1) + (v < 0)", "(mask >> 1)"),
        ("tnf_srdhm_unsaturated", "b + ((int64_t)1 << 30)) >> 31", "b + ((int64_t)1 << 29)) >> 31"),
        ("tnf_multiply_high", "<< (n - 1))) >> n", "<< (n - 1)) - 1) >> n"),
        ("tnf_smmla,", "b + ((int64_t)1 << 31)) >> 32) + acc", "b) >> 32) + acc"),
        ("packed bytes", "x > y ? x : y", "x < y ? x : y"),
        ("tnf_leading_zeros,", "n - (int32_t)v", "n - (int32_t)(v & 0u)"),
        ("tnf_clamp", "v > hi ? hi : v", "v >= hi ? lo : v"),
    ],
)
def test_wrong_c_is_found(name: str, right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tinyformer"
    folder.mkdir()
    texts = {path.name: path.read_text() for path in ckernels.headers()}
    assert sum(text.count(right) for text in texts.values()) == 1
    for header, text in texts.items():
        (folder / header).write_text(text.replace(right, wrong))
    monkeypatch.setattr(ckernels, "include_dir", lambda: tmp_path)
    broken = Program()
    theorem = next(t for t in THEOREMS if name in f"{t.function} ")
    assert any(ask(query) for query in theorem.queries(broken))


def test_undefined_behaviour_is_an_obligation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h").write_text(
        "#include <stdint.h>\n"
        "static inline int32_t more(int32_t v) { return v + 1; }\n"
        "static inline int32_t left(int32_t v, int32_t n) { return v << n; }\n"
        "static inline uint32_t over(uint32_t v, uint32_t n) { return n == 0u ? 0u : v / n; }\n"
        "static inline uint32_t part(uint32_t v, uint32_t n) { return v / n; }\n"
    )
    monkeypatch.setattr(ckernels, "include_dir", lambda: tmp_path)
    program = Program(["a.h"])
    v, n = z3.BitVecs("v n", 32)

    def obligations(name: str, *arguments: object) -> dict[str, bool]:
        found = program.call(name, arguments, Products()).obligations
        return {what: ask(Query(what, [], claim)) == "" for what, claim in found}

    assert obligations("more", v) == {"overflow of +": False}
    assert obligations("left", v, n) == {"shift by too much": False, "left shift that does not fit": False}
    assert obligations("over", v, n) == {}  # not reached with n = 0, which needs no solver
    assert obligations("part", v, n) == {"division by zero": False}
    (_, claim), *_ = program.call("more", [v], Products()).obligations
    assert ask(Query("more", [], claim)) == "more: fails for v = 2147483647"


def test_tried_primitives_are_their_definitions() -> None:
    trial = Trial()
    for domain in DOMAINS:
        steps: list[int] = []
        assert trial.wrong(domain, 40_009, steps.append) == 0
        assert sum(steps) == domain.count


@pytest.mark.parametrize("theorem", BOUNDS, ids=lambda theorem: theorem.function.replace(" ", ""))
def test_bounds(program: Program, theorem: Theorem) -> None:
    # One zero point in so many where each has a query of its own; `nox -s proofs` asks all.
    every = 19 if len(list(theorem.queries(program))) > 100 else 3
    (proof,) = prove([theorem], program, chosen=lambda number: number % every == 0)
    assert proof.failure == ""
    assert proof.queries > 0


@pytest.mark.parametrize(
    ("operators", "name", "value"),
    [
        ("requantised values, single", "REQUANTIZED_MAX", 2**31),
        ("requantised values, double", "MULTIPLIER_MAX", 2**33),
        ("conv2d", "INT32_MAX", 2**31),
        ("matmul", "INT32_MAX", 2**31 + 2**20),
        ("add", "LEFT_SHIFT", 22),
        ("add", "INT32_MAX", 2**31),
        ("mean", "INT32_MAX", 2**31),
        ("softmax", "LONGEST_ROW", 4096),
        ("softmax", "smallest_difference", lambda shift: -(32 * 2**26 >> shift) - 1),
        ("layernorm", "LONGEST_NORMALISED", 2**18),
        ("layernorm", "LARGEST_EPSILON", 2**63 - 1),
        ("layernorm", "MOST_SCALE_BITS", 26),
        ("lookup", "largest_distance", lambda z: max(127 - z, 127 + z)),
    ],
)
def test_weaker_checks_are_found(
    program: Program, operators: str, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, name, value)
    theorem = next(t for t in BOUNDS if t.function.startswith(operators))
    assert any(ask(query) for query in theorem.queries(program))


@pytest.mark.parametrize("rounding", list(Rounding))
def test_bounds_of_requantised_values_are_those_that_are_proven(rounding: Rounding) -> None:
    rng = random.Random(2)
    admitted = 0
    for _ in range(400):
        bound, multiplier = rng.getrandbits(rng.randrange(1, 32)), rng.randrange(2**30, 2**31)
        shift = rng.randrange(-31, 31)
        t, product = 31 - shift, bound * multiplier
        proven = (product + 2 ** (t - 1)) >> t if rounding is Rounding.SINGLE else -(-product >> t) + 1
        fits = rounding is Rounding.SINGLE or bound << max(shift, 0) <= INT32_MAX
        try:
            assert requantized_bound(bound, multiplier, shift, rounding, "") == proven
            assert fits and proven <= 2**30
            admitted += 1
        except QuantizationError:
            assert not fits or proven > 2**30
    assert 50 < admitted < 350
