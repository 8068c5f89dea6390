"""`tinyformer baselines`: what the networks of the paper's Table II take, before any training."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from refsim.errors import DataError


def baselines(
    name: Annotated[list[str] | None, typer.Argument(help="Networks; all by default.", metavar="[NAME]...")] = None,
    target: Annotated[
        str, typer.Option(help="Name (see `tinyformer targets`) or .toml file of the microcontroller.")
    ] = "stm32f746",
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, which are random.")] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the results.")] = None,
) -> None:
    """Flash, RAM and time of the networks that TinyFormer is compared with; `tinyformer train --recipe` trains them."""
    import numpy as np

    from codegen.target import load_target
    from nas.baselines import BASELINES
    from nas.resources import Limits, ResourceEval, integer_graph
    from nas.writer import random_weights
    from refsim.files import write_whole

    chosen = list(dict.fromkeys(name or BASELINES))
    if unknown := [one for one in chosen if one not in BASELINES]:
        raise DataError(f"there is no baseline {unknown[0]!r}; there are {', '.join(BASELINES)}")
    chip = load_target(target)
    limits, evaluate = Limits.of(chip), ResourceEval(chip)
    table = Table("network", title=chip.name, box=box.SIMPLE, pad_edge=False)
    for column in ("parameters", "M MACs", "flash KB", "RAM KB", "ms", "fits"):
        table.add_column(column, justify="right")
    results = {}
    with Console(stderr=True).status("") as status:
        for one in chosen:
            status.update(f"Evaluating {one}")
            network = BASELINES[one]()
            weights = random_weights(network, np.random.default_rng(seed))
            found = evaluate.of_graph(integer_graph(network, weights, seed=seed), network)
            results[one] = asdict(found)
            table.add_row(
                one,
                f"{found.parameters:,}",
                f"{found.macs / 1e6:.1f}",
                f"{found.flash_bytes / 1024:.0f}",
                f"{found.ram_bytes / 1024:.0f}",
                "-" if found.latency_ms is None else f"{found.latency_ms:.0f}",
                "no" if limits.exceeded(found) else "yes",
            )
    Console().print(table)
    if json:
        write_whole(json, (json_format.dumps(results, indent=1) + "\n").encode())
