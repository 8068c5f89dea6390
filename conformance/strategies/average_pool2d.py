"""Cases of average_pool2d."""

from hypothesis import strategies as st

from conformance.strategies.base import Case, pooling_cases
from refsim.ops.average_pool2d import AveragePool2D


def cases() -> st.SearchStrategy[Case]:
    """Images up to 8 x 8, windows up to the whole image, all padding of which every window keeps an element."""
    return pooling_cases(AveragePool2D)
