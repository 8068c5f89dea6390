"""The kernels against the golden model: many cases of an operator at every place, and the smallest that differs."""

import contextlib
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity

import conformance.strategies
from codegen.emit import KernelCall, kernel_calls
from conformance import vectors
from conformance.comparison import difference
from conformance.layout import Layout, lay_out
from conformance.opinion import Opinion
from conformance.places import Place
from conformance.strategies.base import Case
from refsim.errors import ConformanceError, TinyFormerError
from refsim.numerics import Int8Array

ENOUGH = 20
"""After so many mismatches of an operator, a place is given up: each may be a crash, which takes long."""

ROUND = 10
"""Cases of one Hypothesis run. After ten, Hypothesis mostly varies the cases that it has; a new run makes new ones."""

SHRINK_SECONDS = 60.0
"""Time that the search for the smallest mismatch may take."""


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
        cases: how many ran; fewer than asked for where mismatches became too many, or some are too large for the place.
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


@dataclass(frozen=True)
class _Attempt:
    """One way to run a case: the kernel's call, the input whose memory is the output or None, and the memory."""

    call: KernelCall
    in_place: int | None
    layout: Layout

    def __str__(self) -> str:
        block = f", blocks of {self.call.sparse_block}" if self.call.sparse_block else ""
        where = "" if self.in_place is None else f" in place on input {self.in_place}"
        return f" ({self.call.kernel}{block}{where})"


def compare(case: Case, golden: Int8Array, place: Place | Opinion) -> Failure | None:
    """Run a case at a place, by each kernel that the place has for it, also in place where the kernel permits it.

    Args:
        case: operator and inputs.
        golden: what the golden model gives, int8, without the batch axis.
        place: where.

    Returns:
        None where every byte agrees and nothing else was touched.
    """
    if isinstance(place, Opinion):
        return _difference(golden, place.run(case), "")
    try:
        attempts = [attempt for dsp in place.dsp for attempt in _attempts(case, golden.size, dsp)]
    except Exception as error:  # an emitter that fails on a legal case is a finding
        return Failure(f"the emitter fails: {type(error).__name__}: {error}", golden)
    # A kernel that cores with and without the DSP extension share runs once.
    chosen = list({(a.call.kernel, a.call.sparse_block, a.in_place): a for a in attempts}.values())
    for attempt, after in zip(chosen, place.run_all([(a.call, a.layout) for a in chosen]), strict=True):
        try:
            if isinstance(after, TinyFormerError):
                raise after
            found = np.frombuffer(attempt.layout.collect(after), np.int8).reshape(golden.shape)
        except TinyFormerError as error:
            return Failure(f"{error}{attempt}", golden)
        failure = _difference(golden, found, str(attempt))
        if failure is not None:
            return failure
    return None


def _difference(golden: Int8Array, found: Int8Array, how: str) -> Failure | None:
    message = difference(golden, found)
    return Failure(f"{message}{how}", golden, found) if message else None


@lru_cache(maxsize=2)  # every place takes the same
def _attempts(case: Case, output_size: int, dsp: bool) -> list[_Attempt]:
    seed = zlib.crc32(b"".join(x.tobytes() for x in case.inputs))
    return [
        _Attempt(call, index, lay_out(call, case.inputs, output_size, index, seed))
        for call in kernel_calls(case.op, case.shapes, dsp=dsp)
        for index in (None, *call.in_place)
    ]


def run_operator(
    operator: str,
    places: Sequence[Place | Opinion],
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
    tallies = [_Tally(place) for place in places]
    kinds = {dsp for place in places if isinstance(place, Place) for dsp in place.dsp}

    def everywhere(case: Case, seed: int) -> None:
        golden = case.op.run(*case.inputs)[0]
        with contextlib.suppress(Exception):  # before the clocks start; what fails here fails again in `compare`
            for dsp in kinds:
                _attempts(case, golden.size, dsp)
        for tally in tallies:
            if len(tally.failures) < ENOUGH:
                tally.add(case, golden, seed)
        progress()

    for_each_case(operator, everywhere, count=count, seed=seed)
    return [tally.outcome(operator, failures) for tally in tallies]


def for_each_case(operator: str, body: Callable[[Case, int], None], *, count: int, seed: int) -> None:
    """Call `body` with an operator's cases, the same for the same seed, and with the seed of each one's round.

    Args:
        operator: a name of `refsim.ops.OPERATORS`.
        body: what to do with a case.
        count: number of cases.
        seed: of the first round.
    """
    done = 0
    while done < count:
        # The first case of every round is the simplest there is: once is enough.
        done += _explore(operator, body, seed, skip=min(done, 1), most=count - done)
        seed += 1


class _Tally:
    """What a place has shown so far for one operator."""

    def __init__(self, place: Place | Opinion) -> None:
        self.place = place
        self.cases = 0
        self.seconds = 0.0
        self.failures: list[tuple[Case, Failure, int]] = []

    def add(self, case: Case, golden: Int8Array, seed: int) -> None:
        if isinstance(self.place, Opinion) and not self.place.takes(case):
            return
        start = time.perf_counter()
        failure = compare(case, golden, self.place)
        self.seconds += time.perf_counter() - start
        self.cases += 1
        if failure is not None:
            self.failures.append((case, failure, seed))

    def outcome(self, operator: str, folder: Path) -> Outcome:
        """The outcome, its smallest failure saved in `folder`."""
        numbers = (operator, self.place.name, self.cases, len(self.failures), self.seconds)
        if not self.failures:
            return Outcome(*numbers)
        first, failure, seed = self.failures[0]
        # A failure that does not come again is reported as it was first seen.
        case, failure = _smallest(operator, self.place, seed) or (first, failure)
        notes = {"seed": seed, "compiler": self.place.detail, "message": failure.message}
        vector = vectors.save(folder, case, failure.golden, failure.found, self.place.name, notes)
        return Outcome(*numbers, failure.message, vector)


def _smallest(operator: str, place: Place | Opinion, seed: int) -> tuple[Case, Failure] | None:
    """Hypothesis's smallest case of a round that differs at a place; None where none does."""
    last: list[tuple[Case, Failure]] = []
    end = time.monotonic() + SHRINK_SECONDS

    def here(case: Case, _: int) -> None:
        if last and time.monotonic() > end:  # nothing differs any more, so Hypothesis ends with what it has
            return
        failure = compare(case, case.op.run(*case.inputs)[0], place)
        if failure is not None:
            last[:] = [(case, failure)]
            raise ConformanceError(failure.message)

    with contextlib.suppress(ConformanceError, hypothesis.errors.Flaky):
        _explore(operator, here, seed, shrink=True)
    return last[0] if last else None


def _explore(
    operator: str,
    body: Callable[[Case, int], None],
    seed: int,
    *,
    skip: int = 0,
    most: int = ROUND,
    shrink: bool = False,
) -> int:
    """Run one round: call `body` with generated cases, the same for the same seed, and with the seed.

    Args:
        operator: a name of `refsim.ops.OPERATORS`.
        body: ends the round where it raises.
        seed: of the cases.
        skip: number of first cases to leave out.
        most: number of cases at most.
        shrink: where `body` raises, go on to the smallest case with which it does.

    Returns:
        Number of cases that `body` was called with.
    """
    seen = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=ROUND,
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
        nonlocal seen
        seen += 1
        if shrink or skip < seen <= skip + most:
            body(case, seed)

    explore()
    return min(seen - skip, most)
