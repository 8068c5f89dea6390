"""Sub-commands of `tinyformer` that answer with the golden model: how accurate, and where accuracy is lost.

What takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from refsim.errors import TinyFormerError
from refsim.files import write_whole

if TYPE_CHECKING:
    from refsim.model import Model

_Model = Annotated[
    Path, typer.Argument(help="Model: QDQ ONNX, any other file that an installed package reads, or float ONNX.")
]
_Data = Annotated[
    Path, typer.Option(help="Samples, .npz: 'images' (uint8 N, H, W, C) or 'inputs', and their 'labels'.")
]
_Float = Annotated[
    Path | None, typer.Option("--float", help="Float model, ONNX, that the quantised one was made from.")
]
_Calibration = Annotated[
    Path | None, typer.Option(help="Samples to quantise MODEL with, .npz, where it is a float model.")
]
_Numerics = Annotated[
    str | None,
    typer.Option(
        "--numerics",
        "--profile",
        help="Whose bytes, where the file's format leaves the choice: litert or cmsis-nn of a .tflite model.",
    ),
]
_Mean = Annotated[float, typer.Option(help="Of uint8 images: the model's input is (pixel - mean) / std.")]
_Std = Annotated[float, typer.Option(help="See --mean.")]
_Json = Annotated[Path | None, typer.Option(help="File to write everything measured to.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Samples, at most.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `app`."""
    for command in (accuracy, compare):
        app.command()(command)
    app.command("ablate-layernorm")(ablate_layernorm)


def accuracy(
    model: _Model,
    data: _Data,
    float_model: _Float = None,
    calibration: _Calibration = None,
    numerics: _Numerics = None,
    mean: _Mean = 128.0,
    std: _Std = 128.0,
    classes: Annotated[bool, typer.Option("--classes", help="Show recall and precision of every class too.")] = False,
    json: _Json = None,
) -> None:
    """Accuracy of a quantised model on labelled samples, beside its float model's."""
    from refsim.evaluation import Classifier
    from refsim.float_model import FloatModel
    from refsim.page import finite

    quantized = _load(model, calibration, numerics, mean, std)
    others: dict[str, Classifier] = {}
    if float_model is not None:
        others["float"] = FloatModel(float_model, quantized.graph).scores
    found = quantized.evaluate_beside(others, data)
    int8 = found.by_name["int8"]
    table = Table("model", "run by", title=f"{int8.samples} samples", box=box.SIMPLE)
    for column in ("accuracy", *(f"top-{k}" for k in int8.top if k != 1)):
        table.add_column(column, justify="right")
    for name, evaluation in found.by_name.items():
        shares = (f"{share:.2%}" for k, share in evaluation.top.items() if k != 1)
        table.add_row(name, "refsim" if name == "int8" else "ONNX Runtime", f"{evaluation.accuracy:.2%}", *shares)
    console = Console()
    console.print(table)
    if classes:
        rows = Table("class", box=box.SIMPLE)
        for column in ("samples", "recall", "precision"):
            rows.add_column(column, justify="right")
        for row in int8.records():
            rows.add_row(str(row["class"]), str(row["samples"]), f"{row['recall']:.2%}", f"{row['precision']:.2%}")
        console.print(rows)
    if float_model is not None:
        difference = 100 * (int8.accuracy - found.by_name["float"].accuracy)
        _say(f"int8 - float: {difference:+.2f} points; same class on {found.agreement['int8']:.2%} of the samples")
    if json is not None:
        measured = {
            name: {
                "samples": evaluation.samples,
                "accuracy": evaluation.accuracy,
                "top": dict(evaluation.top),
                "same_class": found.agreement[name],
                "classes": evaluation.records(),
            }
            for name, evaluation in found.by_name.items()
        }
        write_whole(json, (json_format.dumps(finite(measured), indent=1) + "\n").encode())
        _say(f"Wrote {json}.")


def compare(
    model: _Model,
    data: _Data,
    float_model: _Float = None,
    calibration: _Calibration = None,
    numerics: _Numerics = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also quantise one layer at a time, to see which costs most.")
    ] = False,
    onnxruntime: Annotated[
        bool, typer.Option("--onnxruntime", help="Count the bytes that ONNX Runtime computes alike, and nothing else.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
    json: _Json = None,
    limit: _Limit = None,
    mean: _Mean = 128.0,
    std: _Std = 128.0,
) -> None:
    """Where a quantised model leaves its float model, layer by layer.

    Without --float, the reference is the model itself without any rounding.
    """
    from refsim.compare_report import agreement_tables, as_dict, page, terminal
    from refsim.page import finite

    quantized = _load(model, calibration, numerics, mean, std)
    console = Console()
    if onnxruntime:
        console.print(agreement_tables(quantized.agreement(data, limit=limit)))
        return
    found = quantized.compare(float_model, data, limit=limit)
    costs = quantized.sensitivity(data, float_model=float_model, limit=limit) if sensitivity else None
    console.print(terminal(found, costs, width=console.width))
    files = {}
    if html is not None:
        files[html] = page(found, costs, data.name)
    if json is not None:
        files[json] = json_format.dumps(finite(as_dict(found, costs, data.name)), indent=1) + "\n"
    for path, text in files.items():
        write_whole(path, text.encode())
        _say(f"Wrote {path}.")


def ablate_layernorm(
    model: _Model,
    data: _Data,
    float_model: _Float = None,
    bits: Annotated[str, typer.Option(help="Fraction bits of the normalised value, one variant each.")] = "7,0",
    real: Annotated[bool, typer.Option("--real", help="A variant with LayerNorm in real numbers as well.")] = False,
    mean: _Mean = 128.0,
    std: _Std = 128.0,
) -> None:
    """The paper's Table IV on a model: Scaled-LayerNorm (7 scale bits) against naive (0) against float."""
    from refsim import ablation

    try:
        wanted = [int(part) for part in bits.split(",")]
    except ValueError:
        raise TinyFormerError(f"--bits takes whole numbers, separated by commas, found {bits!r}") from None
    quantized = _load(model, None, None, mean, std)
    found = ablation.ablate_layernorm(quantized, data, float_model=float_model, bits=wanted, real=real)
    first = found.variants[0]
    table = Table("variant", title=f"{found.layers} LayerNorms, {found.samples} samples", box=box.SIMPLE)
    for column in ("accuracy", "points", "same class"):
        table.add_column(column, justify="right")
    for variant in found.variants:
        points = 100 * (variant.accuracy - first.accuracy)
        table.add_row(variant.variant, f"{variant.accuracy:.2%}", f"{points:+.2f}", f"{variant.agreement:.2%}")
    Console().print(table)
    _say(f"Points and same class against the first row: {first.variant}.")


def _load(model: Path, calibration: Path | None, numerics: str | None, mean: float, std: float) -> Model:
    from refsim.model import load
    from refsim.samples import Preprocessing

    return load(model, calibration=calibration, profile=numerics, preprocessing=Preprocessing(mean, std))


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
