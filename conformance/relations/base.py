"""What a metamorphic relation is: two ways to compute something that must give the same bytes, whatever they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias, TypeVar

from conformance.relations.engine import Engine
from refsim.numerics import Int8Array

Pair: TypeAlias = tuple[Int8Array, Int8Array]
Sides: TypeAlias = Callable[[Any, Engine, Random], Iterator[Pair]]
S = TypeVar("S", bound=Sides)

GRAPHS = "graphs"
"""The subject of relations that hold over random graphs; the others are operators."""


@dataclass(frozen=True)
class Relation:
    """A relation over the cases of some operators, or over graphs.

    Attributes:
        name: on the command line.
        says: what must hold, in words.
        subjects: operators whose cases it takes, or `GRAPHS`.
        sides: from a case or a graph, an engine and something to draw from, pairs that must be equal; none where the
            relation says nothing about it.
    """

    name: str
    says: str
    subjects: tuple[str, ...]
    sides: Sides


RELATIONS: dict[str, Relation] = {}
"""Every relation by name, in the order in which their modules define them."""


def relation(*subjects: str) -> Callable[[S], S]:
    """Register a function as the relation of its name, which says what its docstring's first line does."""

    def decorate(sides: S) -> S:
        assert sides.__doc__ is not None, f"{sides.__name__} does not say what must hold"
        register(sides.__name__, sides.__doc__.splitlines()[0], subjects, sides)
        return sides

    return decorate


def register(name: str, says: str, subjects: tuple[str, ...], sides: Sides) -> None:
    """Add a relation; underscores of its name become hyphens."""
    name = name.replace("_", "-")
    RELATIONS[name] = Relation(name, says, subjects, sides)
