"""A second opinion on the golden model: docs/numerics.md once more, in Python's unbounded integers."""

import math

import numpy as np

from conformance.opinion.operators import OPERATORS, tensor
from conformance.strategies.base import Case
from refsim.numerics import Int8Array
from refsim.ops.attention import Attention

__all__ = ["OPERATORS", "Opinion"]


MOST_SCORES = 3000
"""Scores of an attention that take a tenth of a second."""


class Opinion:
    """The definition in place of a kernel: a place of a conformance run that holds the golden model to it.

    Attributes:
        name, detail: in reports.
    """

    name = "definition"
    detail = "Python's unbounded integers"

    def takes(self, case: Case) -> bool:
        """Whether a case is small enough; only attention has some that are not."""
        if not isinstance(case.op, Attention):
            return True
        queries, keys, _ = case.shapes
        return math.prod(queries[:-1]) * keys[-2 if case.op.scores.transpose_b else -1] <= MOST_SCORES

    def run(self, case: Case) -> Int8Array:
        """What the definition gives for a case: int8, without the batch axis.

        Raises:
            OverflowError: an output is no int8, which the definition rules out.
        """
        found = OPERATORS[case.op.name](case.op, *(tensor(x[0]) for x in case.inputs))
        return np.array(found.values, np.int8).reshape(found.shape)

    def close(self) -> None:
        """There is nothing to release."""
