"""What a conformance run found: as tables for people and as JSON for programs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from conformance.models import ModelOutcome
from conformance.suite import Outcome


@dataclass(frozen=True)
class NotRun:
    """Something that did not run.

    Attributes:
        what: a place's name, or "model at place".
        reason: one line.
        required: it was asked for or belongs to the profile, so that the run has failed.
    """

    what: str
    reason: str
    required: bool


@dataclass
class Report:
    """Everything that a run found, filled as it goes.

    Attributes:
        profile, seed: of the run.
        places: the compiler and options of each place that ran.
        operators: outcomes.
        models: outcomes.
        layers: operator of each step of a model, by the model's name.
        not_run: what did not run and why.
    """

    profile: str
    seed: int
    places: dict[str, str] = field(default_factory=dict)
    operators: list[Outcome] = field(default_factory=list)
    models: list[ModelOutcome] = field(default_factory=list)
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Something ran, nothing differs, and nothing that had to run did not."""
        outcomes: list[Outcome | ModelOutcome] = [*self.operators, *self.models]
        failed = any(o.mismatches for o in outcomes) or any(entry.required for entry in self.not_run)
        return bool(outcomes) and not failed

    def render(self) -> RenderableType:
        """The tables."""
        parts: list[RenderableType] = []
        if self.operators:
            parts += [_operator_table(self.operators), _place_table(self)]
        if self.models:
            parts += [_model_table(self.models)]
            parts += [_instruction_table(o, self.layers[o.model]) for o in _counted(self.models)]
        parts += [Text(f"not run: {entry.what}: {entry.reason}", "yellow") for entry in self.not_run]
        parts += _failures(self)
        return Group(*parts)

    def as_json(self) -> str:
        """Everything, indented."""

        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return str(value)
            return dataclasses.asdict(value)

        return json.dumps(self, default=plain, indent=2) + "\n"


def _operator_table(outcomes: Sequence[Outcome]) -> Table:
    places = list(dict.fromkeys(o.place for o in outcomes))
    cells: dict[str, dict[str, Text]] = {}
    for o in outcomes:
        cell = Text(f"{o.mismatches} of {o.cases}", "bold red") if o.mismatches else Text(f"0 of {o.cases}", "green")
        cells.setdefault(o.operator, {})[o.place] = cell
    table = Table("operator", title="Kernels: cases that differ from the golden model")
    for place in places:
        table.add_column(place, justify="right")
    for operator, row in cells.items():
        table.add_row(operator, *(row.get(place, Text("-")) for place in places))
    return table


def _place_table(report: Report) -> Table:
    table = Table("place", "built with")
    for column in ("cases", "mismatches", "seconds", "cases/s"):
        table.add_column(column, justify="right")
    for place, detail in report.places.items():
        outcomes = [o for o in report.operators if o.place == place]
        cases, seconds = sum(o.cases for o in outcomes), sum(o.seconds for o in outcomes)
        rate = f"{cases / seconds:,.0f}" if seconds else "-"
        table.add_row(place, detail, f"{cases:,}", _count(sum(o.mismatches for o in outcomes)), f"{seconds:.1f}", rate)
    return table


def _model_table(outcomes: Sequence[ModelOutcome]) -> Table:
    table = Table("model", "place", title="Models: samples that differ from the golden model, all tensors compared")
    for column in ("samples", "tensors", "mismatches", "instructions a sample", "stack, bytes", "ms a sample"):
        table.add_column(column, justify="right")
    for o in outcomes:
        table.add_row(
            o.model,
            o.place,
            str(o.samples),
            str(o.tensors),
            _count(o.mismatches),
            f"{o.total_instructions:,.0f}" if o.instructions else "-",
            f"{o.stack_bytes:,}" if o.stack_bytes else "-",
            f"{1000 * o.seconds / max(o.samples, 1):,.1f}",
        )
    return table


def _counted(outcomes: Sequence[ModelOutcome]) -> list[ModelOutcome]:
    return [o for o in outcomes if o.instructions]


def _instruction_table(outcome: ModelOutcome, layers: Sequence[str]) -> Table:
    table = Table("operator", title=f"Instructions of {outcome.model} on {outcome.place}")
    for column in ("layers", "instructions a sample", "share"):
        table.add_column(column, justify="right")
    for operator, (count, total) in _by_operator(outcome, layers).items():
        table.add_row(operator, str(count), f"{total:,.0f}", f"{total / outcome.total_instructions:.1%}")
    table.add_section()
    table.add_row("all", str(len(layers)), f"{outcome.total_instructions:,.0f}", "100.0%")
    return table


def _by_operator(outcome: ModelOutcome, layers: Sequence[str]) -> Mapping[str, tuple[int, float]]:
    sums: dict[str, tuple[int, float]] = {}
    for operator, instructions in zip(layers, outcome.instructions, strict=True):
        count, total = sums.get(operator, (0, 0.0))
        sums[operator] = (count + 1, total + instructions)
    return dict(sorted(sums.items(), key=lambda item: -item[1][1]))


def _failures(report: Report) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for o in report.operators:
        if o.mismatches:
            lines.append(Text(f"{o.operator} at {o.place}: {o.message}", "red"))
            lines.append(Text(f"    again with: tinyformer conformance --replay {o.vector}", "dim"))
    lines += [Text(f"{m.model} at {m.place}: {m.message}", "red") for m in report.models if m.mismatches]
    return lines


def _count(mismatches: int) -> Text:
    return Text(str(mismatches), "bold red" if mismatches else "green")
