"""A folder generated earlier: the C in it is what is built, and the model's file says what it must compute."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from codegen.choose import Optimise
from codegen.generate import GeneratedModel
from codegen.layouts import Layout, c_folder
from codegen.program import Program, build_program, dims, graph_hash
from codegen.target import Target
from refsim.errors import DataError, ModelError
from refsim.graph import Graph

_STEP = re.compile(r"/\* (\d+): .*: (\w+), .* -> ([\dx]+|scalar)(?:, the same bytes)? \*/")
_CALL = re.compile(r"\b(tnf_\w+)\(&step\d+_|_step\d+_\w+\(at\);")


@dataclass(frozen=True, eq=False)
class ReadFolder(GeneratedModel):
    """A folder that was found, not written."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every C file to compile: the folder's own, whatever the program would need."""
        parts = (path for part in ("steps", "kernels") for path in sorted((self.folder / part).glob("*.c")))
        return (self.folder / f"{self.prefix}.c", *parts)


def read_folder(folder: Path, graph: Graph, target: Target) -> ReadFolder:
    """Read what `tinyformer generate` wrote.

    The size of the arena and where inputs and outputs lie come from the folder's header, as a caller of its code takes
    them. What every step reads and writes comes from the plan of the model.

    Args:
        folder: that was generated.
        graph: the model that it was generated from.
        target: that it was generated for.

    Raises:
        DataError: the folder is unreadable, or was not generated.
        ModelError: it was generated from another model, or by a version that orders or fuses the steps differently.
    """
    if (folder / "library.properties").exists():
        folder = folder / c_folder(Layout.ARDUINO)
    headers = [path for path in sorted(folder.glob("*.h")) if path.with_suffix(".c").exists()]
    if not headers:
        raise DataError(f"{folder} holds no generated model: a header and a C file of one name are missing")
    prefix = headers[0].stem
    try:
        header, source = (headers[0].with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".h", ".c"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder} cannot be read: {error}") from error
    found_hash = re.search(r"Model SHA-256\s+([0-9a-f]{64})", header)
    if found_hash and found_hash[1] != graph_hash(graph):
        raise ModelError(
            f"{folder} was generated from another model: its SHA-256 is {found_hash[1]}, "
            f"that of {graph.name!r} is {graph_hash(graph)}; one of a .tflite model must be read with the --numerics "
            "that it was generated with"
        )
    program = _same_steps(folder, source, graph, target)
    return ReadFolder(folder, prefix, target, _as_declared(program, header, prefix, folder))


def _same_steps(folder: Path, source: str, graph: Graph, target: Target) -> Program:
    """The program whose steps are those of the C source: of those that differ in encoding alone, the most alike."""
    steps = [(int(index), operator, shape) for index, operator, shape in _STEP.findall(source)]
    calls = _CALL.findall(source)
    candidates = []
    for optimise in Optimise:
        program = build_program(graph, target, optimise=optimise)
        if steps == [(s.index, s.operator, dims(s.shape)) for s in program.steps]:
            kernels = ["" if s.specialised else s.call.kernel for s in program.steps if not s.elided]
            candidates.append((sum(a == b for a, b in zip(kernels, calls, strict=False)), program))
    if not candidates:
        raise ModelError(
            f"the steps of {folder} are not those of {graph.name!r} on {target.name}: name the target that it was "
            "generated for, or generate it anew with this version"
        )
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _as_declared(program: Program, header: str, prefix: str, folder: Path) -> Program:
    """The program with the arena and the ports of the header."""
    size = re.search(rf"#define {prefix.upper()}_ARENA_BYTES (\d+)", header)
    ports = []
    for kind, places in (("input", program.inputs), ("output", program.outputs)):
        pattern = rf"{prefix}_{kind}_(\d+)\([^)]*\)\s*{{\s*return \([^)]*\)\s?arena \+ (\d+);"
        offsets = {int(index): int(offset) for index, offset in re.findall(pattern, header)}
        if size is None or offsets.keys() != set(range(len(places))):
            raise DataError(
                f"{folder / prefix}.h does not say where the model's {kind}s lie, or how large its arena is"
            )
        ports.append(tuple(replace(place, offset=offsets[index]) for index, place in enumerate(places)))
    assert size is not None
    plan = replace(program.plan, arena_bytes=int(size[1]))
    return replace(program, plan=plan, inputs=ports[0], outputs=ports[1])
