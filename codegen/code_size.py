"""Bytes of code of a program, estimated before anything is compiled."""

import json
import math
from functools import cache
from pathlib import Path

from codegen.program import Program
from codegen.target import Target
from refsim.errors import TargetError

MEASURED = Path(__file__).parent / "code_sizes.json"
"""Code of each kernel source by core, at -O2, the larger of gcc's and clang's: ``python -m conformance.code_size``."""

MARGIN = 1.05
"""Code of other versions of the compilers in that of those measured."""

STEP_BYTES = 48
"""Of a kernel call and its arguments in the generated source, at most."""

BASE_BYTES = 2048
"""Of the vector table, start-up code and what compilers add, such as memcpy."""


def code_bytes(program: Program, target: Target) -> int:
    """Bytes of code in flash, an upper bound for gcc and clang at -O2: kernels, their calls, start-up code.

    Raises:
        TargetError: nothing was measured for the target's core.
    """
    sizes = _measured().get(target.core)
    if sizes is None:
        raise TargetError(f"target {target.name}: no code sizes for {target.core}; known are {', '.join(_measured())}")
    # a source that is newer than the measurement counts as much as the largest
    kernels = sum(sizes.get(source, max(sizes.values())) for source in program.kernel_sources)
    return math.ceil(MARGIN * kernels) + STEP_BYTES * sum(not step.elided for step in program.steps) + BASE_BYTES


@cache
def _measured() -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return sizes
