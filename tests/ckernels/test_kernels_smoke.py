"""Every kernel, under the sanitizers there are, against the contract written out in plain integers.

Random small cases of each operator, with zero points, roundings and clamps at their ends now and then. The full legal
domain is the business of `conformance`; what only this can see is a byte read or written outside of a tensor, or
undefined behaviour.
"""

import ctypes
import random
import re
import struct
import subprocess
from array import array
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import pytest

import ckernels
from conformance.opinion.definitions import DOUBLE, SINGLE, clamp, layernorm_row, nearest, requant, softmax_row
from tests.ckernels import contract
from tests.ckernels.compilers import CLANG, GCC, ZIG
from tests.ckernels.contract import Values

SANITIZED = (
    (GCC, ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
    (CLANG, ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")),
    (ZIG, ("-fsanitize=undefined", "-fsanitize-trap=undefined")),  # always there, but brings no address sanitizer
)
TYPE_CODES = {"int8_t": "b", "int16_t": "h", "int32_t": "i"}
CASES = 25


def _parse_structs() -> dict[str, list[tuple[str, str, bool]]]:
    """Operator -> its parameters as (name, C type, whether a pointer), read from kernels.h."""
    header = (ckernels.include_dir() / "tinyformer" / "kernels.h").read_text()
    structs = {}
    for body, operator in re.findall(r"typedef struct \{(.*?)\} tnf_(\w+)_params;", header, re.DOTALL):
        fields = []
        for type_, names in re.findall(r"(?:const )?(int\d+_t) (.*?);", body):
            fields += [(name.strip(" *"), type_, "*" in name) for name in names.split(",")]
        structs[operator] = fields
    return structs


STRUCTS = _parse_structs()
SCRATCH_ROWS = 3
SCRATCH = {"softmax": 256 * 4 + 32, "attention": 256 * 4 + 32 + 32}


@dataclass
class Case:
    """One call: parameters by name (lists are tables), input tensors, and the bytes the contract asks for."""

    operator: str
    params: dict[str, int | Values]
    inputs: list[Values]
    expected: Values
    in_place: int = field(default=-1)

    def encoded(self) -> bytes:
        fields = STRUCTS[self.operator]
        layout = type(
            "Params",
            (ctypes.Structure,),
            {"_fields_": [(name, ctypes.c_void_p if pointer else ctypes.c_int32) for name, _, pointer in fields]},
        )
        assert {name for name, _, _ in fields} == set(self.params), self.operator
        image = layout(**{name: self.params[name] for name, _, pointer in fields if not pointer})
        tables = [(name, type_) for name, type_, pointer in fields if pointer]
        out = self.operator.encode().ljust(32, b"\0") + _array(bytes(image), 0)
        counts = (len(self.inputs), len(tables), self.in_place, SCRATCH.get(self.operator, 0), len(self.expected))
        out += struct.pack("=5i", *counts)
        for x in self.inputs:
            out += _array(array("b", x).tobytes(), 1)
        for name, type_ in tables:
            out += struct.pack("=i", getattr(layout, name).offset)
            out += _array(array(TYPE_CODES[type_], self.params[name]).tobytes(), type_ == "int8_t")
        return out


def _array(data: bytes, odd: int) -> bytes:
    return struct.pack("=2i", len(data), odd) + data


class Draw(random.Random):
    """Random parameters, with the ends of each range drawn often."""

    def number(self, lo: int, hi: int) -> int:
        return self.choice((lo, hi, *(self.randint(lo, hi) for _ in range(4))))

    def bytes(self, count: int) -> Values:
        kind = self.randrange(4)
        if kind == 0:
            return [self.choice((-128, 127)) for _ in range(count)]
        if kind == 1:
            middle = self.randint(-120, 120)
            return [middle + self.randint(-3, 3) for _ in range(count)]
        return [self.randint(-128, 127) for _ in range(count)]

    def zero_point(self) -> int:
        return self.number(-128, 127)

    def clamps(self) -> dict[str, int]:
        lo = self.choice((-128, -128, self.randint(-128, 127)))
        return {"act_min": lo, "act_max": self.choice((127, 127, self.randint(lo, 127)))}

    def multiplier(self, bound: int) -> tuple[int, int]:
        """A (multiplier, shift) that brings `bound` to about 8 bits, now and then far from it or zero; always legal."""
        if self.random() < 0.05:
            return 0, 0
        shift = clamp(self.choice((8, 8, 8, 12, 0)) + self.randint(-1, 1) - bound.bit_length(), -31, 6)
        while bound * 2.0**shift >= 2**29:
            shift -= 1
        return self.number(2**30, 2**31 - 1), shift

    def shape(self, rank: int, largest: int = 4) -> Values:
        return [self.randint(1, largest) for _ in range(rank)]

    def finish(self) -> dict[str, int]:
        """The parameters by which every requantising operator ends, but for its multiplier."""
        return {"output_zero_point": self.zero_point(), "rounding": self.choice((SINGLE, DOUBLE)), **self.clamps()}


def finished(p: dict, acc: int, channel: int | None = None) -> int:
    m, s = (p["multiplier"], p["shift"]) if channel is None else (p["multiplier"][channel], p["shift"][channel])
    return clamp(requant(acc, m, s, p["rounding"]) + p["output_zero_point"], p["act_min"], p["act_max"])


def channel_multipliers(draw: Draw, count: int, bound: int) -> dict[str, Values]:
    pairs = [draw.multiplier(bound) for _ in range(count)]
    return {"multiplier": [m for m, _ in pairs], "shift": [s for _, s in pairs]}


def window(draw: Draw, dilated: bool) -> dict[str, int]:
    while True:
        p = {}
        for axis, before in (("h", "pad_top"), ("w", "pad_left")):
            size, kernel, stride = draw.randint(1, 6), draw.choice((1, 1, 2, 3, 4)), draw.randint(1, 3)
            dilation = draw.choice((1, 1, 2, 3)) if dilated else 1
            # Padding up to more than the kernel, so that whole windows fall outside; pooling may not do that.
            first = draw.randint(0, kernel + 2 if dilated else kernel - 1)
            last = draw.randint(0, kernel + 2 if dilated else kernel - 1)
            p |= {f"input_{axis}": size, f"kernel_{axis}": kernel, f"stride_{axis}": stride, before: first}
            p |= {f"output_{axis}": (size + first + last - dilation * (kernel - 1) - 1) // stride + 1}
            p |= {f"dilation_{axis}": dilation} if dilated else {}
        outputs = contract.indices((p["output_h"], p["output_w"]))
        legal = p["output_h"] >= 1 and p["output_w"] >= 1
        if legal and (dilated or all(contract.window_positions(p, oh, ow) for oh, ow in outputs)):
            return p


def conv2d(draw: Draw) -> Case:
    groups = draw.choice((1, 1, 1, 2, 3))
    group_in, group_out = draw.randint(1, 6), draw.randint(1, 6)
    p: dict = window(draw, dilated=True) | draw.finish()
    p |= {"groups": groups, "input_c": groups * group_in, "output_c": groups * group_out}
    p |= {"input_zero_point": draw.zero_point()}
    terms = p["kernel_h"] * p["kernel_w"] * group_in
    p |= {"weight": draw.bytes(p["output_c"] * terms)}
    p |= {"bias": [draw.number(-10000, 10000) for _ in range(p["output_c"])]}
    p |= channel_multipliers(draw, p["output_c"], 255 * 128 * terms + 10000)
    x = draw.bytes(p["input_h"] * p["input_w"] * p["input_c"])
    sums = contract.convolution_sums(p, x, p["weight"], p["bias"], depthwise=False)
    return Case("conv2d", p, [x], [finished(p, acc, k % p["output_c"]) for k, acc in enumerate(sums)])


def depthwise_conv2d(draw: Draw) -> Case:
    p: dict = window(draw, dilated=True) | draw.finish()
    p |= {"input_c": draw.randint(1, 10), "input_zero_point": draw.zero_point()}
    p["output_c"] = p["input_c"] * draw.choice((1, 1, 2, 3))
    terms = p["kernel_h"] * p["kernel_w"]
    p |= {"weight": draw.bytes(terms * p["output_c"])}
    p |= {"bias": [draw.number(-10000, 10000) for _ in range(p["output_c"])]}
    p |= channel_multipliers(draw, p["output_c"], 255 * 128 * terms + 10000)
    x = draw.bytes(p["input_h"] * p["input_w"] * p["input_c"])
    sums = contract.convolution_sums(p, x, p["weight"], p["bias"], depthwise=True)
    return Case("depthwise_conv2d", p, [x], [finished(p, acc, k % p["output_c"]) for k, acc in enumerate(sums)])


def linear(draw: Draw) -> Case:
    rows, n, outputs = draw.randint(1, 3), draw.randint(1, 20), draw.randint(1, 10)
    p: dict = draw.finish() | {"rows": rows, "input_c": n, "output_c": outputs, "input_zero_point": draw.zero_point()}
    p |= {"weight": draw.bytes(outputs * n), "bias": [draw.number(-10000, 10000) for _ in range(outputs)]}
    p |= channel_multipliers(draw, outputs, 255 * 128 * n + 10000)
    x = draw.bytes(rows * n)
    expected = []
    for row, o in contract.indices((rows, outputs)):
        acc = p["bias"][o] + sum((x[row * n + i] - p["input_zero_point"]) * p["weight"][o * n + i] for i in range(n))
        expected.append(finished(p, acc, o))
    return Case("linear", p, [x], expected)


def matmul_by_contract(p: dict, a: Values, b: Values) -> Values:
    """One matrix times another."""
    outputs = []
    for i, j in contract.indices((p["m"], p["n"])):
        acc = 0
        for t in range(p["k"]):
            right = b[j * p["k"] + t if p["transpose_b"] else t * p["n"] + j]
            acc += (a[i * p["k"] + t] - p["a_zero_point"]) * (right - p["b_zero_point"])
        outputs.append(finished(p, acc))
    return outputs


def matmul(draw: Draw) -> Case:
    batch, m, k, n = draw.randint(1, 3), draw.randint(1, 4), draw.randint(1, 12), draw.randint(1, 10)
    p: dict = draw.finish() | {"batch": batch, "m": m, "k": k, "n": n, "transpose_b": draw.randrange(2)}
    p |= {"a_zero_point": draw.zero_point(), "b_zero_point": draw.choice((0, draw.zero_point()))}
    p["multiplier"], p["shift"] = draw.multiplier(255 * 255 * k)
    a, b = draw.bytes(batch * m * k), draw.bytes(batch * k * n)
    expected = []
    for s in range(batch):
        expected += matmul_by_contract(p, a[s * m * k : (s + 1) * m * k], b[s * k * n : (s + 1) * k * n])
    return Case("matmul", p, [a, b], expected)


def broadcast_pair(draw: Draw) -> tuple[dict, list[Values], list[Values]]:
    """dims and strides, two tensors, and both broadcast to the output's shape."""
    dims = draw.shape(draw.randint(1, 4), 5)
    tensors, wide, p = [], [], {"rank": len(dims), "dims": dims}
    for name in ("a", "b"):
        shape = [n if draw.random() < 0.8 else 1 for n in dims] if draw.random() < 0.6 else dims
        tensors.append(draw.bytes(prod(shape)))
        wide.append(contract.broadcast(tensors[-1], shape, dims))
        full = contract.strides(shape)
        p[f"{name}_strides"] = [0 if a == 1 < b else s for a, b, s in zip(shape, dims, full, strict=True)]
        p[f"{name}_zero_point"] = draw.zero_point()
    return p, tensors, wide


def place(draw: Draw, tensors: list[Values], size: int) -> int:
    """Which input to overwrite in place, of those as large as the output; -1 for none."""
    return draw.choice([-1, *(k for k, x in enumerate(tensors) if len(x) == size)])


def add(draw: Draw) -> Case:
    p, tensors, wide = broadcast_pair(draw)
    p |= draw.finish()
    for name in ("a", "b"):
        largest = draw.random() < 0.5  # the input with the larger scale has a multiplier of exactly 1/2
        p[f"{name}_multiplier"] = 2**30 if largest else draw.number(2**30, 2**31 - 1)
        p[f"{name}_shift"] = 0 if largest else draw.choice((1, 0, -1, -2, -3, -12, -31))
    p["output_multiplier"], p["output_shift"] = draw.number(2**30, 2**31 - 1), draw.choice((-1, -2, -18, -19, -20, -31))
    if draw.random() < 0.1:
        p["a_multiplier"] = p["a_shift"] = 0
    p["subtract"] = int(draw.random() < 0.3)
    expected = []
    for a, b in zip(*wide, strict=True):
        sa = requant((a - p["a_zero_point"]) << 20, p["a_multiplier"], p["a_shift"], p["rounding"])
        sb = requant((b - p["b_zero_point"]) << 20, p["b_multiplier"], p["b_shift"], p["rounding"])
        sb = -sb if p["subtract"] else sb
        total = requant(sa + sb, p["output_multiplier"], p["output_shift"], p["rounding"]) + p["output_zero_point"]
        expected.append(clamp(total, p["act_min"], p["act_max"]))
    return Case("add", p, tensors, expected, place(draw, tensors, len(expected)))


def mul(draw: Draw) -> Case:
    p, tensors, wide = broadcast_pair(draw)
    p |= draw.finish()
    p["multiplier"], p["shift"] = draw.multiplier(255 * 255)
    expected = [finished(p, (a - p["a_zero_point"]) * (b - p["b_zero_point"])) for a, b in zip(*wide, strict=True)]
    return Case("mul", p, tensors, expected, place(draw, tensors, len(expected)))


def requantize(draw: Draw) -> Case:
    x = draw.bytes(draw.randint(1, 60))
    p: dict = draw.finish() | {"size": len(x), "input_zero_point": draw.zero_point()}
    p["multiplier"], p["shift"] = draw.multiplier(255)
    return Case("requantize", p, [x], [finished(p, v - p["input_zero_point"]) for v in x], draw.choice((-1, 0)))


def lookup(draw: Draw) -> Case:
    x, table = [*draw.bytes(draw.randint(1, 60)), -128, 127], draw.bytes(256)
    return Case("lookup", {"size": len(x), "table": table}, [x], [table[v + 128] for v in x], draw.choice((-1, 0)))


def softmax(draw: Draw) -> Case:
    rows, n = draw.randint(1, 4), draw.choice((1, 2, 7, 33, 150))
    shift = draw.choice((1, 5, 20, 22, 23, 25, 31))
    p: dict = {"rows": rows, "n": n, "multiplier": draw.number(2**30, 2**31 - 1), "shift": shift}
    p["diff_min"] = -(31 * 2**26 // 2**shift)
    if draw.random() < 0.2:  # a row so long and flat that every output rounds to zero
        p |= {"rows": 1, "n": draw.choice((1024, 4095))}
        x = [draw.randint(-128, 127)] * p["n"]
    else:
        x = draw.bytes(rows * n)
    rest = (p["multiplier"], shift, p["diff_min"])
    expected = [y for k in range(p["rows"]) for y in softmax_row(x[k * p["n"] : (k + 1) * p["n"]], *rest)]
    return Case("softmax", p, [x], expected, draw.choice((-1, 0)))


def attention(draw: Draw) -> Case:
    batch, m, k, n = draw.randint(1, 3), draw.randint(1, 4), draw.randint(1, 12), draw.randint(1, 10)
    d, shift = draw.choice((k, draw.randint(1, 10))), draw.choice((5, 20, 22, 23))
    softmax: dict = {"multiplier": draw.number(2**30, 2**31 - 1), "shift": shift, "diff_min": -(31 * 2**26 // 2**shift)}
    products = []
    for terms, a_zero_point in ((k, draw.zero_point()), (n, -128)):
        own: dict = draw.finish() | {"transpose_b": draw.randrange(2)}
        own |= {"a_zero_point": a_zero_point, "b_zero_point": draw.choice((0, draw.zero_point()))}
        own["multiplier"], own["shift"] = draw.multiplier(255 * 255 * terms)
        products.append(own)
    scores, context = products
    q, keys, values = draw.bytes(batch * m * k), draw.bytes(batch * k * n), draw.bytes(batch * n * d)
    expected = []
    for s in range(batch):
        head = matmul_by_contract(
            scores | {"m": m, "k": k, "n": n}, q[s * m * k : (s + 1) * m * k], keys[s * k * n : (s + 1) * k * n]
        )
        shares = [y for i in range(m) for y in softmax_row(head[i * n : (i + 1) * n], *softmax.values())]
        expected += matmul_by_contract(context | {"m": m, "k": n, "n": d}, shares, values[s * n * d : (s + 1) * n * d])
    p: dict = {"batch": batch, "m": m, "k": k, "n": n, "d": d, "tile_rows": draw.randint(1, SCRATCH_ROWS)}
    for name, own in (("scores", scores), ("softmax", softmax), ("context", context)):
        p |= {f"{name}_{field}": value for field, value in own.items()}
    return Case("attention", p, [q, keys, values], expected, draw.choice((-1, 0)) if d == k else -1)


def layernorm(draw: Draw) -> Case:
    rows, n = draw.randint(1, 4), draw.choice((1, 2, 3, 16, 100, 1000))
    p: dict = draw.finish() | {"rows": rows, "n": n, "scale_bits": draw.choice((0, 7, 7, 10, 14))}
    epsilon = draw.choice((0, 0, 1, 1000, 2**31, 2**32 + 5, 2**61, 2**62 - 1, draw.getrandbits(draw.randint(1, 62))))
    p |= {"epsilon_high": epsilon >> 32, "epsilon_low": ctypes.c_int32(epsilon & 0xFFFFFFFF).value}
    p["gamma"] = [draw.number(-32767, 32767) for _ in range(n)]
    p["beta"] = [draw.number(-(2**29), 2**29) for _ in range(n)]
    p["multiplier"], p["shift"] = draw.multiplier(32768 * 32767 + 2**29)
    x = draw.bytes(rows * n)
    if draw.random() < 0.3:  # one element that stands out of a flat row: the largest h there is
        x = [draw.choice((-128, 0))] * (rows * n)
        x[0] += draw.choice((1, 127))
    expected = []
    for k in range(rows):
        h = layernorm_row(x[k * n : (k + 1) * n], p["scale_bits"], epsilon)
        expected += [finished(p, v * g + b) for v, g, b in zip(h, p["gamma"], p["beta"], strict=True)]
    return Case("layernorm", p, [x], expected, draw.choice((-1, 0)))


def max_pool2d(draw: Draw) -> Case:
    p: dict = window(draw, dilated=False) | draw.clamps() | {"channels": draw.randint(1, 5)}
    x = draw.bytes(p["input_h"] * p["input_w"] * p["channels"])
    return Case("max_pool2d", p, [x], contract.pool(p, x, max))


def average_pool2d(draw: Draw) -> Case:
    p: dict = window(draw, dilated=False) | draw.clamps() | {"channels": draw.randint(1, 5)}
    x = draw.bytes(p["input_h"] * p["input_w"] * p["channels"])
    return Case("average_pool2d", p, [x], contract.pool(p, x, lambda v: nearest(sum(v), len(v))))


def mean(draw: Draw) -> Case:
    outer, n, inner = draw.randint(1, 3), draw.randint(1, 20), draw.randint(1, 6)
    p: dict = draw.finish() | {"outer": outer, "n": n, "inner": inner, "input_zero_point": draw.zero_point()}
    p["multiplier"], p["shift"] = draw.multiplier(255 * n)
    x = draw.bytes(outer * n * inner)
    expected = []
    for o, i in contract.indices((outer, inner)):
        expected.append(finished(p, sum(x[(o * n + k) * inner + i] - p["input_zero_point"] for k in range(n))))
    return Case("mean", p, [x], expected)


def reshape(draw: Draw) -> Case:
    x = draw.bytes(draw.randint(1, 60))
    return Case("reshape", {"size": len(x)}, [x], x, draw.choice((-1, 0)))


def transpose(draw: Draw) -> Case:
    shape = draw.shape(draw.randint(1, 6), 3)
    axes = draw.sample(range(len(shape)), len(shape))
    x = draw.bytes(prod(shape))
    dims = [shape[axis] for axis in axes]
    expected = []
    for index in contract.indices(dims):
        where = dict(zip(axes, index, strict=True))
        expected.append(contract.at(x, shape, [where[axis] for axis in range(len(shape))]))
    strides = contract.strides(shape)
    return Case("transpose", {"rank": len(dims), "dims": dims, "strides": [strides[a] for a in axes]}, [x], expected)


def slice_(draw: Draw) -> Case:
    shape = draw.shape(draw.randint(1, 4), 6)
    x, full = draw.bytes(prod(shape)), contract.strides(shape)
    starts = [draw.randrange(n) for n in shape]
    steps = [draw.randint(1, 3) for _ in shape]
    dims = [draw.randint(1, (n - 1 - a) // s + 1) for n, a, s in zip(shape, starts, steps, strict=True)]
    p = {"rank": len(shape), "offset": sum(a * s for a, s in zip(starts, full, strict=True)), "dims": dims}
    p["strides"] = [a * s for a, s in zip(steps, full, strict=True)]
    expected = [
        contract.at(x, shape, [a + i * s for a, i, s in zip(starts, index, steps, strict=True)])
        for index in contract.indices(dims)
    ]
    return Case("slice", p, [x], expected)


def pad(draw: Draw) -> Case:
    shape = draw.shape(draw.randint(1, 4), 4)
    before = [draw.randint(0, 2) for _ in shape]
    dims = [b + n + draw.randint(0, 2) for b, n in zip(before, shape, strict=True)]
    x, value = draw.bytes(prod(shape)), draw.zero_point()
    expected = []
    for index in contract.indices(dims):
        where = [i - b for i, b in zip(index, before, strict=True)]
        inside = all(0 <= i < n for i, n in zip(where, shape, strict=True))
        expected.append(contract.at(x, shape, where) if inside else value)
    p = {"rank": len(shape), "input_dims": shape, "output_dims": dims, "before": before, "value": value}
    return Case("pad", p, [x], expected)


def concat(draw: Draw) -> Case:
    outer, chunks = draw.randint(1, 4), draw.shape(draw.randint(1, 4), 7)
    p: dict = {"count": len(chunks), "outer": outer, "chunk": chunks, "output_zero_point": draw.zero_point()}
    p |= {"rounding": draw.choice((SINGLE, DOUBLE)), "rescale": [draw.randrange(2) for _ in chunks]}
    p |= {"zero_point": [draw.zero_point() for _ in chunks], **channel_multipliers(draw, len(chunks), 255)}
    xs = [draw.bytes(outer * n) for n in chunks]
    every = p | {"act_min": -128, "act_max": 127}
    expected = []
    for row in range(outer):
        for k, (x, n) in enumerate(zip(xs, chunks, strict=True)):
            piece = x[row * n : (row + 1) * n]
            expected += [finished(every, v - p["zero_point"][k], k) for v in piece] if p["rescale"][k] else piece
    return Case("concat", p, xs, expected)


BUILDERS = {
    builder.__name__.rstrip("_"): builder
    for builder in (
        *(conv2d, depthwise_conv2d, linear, matmul, add, mul, requantize, lookup, softmax, attention, layernorm),
        *(max_pool2d, average_pool2d, mean, reshape, transpose, slice_, pad, concat),
    )
}


@pytest.fixture(scope="module", params=SANITIZED, ids=lambda p: p[0].name)
def driver(request, tmp_path_factory) -> Path:
    """The driver program with every kernel, built with the compiler's sanitizers."""
    compiler, flags = request.param
    path = tmp_path_factory.mktemp("driver") / "driver.exe"
    sources = [Path(__file__).with_name("driver.c"), *ckernels.sources().values()]
    compiler.run("-std=c99", "-O1", "-g", *flags, *sources, "-o", path)
    return path


def run(driver: Path, cases: list[Case]) -> list[Values]:
    done = subprocess.run([driver], input=b"".join(case.encoded() for case in cases), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[:4000]
    flat = array("b", done.stdout).tolist()
    outputs, at = [], 0
    for case in cases:
        outputs.append(flat[at : at + len(case.expected)])
        at += len(case.expected)
    assert at == len(flat)
    return outputs


@pytest.mark.parametrize("operator", sorted(BUILDERS))
def test_kernel_matches_the_contract(driver, operator):
    draw = Draw(operator)
    cases = [BUILDERS[operator](draw) for _ in range(CASES)]
    for case, output in zip(cases, run(driver, cases), strict=True):
        assert output == case.expected, case


def test_every_portable_kernel_is_tested():
    # Conformance holds those for the DSP extension and for sparse weights to the golden model, on the host as well.
    portable = {name for name in ckernels.sources() if not name.endswith(("_dsp", "_sparse"))}
    assert set(BUILDERS) == portable <= set(STRUCTS)


def test_the_driver_sees_a_read_outside_of_a_tensor(driver):
    if b"__asan_init" not in driver.read_bytes():
        pytest.skip("this compiler has no address sanitizer")
    case = lookup(Draw(0))
    case.params["size"] += 1
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run(driver, [case])
