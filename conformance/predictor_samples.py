"""Operators on which the predictor is fitted and checked: around Table I of the TinyFormer paper, and at random.

Each kernel has its own samples, whichever would be generated for an operator of that size: the choice among kernels is
not for the fit to know. A sample has a shape, legal weights and requantisation, and activations as trained networks
have them: about normal, and as wide as int8. What a kernel costs hardly depends on its data, but it does in a softmax,
whose exponentials are computed once for each value that occurs.
"""

import importlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

import ckernels
from codegen import emit
from codegen.emit import KernelCall
from codegen.loop_counts import loop_counts
from refsim.numerics import Int8Array, Int32Array, Rounding, quantize_multiplier
from refsim.ops import OPERATORS
from refsim.ops.add import Add
from refsim.ops.attention import Attention
from refsim.ops.average_pool2d import AveragePool2D
from refsim.ops.base import Operator, Requantization
from refsim.ops.concat import Concat
from refsim.ops.conv2d import Conv2D
from refsim.ops.depthwise_conv2d import DepthwiseConv2D
from refsim.ops.layernorm import LayerNorm
from refsim.ops.linear import Linear
from refsim.ops.lookup import Lookup
from refsim.ops.matmul import MatMul
from refsim.ops.max_pool2d import MaxPool2D
from refsim.ops.mean import Mean
from refsim.ops.mul import Mul
from refsim.ops.pad import Pad
from refsim.ops.requantize import Requantize
from refsim.ops.reshape import Reshape
from refsim.ops.slice import Slice
from refsim.ops.softmax import Softmax
from refsim.ops.transpose import Transpose
from refsim.tensor import Shape

VARIANTS = ("", "_dsp", "_sparse")
"""What the kernels of an operator are called after it: portable, for the DSP extension, and without zeros."""

SPARSITIES = (0.0, 0.4, 0.6, 0.8, 0.9)
"""Shares of zero blocks in the weights of the kernels that leave them out."""

DEVIATION = 36.0
"""Standard deviation of activations, in steps of int8."""

ODD = 2.0**-30
"""A scale whose shift is beyond those of the quick last steps."""

MOST_ACTIVATIONS = 300_000
"""Bytes of a sample's buffers at most, so that it runs on every chip of the fit but the smallest."""

MOST_WEIGHTS = 700_000
"""Bytes of a sample's weights at most: what is left of 1 MB of flash."""

MOST_MACS = 40_000_000
"""Multiply-accumulates of a sample at most: the largest convolution of Table I has 37.7 million."""

COVERED = 3
"""Of the samples at random, those in which each thing that a kernel does occurs, at least."""

PATIENCE = 200
"""Samples drawn in a row that add nothing, after which there are no more."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A kernel call to be measured.

    Attributes:
        operator: its name.
        call: the kernel.
        inputs: int8, one sample each.
        output_bytes: of the output.
        in_search: its shape is one of Table I.
    """

    operator: str
    call: KernelCall
    inputs: tuple[Int8Array, ...]
    output_bytes: int
    in_search: bool

    @property
    def counts(self) -> Mapping[str, float]:
        """What decides its cost."""
        return loop_counts(self.call)

    @property
    def activation_bytes(self) -> int:
        """Of its inputs and output."""
        return sum(x.size for x in self.inputs) + self.output_bytes

    @property
    def shape(self) -> tuple[object, ...]:
        """Every parameter of the call that is a size: samples that agree in these are one."""
        sizes = {name: v for name, v in self.call.params.items() if name not in _DATA}
        return tuple(
            (name, v if isinstance(v, int) else v.tobytes())
            for name, v in sizes.items()
            if not any(part in name for part in _NO_SIZE)
        )


_DATA = ("weight", "bias", "channel", "gamma", "beta", "affine", "table", "value")
"""Parameters that hold data."""

_NO_SIZE = (
    *("zero_point", "multiplier", "shift", "act_", "rounding", "quick", "coarse", "fine"),
    *("rescale", "diff_min", "scale_bits", "epsilon"),
)
"""Parts of names of parameters that are no sizes."""


Choice = TypeVar("Choice")


class Space:
    """Where dimensions are drawn from: Table I with the stem before it, or anything small.

    Args:
        random: the generator.
        in_search: Table I.
        variety: 0 requantises as imported models do; 1 often by more, and 2 with double rounding, which take longer;
            some channels of both by so little that the quick last steps do not serve them, and some with an upper end.
    """

    def __init__(self, random: np.random.Generator, in_search: bool, variety: int = 0) -> None:
        self.random = random
        self.in_search = in_search
        self.rounding = Rounding.DOUBLE if variety == 2 else Rounding.SINGLE
        self.wide = variety == 1
        self.odd = 0.3 if variety else 0.0
        if in_search:
            # 32 x 32 images; the first stage works at 16 x 16, the second at 8 x 8; 192 channels are in Table IV.
            self.side, self.dim = self.pick((16, 32), (16, 44), (8, 96), (8, 128), (8, 192), (8, 256))
            self.width = self.side
            self.heads = self.pick(1, 2, 4)
        else:
            self.side, self.width, self.heads = self.upto(14), self.upto(14), self.upto(4)
            self.dim = self.heads * self.upto(48 // self.heads)

    def pick(self, *choices: Choice) -> Choice:
        """One of the choices."""
        return choices[self.random.integers(len(choices))]

    def upto(self, most: int, least: int = 1) -> int:
        """A number from `least` to `most`, small ones more often."""
        return int(min(most, least * ((most + 1) / least) ** self.random.random()))

    @property
    def tokens(self) -> int:
        """Positions of the stage's feature map."""
        return int(self.side * self.width)

    @property
    def image(self) -> Shape:
        """The stage's feature map."""
        return (self.side, self.width, self.dim)

    def feature_map(self) -> Shape:
        """A feature map as large as one of Table I, for kernels that have few shapes there."""
        return (self.upto(32, 4), self.upto(32, 4), self.upto(256, 8))

    def shape(self) -> Shape:
        """The stage's tokens or feature map; at random up to six axes."""
        if self.in_search:
            return self.pick((self.tokens, self.dim), self.image)
        return tuple(self.upto(self.pick(4, 9, 30), 3) for _ in range(self.pick(1, 2, 3, 4, 5, 6)))

    def activations(self, shape: Shape) -> Int8Array:
        """Normal activations."""
        x = np.rint(self.random.normal(0.0, DEVIATION, shape))
        return np.clip(x, -128, 127).astype(np.int8)

    def zero_point(self) -> int:
        """That of a tensor after ReLU, or one near the middle."""
        return self.pick(-128, int(self.random.integers(-20, 20)))

    def output(self, deviation: float, channels: int = 1) -> Requantization:
        """Requantisation of accumulators with a standard deviation to about int8's range."""
        real = np.minimum(DEVIATION / deviation * self.random.uniform(0.5, 1.5, channels), 0.8)
        if self.wide:
            real[self.random.random(channels) < 0.7] = self.random.uniform(0.3, 0.8)
        if self.odd:
            real[self.random.random(channels) < self.pick(0.0, self.odd)] = ODD
        zero_point = self.zero_point()
        act_max = self.pick(127, 90) if self.odd else 127
        return Requantization.from_real(real, zero_point, self.pick(-128, zero_point), act_max, self.rounding)

    def weights(self, shape: Shape, channels: int) -> tuple[Int8Array, Int32Array, int, Requantization]:
        """Weights, bias, the input's zero point and the requantisation of what they accumulate."""
        zero_point = self.zero_point()
        weight = np.clip(np.rint(self.random.normal(0, 30, shape)), -127, 127).astype(np.int8)
        deviation = 30 * math.sqrt(math.prod(shape) / channels) * math.hypot(DEVIATION, zero_point)
        bias = np.rint(self.random.normal(0, deviation, channels)).astype(np.int32)
        return weight, bias, zero_point, self.output(deviation, self.pick(1, channels))


Drawn = tuple[Operator, tuple[Shape, ...]]


def _linear(s: Space) -> Drawn:
    """Projections and the MLP of an encoder, the score of a sequence pooling, the last layers."""
    if s.in_search:
        hidden, last = s.dim * s.pick(1, 2, 3, 4), s.pick(512, 768, 1024)
        rows, inputs, outputs = s.pick(
            (s.tokens, s.dim, s.dim),
            (s.tokens, s.dim, hidden),
            (s.tokens, hidden, s.dim),
            (s.tokens, s.dim, 1),
            (1, s.dim, last),
            (1, last, s.pick(10, 100)),
        )
    else:
        rows, inputs, outputs = s.upto(100), s.upto(200), s.upto(60)
    return Linear(*s.weights((outputs, inputs), outputs)), ((rows, inputs),)


def _conv2d(s: Space) -> Drawn:
    """The stem, downsampling, 1x1 of MobileNetV2 and 3x3 and 1x1 of transformer modules."""
    stride = dilation = groups = 1
    if s.in_search:
        wide = s.dim * s.pick(2, 3, 4, 6)
        side, inputs, outputs, kernel, stride = s.pick(
            (32, 3, s.pick(16, 24, 32, 44), 3, s.pick(1, 2)),
            (16, s.pick(16, 24, 32, 44), s.dim, 3, 2 if s.side == 8 else 1),
            (s.side, s.dim, wide, 1, 1),
            (s.side, wide, s.dim, 1, 1),
            (s.side, s.dim, s.dim, 1, 1),
            (s.side, s.dim, s.dim, 3, 1),
        )
        image = (side, side, inputs)
    else:
        kernel, stride, dilation = s.pick(1, 2, 3, 3, 5), s.pick(1, 1, 2), s.pick(1, 1, 1, 2)
        groups = s.pick(1, 1, 1, 2)
        inputs, outputs = groups * s.upto(40), groups * s.upto(30)
        image = (s.side, s.width, inputs)
    before = kernel // 2 * dilation
    op = Conv2D(
        *s.weights((outputs, kernel, kernel, inputs // groups), outputs),
        stride=(stride, stride),
        padding=(before,) * 4,
        dilation=(dilation, dilation),
        groups=groups,
    )
    return op, (image,)


def _depthwise_conv2d(s: Space) -> Drawn:
    """The 3x3 of MobileNetV2, with both strides."""
    stride, kernel, depth = s.pick(1, 2), 3, 1
    inputs = s.dim * s.pick(1, 2, 3, 4, 6)
    if not s.in_search:
        kernel, depth, inputs = s.pick(1, 3, 3, 5), s.pick(1, 1, 1, 2), s.upto(60)
    outputs = inputs * depth
    op = DepthwiseConv2D(
        *s.weights((kernel, kernel, outputs), outputs), stride=(stride, stride), padding=(kernel // 2,) * 4
    )
    return op, ((s.side, s.width, inputs),)


def _matmul(s: Space) -> Drawn:
    """Scores, weighted values, and sequence pooling."""
    depth, tokens = s.dim // s.heads, s.tokens
    batch, m, k, n, transposed = s.pick(
        (s.heads, tokens, depth, tokens, True), (s.heads, tokens, tokens, depth, False), (1, 1, tokens, s.dim, False)
    )
    if not s.in_search:
        batch, m, k, n, transposed = s.heads, s.upto(40), s.upto(80), s.upto(40), s.pick(False, True)
    a_zero, b_zero = s.pick(0, s.zero_point()), s.pick(0, s.zero_point())
    deviation = math.sqrt(k) * math.hypot(DEVIATION, a_zero) * math.hypot(DEVIATION, b_zero)
    op = MatMul(a_zero, b_zero, s.output(deviation), transpose_b=transposed)
    return op, ((batch, m, k), (batch, n, k) if transposed else (batch, k, n))


def _softmax(s: Space) -> Drawn:
    """Rows of attention and of sequence pooling."""
    rows, n = (s.upto(60), s.upto(300)) if not s.in_search else s.pick((s.heads * s.tokens, s.tokens), (1, s.tokens))
    return Softmax.from_scale(s.random.uniform(0.02, 0.15)), ((rows, n),)


def _attention(s: Space) -> Drawn:
    """All heads of a stage; beyond the search any queries, keys and values."""
    depth = width = s.dim // s.heads
    queries = keys = s.tokens
    transposed = True, False
    if not s.in_search:
        queries, keys, depth, width = s.upto(40), s.upto(80), s.upto(40), s.upto(40)
        transposed = s.pick(False, True), s.pick(False, True)
    k_zero, v_zero = s.pick(0, s.zero_point()), s.pick(0, s.zero_point())
    scores = s.output(math.sqrt(depth) * DEVIATION * math.hypot(DEVIATION, k_zero))
    context = s.output(256 * math.hypot(DEVIATION, v_zero))
    softmax = Softmax.from_scale(s.random.uniform(0.02, 0.15))
    op = Attention(MatMul(0, k_zero, scores, transposed[0]), softmax, MatMul(-128, v_zero, context, transposed[1]))
    k = (keys, depth) if transposed[0] else (depth, keys)
    v = (width, keys) if transposed[1] else (keys, width)
    return op, ((s.heads, queries, depth), (s.heads, *k), (s.heads, *v))


def _layernorm(s: Space) -> Drawn:
    n = s.dim if s.in_search else s.upto(300)
    shape = (s.tokens if s.in_search else s.upto(60), n)
    gamma = np.rint(s.random.uniform(8000, 32767, n)).astype(np.int16)
    beta = np.rint(s.random.normal(0, 2e5, n)).astype(np.int32)
    scale_bits = 7
    return LayerNorm(gamma, beta, max(1, n * n // 100), s.output(20000.0 * 2**scale_bits), scale_bits), (shape,)


def _add(s: Space) -> Drawn:
    """Residuals; beyond the search also operands that repeat."""
    shape = s.shape()
    # In imported models the input with the larger scale has the multiplier 1/2.
    a, b = s.random.permutation([s.pick(0.5, 0.5, 0.7 if s.wide else 0.4), s.random.uniform(0.1, 0.5)])
    zero_point = s.zero_point()
    total = s.random.uniform(0.8, 2.0) / 2**19
    output = Requantization.from_real(total, zero_point, s.pick(-128, zero_point), 127, s.rounding)
    return Add(s.zero_point(), 0, quantize_multiplier(a), quantize_multiplier(b), output), (shape, _other(s, shape))


def _other(s: Space, shape: Shape) -> Shape:
    """A second operand: as the first, or beyond the search one that repeats along some axes."""
    if s.in_search or s.random.random() < 0.4:
        return shape
    return s.pick(shape[-1:], tuple(1 if axis % 2 else n for axis, n in enumerate(shape)))


def _mul(s: Space) -> Drawn:
    shape = s.shape()
    return Mul(0, 0, s.output(DEVIATION**2)), (shape, _other(s, shape))


def _max_pool2d(s: Space) -> Drawn:
    """2x2 after the stem's and each stage's convolution."""
    if s.in_search:
        side = s.pick(32, s.side)
        return MaxPool2D((2, 2), (2, 2)), ((side, side, s.dim if side < 32 else s.pick(16, 24, 32, 44)),)
    return MaxPool2D(*_window(s)), ((s.side + 8, s.width + 8, s.dim),)


def _average_pool2d(s: Space) -> Drawn:
    """2x2, and the whole feature map."""
    if s.in_search:
        kernel = s.pick(2, s.side)
        return AveragePool2D((kernel,) * 2, (kernel,) * 2), (s.image,)
    return AveragePool2D(*_window(s)), ((s.side + 8, s.width + 8, s.dim),)


def _window(s: Space) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Any kernel up to 9 x 9 with half of it as padding, and stride."""
    kernel, stride = (s.upto(9), s.upto(9)), (s.pick(1, 2), s.pick(1, 2, 3))
    return kernel, stride, (kernel[0] // 2, kernel[1] // 2) * 2


def _mean(s: Space) -> Drawn:
    shape, axes = s.pick(((s.tokens, s.dim), (0, 0)), (s.image, (0, 1)))
    if not s.in_search:
        shape, axes = s.pick((shape, axes), (s.image, (1, 1)), (s.image, (2, 2)), (s.feature_map(), (0, 1)))
    n = math.prod(shape[axes[0] : axes[1] + 1])
    return Mean(axes[0], axes[1], 0, s.output(DEVIATION * math.sqrt(n))), (shape,)


def _requantize(s: Space) -> Drawn:
    return Requantize(s.zero_point(), s.output(s.random.uniform(1, 6) * DEVIATION)), (_vector(s),)


def _lookup(s: Space) -> Drawn:
    return Lookup(s.activations((256,))), (_vector(s),)


def _vector(s: Space) -> Shape:
    """An encoder's hidden activations, whose shape does not matter."""
    return (s.tokens * s.dim * s.pick(1, 2, 4) if s.in_search else s.upto(600),)


def _reshape(s: Space) -> Drawn:
    return Reshape((s.tokens, s.dim)), (s.image,)


def _transpose(s: Space) -> Drawn:
    """Heads in front and back again, feature map to channels first, a matrix."""
    depth = s.dim // s.heads
    shape, permutation = s.pick(
        ((s.tokens, s.heads, depth), (1, 0, 2)),
        ((s.heads, s.tokens, depth), (1, 0, 2)),
        ((s.tokens, s.heads, depth), (1, 2, 0)),
        (s.image, (2, 0, 1)),
        ((s.tokens, s.dim), (1, 0)),
    )
    if not s.in_search:
        shape = s.shape()
        permutation = tuple(int(axis) for axis in s.random.permutation(len(shape)))
    return Transpose(permutation), (shape,)


def _slice(s: Space) -> Drawn:
    """Query, key and value out of one projection; beyond the search any part, with steps."""
    if s.in_search:
        return Slice((0, s.pick(0, 1, 2) * s.dim), (s.tokens, s.dim), (1, 1)), ((s.tokens, 3 * s.dim),)
    shape = s.shape()
    steps = tuple(s.pick(1, 1, 2) for _ in shape)
    sizes = tuple(-(-n // step) - s.pick(0, 1, 1) for n, step in zip(shape, steps, strict=True))
    return Slice((0,) * len(shape), sizes, steps), (shape,)


def _pad(s: Space) -> Drawn:
    """A border around a feature map."""
    if s.in_search:
        return Pad((1, 1, 0), (1, 1, 0), s.zero_point()), (s.image,)
    shape = s.pick(s.shape(), s.feature_map())
    before, after = (tuple(s.pick(0, 0, 1, 2, 5) for _ in shape) for _ in range(2))
    return Pad(before, after, s.zero_point()), (shape,)


def _concat(s: Space) -> Drawn:
    """Two or three feature maps by their channels; tokens one after the other."""
    shapes: tuple[Shape, ...]
    shapes, axis = s.pick(((s.image, s.image), 2), (((s.tokens, s.dim), (1, s.dim)), 0))
    if not s.in_search:
        shapes, axis = tuple((s.side, s.width, s.upto(40)) for _ in range(s.pick(2, 3))), 2
    zero_point = s.zero_point()
    rescale = tuple(
        s.pick(
            None,
            Requantize(0, Requantization.from_real(s.random.uniform(0.3, 0.9), zero_point, rounding=s.rounding)),
        )
        for _ in shapes
    )
    return Concat(axis, rescale), shapes


_DRAW: dict[str, Callable[[Space], Drawn]] = {
    "add": _add,
    "attention": _attention,
    "average_pool2d": _average_pool2d,
    "concat": _concat,
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "layernorm": _layernorm,
    "linear": _linear,
    "lookup": _lookup,
    "matmul": _matmul,
    "max_pool2d": _max_pool2d,
    "mean": _mean,
    "mul": _mul,
    "pad": _pad,
    "requantize": _requantize,
    "reshape": _reshape,
    "slice": _slice,
    "softmax": _softmax,
    "transpose": _transpose,
}


def kernels(operators: Iterable[str] = OPERATORS) -> Iterator[tuple[str, str]]:
    """Every kernel of operators: the operator's name and one of `VARIANTS`."""
    return (
        (operator, variant)
        for operator in operators
        for variant in VARIANTS
        if operator + variant in ckernels.sources()
    )


def draw(
    operator: str, random: np.random.Generator, in_search: bool, variety: int = 0, *, variant: str = ""
) -> Sample | None:
    """A sample of a kernel; None where it is larger than a chip holds, or where the kernel does not do what was drawn.

    Args:
        operator: a name of `refsim.ops.OPERATORS`.
        random: the generator.
        in_search: of Table I, or else at random.
        variety: see `Space`.
        variant: which of the operator's kernels, one of `VARIANTS`.
    """
    space = Space(random, in_search, variety)
    op, shapes = _DRAW[operator](space)
    call = _call(space, op, shapes, variant)
    if call is None or call.kernel != f"tnf_{operator}{variant}":
        return None
    output_bytes = math.prod(op.output_shape(*shapes))
    activations = sum(map(math.prod, shapes)) + (0 if 0 in call.in_place else output_bytes)
    if activations > MOST_ACTIVATIONS or call.constant_bytes > MOST_WEIGHTS or call.macs > MOST_MACS:
        return None
    return Sample(operator, call, tuple(space.activations(shape) for shape in shapes), output_bytes, in_search)


def _call(space: Space, op: Operator, shapes: tuple[Shape, ...], variant: str) -> KernelCall | None:
    module = importlib.import_module(f"{emit.__name__}.{op.name}")
    call: KernelCall | None
    if variant == "_sparse":
        block = space.pick(*module.SPARSE_BLOCKS)
        call = module.sparse_kernel_call(_pruned(space, op, block), shapes, block)
        return call
    call = getattr(module, f"{variant.removeprefix('_')}_kernel_call".removeprefix("_"))(op, shapes)
    if call is not None and hasattr(module, "other_kernel_calls"):
        call = space.pick(call, *filter(None, module.other_kernel_calls(op, shapes, call)))
    return call


def _pruned(space: Space, op: Operator, block: int) -> Operator:
    """Blocks of the weight are set to 0: along its last axis, or along the width of a depthwise convolution."""
    assert isinstance(op, Linear | Conv2D | DepthwiseConv2D)
    weight = np.moveaxis(op.weight, 2, 0) if isinstance(op, DepthwiseConv2D) else op.weight
    rows = weight.reshape(-1, weight.shape[-1])
    kept = space.random.random((len(rows), -(-rows.shape[1] // block))) >= space.pick(*SPARSITIES)
    mask = np.repeat(kept, block, axis=1)[:, : rows.shape[1]]
    pruned = (rows * mask).reshape(weight.shape)
    return replace(op, weight=np.ascontiguousarray(np.moveaxis(pruned, 0, 2) if weight is not op.weight else pruned))


@dataclass(frozen=True)
class Samples:
    """What a fit is made and judged on; no two samples of a kernel have one shape.

    Attributes:
        training: around Table I and at random.
        held_out: of Table I.
    """

    training: tuple[Sample, ...]
    held_out: tuple[Sample, ...]

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.training) + len(self.held_out)


def draw_samples(seed: int, in_search: int, at_random: int, held_out: int) -> Samples:
    """Draw samples of every kernel.

    Args:
        seed: of everything.
        in_search: for training, of Table I, for each kernel; fewer where it has fewer shapes.
        at_random: for training, at random; more where something that a kernel does occurs in too few of them.
        held_out: of Table I; at most half of the shapes found.
    """
    training: list[Sample] = []
    kept: list[Sample] = []
    for index, (operator, variant) in enumerate(kernels()):
        one = partial(draw, operator, np.random.default_rng((seed, index)), variant=variant)
        found = _draw_distinct(lambda _: one(True), in_search + held_out, 0)  # noqa: B023 - called at once
        apart = min(held_out, len(found) // 2)
        kept += found[:apart]
        training += found[apart:]
        training += _draw_distinct(lambda i: one(False, i % 3), at_random, COVERED)  # noqa: B023 - the same
    return Samples(tuple(training), tuple(kept))


def _draw_distinct(draw_one: Callable[[int], Sample | None], count: int, covered: int) -> list[Sample]:
    """Up to `count` samples that differ in shape, and then those that show what `covered` of them have not yet.

    Args:
        draw_one: draws the sample of an index.
        count: how many.
        covered: in how many samples each count is to be other than zero.
    """
    found: dict[tuple[object, ...], Sample] = {}
    seen: Counter[str] = Counter()
    index = last = 0
    while index - last < PATIENCE and (len(found) < count or min(seen.values()) < covered):
        sample = draw_one(index)
        index += 1
        if sample is None or sample.shape in found:
            continue
        counts = sample.counts
        if len(found) < count or any(seen[name] < covered for name, times in counts.items() if times):
            found[sample.shape] = sample
            last = index
            seen.update({name: int(times > 0) for name, times in counts.items()})
    return list(found.values())
