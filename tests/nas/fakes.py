"""Resources of architectures, made up so that results can be worked out by hand."""

from nas.resources import Resources
from nas.space import Architecture


def made_up(ram: int = 0, flash: int = 0, latency_ms: float | None = None) -> Resources:
    """Resources with these sums."""
    return Resources(
        parameters=1000,
        kept_parameters=500,
        constant_bytes=flash,
        code_bytes=0,
        arena_bytes=ram,
        unfused_arena_bytes=ram,
        stack_bytes=0,
        macs=0,
        cycles=None,
        latency_ms=latency_ms,
    )


def by_expansion(architecture: Architecture) -> Resources:
    """100 bytes of RAM for each unit of expansion in the first stage; in flash what pruning of the head leaves."""
    path = architecture.path
    return made_up(100 * path.stages[0].expansions[0], round(1000 * (1 - path.head_pruning.sparsity)), 1.0)
