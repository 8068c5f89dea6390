"""Hypothesis strategies over the whole legal domain of each operator; `cases()` of its module is the door.

case = cases("softmax").example()
golden = case.op.run(*case.inputs)
"""

import importlib

from hypothesis.strategies import SearchStrategy

from conformance.strategies.base import Case

__all__ = ["Case", "cases"]


def cases(operator: str) -> SearchStrategy[Case]:
    """The strategy of an operator's test cases.

    Args:
        operator: a name of `refsim.ops.OPERATORS`, or "primitives".
    """
    strategy: SearchStrategy[Case] = importlib.import_module(f"{__name__}.{operator}").cases()
    return strategy
