"""The operators of the numerics contract, one module each; the class in a module is its registration."""

import importlib
import inspect
import pkgutil

from refsim.ops.base import Operator, Requantization

__all__ = ["OPERATORS", "Operator", "Requantization"]


def _discover() -> dict[str, type[Operator]]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    classes: list[type[Operator]] = []
    pending = Operator.__subclasses__()
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if not inspect.isabstract(cls):
            classes.append(cls)
    return {cls.name: cls for cls in sorted(classes, key=lambda cls: cls.name)}


OPERATORS: dict[str, type[Operator]] = _discover()
"""Every operator class by name."""
