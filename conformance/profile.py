"""Where the cycles of a model go on an emulated chip: measured, kept as JSON, compared with an earlier measurement.

A profile is made of operators that equal the golden model byte for byte; one of wrong code cannot be had.
"""

import dataclasses
import json
import platform
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import capstone

from codegen.generate import generate, tool_version
from codegen.target import load_target
from conformance.emulator import CortexM
from conformance.models import CortexMModel, ModelUnderTest, compare_model
from conformance.source_lines import SourceLines
from conformance.timing.cycles import BlockExecutions, Cycles, Timing
from conformance.toolchain import Toolchain, arm_toolchains
from conformance.validation.band import Band, error_band
from refsim.errors import ConformanceError, DataError, located

SCHEMA = 1
"""Version of the JSON. A file of another version is refused, not guessed at."""

PACKAGES = ("numpy", "unicorn", "capstone", "ziglang")

CAUSES = ("dependency", "branch", "fetch", "data")
"""Why a cycle issues nothing, in the order of every report."""


@dataclass(frozen=True)
class Counts:
    """What ran, the mean over the samples.

    Attributes:
        instructions: executed.
        cycles: all of them, the stalls below included.
        dependency: stalls on an operand or unit that is not ready.
        branch: stalls while the pipeline refills after a branch.
        fetch: stalls on instructions that memory has not delivered.
        data: stalls on loads and stores.
    """

    instructions: float = 0
    cycles: float = 0
    dependency: float = 0
    branch: float = 0
    fetch: float = 0
    data: float = 0

    @property
    def issuing(self) -> float:
        """Cycles in which something issued."""
        return self.cycles - self.dependency - self.branch - self.fetch - self.data

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass(frozen=True)
class CodeBlock:
    """Instructions that run one after the other.

    Attributes:
        address: of the first.
        function: the C function that holds them.
        offset: of the first from the function's start, bytes.
        source: the line of C it begins with, such as "softmax.c:31", an inlined function's its own; empty if unknown.
        instructions: as a disassembler prints them.
    """

    address: int
    function: str
    offset: int
    source: str
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class BlockCounts:
    """A block in a layer.

    Attributes:
        block: its index in `Profile.code`.
        executions: mean over the samples.
        counts: of all executions.
    """

    block: int
    executions: float
    counts: Counts


@dataclass(frozen=True)
class Layer:
    """An operator of the model.

    Attributes:
        index: of the step.
        name: the node's.
        operator: the operator's name.
        macs: multiply-accumulates of the dense operator.
        counts: mean over the samples.
        fewest, most: cycles of the cheapest and of the dearest sample.
        blocks: those with cycles, most cycles first.
    """

    index: int
    name: str
    operator: str
    macs: int
    counts: Counts
    fewest: int
    most: int
    blocks: tuple[BlockCounts, ...] = ()


@dataclass(frozen=True)
class OperatorSum:
    """All layers of one operator.

    Attributes:
        operator: its name.
        layers: how many.
        macs, counts: their sums.
    """

    operator: str
    layers: int
    macs: int
    counts: Counts


@dataclass(frozen=True)
class Profile:
    """A model on a chip.

    Attributes:
        schema: `SCHEMA`.
        model, model_hash: name, and SHA-256 of the graph.
        target, description, core: the chip.
        clock_hz: to which times refer.
        milliwatts: what the chip draws while it computes; None where its target does not say.
        timing: "memory" or "zero-wait".
        band: how far published measurements lie from such estimates; None where none tells.
        compiler, compiler_version, opt: what built the code.
        data: the samples: a file's name, or "random bytes".
        seed: of the random bytes; None where there are real samples.
        samples: how many ran, every tensor of each equal to the golden model's.
        fewest, most: cycles of the cheapest and of the dearest sample.
        arena_bytes, stack_bytes: RAM; the stack's is measured.
        versions: of the toolkit and of what it measured with.
        layers: in the order of execution.
        code: blocks that the layers name.
    """

    schema: int
    model: str
    model_hash: str
    target: str
    description: str
    core: str
    clock_hz: int
    milliwatts: float | None
    timing: str
    band: Band | None
    compiler: str
    compiler_version: str
    opt: str
    data: str
    seed: int | None
    samples: int
    fewest: int
    most: int
    arena_bytes: int
    stack_bytes: int
    versions: dict[str, str]
    layers: tuple[Layer, ...]
    code: tuple[CodeBlock, ...]

    @property
    def built_by(self) -> str:
        """Compiler and its version, in one phrase."""
        named = self.compiler_version.startswith(self.compiler)
        return self.compiler_version if named else f"{self.compiler} {self.compiler_version}"

    @property
    def counts(self) -> Counts:
        """Of one sample."""
        return sum((layer.counts for layer in self.layers), Counts())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def operators(self) -> tuple[OperatorSum, ...]:
        """Sums by operator, most cycles first."""
        sums: dict[str, OperatorSum] = {}
        for layer in self.layers:
            so_far = sums.get(layer.operator, OperatorSum(layer.operator, 0, 0, Counts()))
            sums[layer.operator] = OperatorSum(
                layer.operator, so_far.layers + 1, so_far.macs + layer.macs, so_far.counts + layer.counts
            )
        return tuple(sorted(sums.values(), key=lambda entry: (-entry.counts.cycles, entry.operator)))

    def seconds(self, cycles: float) -> float:
        """Cycles as time at the target's clock."""
        return cycles / self.clock_hz

    def millijoules(self, cycles: float) -> float | None:
        """Energy of cycles; None where the target has no power figure."""
        return None if self.milliwatts is None else self.milliwatts * self.seconds(cycles)


def measure(
    model: ModelUnderTest,
    target: str,
    *,
    timing: Timing | None = None,
    data: str = "random bytes",
    seed: int | None = None,
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    progress: Callable[[], None] = lambda: None,
) -> Profile:
    """Run samples on an emulated chip with cycles counted, and hold every tensor to the golden model.

    Args:
        model: graph and samples, all of which run.
        target: name or .toml file.
        timing: None for memory where the target describes it, else zero-wait.
        data: where the samples come from, for the record.
        seed: of random bytes, for the record.
        toolchain: the compiler; the preferred one by default.
        opt: optimisation flag.
        progress: called after each sample.

    Raises:
        ConformanceError: a byte differs; figures of a wrong computation are no figures.
        TargetError: the model does not fit the target, there is none of that name, or it lacks what the timing needs.
        ToolchainError: the model cannot be built.
    """
    chip = load_target(target)
    chosen = toolchain or arm_toolchains()[0]
    described = all(region.timing for region in chip.memory)
    timing = timing or (Timing.MEMORY if described else Timing.ZERO_WAIT)
    with TemporaryDirectory() as folder:
        generated = generate(model.graph, chip, Path(folder) / "model")
        place = CortexMModel(generated, chosen, opt=opt, timing=timing)
        outcome = compare_model(model, place, chip.name, model.count, progress)
    if outcome.mismatches:
        raise ConformanceError(f"{chip.name}: {outcome.message}")
    totals = [sum(cycles.total for cycles in sample) for sample in place.cycles]
    layers, code = _layers(place, outcome.instructions)
    return Profile(
        schema=SCHEMA,
        model=model.graph.name,
        model_hash=place.model.program.model_hash,
        target=chip.name,
        description=chip.description,
        core=chip.core,
        clock_hz=chip.clock_hz,
        milliwatts=chip.power.milliwatts if chip.power else None,
        timing=timing.value,
        band=error_band(chip.core, timing),
        compiler=chosen.name,
        compiler_version=chosen.version,
        opt=opt,
        data=data,
        seed=seed,
        samples=outcome.samples,
        fewest=min(totals),
        most=max(totals),
        arena_bytes=place.model.arena_bytes,
        stack_bytes=outcome.stack_bytes,
        versions={"tinyformer": tool_version(), "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
        layers=layers,
        code=code,
    )


def as_json(profile: Profile) -> str:
    """The profile as JSON, and under "total" what follows from it."""
    total = profile.counts
    derived = dataclasses.asdict(total) | {
        "macs": profile.macs,
        "seconds": profile.seconds(total.cycles),
        "millijoules": profile.millijoules(total.cycles),
    }
    return json.dumps(dataclasses.asdict(profile) | {"total": derived}, indent=1) + "\n"


def read_profile(path: Path) -> Profile:
    """Read what `as_json` wrote.

    Raises:
        DataError: the file is unreadable, no profile, or of another schema version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"profile {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"profile {path} is no JSON: {error}") from error
    if not isinstance(value, dict) or "schema" not in value:
        raise DataError(f"{path} is no profile; `tinyformer profile --json` writes one")
    if value["schema"] != SCHEMA:
        raise DataError(
            f"profile {path} has schema {value['schema']!r}, this version reads {SCHEMA}; measure it again with this "
            "version, or compare with the version that wrote it"
        )
    value.pop("total", None)
    with located(f"profile {path}"):
        profile: Profile = _read(Profile, value, "")
        for layer in profile.layers:
            if any(not 0 <= entry.block < len(profile.code) for entry in layer.blocks):
                raise DataError(f"layers[{layer.index}] names a block that is not in code")
        return profile


@dataclass(frozen=True)
class Change:
    """A layer before and after.

    Attributes:
        before: None where the layer is new.
        after: None where the layer is gone.
    """

    before: Layer | None
    after: Layer | None

    @property
    def layer(self) -> Layer:
        """As it is now, or was."""
        layer = self.after or self.before
        assert layer is not None
        return layer

    @property
    def old(self) -> Counts:
        """Before; zeros where the layer is new."""
        return self.before.counts if self.before else Counts()

    @property
    def new(self) -> Counts:
        """After; zeros where the layer is gone."""
        return self.after.counts if self.after else Counts()

    @property
    def unchanged(self) -> bool:
        """There before and after, with the same counts."""
        return self.before is not None and self.after is not None and self.old == self.new

    @property
    def effect(self) -> float:
        """Cycles more than before."""
        return self.new.cycles - self.old.cycles


@dataclass(frozen=True)
class Comparison:
    """Two profiles of one model.

    Attributes:
        before, after: the profiles.
        changes: every layer of either, the largest effect first.
        warnings: what else differs, so that the change need not be the code's alone.
    """

    before: Profile
    after: Profile
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]


def compare_profiles(before: Profile, after: Profile) -> Comparison:
    """What a change did.

    A layer is itself as long as it has its name, whatever its operator has become; of layers that share a name, the
    first is compared with the first. Layers without a counterpart are new or gone.
    """
    old, new = _by_name(before.layers), _by_name(after.layers)
    pairs = [pair for name in old | new for pair in zip_longest(old.get(name, ()), new.get(name, ()))]
    changes = sorted((Change(*pair) for pair in pairs), key=lambda change: (-abs(change.effect), change.layer.index))
    differing = {
        "model": (before.model_hash, after.model_hash),
        "target": (before.target, after.target),
        "clock": (before.clock_hz, after.clock_hz),
        "timing": (before.timing, after.timing),
        "compiler": (before.built_by, after.built_by),
        "optimisation": (before.opt, after.opt),
        "samples": (_samples(before), _samples(after)),
        "toolkit": (before.versions.get("tinyformer"), after.versions.get("tinyformer")),
    }
    warnings = tuple(f"{what} differs: {a} before, {b} now" for what, (a, b) in differing.items() if a != b)
    return Comparison(before, after, tuple(changes), warnings)


def _layers(place: CortexMModel, instructions: Sequence[float]) -> tuple[tuple[Layer, ...], tuple[CodeBlock, ...]]:
    """Mean counts of every step, and the code that they were spent in."""
    samples = len(place.cycles)
    executed = [each for blocks in place.blocks for each in blocks]
    numbers = {key: number for number, key in enumerate(sorted({(each.start, each.size) for each in executed}))}
    by_step: dict[int | None, dict[int, list[BlockExecutions]]] = {}
    for each in executed:
        by_step.setdefault(each.mark, {}).setdefault(numbers[each.start, each.size], []).append(each)
    layers = []
    for step, count, cycles in zip(place.model.steps, instructions, zip(*place.cycles, strict=True), strict=True):
        blocks = [_block(number, runs, samples) for number, runs in by_step.get(step.index, {}).items()]
        layers.append(
            Layer(
                step.index,
                step.node,
                step.operator,
                step.call.macs,
                _counts(count * samples, cycles, samples),
                min(c.total for c in cycles),
                max(c.total for c in cycles),
                tuple(sorted(blocks, key=lambda block: (-block.counts.cycles, block.block))),
            )
        )
    lines = SourceLines(place.elf)
    return tuple(layers), tuple(_code(place.machine, lines, *key) for key in numbers)


def _block(number: int, runs: Sequence[BlockExecutions], samples: int) -> BlockCounts:
    executions = sum(run.executions for run in runs)
    counts = _counts(executions * runs[0].instructions, [run.cycles for run in runs], samples)
    return BlockCounts(number, executions / samples, counts)


def _counts(instructions: float, cycles: Sequence[Cycles], samples: int) -> Counts:
    """Means of what was counted in all samples together."""
    total = sum(cycles, Cycles())
    return Counts(instructions / samples, *(getattr(total, name) / samples for name in ("total", *CAUSES)))


def _code(machine: CortexM, lines: SourceLines, start: int, size: int) -> CodeBlock:
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    decoded = disassembler.disasm_lite(machine.read(start, size), start)
    instructions = tuple(f"{name} {operands}".rstrip() for _, _, name, operands in decoded)
    return CodeBlock(start, *machine.function_at(start), lines.of(start, size), instructions)


def _by_name(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    named: dict[str, list[Layer]] = {}
    for layer in layers:
        named.setdefault(layer.name, []).append(layer)
    return named


def _samples(profile: Profile) -> str:
    seed = "" if profile.seed is None else f", seed {profile.seed}"
    return f"{profile.samples} of {profile.data}{seed}"


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` of a JSON file as the type `kind`: a plain type, an optional one, a tuple, a dict or a dataclass."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
        if missing or unknown:
            faults = [f"lacks {', '.join(missing)}"] * bool(missing)
            faults += [f"has unknown {', '.join(unknown)}"] * bool(unknown)
            raise DataError(f"{where or 'the file'} {' and '.join(faults)}")
        dot = where and f"{where}."
        return kind(**{name: _read(hint, value[name], f"{dot}{name}") for name, hint in hints.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _read(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], entry, f"{where}[{index}]") for index, entry in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _read(arguments[1], entry, f"{where}.{name}") for name, entry in value.items()}
    if kind is float and type(value) is int:
        return value
    if type(value) is not kind:
        raise DataError(f"{where} is {value!r}, it must be {getattr(origin or kind, '__name__', kind)}")
    return value
