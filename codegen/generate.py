"""From a graph to a folder of C that is complete in itself."""

import re
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ckernels
from codegen.arena_picture import render_arena
from codegen.choose import Optimise
from codegen.layouts import Layout, c_file, c_folder, how_to_build, layout_files
from codegen.program import PortPlace, Program, Step, build_program
from codegen.render import (
    Naming,
    marked_files,
    render_header,
    render_readme,
    render_source,
    render_step,
    step_file,
)
from codegen.target import Target
from refsim.errors import TargetError, TinyFormerError
from refsim.graph import Graph

_CONTRIBUTORS = 3
"""How many of the largest layers or tensors an error names."""


@dataclass(frozen=True, eq=False)
class GeneratedModel:
    """A generated folder and what is in it.

    Attributes:
        folder: that holds its C: the one written, or `src` in it for Arduino.
        prefix: of its C names: `<prefix>_run`, `<PREFIX>_ARENA_BYTES`.
        target: that it was generated for.
        program: steps, ports and memory plan.
    """

    folder: Path
    prefix: str
    target: Target
    program: Program

    @property
    def header(self) -> Path:
        """The header that a caller includes."""
        return self.folder / f"{self.prefix}.h"

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every C file to compile."""
        kernels = (self.folder / "kernels" / f"{name}.c" for name in self.program.kernel_sources)
        steps = (self.folder / step_file(self.program, step, self.prefix) for step in self.steps if step.specialised)
        return (self.folder / f"{self.prefix}.c", *steps, *kernels)

    @property
    def include_dirs(self) -> tuple[Path, ...]:
        """Folders of the headers."""
        return (self.folder, self.folder / "kernels")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The operators in execution order; the trace hooks number them by their index."""
        return self.program.steps

    @property
    def inputs(self) -> tuple[PortPlace, ...]:
        """Where the graph's inputs lie in the arena."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[PortPlace, ...]:
        """Where the graph's outputs lie in the arena."""
        return self.program.outputs

    @property
    def arena_bytes(self) -> int:
        """Size of the arena."""
        return self.program.plan.arena_bytes


def generate(
    graph: Graph,
    target: Target,
    output_dir: Path,
    *,
    prefix: str = "model",
    force: bool = False,
    optimise: Optimise = Optimise.BALANCED,
    layout: Layout = Layout.STANDARD,
) -> GeneratedModel:
    """Write a model as C.

    The folder appears whole or not at all. It holds <prefix>.c, <prefix>.h, the kernels used, what build systems read,
    arena.svg and README.md, for speed also steps with a copy of their kernel, and is the same to the byte for the same
    graph, target, prefix, choice, layout and version.

    Args:
        graph: the model.
        target: the microcontroller.
        output_dir: folder to write; one that this function wrote earlier is replaced.
        prefix: start of the C names, an identifier that begins with a letter.
        force: replace the folder whatever it holds.
        optimise: what kernels and encodings of weights are chosen for.
        layout: where files lie, and for which build systems.

    Raises:
        UnsupportedError: naming the node, something that the kernels cannot do.
        TargetError: the constants exceed the target's flash, or arena and stack its RAM.
        TinyFormerError: the prefix is no identifier, or the folder holds something else or cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix) or prefix.startswith("tnf_"):
        raise TinyFormerError(
            f"prefix {prefix!r} cannot start C names; use letters, digits and underscores, beginning with a letter"
        )
    output_dir = output_dir.resolve()
    _check_replaceable(output_dir, force)
    program = build_program(graph, target, optimise=optimise)
    check_fit(program, target)
    _write(output_dir, _contents(program, target, Naming(prefix, tool_version()), layout))
    model = GeneratedModel(output_dir / c_folder(layout), prefix, target, program)
    return model


def check_fit(program: Program, target: Target) -> None:
    """Check a program against a target's memory; code is measured when it is linked.

    Raises:
        TargetError: saying what does not fit, by how much, and what takes the most.
    """
    flash, ram, plan = target.code, target.data, program.plan
    if program.constant_bytes > flash.size:
        layers = sorted(program.steps, key=lambda step: -step.constant_bytes)[:_CONTRIBUTORS]
        raise TargetError(
            f"model {program.graph.name!r} needs {program.constant_bytes} bytes of constants, "
            f"{program.constant_bytes - flash.size} more than the {flash.size} of {flash.name} on {target.name}; "
            f"largest layers: {', '.join(f'{step.node} ({step.constant_bytes})' for step in layers)}"
        )
    needed = plan.arena_bytes + target.stack_bytes
    if needed > ram.size:
        step = program.steps[plan.fullest_step]
        sizes = [f"{name} ({program.graph.tensors[name].size})" for name in plan.live_tensors[:_CONTRIBUTORS]]
        sizes += [f"scratch ({step.call.scratch_bytes})"] if step.call.scratch_bytes else []
        raise TargetError(
            f"model {program.graph.name!r} needs {plan.arena_bytes} bytes of arena and {target.stack_bytes} of stack, "
            f"{needed - ram.size} more than the {ram.size} of {ram.name} on {target.name}; most is needed at node "
            f"{step.node!r}, by {', '.join(sizes)}"
        )


def tool_version() -> str:
    """The toolkit's version; "development" where it runs from a source tree without being installed."""
    try:
        return version("tinyformer")
    except PackageNotFoundError:
        return "development"


def _contents(program: Program, target: Target, naming: Naming, layout: Layout) -> dict[str, bytes]:
    """Every file by its path in the folder."""
    prefix = naming.prefix
    sources = {
        f"{prefix}.c": render_source(program, target, naming).encode(),
        f"{prefix}.h": render_header(program, target, naming).encode(),
    }
    for step in program.steps:
        if step.specialised:
            sources[step_file(program, step, prefix)] = render_step(program, step, naming).encode()
    for header in ckernels.headers():
        sources[f"kernels/{header.relative_to(ckernels.include_dir()).as_posix()}"] = header.read_bytes()
    for name in program.kernel_sources:
        sources[f"kernels/{name}.c"] = ckernels.source(name).read_bytes()
    files = {c_file(layout, name): text for name, text in sources.items()}
    files |= {name: text.encode() for name, text in layout_files(layout, program, target, naming).items()}
    files["arena.svg"] = render_arena(program).encode()
    build = how_to_build(layout, program, target, naming)
    files["README.md"] = render_readme(program, target, naming, sorted([*files, "README.md"]), build).encode()
    return files


def _check_replaceable(folder: Path, force: bool) -> None:
    """Check that writing `folder` loses nothing that was not generated."""
    if folder.exists() and not folder.is_dir():
        raise TinyFormerError(f"{folder} is not a folder; give another output folder")
    if not folder.exists():
        return
    if Path.cwd().is_relative_to(folder):
        raise TinyFormerError(f"{folder} holds the current folder and cannot be replaced; give another output folder")
    readme = folder / "README.md"
    known = marked_files(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    foreign = sorted(present - set(known or ()))
    if foreign and not force:
        raise TinyFormerError(
            f"{folder} holds files that were not generated, such as {foreign[0]}; "
            "give another output folder, or --force to replace everything in it"
        )


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files beside the folder, then put them in its place."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            fresh, old = Path(temporary, "new"), Path(temporary, "old")
            for name, data in files.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            if folder.exists():
                folder.rename(old)
            try:
                fresh.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise TinyFormerError(f"output folder {folder} cannot be written: {error.strerror}") from error
