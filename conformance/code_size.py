"""Measures the code of every kernel source for `codegen.code_size`: ``python -m conformance.code_size``.

A kernel's code is what an image grows by that holds all functions of its source, the larger of what the compilers that
are installed make of it at -O2.
"""

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ckernels
from codegen.code_size import MEASURED
from codegen.target import CORES, Target, list_targets, load_target
from conformance.toolchain import Toolchain, arm_toolchains, build_firmware, image_usage
from refsim.files import write_whole

_FUNCTION = re.compile(r"^(?!static)\w[\w ]*\**\b(tnf_\w+)\(", re.MULTILINE)


def kernel_bytes(name: str, target: Target, tool: Toolchain) -> int:
    """Code of one kernel source in a linked image, without that of other sources which it calls."""
    own, called = _functions(name), _called(name)
    needed, sources = {name}, {name}
    while needed:
        sources |= needed
        needed = {other for one in needed for other in _called(one)} - sources
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.c"
        empty.write_text("void tnf_empty(void);\nvoid tnf_empty(void) {}\n")
        sizes = []
        for functions in (set[str]().union(*called.values()), own.union(*called.values())):
            elf = build_firmware(
                [empty, *map(ckernels.source, sorted(sources))],
                target,
                ["tnf_empty", *sorted(functions)],
                include_dirs=[ckernels.include_dir()],
                toolchain=tool,
                name=f"{target.core}-{name}",
                must_fit=False,
            )
            sizes.append(image_usage(elf, target)[0])
    return sizes[1] - sizes[0]


def _functions(name: str) -> set[str]:
    """What a kernel source defines."""
    return set(_FUNCTION.findall(ckernels.source(name).read_text(encoding="utf-8")))


def _called(name: str) -> dict[str, set[str]]:
    """Functions of other kernel sources that a kernel source calls, by that source."""
    text = ckernels.source(name).read_text(encoding="utf-8")
    found = {}
    for other in set(ckernels.sources()) - {name}:
        if functions := {function for function in _functions(other) if re.search(rf"\b{function}\(", text)}:
            found[other] = functions
    return found


def measure(tools: Sequence[Toolchain]) -> dict[str, dict[str, int]]:
    """Bytes by core and kernel source, the largest of several compilers'."""
    chips = {target.core: target for target in map(load_target, list_targets())}
    found: dict[str, dict[str, int]] = {}
    for core in CORES:
        found[core] = {}
        for name in sorted(ckernels.sources()):
            found[core][name] = max(kernel_bytes(name, chips[core], tool) for tool in tools)
        print(f"{core}: {sum(found[core].values())} bytes in {len(found[core])} sources", file=sys.stderr)
    return found


if __name__ == "__main__":
    write_whole(MEASURED, (json.dumps(measure(arm_toolchains()), indent=1) + "\n").encode())
