"""Saved cases run again: what differed from the golden model, or for what a relation did not hold."""

from collections.abc import Iterator
from contextlib import contextmanager

from conformance.opinion import Opinion
from conformance.places import Library, Place
from conformance.primitives import SOURCE
from conformance.relations import GoldenModel, Kernels
from conformance.relations.runner import check
from conformance.runner import choose_places, choose_relations
from conformance.suite import compare
from conformance.vectors import Vector
from refsim.errors import TinyFormerError


def replay(vector: Vector, where: str) -> tuple[str, str]:
    """Run a saved case again.

    Args:
        vector: the case.
        where: name of a place; for a case of a relation also "refsim".

    Returns:
        What is wrong, empty where nothing is; and what it means if nothing is.

    Raises:
        TinyFormerError: there is no such place or relation, or the place tries none.
        ToolchainError: the place cannot be built.
    """
    case, relation = vector.case, vector.descriptor.get("relation")
    if relation is None:
        with _opened(where) as place:
            failure = compare(case, case.op.run(*case.inputs)[0], place)
        return failure.message if failure else "", "equals the golden model"
    ((chosen,),) = choose_relations([relation], [case.op.name]).values()
    if where == GoldenModel.name:
        breach = check(chosen, case, GoldenModel())
    else:
        with _opened(where) as place:
            if isinstance(place, Opinion):
                raise TinyFormerError(f"relations are tried by kernels or by the golden model, not at {where!r}")
            breach = check(chosen, case, Kernels(place))
    return breach.message if breach else "", f"relation {relation} holds"


@contextmanager
def _opened(name: str) -> Iterator[Place | Opinion]:
    place = choose_places([name], thorough=True)[0].build(Library(callers=(SOURCE,)))
    try:
        yield place
    finally:
        place.close()
