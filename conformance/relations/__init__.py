"""Metamorphic relations: what must hold between results, whatever these are."""

from conformance.relations import elements, graphs, images, movement, rows
from conformance.relations.base import GRAPHS, RELATIONS, Relation
from conformance.relations.engine import Engine, GoldenModel, Kernels

__all__ = [
    "GRAPHS",
    "RELATIONS",
    "Engine",
    "GoldenModel",
    "Kernels",
    "Relation",
    "elements",
    "graphs",
    "images",
    "movement",
    "rows",
]
