"""What each kernel costs a multiply-accumulate or element on emulated cores, beside published kernels and the goals.

Kernels for sparse weights are measured a multiplication that is not by zero; the peer's figure is then its dense one,
which computes the zeros too, divided by as many. Shapes are those of the networks in Table I of the TinyFormer paper.
The peer's figures were measured as ours are: its output checked, instructions counted exactly, cycles by the timing
model with memory that never waits.
"""

import itertools
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np

import ckernels
from codegen.emit import KernelCall, kernel_calls
from codegen.predictor import kernels_hash
from codegen.target import Target, load_target
from conformance.comparison import difference
from conformance.layout import arena_layout
from conformance.places import CortexMPlace, Library
from conformance.predictor_samples import DEVIATION, Space
from conformance.timing.cycles import Timing
from conformance.toolchain import Toolchain, arm_toolchains
from refsim.errors import ConformanceError, TinyFormerError, located
from refsim.numerics import Int8Array
from refsim.ops.add import Add
from refsim.ops.base import Operator
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.softmax import Softmax
from refsim.tensor import Shape, TensorType

CMSIS_NN = "CMSIS-NN 99f736a6, GCC 12.2 -O2, measured under the zero-wait model"
PAPER = "TinyFormer paper, table IV, STM32F746"

PACKAGES = ("tinyformer", "numpy", "unicorn", "ziglang")

MAC, ELEMENT, NONZERO_MAC = "MAC", "element", "non-zero MAC"
"""Units."""

SPARSE_GOALS = {("cortex-m4", 4): 1.5, ("cortex-m4", 2): 1.9, ("cortex-m7", 4): 0.85, ("cortex-m7", 2): 1.1}
"""Cycles of a non-zero MAC to reach at `SPARSE_GOALS_AT`, by core and weights of a block."""

SPARSE_GOALS_AT = 70
"""Sparsity, per cent."""

Build = Callable[[Space], tuple[Operator, tuple[Shape, ...]]]


@dataclass(frozen=True)
class Baseline:
    """What there is to beat on a core, and what to reach, a unit.

    Attributes:
        goal: cycles; None where there is none.
        cycles: of the peer; None where it was not measured.
        instructions: of the peer; None where they were not counted.
        source: who the peer is, and how it was measured.
    """

    goal: float | None
    cycles: float | None = None
    instructions: float | None = None
    source: str = CMSIS_NN


@dataclass(frozen=True)
class BenchCase:
    """An operator to be measured.

    Attributes:
        name: kind and shape.
        unit: `MAC` or `ELEMENT`: what figures are divided by.
        build: operator and its inputs' shapes, with random weights and the requantisation that fits them.
        baselines: by core.
    """

    name: str
    unit: str
    build: Build
    baselines: Mapping[str, Baseline]


def _conv2d(side: int, inputs: int, outputs: int, kernel: int) -> Build:
    def build(space: Space) -> tuple[Operator, tuple[Shape, ...]]:
        weights = space.weights((outputs, kernel, kernel, inputs), outputs)
        return Conv2D(*weights, padding=(kernel // 2,) * 4), ((side, side, inputs),)

    return build


def _depthwise_conv2d(side: int, channels: int) -> Build:
    def build(space: Space) -> tuple[Operator, tuple[Shape, ...]]:
        weights = space.weights((3, 3, channels), channels)
        return DepthwiseConv2D(*weights, padding=(1, 1, 1, 1)), ((side, side, channels),)

    return build


def _linear(tokens: int, inputs: int, outputs: int) -> Build:
    return lambda space: (Linear(*space.weights((outputs, inputs), outputs)), ((tokens, inputs),))


def _scores(tokens: int, depth: int) -> Build:
    def build(space: Space) -> tuple[Operator, tuple[Shape, ...]]:
        output = space.output(math.sqrt(depth) * DEVIATION**2)
        return MatMul(3, -5, output, transpose_b=True), ((tokens, depth), (tokens, depth))

    return build


def _add(*shape: int) -> Build:
    types = (TensorType(shape, 21 / 1024, 4), TensorType(shape, 35 / 1024, -9), TensorType(shape, 46 / 1024, 11))
    return lambda _: (Add.from_types(*types), (shape, shape))


def _layernorm(tokens: int, n: int) -> Build:
    def build(space: Space) -> tuple[Operator, tuple[Shape, ...]]:
        gamma, beta = space.random.uniform(0.5, 2.0, n), space.random.normal(0.0, 0.5, n)
        types = (TensorType((tokens, n), 31 / 1024, -3), TensorType((tokens, n), 41 / 1024, 5))
        return LayerNorm.from_real(gamma, beta, 1e-5, *types), ((tokens, n),)

    return build


def _case(name: str, unit: str, build: Build, m4: Baseline, m7: Baseline) -> BenchCase:
    return BenchCase(name, unit, build, {"cortex-m4": m4, "cortex-m7": m7})


CASES = (
    _case("conv 3x3 32x32x3 -> 32", MAC, _conv2d(32, 3, 32, 3), Baseline(3.2, 5.45, 4.09), Baseline(1.9, 3.29)),
    _case("conv 3x3 16x16x44 -> 44", MAC, _conv2d(16, 44, 44, 3), Baseline(1.75, 2.34, 1.84), Baseline(1.05, 1.41)),
    _case("conv 3x3 8x8x192 -> 192", MAC, _conv2d(8, 192, 192, 3), Baseline(1.6, 2.12, 1.67), Baseline(0.95, 1.28)),
    _case("conv 1x1 16x16x44 -> 132", MAC, _conv2d(16, 44, 132, 1), Baseline(1.9, 2.98, 2.45), Baseline(1.1, 1.70)),
    _case("conv 1x1 8x8x128 -> 256", MAC, _conv2d(8, 128, 256, 1), Baseline(1.6, 2.13, 1.79), Baseline(0.95, 1.17)),
    _case("depthwise 3x3 16x16x132", MAC, _depthwise_conv2d(16, 132), Baseline(4.8, 9.39, 7.91), Baseline(3.0, 6.12)),
    _case("depthwise 3x3 8x8x384", MAC, _depthwise_conv2d(8, 384), Baseline(4.8, 9.06, 7.62), Baseline(3.0, 5.94)),
    _case("linear 256x44 -> 88", MAC, _linear(256, 44, 88), Baseline(1.9, 2.98, 2.45), Baseline(1.1, 1.70)),
    _case("linear 64x192 -> 384", MAC, _linear(64, 192, 384), Baseline(1.55, 2.00, 1.68), Baseline(0.9, 1.09)),
    _case("matmul 256x44 . 44x256", MAC, _scores(256, 44), Baseline(2.2, 3.98, 3.19), Baseline(1.2, 2.11)),
    _case(
        "softmax 256x256",
        ELEMENT,
        lambda _: (Softmax.from_scale(0.06), ((256, 256),)),
        Baseline(22, 589, 512),
        Baseline(15, 378),
    ),
    _case("add 16x16x44", ELEMENT, _add(16, 16, 44), Baseline(18, 102, 81), Baseline(12, 57)),
    _case(
        "table 16x16x44",
        ELEMENT,
        lambda space: (Lookup(space.activations((256,))), ((16, 16, 44),)),
        Baseline(5, 10.0, 6.0),
        Baseline(3, 6.0),
    ),
    _case("layernorm 256x44", ELEMENT, _layernorm(256, 44), Baseline(30), Baseline(20, 96, source=PAPER)),
    _case("layernorm 64x192", ELEMENT, _layernorm(64, 192), Baseline(30), Baseline(20, 70, source=PAPER)),
)


@dataclass(frozen=True)
class Measured:
    """One kernel on one core.

    Attributes:
        case: as in `BenchCase`.
        unit: that of the case, or `NONZERO_MAC`.
        target, core: names.
        variant: "portable", "dsp", or "sparse" with the sparsity and the weights of a block.
        sparsity: per cent of the blocks of weights that are zero; 0 for a kernel of dense weights.
        block: weights of a block; 0 likewise.
        kernel: the C function.
        units: how many of them.
        instructions: executed, exact.
        cycles: by the timing model, memory that never waits.
        constant_bytes, scratch_bytes: flash and RAM that the kernel takes.
        baseline: of this core; None where there is none.
    """

    case: str
    unit: str
    target: str
    core: str
    variant: str
    sparsity: int
    block: int
    kernel: str
    units: int
    instructions: int
    cycles: int
    constant_bytes: int
    scratch_bytes: int
    baseline: Baseline | None


@dataclass(frozen=True)
class KernelBenchReport:
    """What was measured, and with what.

    Attributes:
        measured: each case with each of its kernels on each chip.
        seed: of weights and activations.
        compiler: name, version and optimisation.
        kernels: hash of the kernels' sources and headers.
        versions: of packages, by name.
    """

    measured: tuple[Measured, ...]
    seed: int
    compiler: str
    kernels: str
    versions: Mapping[str, str]


def choose_cases(names: Sequence[str]) -> tuple[BenchCase, ...]:
    """The cases whose name contains one of the given; all if none is given.

    Raises:
        TinyFormerError: none does.
    """
    for name in names:
        if not any(name in case.name for case in CASES):
            known = ", ".join(case.name for case in CASES)
            raise TinyFormerError(f"no kernel benchmark is called {name!r}; there are {known}")
    return tuple(case for case in CASES if not names or any(name in case.name for name in names))


@dataclass(frozen=True, eq=False)
class _Prepared:
    """One of a case's kernels with what it is to compute."""

    case: BenchCase
    variant: str
    sparsity: int
    block: int
    unit: str
    units: int
    op: Operator
    inputs: tuple[Int8Array, ...]
    golden: Int8Array
    call: KernelCall
    baseline: Baseline | None


def _prepare(case: BenchCase, target: Target, sparsities: Sequence[int], seed: int) -> Iterator[_Prepared]:
    """Every kernel that there is for a case on a chip; the same for one seed, whichever cases are chosen."""
    space = Space(np.random.default_rng((seed, CASES.index(case))), in_search=True)
    op, shapes = case.build(space)
    inputs = tuple(space.activations(shape) for shape in shapes)
    golden = op.run(*(x[None] for x in inputs))[0]
    baseline = case.baselines.get(target.core)
    portable, dsp = (kernel_calls(op, shapes, dsp=dsp)[0] for dsp in (False, True))
    calls = {"portable": portable} | ({"dsp": dsp} if target.dsp and dsp.kernel != portable.kernel else {})
    for variant, call in calls.items():
        units = call.macs if case.unit == MAC else golden.size
        yield _Prepared(case, variant, 0, 0, case.unit, units, op, inputs, golden, call, baseline)
    blocks = [call.sparse_block for call in kernel_calls(op, shapes)[1:]]
    for sparsity, block in itertools.product(sparsities, blocks):
        sparse, nonzero = _sparse(op, sparsity, block, space.random)
        golden = sparse.run(*(x[None] for x in inputs))[0]
        (call,) = (c for c in kernel_calls(sparse, shapes, dsp=target.dsp) if c.sparse_block == block)
        goal = SPARSE_GOALS.get((target.core, block)) if sparsity == SPARSE_GOALS_AT else None
        peer = baseline.cycles / nonzero if baseline and baseline.cycles else None
        units = round(portable.macs * nonzero)
        variant = f"sparse {sparsity} %/{block}"
        yield _Prepared(
            case, variant, sparsity, block, NONZERO_MAC, units, sparse, inputs, golden, call, Baseline(goal, peer)
        )


def _sparse(op: Operator, sparsity: int, block: int, random: np.random.Generator) -> tuple[Operator, float]:
    """The operator with so many per cent of its blocks of weights zero, and the part of its weights that is not."""
    assert isinstance(op, Linear | Conv2D | DepthwiseConv2D)
    along_width = isinstance(op, DepthwiseConv2D)
    dense = np.moveaxis(op.weight, 2, 0) if along_width else op.weight
    *outer, inputs = dense.shape
    blocks = np.ones(math.prod(outer) * -(-inputs // block), np.int8)
    blocks[: round(blocks.size * sparsity / 100)] = 0
    kept = random.permutation(blocks).reshape(*outer, -1).repeat(block, axis=-1)[..., :inputs]
    weight = np.where(dense == 0, np.int8(1), dense) * kept
    return replace(op, weight=np.moveaxis(weight, 0, 2) if along_width else weight), float(kept.mean())


def measure(
    cases: Iterable[BenchCase],
    targets: Sequence[str],
    *,
    sparsities: Sequence[int] = (),
    seed: int = 0,
    toolchain: Toolchain | None = None,
    opt: str = "-O2",
    progress: Callable[[str], None] = lambda what: None,
) -> KernelBenchReport:
    """Run every kernel of every case on every chip, and hold it to the golden model.

    Args:
        cases: some of `CASES`.
        targets: chips to emulate.
        sparsities: per cent of the blocks of weights that are zero, for the kernels of sparse weights.
        seed: of weights and activations.
        toolchain: the compiler; the preferred one by default.
        opt: its optimisation flag.
        progress: told what is measured next.

    Raises:
        TargetError: no such chip.
        ToolchainError: the kernels cannot be built.
        ConformanceError: a byte differs; figures of a wrong computation are no figures.
        EmulationError: a kernel faulted or did not end.
    """
    toolchain = toolchain or arm_toolchains()[0]
    cases = tuple(cases)
    measured = []
    for target in map(load_target, targets):
        prepared = [one for case in cases for one in _prepare(case, target, sparsities, seed)]
        needed = sorted({name for one in prepared for name in one.call.sources})
        library = Library(tuple(ckernels.source(name) for name in needed))
        place = CortexMPlace(target.name, library, target, toolchain=toolchain, opt=opt, timing=Timing.ZERO_WAIT)
        for one in prepared:
            progress(f"{one.case.name}, {one.variant} on {target.name}")
            with located(f"{one.case.name}, {one.variant} on {target.name}"):
                measured.append(_measure_one(one, place, target))
        place.close()
    return KernelBenchReport(
        tuple(measured),
        seed,
        f"{toolchain.name} {toolchain.version} {opt}",
        kernels_hash(),
        {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    )


def _measure_one(one: _Prepared, place: CortexMPlace, target: Target) -> Measured:
    layout = arena_layout(one.call, one.inputs, one.golden.size)
    after, result = place.measure(one.call, layout)
    message = difference(one.golden, np.frombuffer(layout.collect(after), np.int8).reshape(one.golden.shape))
    if message:
        raise ConformanceError(message)
    assert result.cycles is not None
    return Measured(
        one.case.name,
        one.unit,
        target.name,
        target.core,
        one.variant,
        one.sparsity,
        one.block,
        one.call.kernel,
        one.units,
        result.instructions,
        result.cycles.total,
        one.call.constant_bytes,
        one.call.scratch_bytes,
        one.baseline,
    )
