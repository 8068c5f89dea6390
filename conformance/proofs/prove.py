"""Ask the solver: every theorem's queries, each with a limit of time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import z3

from conformance.proofs.c_semantics import Program
from conformance.proofs.theorems import Query, Theorem

SECONDS = 120.0
"""For one query."""


@dataclass(frozen=True)
class Proof:
    """What became of a theorem.

    Attributes:
        theorem: see there.
        queries: how many hold.
        seconds: for all of them.
        failure: the first query that does not hold or does not end, with a counterexample where there is one.
    """

    theorem: Theorem
    queries: int
    seconds: float
    failure: str = ""


def ask(query: Query, seconds: float = SECONDS) -> str:
    """Empty where the claim holds on its whole domain; else a counterexample, or why none was found."""
    solver = z3.Solver()
    solver.set("timeout", int(1000 * seconds))
    solver.add(*query.given, z3.Not(query.claim))
    answer = solver.check()
    if answer == z3.unsat:
        return ""
    if answer == z3.unknown:
        return f"{query.what}: undecided ({solver.reason_unknown()})"
    model = solver.model()
    values = sorted((str(name), _number(model[name])) for name in model if model[name] is not None)
    return f"{query.what}: fails for {', '.join(f'{name} = {value}' for name, value in values)}"


def _number(value: Any) -> int:
    return int(value.as_signed_long() if z3.is_bv_value(value) else value.as_long())


def prove(
    theorems: Sequence[Theorem],
    program: Program,
    *,
    chosen: Callable[[int], bool] = lambda _: True,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Proof]:
    """Prove theorems, each up to its first failure.

    Args:
        theorems: to prove.
        program: the C.
        chosen: which of a theorem's queries to ask, by number; all of them make a proof.
        progress: called with a query's name before it is asked.
    """
    proofs = []
    for theorem in theorems:
        start, held, failure = time.perf_counter(), 0, ""
        for number, query in enumerate(theorem.queries(program)):
            if chosen(number):
                progress(f"{theorem.function}: {query.what}")
                failure = ask(query)
                if failure:
                    break
                held += 1
        proofs.append(Proof(theorem, held, time.perf_counter() - start, failure))
    return proofs
