"""Sub-commands of `tinyformer` for the road from a model file to C.

What takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from refsim.files import write_whole

if TYPE_CHECKING:
    from codegen.program import Program
    from codegen.target import Target

_Model = Annotated[Path, typer.Argument(help="Quantised model: QDQ ONNX or .tflite.")]
_Mean = Annotated[float, typer.Option(help="Of uint8 images: the model's input is (pixel - mean) / std.")]
_Std = Annotated[float, typer.Option(help="See --mean.")]
_Optimise = Annotated[
    Literal["size", "speed", "balanced"], typer.Option(help="What kernels and encodings of weights are chosen for.")
]
_NUMERICS_HELP = "Whose bytes a .tflite model gives: see the docs."
_NumericsName = Literal["litert", "cmsis-nn"]
_Numerics = Annotated[_NumericsName, typer.Option(help=_NUMERICS_HELP)]
_Target = Annotated[
    str | None, typer.Option(help="As for `tinyformer generate`; without it, a core without the DSP extension.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `app`."""
    for command in (quantize, generate, inspect, plan, targets):
        app.command()(command)


def quantize(
    model: Annotated[Path, typer.Argument(help="Float model, ONNX.")],
    calibration: Annotated[Path, typer.Option(help="Samples, .npz: uint8 images (N, H, W, C), or float inputs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="QDQ ONNX file to write.")],
    key: Annotated[str | None, typer.Option(help="Array of the samples; by default 'inputs' or 'images'.")] = None,
    method: Annotated[
        Literal["minmax", "percentile", "entropy", "mse"],
        typer.Option("--calibrator", "--method", help="How ranges are chosen from the samples."),
    ] = "minmax",
    equalise: Annotated[
        bool, typer.Option("--equalise", help="Balance the weights' channels across layers with ReLU between.")
    ] = False,
    bias_correction: Annotated[
        bool, typer.Option("--bias-correction", help="Take the mean error of every layer out of its bias.")
    ] = False,
    search: Annotated[
        int, typer.Option(min=0, help="Evaluations to spend on ranges and weights of the costliest layers.")
    ] = 0,
    per_channel: Annotated[
        bool, typer.Option("--per-channel/--per-tensor", help="One weight scale an output channel, or one a weight.")
    ] = True,
    mean: _Mean = 128.0,
    std: _Std = 128.0,
) -> None:
    """Quantise a float model to int8, every operator integer."""
    from codegen.onnx import quantize as quantize_model
    from codegen.samples import read_inputs
    from refsim.samples import Preprocessing

    console = Console(stderr=True)
    with console.status("Reading the model and the samples"):
        samples = read_inputs(calibration, model, Preprocessing(mean, std), key)
    count = len(next(iter(samples.values())))
    quantized = quantize_model(
        model,
        samples,
        method=method,
        per_channel=per_channel,
        equalise=equalise,
        bias_correction=bias_correction,
        search=search,
        progress=True,
        report=_say,
    )
    write_whole(out, quantized.SerializeToString())
    _say(f"Wrote {out}, calibrated on {count} samples.")


def generate(
    model: _Model,
    target: Annotated[str, typer.Option(help="Name (see `tinyformer targets`) or .toml file of the microcontroller.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    prefix: Annotated[str, typer.Option(help="Start of every public C name.")] = "model",
    force: Annotated[bool, typer.Option("--force", help="Replace the folder whatever it holds.")] = False,
    optimise: _Optimise = "balanced",
    numerics: Annotated[_NumericsName, typer.Option("--numerics", "--profile", help=_NUMERICS_HELP)] = "litert",
    layout: Annotated[
        Literal["standard", "arduino"], typer.Option(help="standard: CMake, PlatformIO, Zephyr and IDEs.")
    ] = "standard",
) -> None:
    """Write a model as C99: one folder without dependencies, its memory planned."""
    from codegen import load
    from codegen.choose import Optimise
    from codegen.generate import generate as generate_folder
    from codegen.layouts import Layout
    from codegen.target import load_target

    chip = load_target(target)
    graph = load(model, profile=numerics)
    generated = generate_folder(
        graph, chip, out, prefix=prefix, force=force, optimise=Optimise(optimise), layout=Layout(layout)
    )
    Console().print(_memory_table(generated.program, chip))
    _say(f"Wrote {len(generated.steps)} layers to {out}; the layer table is in {out / 'README.md'}.")


def inspect(
    model: _Model, target: _Target = None, optimise: _Optimise = "balanced", numerics: _Numerics = "litert"
) -> None:
    """Show a quantised model's layers, choices, memory and ports as they would be generated."""
    from codegen import load
    from codegen.choose import Optimise
    from codegen.program import build_program, dims
    from codegen.target import load_target

    chip = load_target(target) if target else None
    program = build_program(load(model, profile=numerics), chip, optimise=Optimise(optimise))
    layers = Table(title=escape(program.graph.name), box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    layers.add_column("step", justify="right", no_wrap=True)
    layers.add_column("layer", overflow="fold", min_width=16)
    for column in ("operator", "output"):
        layers.add_column(column, no_wrap=True)
    for column in ("params", "MACs", "offset", "scratch"):
        layers.add_column(column, justify="right", no_wrap=True)
    for step in program.steps:
        layers.add_row(
            str(step.index),
            escape(step.node),
            step.operator,
            dims(step.shape),
            str(step.constant_bytes),
            str(step.call.macs),
            str(step.offset),
            str(step.call.scratch_bytes),
        )
    choices = Table("layer", "weights", "chosen", title=f"for {program.optimise}")
    for step in program.steps:
        if step.reason:
            choices.add_row(escape(step.node), step.call.encoding, step.reason)
    ports = Table("port", "name", "shape", "scale", "zero point")
    for kind, places in (("input", program.inputs), ("output", program.outputs)):
        for index, port in enumerate(places):
            ports.add_row(
                f"{kind} {index}", escape(port.name), dims(port.shape), f"{port.scale:g}", str(port.zero_point)
            )
    console = Console()
    for table in (layers, choices, ports, _memory_table(program, chip)):
        console.print(table)
    _say(f"Time was {program.costs}.")
    _say(f"{program.macs} multiply-accumulate operations; model SHA-256 {program.model_hash}")


def plan(
    model: _Model,
    target: _Target = None,
    svg: Annotated[Path | None, typer.Option(help="Picture of the arena over time to write.")] = None,
    optimise: _Optimise = "balanced",
    numerics: _Numerics = "litert",
) -> None:
    """Show how a quantised model's memory is planned: each strategy's arena, the lower bound, the order of steps."""
    from codegen import load
    from codegen.arena_picture import render_arena
    from codegen.choose import Optimise
    from codegen.program import build_program
    from codegen.target import load_target

    chip = load_target(target) if target else None
    graph = load(model, profile=numerics)
    build = partial(build_program, graph, chip, optimise=Optimise(optimise))
    program = build()
    if svg:
        write_whole(svg, render_arena(program).encode())
    fullest = program.steps[program.plan.fullest_step]
    Console().print(_memory_table(program, chip))
    _say(f"The lower bound is what step {fullest.index} needs: {fullest.node}.")
    names = {step.node for step in program.steps}  # an attention has the name of its last operator
    own_order = [node.name for node in graph.nodes if node.name in names]
    moved = sum(step.node != name for step, name in zip(program.steps, own_order, strict=True))
    if moved:
        own = build(reorder=False).plan.arena_bytes
        _say(
            f"{moved} of {len(program.steps)} operators change places; in the model's order the arena has {own} bytes."
        )
    else:
        _say("The steps run in the model's order.")
    if svg:
        _say(f"Wrote {svg}.")


def targets() -> None:
    """List the built-in targets."""
    from codegen.target import list_targets, load_target

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))  # fits 80 columns
    for column in ("target", "core", "FPU"):
        table.add_column(column, no_wrap=True)
    for column in ("MHz", "flash KB", "RAM KB", "caches", "flash waits", "mW"):
        table.add_column(column, justify="right", no_wrap=column == "caches")
    for name in list_targets():
        chip = load_target(name)
        sizes = [f"{cache.size} B" if cache.size < 1024 else f"{cache.size // 1024} KB" for cache in chip.caches]
        waits = ["XIP" if part.bus == "xip" else str(part.wait_states) for part in chip.code.timing]
        table.add_row(
            name,
            chip.core,
            chip.fpu,
            f"{chip.clock_hz / 1e6:g}",
            str(chip.code.size // 1024),
            str(chip.data.size // 1024),
            "+".join(sizes),
            ", ".join(waits),
            f"{chip.power.milliwatts:.0f}" if chip.power else "",
        )
    Console().print(table)


def _memory_table(program: Program, target: Target | None = None) -> Table:
    """Flash and RAM of a program, beside what a target has."""
    plan = program.plan
    rows = [
        ("flash: constants", program.constant_bytes, target.code.size if target else None),
        ("RAM: arena", plan.arena_bytes, target.data.size if target else None),
        ("  live tensors, at most", plan.tensor_bytes, None),
        ("  scratch of one kernel, at most", plan.scratch_bytes, None),
        *((f"plan: {name}{' (used)' * (name == plan.strategy)}", peak, None) for name, peak in plan.peaks.items()),
        ("plan: lower bound", plan.lower_bound, None),
    ]
    table = Table("memory")
    table.add_column("bytes", justify="right")
    if target:
        table.add_column(f"{target.name} has", justify="right")
    for what, size, limit in rows:
        table.add_row(what, str(size), *([str(limit or "")] if target else []))
    return table


def _say(text: str) -> None:
    """Print a line as it is."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
