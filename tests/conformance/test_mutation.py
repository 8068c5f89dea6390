"""Mutation testing: faults that are made are faults, they are found, and what cannot be found is told apart."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("universalmutator", reason="universalmutator is not installed: pip install tinyformer[mutation]")
if not hasattr(os, "fork"):
    pytest.skip("mutants run in forked processes, which this system has not", allow_module_level=True)

from conformance.mutation import __main__ as command
from conformance.mutation import report, session
from conformance.mutation.corpus import Corpus, collect
from conformance.mutation.mutants import Mutant, _meaning, definitions, files, mutants, users, without_comments
from conformance.mutation.session import Record, Result, try_all
from conformance.mutation.trial import Trial, Verdict, kernels_with
from conformance.primitives import PRIMITIVES
from refsim.errors import DataError

MEAN, NUMERICS, DSP = "src/mean.c", "include/tinyformer/numerics.h", "include/tinyformer/dsp.h"


def mutant(file: str, old: str, new: str) -> Mutant:
    """The one that makes `new` of `old`, whoever made it."""
    text = files()[file].read_text()
    lines = without_comments(text).split("\n")
    number = next(number for number, line in enumerate(lines, 1) if old in line)
    return Mutant(
        file, number, definitions(text)[number - 1], lines[number - 1], lines[number - 1].replace(old, new), ""
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return collect(["mean", "layernorm", PRIMITIVES], 40, 0, lambda _: None)


@pytest.fixture(scope="module")
def trial(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(corpus, tmp_path_factory.mktemp("trial"))


def test_every_file_has_mutants_each_of_one_line_and_one_name() -> None:
    for file, path in files().items():
        text = without_comments(path.read_text())
        made = list(mutants(file))
        assert made, file
        assert len({m.name for m in made}) == len(made)
        for m in made[:: max(1, len(made) // 20)]:
            changed = m.apply(path.read_text()).split("\n")
            assert [n for n, (a, b) in enumerate(zip(text.split("\n"), changed, strict=True), 1) if a != b] == [m.line]


@pytest.mark.parametrize(
    ("file", "function", "change"),
    [
        (NUMERICS, "tnf_srdhm_unsaturated", ("<< 30)) >> 31", "<< 30)) >> (31-1)")),
        (NUMERICS, "tnf_srdhm_unsaturated", ("+ ((int64_t)1", "- ((int64_t)1")),
        (NUMERICS, "tnf_rdbpot", ("+ (v < 0)", "+ (v <= 0)")),
        (NUMERICS, "tnf_sat16", ("32767", "(32767+1)")),
        (NUMERICS, "tnf_rdbpot_unsigned", ("v >> n", "v >> (n + 1)")),
        (MEAN, "tnf_mean", ("p->input_zero_point", "0")),
        (DSP, "tnf_even_pair", ("(uint16_t)(int8_t)", "(uint16_t)(uint8_t)")),
        (DSP, "tnf_even_pair", ("sxtb16", "uxtb16")),
        ("src/add.c", "tnf_add", ("+=", "-=")),
    ],
)
def test_arithmetic_is_mutated(file: str, function: str, change: tuple[str, str]) -> None:
    made = [m for m in mutants(file) if m.function == function]
    assert any(m.new == m.old.replace(*change, 1) for m in made if change[0] in m.old)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("smlad r4, r0, r12, r4", "smlad r4,r12, r0, r4", False),
        ('"smlad " #f ", r2, r6, " #f "', '"smlad " #f ",r6, r2, " #f "', False),
        ("smlad r4, r0, r12, r4", "smlad r0, r4, r12, r4", True),
        ("smlatb r4, r0, r12, r4", "smlatb r4,r12, r0, r4", True),
        ("add r8, r2, r8, lsl #3", "add r8,r8, r2, lsl #3", True),
        ("sub r8, r2, r8", "sub r8,r8, r2", True),
    ],
)
def test_operands_that_may_change_places_make_no_mutant(old: str, new: str, fault: bool) -> None:
    assert (_meaning(f'"{old}\\n"') != _meaning(f'"{new}\\n"')) == fault


def test_lines_belong_to_functions_macros_and_types() -> None:
    text = "typedef struct {\n    int a;\n} pair;\n\n#define TWO(x) \\\n    (2 * (x))\n\n"
    text += "static int f(int a)\n{\n    return a;\n}\n"
    assert definitions(text) == ["pair"] * 3 + [""] + ["TWO"] * 2 + [""] + ["f"] * 4 + [""]
    assert without_comments("a /* b\nc */ d // e\n") == "a\n     d // e\n"


def test_users_are_found_at_second_hand() -> None:
    assert "softmax" in users("tnf_exp_negative")
    assert "mean" not in users("tnf_exp_negative")
    assert set(users("tnf_isqrt")) == {"layernorm", "layernorm_dsp", PRIMITIVES}


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "how"),
    [
        (MEAN, "sum += x[at]", "sum -= x[at]", "host", "a byte differs"),
        (MEAN, "int32_t at = c;", "int32_t at = c; y[p->outer * inner] = 1;", "host", ""),
        (MEAN, "i++", "i += 0", "host", "does not return"),
        (MEAN, "(void)scratch;", "volatile int32_t v = INT32_MAX; v = v + n; (void)scratch;", "host-ubsan", ""),
        (DSP, '"sxtab16 %0, %1, %2"', '"uxtab16 %0, %1, %2"', "cortex-m7", "a byte differs"),
    ],
)
def test_a_fault_is_killed(file: str, old: str, new: str, place: str, how: str, trial: Trial) -> None:
    verdict = trial.judge(mutant(file, old, new))
    assert (verdict.status, verdict.place) == ("killed", place)
    assert how in verdict.how


@pytest.mark.parametrize(
    ("file", "old", "new", "status"),
    [
        (MEAN, "sum - zero", "sum + 0 - zero", "same code"),
        (MEAN, "sum - zero", "sum - nothing", "not compiled"),
        (MEAN, "(void)scratch;", "volatile int32_t v = n; (void)v; (void)scratch;", "survived"),
        (NUMERICS, "int32_t n = 32;", "int32_t n = 33;", "absent"),
    ],
)
def test_what_is_no_fault_is_told_apart(file: str, old: str, new: str, status: str, trial: Trial) -> None:
    assert trial.judge(mutant(file, old, new)).status == status


def test_the_copy_is_as_it_was_after_each_mutant(trial: Trial) -> None:
    assert trial.judge(mutant(MEAN, "y += inner", "y -= inner")).status == "killed"
    assert trial.judge(mutant(MEAN, "inner = p->inner", "inner = (p->inner + 0)")).status == "same code"


def test_results_are_kept_and_not_tried_again(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [m for m in mutants(MEAN) if m.old == "y += inner;"]
    path = tmp_path / "new" / "results.jsonl"
    first = list(try_all(chosen, corpus, Record(path), jobs=1))
    assert {r.verdict.status for r in first} <= {"killed", "not compiled"}
    monkeypatch.setattr(session, "_try", None)  # nothing is tried now
    assert sorted(try_all(chosen, corpus, Record(path), jobs=1), key=repr) == sorted(first, key=repr)
    path.write_text("no results\n")
    with pytest.raises(DataError, match="holds no results"):
        Record(path)


def test_another_suite_or_another_kernel_is_another_key(corpus: Corpus) -> None:
    fault = mutant(MEAN, "y += inner", "y -= inner")
    key = session.Keys(corpus).of(fault)
    assert session.Keys(corpus).of(replace(fault, line=1)) == key
    other = Corpus(corpus.runs, dict.fromkeys(corpus.digests, "other"), corpus.sources)
    assert session.Keys(other).of(fault) != key


def test_primitives_are_asked_first(corpus: Corpus, trial: Trial) -> None:
    assert kernels_with(mutant(NUMERICS, "720401, 242", "720401, 241"), corpus) == [PRIMITIVES]  # softmax is not asked
    fault = mutant(NUMERICS, "v < lo ? lo", "v < lo ? hi")
    assert kernels_with(fault, corpus)[0] == PRIMITIVES
    assert trial.judge(fault) == Verdict("killed", "host", "a byte differs")


def test_kernels_with_a_line(corpus: Corpus) -> None:
    assert kernels_with(mutant(MEAN, "y += inner", "y -= inner"), corpus) == ["mean"]
    assert set(kernels_with(mutant(NUMERICS, "v < lo ? lo", "v < lo ? hi"), corpus)) == set(corpus.runs)


def result(fault: Mutant, status: str) -> Result:
    return Result(fault, Verdict(status, "host", "a byte differs"), fault.name, 0.5)


def test_the_score_leaves_out_what_is_argued() -> None:
    made = list(mutants(MEAN))[:5]
    statuses = ("killed", "killed", "survived", "survived", "same code")
    results = [result(m, status) for m, status in zip(made, statuses, strict=True)]
    argued = {made[2].name: "because"}
    assert report.tally(results, argued).score == 2 / 3
    assert report.tally(results, {}).score == 1 / 2
    assert report.tally(results[4:], {}).score is None
    assert [r.mutant for r in report.survivors(results, argued)] == [made[3]]
    assert f"+{made[3].new}\n" in report.page(results, argued, {})
    assert json.loads(json.dumps(report.as_json(results, argued, {})))["all"]["argued"] == 1


def test_arguments_that_are_wrong_or_outdated_are_reported() -> None:
    made = list(mutants(MEAN))[:2]
    results = [result(made[0], "killed"), result(made[1], "survived")]
    argued = {made[0].name: "no", made[1].name: "yes", "0123456789ab": "gone"}
    wrong, outdated = report.stale(results, argued)
    assert made[0].name in wrong and "a byte differs" in wrong
    assert "0123456789ab" in outdated


def test_every_argument_is_about_a_mutant_there_is() -> None:
    assert report.stale([], report.arguments()) == []


def test_a_list_of_arguments_without_reasons_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "equivalent.toml"
    path.write_text('[[mutant]]\nfile = "src/mean.c"\nfunction = "tnf_mean"\nold = "a"\nnew = "b"\n')
    with pytest.raises(DataError, match="why"):
        report.arguments(path)


def test_an_unknown_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "collect", lambda *_: Corpus({}, {}, {}))
    monkeypatch.setattr("sys.argv", ["mutation", "--file", "src/none.c", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "there is no file 'src/none.c'" in capsys.readouterr().err
