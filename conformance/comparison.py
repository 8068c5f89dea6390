"""Two arrays that must agree, byte for byte."""

import numpy as np

from refsim.numerics import Int8Array


def difference(golden: Int8Array, found: Int8Array, names: tuple[str, str] = ("golden model", "found")) -> str:
    """What differs, in one line that gives both their names; empty where nothing does."""
    wrong = np.argwhere(golden != found)
    if len(wrong) == 0:
        return ""
    first = tuple(int(i) for i in wrong[0])
    return (
        f"{len(wrong)} of {golden.size} bytes differ, the first at index {list(first)}: "
        f"{names[0]} {golden[first]}, {names[1]} {found[first]}"
    )
