"""Hypothesis as a source of many cases, the same for the same seed, and of the smallest that shows a fault."""

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.strategies import SearchStrategy

from refsim.errors import ConformanceError

T = TypeVar("T")
F = TypeVar("F")

ROUND = 10
"""Cases of one Hypothesis run. After ten, Hypothesis mostly varies the cases that it has; a new run makes new ones."""

SHRINK_SECONDS = 60.0
"""Time that the search for the smallest case may take."""


def for_each(strategy: SearchStrategy[T], body: Callable[[T, int], None], *, count: int, seed: int) -> None:
    """Call `body` with cases, the same for the same seed, and with the seed of each one's round.

    Args:
        strategy: of the cases.
        body: what to do with a case.
        count: number of cases.
        seed: of the first round.
    """
    done = 0
    while done < count:
        # The first case of every round is the simplest there is: once is enough.
        done += explore(strategy, body, seed, skip=min(done, 1), most=count - done)
        seed += 1


def smallest(strategy: SearchStrategy[T], fails: Callable[[T], F | None], seed: int) -> tuple[T, F] | None:
    """The smallest case of a round for which `fails` gives something, with that; None where there is none.

    Args:
        strategy: of the cases.
        fails: what is wrong with a case.
        seed: of the round.
    """
    last: list[tuple[T, F]] = []
    end = time.monotonic() + SHRINK_SECONDS

    def here(case: T, _: int) -> None:
        if last and time.monotonic() > end:  # nothing fails any more, so Hypothesis ends with what it has
            return
        failure = fails(case)
        if failure is not None:
            last[:] = [(case, failure)]
            raise ConformanceError("found")

    with contextlib.suppress(ConformanceError, hypothesis.errors.Flaky):
        explore(strategy, here, seed, shrink=True)
    return last[0] if last else None


def explore(
    strategy: SearchStrategy[T],
    body: Callable[[T, int], None],
    seed: int,
    *,
    skip: int = 0,
    most: int = ROUND,
    shrink: bool = False,
) -> int:
    """Run one round: call `body` with generated cases, the same for the same seed, and with the seed.

    Args:
        strategy: of the cases.
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
    @hypothesis.given(case=strategy)
    def round_of(case: T) -> None:
        nonlocal seen
        seen += 1
        if shrink or skip < seen <= skip + most:
            body(case, seed)

    round_of()
    return min(seen - skip, most)
