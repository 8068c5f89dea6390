"""`python -m conformance.mutation.golden`: small faults in the golden model; does the second opinion find each?"""

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.console import progress_bar, write_whole
from conformance.mutation.golden.mutants import ROOT, Spot, files, source, spots
from conformance.mutation.golden.trial import TESTS, Corpus, collect, dependents, judge
from conformance.mutation.mutants import Mutant
from conformance.mutation.report import arguments
from conformance.mutation.session import Record, Result
from conformance.mutation.trial import KILLED, NOT_COMPILED, SURVIVED
from refsim.errors import ConformanceError, TinyFormerError
from refsim.ops import OPERATORS

ARGUMENTS = Path(__file__).with_name("equivalent.toml")

_FIRST = source("ops/requantize.py").split("\n")[0]
UNCHANGED = Mutant("ops/requantize.py", 1, "", _FIRST, _FIRST, "")
"""No mutant at all: it must survive."""


def main() -> None:
    """Print the score; exit with 1 where a mutant survives that is not argued equivalent, or the list is wrong."""
    parser = argparse.ArgumentParser(prog="python -m conformance.mutation.golden", description=__doc__)
    add = parser.add_argument
    add("--file", action="append", default=[], help="mutate this file alone, say ops/softmax.py; may be repeated")
    add("--sample", type=int, default=0, help="try so many of the mutants, drawn at random; 0 for all")
    add("--seed", type=int, default=0, help="of the sample")
    add("--cases", type=int, default=400, help="of each operator; the ci profile's are 400")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    add("--folder", type=Path, default=Path("mutation-golden"), help="of results.jsonl and survivors.md")
    try:
        sys.exit(_run(parser.parse_args()))
    except TinyFormerError as error:
        Console(stderr=True).print(Text(f"error: {error}", "red"))
        sys.exit(2)


def _run(options: argparse.Namespace) -> int:
    if not hasattr(os, "fork"):
        raise TinyFormerError("mutants run in forked processes, which this system has not: use Linux or macOS")
    unknown = [file for file in options.file if file not in files()]
    if unknown:
        raise TinyFormerError(f"there is no file {unknown[0]!r}; there are {', '.join(files())}")
    chosen = [spot for file in options.file or files() for spot in spots(file)]
    every = len(chosen)
    if options.sample and options.sample < every:
        order = sorted(random.Random(options.seed).sample(range(every), options.sample))  # noqa: S311 - no secret
        chosen = [chosen[index] for index in order]
    argued, record = arguments(ARGUMENTS), Record(options.folder / "results.jsonl")
    results: list[Result] = []
    with progress_bar() as progress:
        affected = {module for spot in chosen for module in dependents(spot.file)}
        operators = [name for name in OPERATORS if f"refsim.ops.{name}" in affected]
        task = progress.add_task("drawing cases", total=len(operators))
        corpus = collect(operators, options.cases, 0, lambda: progress.advance(task))
        progress.reset(task, total=len(chosen), description="mutants")
        for result in _try_all(chosen, corpus, record, options.jobs):
            results.append(result)
            alive = sum(r.verdict.status == SURVIVED for r in results)
            progress.update(task, advance=1, description=f"mutants, {alive} alive")
    left = [r for r in results if r.verdict.status == SURVIVED and r.mutant.name not in argued]
    write_whole(options.folder / "survivors.md", _page(left))
    console = Console()
    console.print(f"{len(chosen):,} of {every:,} mutants")
    console.print(_table(results, argued))
    killed = {r.mutant.name for r in results if r.verdict.status == KILLED}
    wrong = [name for name in argued if name in killed]
    for name in wrong:
        console.print(Text(f"{name} is listed as equivalent, but it is killed", "red"))
    if left:
        console.print(f"{len(left)} survivors, each as a diff: {options.folder / 'survivors.md'}")
    return int(bool(left or wrong))


def _try_all(chosen: Sequence[Spot], corpus: Corpus, record: Record, jobs: int) -> Iterator[Result]:
    """Try mutants, but for those that the record knows; each result is recorded."""
    folder = ROOT.parent / "tests" / "refsim"
    parts = [source(file) for file in files()] + [(folder / name).read_text("utf-8") for name in TESTS]
    suite = hashlib.sha256("\0".join(parts).encode() + b"\0".join(corpus.cases.values())).hexdigest()
    keyed = []
    for spot in chosen:
        mutant = spot.mutant()
        key = hashlib.sha256(f"{suite} {mutant.name}".encode()).hexdigest()[:16]
        if key in record.results:
            yield record.results[key]
        else:
            keyed.append((mutant, key))
    with multiprocessing.get_context("fork").Pool(min(jobs, len(keyed)) or 1, _begin, (corpus,)) as pool:
        verdict = pool.apply(_try, ((UNCHANGED, ""),)).verdict
        if verdict.status != SURVIVED:
            raise ConformanceError(f"the golden model as it is fails: {verdict.how} at {verdict.place}")
        for result in pool.imap_unordered(_try, keyed):
            record.add(result)
            yield result


_corpus: Corpus


def _begin(corpus: Corpus) -> None:
    global _corpus  # noqa: PLW0603 - a process of the pool has no other place for what it keeps
    _corpus = corpus


def _try(work: tuple[Mutant, str]) -> Result:
    mutant, key = work
    before = os.times()
    verdict = judge(mutant, _corpus)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Result(mutant, verdict, key, round(spent, 2))


def _table(results: Sequence[Result], argued: Iterable[str]) -> Table:
    made = Table("file", title="Mutants of the golden model")
    for column in ("definition", "tests", "survived", "equivalent", "no code", "score", "CPU s"):
        made.add_column(column, justify="right")
    argued = set(argued)
    for file in (*files(), ""):
        of_file = [r for r in results if r.mutant.file == file or not file]
        counts = Counter(
            r.verdict.place if r.verdict.status == KILLED else "argued" if r.mutant.name in argued else r.verdict.status
            for r in of_file
        )
        killed = counts["definition"] + counts["tests/refsim"]
        faults = killed + counts[SURVIVED]
        if of_file:
            numbers = (*(counts[n] for n in ("definition", "tests/refsim", SURVIVED, "argued", NOT_COMPILED)),)
            score = f"{killed / faults:.1%}" if faults else "-"
            made.add_row(file or "all", *map(str, numbers), score, f"{sum(r.seconds for r in of_file):,.0f}")
    return made


def _page(left: Sequence[Result]) -> str:
    lines = ["# Survivors", ""]
    for r in sorted(left, key=lambda r: (r.mutant.file, r.mutant.line)):
        m = r.mutant
        lines += [f"## {m.file}:{m.line}, {m.function}", "", f"`{m.rule}`, again {m.again}", ""]
        lines += ["```diff", f"-{m.old}", f"+{m.new}", "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
