"""What one run of a model costs on one chip: memory, instructions, cycles; every tensor equals the golden model's."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from codegen.choose import Optimise
from codegen.generate import generate
from codegen.program import build_program
from codegen.target import Target
from conformance.models import CortexMModel, ModelUnderTest, compare_model
from conformance.timing.cycles import Cycles, Timing
from conformance.toolchain import Toolchain
from refsim.errors import ConformanceError, TargetError


@dataclass(frozen=True, kw_only=True)
class ChipCost:
    """A model on one chip.

    Attributes:
        target, core: the chip.
        constant_bytes: in flash.
        arena_bytes: in RAM.
        macs: of the dense model.
        instructions: executed, exact; None where the model does not fit the chip.
        cycles: memory that never waits; None likewise.
        memory_cycles: with flash and caches; None where the target does not describe them or it does not fit.
        milliseconds: of memory_cycles.
        why_not: what does not fit; empty where it does.
    """

    target: str
    core: str
    constant_bytes: int
    arena_bytes: int
    macs: int
    instructions: int | None = None
    cycles: int | None = None
    memory_cycles: int | None = None
    milliseconds: float | None = None
    why_not: str = ""


def measure_cost(
    under_test: ModelUnderTest, name: str, target: Target, optimise: Optimise, toolchain: Toolchain, opt: str = "-O2"
) -> ChipCost:
    """Generate a model, emulate its first sample in every timing that the target describes, and check every tensor.

    Args:
        under_test: graph and samples.
        name: of the model, for errors.
        target: the chip.
        optimise: what kernels are chosen for.
        toolchain: the compiler.
        opt: its optimisation flag.

    Raises:
        ToolchainError: the model cannot be built.
        ConformanceError: a byte differs; figures of a wrong computation are no figures.
    """
    program = build_program(under_test.graph, target, optimise=optimise)
    cost = ChipCost(
        target=target.name,
        core=target.core,
        constant_bytes=program.constant_bytes,
        arena_bytes=program.plan.arena_bytes,
        macs=program.macs,
    )
    cycles = {}
    try:
        with TemporaryDirectory() as folder:
            model = generate(under_test.graph, target, Path(folder, "model"), optimise=optimise)
            for timing in [Timing.ZERO_WAIT] + [Timing.MEMORY] * all(region.timing for region in target.memory):
                place = CortexMModel(model, toolchain, opt=opt, timing=timing)
                outcome = compare_model(under_test, place, target.name, 1)
                if outcome.mismatches:
                    raise ConformanceError(f"{name} on {target.name}: {outcome.message}")
                cycles[timing] = sum(place.cycles[0], start=Cycles(0, 0, 0, 0, 0)).total
    except TargetError as error:
        return replace(cost, why_not=str(error))
    memory = cycles.get(Timing.MEMORY)
    return replace(
        cost,
        instructions=round(outcome.total_instructions),
        cycles=cycles[Timing.ZERO_WAIT],
        memory_cycles=memory,
        milliseconds=memory and 1e3 * memory / target.clock_hz,
    )
