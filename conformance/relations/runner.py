"""Relations tried on many cases by every engine, and the smallest case for which one does not hold."""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from hypothesis.strategies import SearchStrategy

from codegen.program import graph_hash
from conformance import vectors
from conformance.comparison import difference
from conformance.exploration import for_each, smallest
from conformance.relations.base import GRAPHS, Relation
from conformance.relations.engine import Engine
from conformance.relations.random_graphs import described, graphs
from conformance.strategies import Case, cases
from conformance.suite import ENOUGH
from refsim import Graph
from refsim.errors import TinyFormerError
from refsim.numerics import Int8Array


@dataclass(frozen=True)
class RelationOutcome:
    """A relation by an engine.

    Attributes:
        relation, engine: names.
        subject: the operator, or "graphs".
        cases: how many were tried.
        pairs: how often two sides were compared; a relation may say nothing about a case, or several things.
        broken: for how many cases it did not hold.
        seconds: that the engine took.
        message: what one such case shows, the smallest for the first relation that an engine breaks; else empty.
        vector: folder of that case, where it is one of an operator.
        seed: of the round that it comes from.
    """

    relation: str
    engine: str
    subject: str
    cases: int
    pairs: int
    broken: int
    seconds: float
    message: str = ""
    vector: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Breach:
    """How a relation does not hold.

    Attributes:
        message: one line.
        sides: the two results that differ; empty where there were none.
    """

    message: str
    sides: tuple[Int8Array, ...] = ()


def check(
    relation: Relation, subject: Case | Graph, engine: Engine, count: Callable[[], None] = lambda: None
) -> Breach | None:
    """How a relation does not hold for a case or graph; None where it does.

    Args:
        relation: the relation; what it draws hangs on the case alone.
        subject: the case or graph.
        engine: who computes.
        count: called for each pair that is compared.
    """
    try:
        for left, right in relation.sides(subject, engine, _random(subject)):
            count()
            if left.shape != right.shape:
                return Breach(f"shapes {left.shape} and {right.shape} differ", (left, right))
            message = difference(left, right, ("one way", "the other"))
            if message:
                return Breach(message, (left, right))
    except TinyFormerError as error:
        return Breach(str(error))
    return None


def run_relations(
    subject: str,
    relations: Sequence[Relation],
    engines: Sequence[Engine],
    *,
    count: int,
    seed: int,
    failures: Path,
    progress: Callable[[], None] = lambda: None,
) -> list[RelationOutcome]:
    """Try relations on the cases of one operator, or on random graphs.

    Args:
        subject: an operator's name, or "graphs".
        relations: those that have this subject.
        engines: who computes.
        count: number of cases.
        seed: of the cases.
        failures: folder where the smallest case of each broken relation is saved.
        progress: called after each case.

    Returns:
        An outcome for each relation and engine.
    """
    tallies = [_Tally(relation, engine) for relation in relations for engine in engines]

    def everything(case: Any, round_seed: int) -> None:
        for tally in tallies:
            tally.add(case, round_seed)
        progress()

    strategy = _strategy(subject)
    for_each(strategy, everything, count=count, seed=seed)
    outcomes: list[RelationOutcome] = []
    for tally in tallies:
        # A fault mostly breaks several relations: looking for the smallest case of the first one is enough.
        seen = any(o.broken for o in outcomes if o.engine == tally.engine.name)
        outcomes.append(tally.outcome(subject, None if seen else strategy, failures))
    return outcomes


def _strategy(subject: str) -> SearchStrategy[Any]:
    return graphs() if subject == GRAPHS else cases(subject)


class _Tally:
    """What an engine has shown so far for one relation."""

    def __init__(self, relation: Relation, engine: Engine) -> None:
        self._relation, self.engine = relation, engine
        self._cases = self._pairs = 0
        self._seconds = 0.0
        self._broken: list[tuple[Any, Breach, int]] = []

    def add(self, case: Any, seed: int) -> None:
        if len(self._broken) == ENOUGH:
            return
        start = time.perf_counter()
        breach = check(self._relation, case, self.engine, self._count)
        self._seconds += time.perf_counter() - start
        self._cases += 1
        if breach is not None:
            self._broken.append((case, breach, seed))

    def _count(self) -> None:
        self._pairs += 1

    def outcome(self, subject: str, strategy: SearchStrategy[Any] | None, folder: Path) -> RelationOutcome:
        """The outcome; of the cases for which it does not hold the smallest, or without strategy the first."""
        name, engine = self._relation.name, self.engine
        numbers = (name, engine.name, subject, self._cases, self._pairs, len(self._broken), self._seconds)
        if not self._broken:
            return RelationOutcome(*numbers)
        first, breach, seed = self._broken[0]
        # What does not come again is reported as it was first seen.
        fails = partial(check, self._relation, engine=engine)
        case, breach = (smallest(strategy, fails, seed) if strategy is not None else None) or (first, breach)
        message = f"{self._relation.says} But {breach.message}, for {_described(case)}"
        if isinstance(case, Graph):
            return RelationOutcome(*numbers, message, seed=seed)
        notes = {"seed": seed, "compiler": engine.detail, "relation": name, "message": message}
        one, other = breach.sides or (case.op.run(*case.inputs), None)
        vector = vectors.save(folder, case, one, other, engine.name, notes)
        return RelationOutcome(*numbers, message, vector, seed)


def _random(subject: Case | Graph) -> Random:
    """The same for the same case, so that a saved one draws what it drew."""
    if isinstance(subject, Graph):
        return Random(graph_hash(subject))  # noqa: S311 - test data
    return Random(zlib.crc32(b"".join(x.tobytes() for x in subject.inputs)))  # noqa: S311 - test data


def _described(subject: Case | Graph) -> str:
    if isinstance(subject, Case):
        return f"{subject.op.name} of {', '.join(map(str, subject.shapes))}"
    return described(subject)
