"""What was covered, for people and for programs: a table, JSON, and a page with the sources."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from conformance.coverage.result import Coverage
from refsim.page import render_page

_PAGE = Path(__file__).with_name("page")


def table(coverage: Coverage) -> Table:
    """Lines and branches of each file; what is argued to be out of reach counts in neither."""
    made = Table("file", title=f"Coverage of the C kernels, {coverage.cases:,} cases of each operator")
    made.columns[0].no_wrap = True
    for column in ("lines", "outcomes", "argued"):
        made.add_column(column, justify="right", no_wrap=True)
    counts = {name: _counts(coverage, name) for name in coverage.files}
    total = tuple(sum(each) for each in zip(*counts.values(), strict=True))
    for name, (ran, lines, met, outcomes, argued) in [*counts.items(), ("all", total)]:
        cells = (_part(ran, lines), _part(met, outcomes), str(argued or ""))
        made.add_row(name, *cells, end_section=name == list(counts)[-1])
    made.caption = (
        f"{_percent(*total[:2])} of lines in reach, {_percent(*total[2:4])} of outcomes of conditions in reach"
    )
    return made


def assembly_table(coverage: Coverage) -> Table:
    """Instructions, and ways of branches, of each function in assembly."""
    cores = sorted({each.core for each in coverage.assembly})
    made = Table("assembly", title="Instructions executed, and ways that branches went")
    for core in cores:
        made.add_column(core, justify="right")
    for name in dict.fromkeys(each.name for each in coverage.assembly):
        found = {each.core: each.instructions.values() for each in coverage.assembly if each.name == name}
        cells = []
        for core in cores:
            instructions = found.get(core, ())
            ways = [way for i in instructions if len(i.ways) == 2 for way in i.ways]
            ran = f"{sum(i.executed for i in instructions)} of {len(instructions)}"
            cells.append(f"{ran}, {sum(map(bool, ways))} of {len(ways)}")
        made.add_row(name, *cells)
    return made


def as_json(coverage: Coverage) -> dict[str, Any]:
    """Everything, as JSON knows it."""
    names = ("lines_run", "lines", "outcomes_met", "outcomes", "outcomes_argued")
    return {
        "cases": coverage.cases,
        "places": coverage.places,
        "missed": coverage.missed(),
        "files": {
            name: dict(zip(names, _counts(coverage, name), strict=True))
            | {
                "executions": {str(line): count for line, count in sorted(file.lines.items())},
                "conditions": [
                    {
                        "place": place,
                        "function": b.function,
                        "condition": b.condition,
                        "true": b.taken[0],
                        "false": b.taken[1],
                    }
                    for place, b in sorted(file.branches.items())
                ],
            }
            for name, file in coverage.files.items()
        },
        "assembly": [
            {
                "function": each.name,
                "core": each.core,
                "file": each.file,
                "line": each.line,
                "instructions": [
                    {"offset": offset, "text": i.text, "executed": i.executed, "ways": list(i.ways)}
                    for offset, i in sorted(each.instructions.items())
                ],
            }
            for each in coverage.assembly
        ],
    }


def page(coverage: Coverage) -> str:
    """The sources, with what never ran marked, as a page that needs no network."""
    files = []
    for name, file in coverage.files.items():
        marks = [
            {"place": place, "outcome": outcome, "why": argument.why if argument else ""}
            for place, outcome, argument in coverage.missed_branches(name)
        ]
        files.append(
            {
                "name": name,
                "counts": _counts(coverage, name),
                "text": file.text,
                "lines": file.lines,
                "chip": sorted(file.chip),
                "missed": coverage.missed_lines(name),
                "marks": marks,
            }
        )
    data = {"cases": coverage.cases, "places": coverage.places, "missed": coverage.missed(), "files": files}
    data["assembly"] = as_json(coverage)["assembly"]
    style, script = (_PAGE.with_suffix(suffix).read_text("utf-8") for suffix in (".css", ".js"))
    return render_page("Coverage of the C kernels", data, style, script)


def _counts(coverage: Coverage, name: str) -> tuple[int, int, int, int, int]:
    """Lines that ran, lines in reach, outcomes met, outcomes in reach, outcomes argued to be out of reach."""
    file = coverage.files[name]
    missed = [argument for _, _, argument in coverage.missed_branches(name)]
    argued = sum(argument is not None for argument in missed)
    ran = sum(map(bool, file.lines.values()))
    outcomes = 2 * len(file.branches) - argued
    return ran, ran + len(coverage.missed_lines(name)), outcomes - (len(missed) - argued), outcomes, argued


def _part(part: int, whole: int) -> Text:
    return Text(f"{part:,} of {whole:,}", "" if part == whole else "red")


def _percent(part: int, whole: int) -> str:
    return "100 %" if part == whole else f"{min(100 * part / whole, 99.9):.1f} %"
