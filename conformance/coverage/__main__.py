"""`python -m conformance.coverage`: which lines and branches of the C kernels the `ci` profile's cases reach."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from conformance.console import progress_bar, write_whole
from conformance.coverage import report
from conformance.coverage.chips import Chips
from conformance.coverage.host import Counters, paths
from conformance.coverage.result import Coverage, SourceFile, arguments
from conformance.places import Library
from conformance.runner import choose_operators
from conformance.suite import run_operator
from refsim.errors import ConformanceError, TinyFormerError


def main() -> None:
    """Print the tables; exit with 1 where something in reach was missed, with 2 where nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m conformance.coverage", description=__doc__)
    parser.add_argument("--cases", type=int, default=400, help="of each operator; the ci profile's are 400")
    parser.add_argument("--seed", type=int, default=0, help="of the cases; the ci profile's is 0")
    parser.add_argument("--operator", action="append", default=[], help="draw cases of this one alone; may be repeated")
    parser.add_argument("--folder", type=Path, default=Path("coverage"), help="of coverage.json and coverage.html")
    options = parser.parse_args()
    console = Console()
    try:
        coverage = measure(Library(), choose_operators(options.operator), options.cases, options.seed, options.folder)
        write_whole(options.folder / "coverage.json", json.dumps(report.as_json(coverage), indent=1) + "\n")
        write_whole(options.folder / "coverage.html", report.page(coverage))
    except TinyFormerError as error:
        Console(stderr=True).print(Text(f"error: {error}", "red"))
        sys.exit(2)
    console.print(report.table(coverage), report.assembly_table(coverage))
    missed = coverage.missed()
    for line in missed:
        console.print(Text(line, "red"), soft_wrap=True)
    console.print(f"The sources with what never ran: {options.folder / 'coverage.html'}")
    sys.exit(bool(missed))


def measure(library: Library, operators: Sequence[str], cases: int, seed: int, failures: Path) -> Coverage:
    """Run the cases on instrumented builds and on chips.

    Args:
        library: the sources.
        operators: names.
        cases: of each.
        seed: of the cases.
        failures: folder for a case that differs, if one does.

    Raises:
        ToolchainError: a tool is missing.
        ConformanceError: a kernel is wrong.
        DataError: the file of arguments is not as it should be.
    """
    argued = arguments()
    files = {name: SourceFile(path.read_text(encoding="utf-8").split("\n")) for name, path in paths(library).items()}
    with TemporaryDirectory() as folder, progress_bar() as progress:
        task = progress.add_task("building", total=cases * len(operators))
        counters, chips = Counters(library, Path(folder)), Chips(library)
        places = [*counters.places, *chips.places]
        try:
            for operator in operators:
                progress.update(task, description=operator)
                outcomes = run_operator(
                    operator, places, count=cases, seed=seed, failures=failures, progress=lambda: progress.advance(task)
                )
                for outcome in outcomes:
                    if outcome.mismatches:
                        raise ConformanceError(f"{operator} at {outcome.place}: {outcome.message}")
        finally:
            for place in places:
                place.close()
        counters.read(files)
        assembly = chips.read(files)
    return Coverage(files, assembly, argued, cases, [f"{place.name}: {place.detail}" for place in places])


if __name__ == "__main__":
    main()
