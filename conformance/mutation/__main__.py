"""`python -m conformance.mutation`: make small faults in the C kernels and see of how many the suite finds each."""

import argparse
import json
import os
import random
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from conformance.console import write_whole
from conformance.mutation import report
from conformance.mutation.corpus import collect
from conformance.mutation.mutants import Mutant, files, mutants
from conformance.mutation.session import Record, try_all
from conformance.mutation.trial import SURVIVED, kernels_with
from conformance.primitives import PRIMITIVES
from refsim.errors import TinyFormerError
from refsim.ops import OPERATORS


def main() -> None:
    """Print the score; exit with 1 where a mutant survives without an argument, or an argument is stale."""
    options = _options()
    try:
        sys.exit(_run(options))
    except TinyFormerError as error:
        Console(stderr=True).print(Text(f"error: {error}", "red"))
        sys.exit(2)


def _run(options: argparse.Namespace) -> int:
    if not hasattr(os, "fork"):
        raise TinyFormerError("mutants run in forked processes, which this system has not: use Linux or macOS")
    argued = report.arguments()
    record = Record(options.folder / "results.jsonl")
    done = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), *done)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("drawing cases", total=len(OPERATORS) + 1)
        corpus = collect([*OPERATORS, PRIMITIVES], options.cases, options.suite_seed, lambda _: progress.advance(task))
        chosen = [m for m in _chosen(options, record) if kernels_with(m, corpus)]
        progress.reset(task, total=len(chosen), description="mutants")
        results = []
        for result in try_all(chosen, corpus, record, options.jobs):
            results.append(result)
            alive = sum(r.verdict.status == SURVIVED for r in results)
            progress.update(task, advance=1, description=f"mutants, {alive} alive")
    notes = {name: getattr(options, name) for name in ("cases", "suite_seed", "sample", "seed")}
    notes["mutants"] = len(results)
    write_whole(options.folder / "report.json", json.dumps(report.as_json(results, argued, notes), indent=1) + "\n")
    write_whole(options.folder / "survivors.md", report.page(results, argued, notes))
    console = Console()
    console.print(report.table(results, argued))
    left, stale = report.survivors(results, argued), report.stale(results, argued)
    for line in stale:
        console.print(Text(line, "red"))
    if left:
        console.print(f"{len(left)} survivors, each as a diff: {options.folder / 'survivors.md'}")
    return int(bool(left or stale))


def _chosen(options: argparse.Namespace, record: Record) -> list[Mutant]:
    unknown = [file for file in options.file if file not in files()]
    if unknown:
        raise TinyFormerError(f"there is no file {unknown[0]!r}; there are {', '.join(files())}")
    stems = {f"src/{operator}{kind}.c" for operator in options.operator for kind in ("", "_dsp", "_sparse")}
    named = {*options.file, *stems}
    chosen = [mutant for file in files() if file in named or not named for mutant in mutants(file)]
    if options.survivors:
        alive = {r.mutant.name for r in record.results.values() if r.verdict.status == SURVIVED}
        chosen = [mutant for mutant in chosen if mutant.name in alive]
    if options.sample:
        chosen = random.Random(options.seed).sample(chosen, min(options.sample, len(chosen)))  # noqa: S311 - no secret
    return chosen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance.mutation", description=__doc__)
    add = parser.add_argument
    add("--file", action="append", default=[], help="mutate this file alone, say src/softmax.c; may be repeated")
    add("--operator", action="append", default=[], choices=list(OPERATORS), help="mutate this operator's sources alone")
    add("--sample", type=int, default=0, help="try so many of the mutants, drawn at random, in that order; 0 for all")
    add("--seed", type=int, default=0, help="of the sample")
    add("--survivors", action="store_true", help="try those alone that survived in the folder's results")
    add("--cases", type=int, default=400, help="of each operator; the ci profile's are 400")
    add("--suite-seed", type=int, default=0, help="of the cases; the ci profile's is 0")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    add("--folder", type=Path, default=Path("mutation"), help="of results.jsonl, report.json and survivors.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
