"""The kernels against the golden model: many cases of an operator at every place, and the smallest that differs."""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity

import conformance.strategies
from codegen.emit import KernelCall, kernel_call
from conformance import vectors
from conformance.layout import lay_out
from conformance.places import Place
from conformance.strategies.base import Case
from refsim.errors import ConformanceError, TinyFormerError
from refsim.numerics import Int8Array


@dataclass(frozen=True)
class Failure:
    """How a place differs from the golden model on one case.

    Attributes:
        message: one line.
        golden: int8, without the batch axis.
        found: the same from the place, where it gave an output.
    """

    message: str
    golden: Int8Array
    found: Int8Array | None = None


@dataclass(frozen=True)
class Outcome:
    """An operator at a place.

    Attributes:
        operator, place: names.
        cases: how many ran.
        mismatches: how many of them differed.
        seconds: time that the place took.
        message: what the smallest differing case shows; empty where none differs.
        vector: folder of that case.
    """

    operator: str
    place: str
    cases: int
    mismatches: int
    seconds: float
    message: str = ""
    vector: Path | None = None


def compare(case: Case, golden: Int8Array, place: Place) -> Failure | None:
    """Run a case at a place, also in place where the kernel permits it.

    Args:
        case: operator and inputs.
        golden: what the golden model gives, int8, without the batch axis.
        place: where.

    Returns:
        None where every byte agrees and nothing else was touched.
    """
    try:
        call = kernel_call(case.op, case.shapes)
    except Exception as error:  # an emitter that fails on a legal case is a finding
        return Failure(f"the emitter fails: {type(error).__name__}: {error}", golden)
    seed = zlib.crc32(b"".join(x.tobytes() for x in case.inputs))
    for index in (None, *call.in_place):
        failure = _compare_once(case, golden, place, call, index, seed)
        if failure is not None:
            return failure
    return None


def _compare_once(
    case: Case, golden: Int8Array, place: Place, call: KernelCall, in_place: int | None, seed: int
) -> Failure | None:
    how = "" if in_place is None else f" (in place on input {in_place})"
    layout = lay_out(call, case.inputs, golden.size, in_place, seed)
    try:
        output = layout.collect(place.run(call, layout))
    except TinyFormerError as error:
        return Failure(f"{error}{how}", golden)
    found = np.frombuffer(output, np.int8).reshape(golden.shape)
    message = difference(golden, found)
    return Failure(f"{message}{how}", golden, found) if message else None


def difference(golden: Int8Array, found: Int8Array) -> str:
    """What differs, in one line; empty where nothing does."""
    wrong = np.argwhere(golden != found)
    if not wrong.size and golden.shape == found.shape:
        return ""
    first = tuple(int(i) for i in wrong[0])
    return (
        f"{len(wrong)} of {golden.size} bytes differ, the first at index {list(first)}: "
        f"golden model {golden[first]}, found {found[first]}"
    )


def run_operator(
    operator: str,
    places: Sequence[Place],
    *,
    count: int,
    seed: int,
    failures: Path,
    progress: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Run one operator's cases at every place.

    Args:
        operator: a name of `refsim.ops.OPERATORS`.
        places: where.
        count: number of cases.
        seed: of the cases.
        failures: folder where the smallest differing case of each place is saved.
        progress: called after each case.

    Returns:
        An outcome for each place, in their order.
    """
    cases = [0] * len(places)
    mismatches: list[list[tuple[Case, Failure]]] = [[] for _ in places]
    seconds = [0.0] * len(places)

    def everywhere(case: Case) -> None:
        golden = case.op.run(*case.inputs)[0]
        for index, place in enumerate(places):
            start = time.perf_counter()
            failure = compare(case, golden, place)
            seconds[index] += time.perf_counter() - start
            cases[index] += 1
            if failure is not None:
                mismatches[index].append((case, failure))
        progress()

    _explore(operator, everywhere, count, seed, shrink=False)
    outcomes = []
    for index, place in enumerate(places):
        message, vector = "", None
        if mismatches[index]:
            case, failure = _smallest(operator, place, count, seed) or mismatches[index][0]
            message = failure.message
            notes = {"seed": seed, "compiler": place.detail, "message": message}
            vector = vectors.save(failures, case, failure.golden, failure.found, place.name, notes)
        outcomes.append(
            Outcome(operator, place.name, cases[index], len(mismatches[index]), seconds[index], message, vector)
        )
    return outcomes


def _smallest(operator: str, place: Place, count: int, seed: int) -> tuple[Case, Failure] | None:
    """Hypothesis's smallest case that differs at a place; None where no case differs twice."""
    last: list[tuple[Case, Failure]] = []

    def here(case: Case) -> None:
        failure = compare(case, case.op.run(*case.inputs)[0], place)
        if failure is not None:
            last[:] = [(case, failure)]
            raise ConformanceError(failure.message)

    try:
        _explore(operator, here, count, seed, shrink=True)
    except (ConformanceError, hypothesis.errors.Flaky):
        return last[0]
    return None


def _explore(operator: str, body: Callable[[Case], None], count: int, seed: int, *, shrink: bool) -> None:
    """Call `body` with generated cases; the same ones for the same seed, until it raises."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    @hypothesis.given(case=conformance.strategies.cases(operator))
    def explore(case: Case) -> None:
        body(case)

    explore()
