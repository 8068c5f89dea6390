"""Two arrays that must agree, byte for byte."""

import numpy as np

from refsim.numerics import Int8Array


def difference(golden: Int8Array, found: Int8Array) -> str:
    """What differs, in one line; empty where nothing does."""
    wrong = np.argwhere(golden != found)
    if len(wrong) == 0:
        return ""
    first = tuple(int(i) for i in wrong[0])
    return (
        f"{len(wrong)} of {golden.size} bytes differ, the first at index {list(first)}: "
        f"golden model {golden[first]}, found {found[first]}"
    )
