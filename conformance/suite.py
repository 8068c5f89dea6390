"""The kernels against the golden model: many cases of an operator at every place, and the smallest that differs."""

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from codegen.emit import KernelCall, kernel_calls
from conformance import vectors
from conformance.comparison import difference
from conformance.exploration import for_each, smallest
from conformance.layout import Layout, lay_out
from conformance.opinion import Opinion
from conformance.places import Place
from conformance.primitives import Primitive
from conformance.strategies import Case, cases
from refsim.errors import TinyFormerError
from refsim.numerics import Int8Array

ENOUGH = 20
"""After so many mismatches of an operator, a place is given up: each may be a crash, which takes long."""

BATCH = 40
"""Cases that a place is given at a time: on the host handing one over takes longer than running it."""


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


Way = tuple[str, int, int | None]
"""A kernel, its sparse block or 0, and the input whose memory is the output or None."""


@dataclass(frozen=True)
class Attempt:
    """One way to run a case: the kernel's call, the input whose memory is the output or None, and the memory."""

    call: KernelCall
    in_place: int | None
    layout: Layout

    @property
    def way(self) -> tuple[str, int, int | None]:
        """What tells it from the others of its case: kernel, weights of a sparse block, in-place input."""
        return self.call.kernel, self.call.sparse_block, self.in_place

    def __str__(self) -> str:
        block = f", blocks of {self.call.sparse_block}" if self.call.sparse_block else ""
        where = "" if self.in_place is None else f" in place on input {self.in_place}"
        return f" ({self.call.kernel}{block}{where})"


@dataclass(frozen=True, eq=False)
class Trial:
    """A case, and what the golden model gives for it.

    Attributes:
        case: operator and inputs.
        golden: int8, without the batch axis.
        seed: of the round that it comes from.
    """

    case: Case
    golden: Int8Array
    seed: int = 0

    def attempts(self, kinds: Sequence[bool]) -> list[Attempt]:
        """The ways to run it by a place's kernels (`Place.dsp`), made once.

        Raises:
            Exception: whatever an emitter that fails on a legal case does.
        """
        kinds = tuple(kinds)
        if kinds not in self._made:
            self._made[kinds] = attempts(self.case, self.golden.size, kinds)
        return self._made[kinds]

    @cached_property
    def _made(self) -> dict[tuple[bool, ...], list[Attempt]]:
        return {}


def attempts(case: Case, output_size: int, kinds: Sequence[bool]) -> list[Attempt]:
    """Every kernel for a case once, also in place where it permits that.

    Of calls that differ in sizes alone, say in the height of tiles, one is taken, which hangs on the case's inputs.

    Args:
        case: operator and inputs.
        output_size: bytes.
        kinds: of kernels: for cores without the DSP extension (False), with it (True).

    Raises:
        Exception: whatever an emitter that fails on a legal case does.
    """
    seed = zlib.crc32(b"".join(x.tobytes() for x in case.inputs))
    chosen: dict[Way, KernelCall] = {}  # a kernel that cores with and without the DSP extension share runs once
    for dsp in kinds:
        alike: dict[Way, list[KernelCall]] = {}
        for call in _calls(case, dsp):
            for index in (None, *call.in_place):
                alike.setdefault((call.kernel, call.sparse_block, index), []).append(call)
        chosen |= {way: calls[seed % len(calls)] for way, calls in alike.items()}
    return [
        Attempt(call, way[2], lay_out(call, case.inputs, output_size, way[2], seed)) for way, call in chosen.items()
    ]


def _calls(case: Case, dsp: bool) -> Sequence[KernelCall]:
    if isinstance(case.op, Primitive):
        return [case.op.call(*case.shapes)]
    return kernel_calls(case.op, case.shapes, dsp=dsp)


def compare(case: Case, golden: Int8Array, place: Place | Opinion) -> Failure | None:
    """Run a case at a place, by each kernel that the place has for it, also in place where the kernel permits it.

    Args:
        case: operator and inputs.
        golden: what the golden model gives, int8, without the batch axis.
        place: where.

    Returns:
        None where every byte agrees and nothing else was touched.
    """
    return next(_compare_all([Trial(case, golden)], place))


def _compare_all(trials: Sequence[Trial], place: Place | Opinion) -> Iterator[Failure | None]:
    """What `compare` finds for each of several cases."""
    if isinstance(place, Opinion):
        yield from (_difference(trial.golden, place.run(trial.case), "") for trial in trials)
        return
    planned: list[list[Attempt] | Failure] = []
    for trial in trials:
        try:
            planned.append(trial.attempts(place.dsp))
        except Exception as error:  # an emitter that fails on a legal case is a finding
            planned.append(Failure(f"the emitter fails: {type(error).__name__}: {error}", trial.golden))
    every = [attempt for made in planned if not isinstance(made, Failure) for attempt in made]
    runs = iter(place.run_all([(attempt.call, attempt.layout) for attempt in every]))
    for trial, made in zip(trials, planned, strict=True):
        if isinstance(made, Failure):
            yield made
        else:
            yield _first_failure(trial.golden, made, list(islice(runs, len(made))))


def _first_failure(golden: Int8Array, tried: Sequence[Attempt], runs: Sequence[Callable[[], bytes]]) -> Failure | None:
    for attempt, run in zip(tried, runs, strict=True):
        try:
            found = np.frombuffer(attempt.layout.collect(run()), np.int8).reshape(golden.shape)
        except TinyFormerError as error:
            return Failure(f"{error}{attempt}", golden)
        failure = _difference(golden, found, str(attempt))
        if failure is not None:
            return failure
    return None


def _difference(golden: Int8Array, found: Int8Array, how: str) -> Failure | None:
    message = difference(golden, found)
    return Failure(f"{message}{how}", golden, found) if message else None


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
        operator: a name of `refsim.ops.OPERATORS`, or "primitives".
        places: where.
        count: number of cases.
        seed: of the cases.
        failures: folder where the smallest differing case of each place is saved.
        progress: called after each case.

    Returns:
        An outcome for each place, in their order.
    """
    tallies = [_Tally(place) for place in places]
    kinds = {place.dsp for place in places if isinstance(place, Place)}
    batch: list[Trial] = []

    def collect(case: Case, seed: int) -> None:
        trial = Trial(case, case.op.run(*case.inputs)[0], seed)
        with contextlib.suppress(Exception):  # before the clocks start; what fails here fails again in `compare`
            for kind in kinds:
                trial.attempts(kind)
        batch.append(trial)
        if len(batch) == BATCH:
            everywhere()
        progress()

    def everywhere() -> None:
        for tally in tallies:
            tally.add(batch)
        batch.clear()

    for_each_case(operator, collect, count=count, seed=seed)
    everywhere()
    return [tally.outcome(operator, failures) for tally in tallies]


def for_each_case(operator: str, body: Callable[[Case, int], None], *, count: int, seed: int) -> None:
    """Call `body` with an operator's cases, the same for the same seed, and with the seed of each one's round.

    Args:
        operator: a name of `refsim.ops.OPERATORS`, or "primitives".
        body: what to do with a case.
        count: number of cases.
        seed: of the first round.
    """
    for_each(cases(operator), body, count=count, seed=seed)


class _Tally:
    """What a place has shown so far for one operator."""

    def __init__(self, place: Place | Opinion) -> None:
        self.place = place
        self.cases = 0
        self.seconds = 0.0
        self.failures: list[tuple[Case, Failure, int]] = []

    def add(self, trials: Sequence[Trial]) -> None:
        """Run cases, until mismatches are too many."""
        if isinstance(self.place, Opinion):
            trials = [trial for trial in trials if self.place.takes(trial.case)]
        if len(self.failures) == ENOUGH:
            return
        start = time.perf_counter()
        for trial, failure in zip(trials, _compare_all(trials, self.place), strict=True):
            self.cases += 1
            if failure is not None:
                self.failures.append((trial.case, failure, trial.seed))
            if len(self.failures) == ENOUGH:
                break
        self.seconds += time.perf_counter() - start

    def outcome(self, operator: str, folder: Path) -> Outcome:
        """The outcome, its smallest failure saved in `folder`."""
        numbers = (operator, self.place.name, self.cases, len(self.failures), self.seconds)
        if not self.failures:
            return Outcome(*numbers)
        first, failure, seed = self.failures[0]
        # A failure that does not come again is reported as it was first seen.
        case, failure = smallest(cases(operator), self._fails, seed) or (first, failure)
        notes = {"seed": seed, "compiler": self.place.detail, "message": failure.message}
        vector = vectors.save(folder, case, failure.golden, failure.found, self.place.name, notes)
        return Outcome(*numbers, failure.message, vector)

    def _fails(self, case: Case) -> Failure | None:
        return compare(case, case.op.run(*case.inputs)[0], self.place)
