"""What a conformance run found: as tables for people and as JSON for programs."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from conformance.models import ModelOutcome
from conformance.relations.runner import RelationOutcome
from conformance.suite import Outcome

_COLUMNS = 4  # places side by side in one table, so that it fits a narrow terminal
_RATES = 5  # the same where a cell is a number


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
        not_run: what did not run and why.
        relations: outcomes.
    """

    profile: str
    seed: int
    places: dict[str, str] = field(default_factory=dict)
    operators: list[Outcome] = field(default_factory=list)
    models: list[ModelOutcome] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    relations: list[RelationOutcome] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Something ran, nothing differs, and nothing that had to run did not."""
        outcomes: list[Outcome | ModelOutcome] = [*self.operators, *self.models]
        failed = any(o.mismatches for o in outcomes) or any(o.broken for o in self.relations)
        return bool(outcomes or self.relations) and not failed and not any(entry.required for entry in self.not_run)

    def render(self) -> RenderableType:
        """The tables."""
        parts: list[RenderableType] = []
        if self.operators:
            places = list(dict.fromkeys(o.place for o in self.operators))
            groups = (places[start : start + _COLUMNS] for start in range(0, len(places), _COLUMNS))
            parts += [*(_operator_table(self.operators, group) for group in groups), _place_table(self)]
            groups = (places[start : start + _RATES] for start in range(0, len(places), _RATES))
            parts += [_rate_table(self.operators, group) for group in groups]
        if self.relations:
            parts.append(_relation_table(self.relations))
        if self.models:
            parts.append(_model_table(self.models))
            for model in dict.fromkeys(o.model for o in self.models):
                counted = [o for o in self.models if o.model == model and o.instructions]
                parts += [_instruction_table(model, counted)] if counted else []
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


def _operator_table(outcomes: Sequence[Outcome], places: Sequence[str]) -> Table:
    cells: dict[str, dict[str, Text]] = {}
    for o in outcomes:
        cells.setdefault(o.operator, {})[o.place] = _differing(o.mismatches, o.cases)
    table = Table("operator", title="Kernels: cases that differ from the golden model")
    for place in places:
        table.add_column(place, justify="right")
    for operator, row in cells.items():
        table.add_row(operator, *(row[place] for place in places))
    return table


def _rate_table(outcomes: Sequence[Outcome], places: Sequence[str]) -> Table:
    rates = {(o.operator, o.place): f"{o.cases / o.seconds:,.0f}" for o in outcomes if o.seconds}
    table = Table("operator", title="Kernels: cases a second")
    for place in places:
        table.add_column(place.removeprefix("cortex-"), justify="right")
    for operator in dict.fromkeys(o.operator for o in outcomes):
        table.add_row(operator, *(rates.get((operator, place), "-") for place in places))
    return table


def _place_table(report: Report) -> Table:
    table = Table("place", "built with")
    for column in ("differ", "seconds", "cases/s"):
        table.add_column(column, justify="right")
    for place, detail in report.places.items():
        outcomes = [o for o in report.operators if o.place == place]
        cases, seconds = sum(o.cases for o in outcomes), sum(o.seconds for o in outcomes)
        rate = f"{cases / seconds:,.0f}" if seconds else "-"
        table.add_row(place, detail, _differing(sum(o.mismatches for o in outcomes), cases), f"{seconds:.1f}", rate)
    return table


def _relation_table(outcomes: Sequence[RelationOutcome]) -> Table:
    """The relations, each over all its subjects; "-" where an engine had nothing to compare."""
    engines = list(dict.fromkeys(o.engine for o in outcomes))
    table = Table("relation", title="Relations: cases for which they do not hold")
    for engine in engines:
        table.add_column(engine, justify="right")
    for relation in dict.fromkeys(o.relation for o in outcomes):
        cells = []
        for engine in engines:
            found = [o for o in outcomes if (o.relation, o.engine) == (relation, engine)]
            tried = any(o.pairs or o.broken for o in found)
            cells.append(_differing(sum(o.broken for o in found), sum(o.cases for o in found)) if tried else "-")
        table.add_row(relation, *cells)
    return table


def _model_table(outcomes: Sequence[ModelOutcome]) -> Table:
    name = Column("model", overflow="fold")
    table = Table(name, "place", title="Models: samples with a byte that differs in any tensor")
    for column in ("tensors", "differ", "stack", "ms"):
        table.add_column(column, justify="right")
    for o in outcomes:
        milliseconds = 1000 * o.seconds / max(o.samples, 1)
        stack = f"{o.stack_bytes:,}" if o.stack_bytes else "-"
        differ = _differing(o.mismatches, o.samples)
        table.add_row(escape(o.model), o.place, str(o.tensors), differ, stack, f"{milliseconds:,.1f}")
    return table


def _instruction_table(model: str, outcomes: Sequence[ModelOutcome]) -> Table:
    """Instructions of each operator at each place, most first, and its share at the first place."""
    table = Table("operator", title=f"{escape(model)}: thousands of instructions a sample")
    for o in outcomes:
        table.add_column(o.place.removeprefix("cortex-"), justify="right")
    table.add_column("share", justify="right")
    operators = dict.fromkeys(operator for o in outcomes for operator in o.operators)
    sums = {operator: [_instructions_of(operator, o) for o in outcomes] for operator in operators}
    for operator, totals in sorted(sums.items(), key=lambda item: -item[1][0]):
        share = f"{totals[0] / outcomes[0].total_instructions:.1%}"
        table.add_row(operator, *(f"{n / 1000:,.1f}" if n else "-" for n in totals), share)
    table.add_section()
    table.add_row("all", *(f"{o.total_instructions / 1000:,.1f}" for o in outcomes), "100.0%")
    return table


def _instructions_of(operator: str, outcome: ModelOutcome) -> float:
    return sum(n for n, name in zip(outcome.instructions, outcome.operators, strict=True) if name == operator)


def _failures(report: Report) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for o in report.operators:
        if o.mismatches:
            lines.append(Text(f"{o.operator} at {o.place}: {o.message}", "red"))
            lines.append(Text(f"    again with: tinyformer conformance --replay {o.vector}", "dim"))
    for r in report.relations:
        if r.broken:
            lines.append(Text(f"{r.relation} by {r.engine}: {r.message}", "red"))
            again = f"--replay {r.vector}" if r.vector else f"--relation {r.relation} --seed {r.seed}"
            lines.append(Text(f"    again with: tinyformer conformance {again}", "dim"))
    lines += [Text(f"{m.model} at {m.place}: {m.message}", "red") for m in report.models if m.mismatches]
    return lines


def _differing(mismatches: int, of: int) -> Text:
    return Text(f"{mismatches} of {of:,}", "bold red" if mismatches else "green")
