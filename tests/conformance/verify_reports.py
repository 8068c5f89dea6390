"""Reports of validations as tests need them: all is well, much is wrong, nothing is there, names are hostile."""

from dataclasses import replace

from codegen.arena_picture import render_arena
from codegen.program import build_program
from conformance.verify.result import (
    Build,
    Check,
    Divergence,
    Layer,
    MemoryPart,
    MemoryRegionUse,
    Outcome,
    Report,
)
from tests.codegen.graphs import hybrid_graph

EVIL = '@DATA@</script><script>alert("1")</script>[red]&amp;|`*x*` ]]>\x00\x1b[31m\x85\ud800 é 中 \N{GRINNING FACE}'
"""A name that breaks out of HTML, XML, Markdown and the terminal wherever it is not escaped."""

PLACES = ("stm32f746 zig -O2", "rp2040 zig -Os", "qemu mps2-an500 zig -O2 (stm32f746)", "host zig -O2 (stm32f746)")
_OPERATORS = ("conv2d", "max_pool2d", "depthwise_conv2d", "linear", "layernorm", "softmax", "matmul", "add", "gelu")
_CHECKS = (
    ("flash", 341_208.0, 1_048_576.0, "bytes", "{figure} bytes of code and constants fit"),
    ("ram", 71_936.0, 327_680.0, "bytes", "static data, arena and stack fit"),
    ("bit-exact", 0.0, 0.0, "samples", "every tensor of 48 samples equals the golden model"),
    ("memory-access", 0.0, 0.0, "accesses", "every access within its region"),
    ("alignment", 0.0, 0.0, "accesses", "no access that the core would trap"),
    ("uninitialised", None, None, "", "two runs from memory poisoned with 0xA5 and 0x5A agree"),
    ("stack", 1_224.0, 1_536.0, "bytes", "high-water mark below the compiler's bound"),
    ("deterministic", None, None, "", "three runs gave the same bytes"),
    ("latency", 33.97, 50.0, "ms", "7,336,800 cycles at 216 MHz"),
    ("accuracy", 0.4, 1.0, "points", "78.9 % against 79.3 % of the float model on 1,000 samples"),
)


def layers(count: int, counted: bool = True, compared: bool = True) -> tuple[Layer, ...]:
    """As many layers as asked for, no two alike."""
    found = []
    for index in range(count):
        operator = _OPERATORS[index * 5 % len(_OPERATORS)]
        macs = (index * 7919 % 23 + 1) * 20_480 if operator in {"conv2d", "depthwise_conv2d", "linear", "matmul"} else 0
        cycles = macs * (1.05 + index % 4 * 0.4) if macs else 4_000.0 * (index % 7 + 2)
        found.append(
            Layer(
                index,
                f"/encoders/{index // 9}/{operator}_{index % 9}/{operator.title()}",
                operator,
                (16 + index % 3 * 16, 8, 8) if index % 2 else (64, 96),
                ("dense", "block 4", "dense", "block 8")[index % 4] if macs and operator != "matmul" else "",
                macs // 48,
                macs,
                round(cycles * 0.8) if counted else None,
                cycles if counted else None,
                0,
                42.0 - index * 13 % 19 - 0.25 * (index % 8) if compared else None,
            )
        )
    return tuple(found)


def build(place: str, memory: tuple[MemoryRegionUse, ...], steps: tuple[Layer, ...], arena_svg: str) -> Build:
    target = place.split(maxsplit=1)[0]
    core = {"stm32f746": "cortex-m7", "rp2040": "cortex-m0plus", "qemu": "cortex-m7"}.get(target, "x86_64")
    sha = f"{PLACES.index(place) if place in PLACES else 9:x}3" * 32
    return Build(
        place,
        target,
        core,
        "zig",
        "0.13.0 (clang 18.1.6)",
        "-Os" if "-Os" in place else "-O2",
        sha,
        memory,
        steps,
        arena_svg,
    )


def passing() -> Report:
    """A report of four places where every check that ran passed."""
    picture = render_arena(build_program(hybrid_graph()))
    parts = (MemoryPart("arena", 61_440), MemoryPart("stack", 1_536), MemoryPart("static data", 8_960))
    memory = (
        MemoryRegionUse(
            "flash", "flash", 0x0800_0000, 1_048_576, (MemoryPart("code", 29_736), MemoryPart("constants", 311_472))
        ),
        MemoryRegionUse("dtcm", "ram", 0x2000_0000, 65_536, ()),
        MemoryRegionUse("sram", "ram", 0x2001_0000, 262_144, parts),
    )
    small = tuple(replace(region, size=region.size // 2) for region in memory)
    builds = (
        build(PLACES[0], memory, layers(42), picture),
        build(PLACES[1], small, layers(42), picture),
        build(PLACES[2], (), layers(42, counted=False), ""),
        build(PLACES[3], (), layers(42, counted=False), ""),
    )
    elsewhere = {
        "host": {"bit-exact", "uninitialised", "deterministic"},
        "qemu": {"flash", "ram", "bit-exact", "uninitialised", "stack", "deterministic", "latency"},
    }
    checks = []
    for place in PLACES:
        for index, (name, figure, limit, unit, detail) in enumerate(_CHECKS):
            if name not in elsewhere.get(place.split(maxsplit=1)[0], {entry[0] for entry in _CHECKS}):
                continue
            words = detail.format(figure=f"{figure or 0:,.0f}")
            checks.append(Check(name, place, Outcome.PASSED, words, figure, limit, unit, 0.21 + index * 0.4))
    checks.append(Check("undefined-behaviour", PLACES[3], Outcome.PASSED, "48 samples, no finding", seconds=3.1))
    checks.append(Check("qemu", PLACES[2], Outcome.NOT_RUN, "qemu-system-arm is not on the PATH; install it"))
    return Report(
        model="tinyformer_cifar10.onnx",
        model_sha256="ab" * 32,
        sources_sha256={"model.c": "01" * 32, "model.h": "23" * 32, "weights.c": "45" * 32},
        versions={"tinyformer": "0.1.0", "python": "3.11.7", "numpy": "2.3.4", "unicorn": "2.1.4"},
        command="tinyformer verify tinyformer_cifar10.onnx --target stm32f746 --target rp2040 --report out",
        started="2026-11-20T18:00:00Z",
        seconds=41.7,
        builds=builds,
        checks=tuple(checks),
    )


def failing() -> Report:
    """The same with an image too large for one chip, and bytes that differ on another."""
    report = passing()
    first, small, *others = report.builds
    differing = tuple(replace(layer, mismatches=7 if layer.index > 11 else 0) for layer in first.layers)
    flash, *ram = small.memory
    full = replace(flash, parts=(MemoryPart("code", 31_112), MemoryPart("constants", 511_480)))
    failed = {
        (PLACES[0], "bit-exact"): ("7 of 48 samples differ, first in step 12; see the first divergence", 7.0, 0.0),
        (PLACES[1], "flash"): (
            "image is 18,304 bytes too large; use sparse weights, -Os or a larger chip",
            542_592.0,
            524_288.0,
        ),
        (PLACES[1], "latency"): ("8,100,000 cycles at 133 MHz: too slow; see the layers", 60.9, 50.0),
    }
    checks = []
    for check in report.checks:
        found = check
        if (key := (check.place, check.name)) in failed:
            detail, figure, limit = failed[key]
            found = replace(check, outcome=Outcome.FAILED, detail=detail, figure=figure, limit=limit)
        checks.append(found)
    divergence = Divergence(
        place=PLACES[0],
        sample="3 (random)",
        step=12,
        node="/encoders/1/linear_3/Linear",
        operator="linear",
        tensor="/encoders/1/linear_3/Linear_output_0",
        element=(0, 5, 17),
        expected=-12,
        found=-11,
        accumulator=-48_211,
        contributions=(
            "input[0, 5, 31] = -128 (zero point -3)  weight[17, 31] =  97  product -12125",
            "input[0, 5,  2] =   88 (zero point -3)  weight[17,  2] = -101 product  -9191",
            "bias[17] = -2048",
        ),
        reproducer="reproducer_stm32f746.c",
    )
    builds = (replace(first, layers=differing), replace(small, memory=(full, *ram)), *others)
    return replace(report, builds=builds, checks=tuple(checks), divergences=(divergence,))


def empty() -> Report:
    """A report of nothing."""
    return replace(passing(), sources_sha256={}, versions={}, builds=(), checks=())


def hostile() -> Report:
    """The failing report with names that break out of every format, and figures that are no numbers."""
    report = failing()
    nan, infinite = float("nan"), float("inf")
    step = replace(report.builds[0].layers[0], node=EVIL, operator=EVIL, encoding=EVIL, sqnr_db=infinite, cycles=nan)
    other = replace(step, index=1, sqnr_db=-infinite)
    region = MemoryRegionUse(EVIL, "ram", 0, 0, (MemoryPart(EVIL, 0), MemoryPart(EVIL, 1)))
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" onload="alert(2)"><script>alert(3)</script>'
        '<rect width="9" height="9" onclick="alert(4)"/><a href="javascript:alert(5)"><text>x</text></a></svg>'
    )
    built = replace(build(EVIL, (region,), (step, other), picture), target=EVIL, core=EVIL, compiler=EVIL, opt=EVIL)
    bad = Check(EVIL, EVIL, Outcome.FAILED, EVIL, nan, infinite, EVIL)
    return replace(
        report,
        model=EVIL,
        command=EVIL,
        versions={"tinyformer": EVIL, EVIL: EVIL},
        sources_sha256={EVIL: "ab" * 32},
        builds=(built, replace(built, place="broken picture", arena_svg="<svg><rect></svg")),
        checks=(bad, replace(bad, outcome=Outcome.NOT_RUN), replace(bad, outcome=Outcome.PASSED)),
        divergences=(
            replace(
                report.divergences[0],
                place=EVIL,
                node=EVIL,
                operator=EVIL,
                tensor=EVIL,
                sample=EVIL,
                contributions=(EVIL,),
                reproducer=EVIL,
            ),
        ),
    )


def many(count: int) -> Report:
    """A report of a program of many layers."""
    report = passing()
    return replace(report, builds=(replace(report.builds[0], layers=layers(count)),))
