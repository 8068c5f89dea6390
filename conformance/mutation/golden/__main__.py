"""`python -m conformance.mutation.golden`: small faults in the golden model; does the second opinion find each?"""

import argparse
import gc
import hashlib
import multiprocessing
import os
import random
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.console import progress_bar, write_whole
from conformance.mutation.golden.mutants import ROOT, files, source, spots
from conformance.mutation.golden.trial import (
    COMPILED,
    INTERPRETED,
    TESTS,
    UNIT_TESTS,
    Corpus,
    collect,
    dependents,
    judge,
    load_interpreted,
)
from conformance.mutation.mutants import Mutant
from conformance.mutation.report import arguments
from conformance.mutation.session import Record, Result
from conformance.mutation.trial import KILLED, NOT_COMPILED, SURVIVED
from refsim.errors import ConformanceError, TinyFormerError
from refsim.ops import OPERATORS

ARGUMENTS = Path(__file__).with_name("equivalent.toml")


def main() -> None:
    """Print the score; exit with 1 where a mutant survives that is not argued equivalent, or the list is wrong."""
    parser = argparse.ArgumentParser(prog="python -m conformance.mutation.golden", description=__doc__)
    add = parser.add_argument
    add("--file", action="append", default=[], help="mutate this file alone, say ops/softmax.py; may be repeated")
    add("--sample", type=int, default=0, help="try so many of the mutants, drawn at random; 0 for all")
    add("--seed", type=int, default=0, help="of the sample")
    add("--cases", type=int, default=400, help="of each operator; the ci profile's are 400")
    add("--interpreted", action="store_true", help="compile none, which takes most of the time")
    add("--thorough", action="store_true", help="compile also those that are argued equivalent")
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
    mutants = [spot.mutant() for spot in chosen]
    argued, record = arguments(ARGUMENTS), Record(options.folder / "results.jsonl")
    results: list[Result] = []
    with progress_bar() as progress:
        affected = {module for mutant in mutants for module in dependents(mutant.file)}
        operators = [name for name in OPERATORS if f"refsim.ops.{name}" in affected]
        task = progress.add_task("drawing cases", total=len(operators))
        corpus = collect(operators, options.cases, 0, lambda: progress.advance(task))
        progress.reset(task, total=len(mutants), description="mutants")
        uncompiled = [name for name in argued if not options.thorough]
        if options.interpreted:
            uncompiled = [mutant.name for mutant in mutants]
        for result in _try_all(mutants, corpus, record, options.jobs, set(uncompiled)):
            results.append(result)
            alive = sum(r.verdict.status == SURVIVED for r in results)
            progress.update(task, advance=1, description=f"mutants, {alive} alive")
    left = [r for r in results if r.verdict.status == SURVIVED and r.mutant.name not in argued]
    write_whole(options.folder / "survivors.md", _page(left))
    console = Console()
    console.print(f"{len(mutants):,} of {every:,} mutants")
    console.print(_table(results, argued))
    killed = {r.mutant.name for r in results if r.verdict.status == KILLED}
    wrong = [name for name in argued if name in killed]
    for name in wrong:
        console.print(Text(f"{name} is listed as equivalent, but it is killed", "red"))
    if left:
        console.print(f"{len(left)} survivors, each as a diff: {options.folder / 'survivors.md'}")
    return int(bool(left or wrong))


def _try_all(
    mutants: Sequence[Mutant], corpus: Corpus, record: Record, jobs: int, uncompiled: Collection[str]
) -> Iterator[Result]:
    """Try mutants, but for those that the record knows; each result is recorded."""
    folder = ROOT.parent / "tests" / "refsim"
    golden, tests = [source(file) for file in files()], [(folder / name).read_text("utf-8") for name in TESTS]
    definition = _digest(repr((corpus.cases, corpus.values)), *golden)
    works = []
    for mutant in mutants:
        compiled = mutant.name not in uncompiled
        # What the definition found has not seen the tests: another test leaves it as it is.
        parts = ((), tests, (*tests, str(compiled)))
        work = _Work(mutant, compiled, *(_digest(mutant.name, definition, *more) for more in parts))
        known = next((key for key in work[2:] if key in record.results), None)
        if known:
            yield record.results[known]
        else:
            works.append(work)
    with multiprocessing.get_context("fork").Pool(min(jobs, len(works)) or 1, _begin, (corpus,)) as pool:
        # No fault at all must survive, wherever it is not.
        for file, compiled in (("numerics.py", False), ("ops/requantize.py", any(work.compiled for work in works))):
            line = source(file).split("\n")[0]
            unchanged = _Work(Mutant(file, 1, "", line, line, ""), compiled, "", "", "")
            verdict = pool.apply(_try, (unchanged,)).verdict
            if verdict.status != SURVIVED:
                raise ConformanceError(f"the golden model as it is fails: {verdict.how} at {verdict.place}")
        for result in pool.imap_unordered(_try, works):
            record.add(result)
            yield result


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _Work(NamedTuple):
    """A mutant, whether to compile it, and the keys of what the definition finds, the tests find, and nothing finds."""

    mutant: Mutant
    compiled: bool
    by_definition: str
    by_tests: str
    by_nothing: str


_corpus: Corpus


def _begin(corpus: Corpus) -> None:
    global _corpus  # noqa: PLW0603 - a process of the pool has no other place for what it keeps
    _corpus = corpus
    load_interpreted()
    gc.freeze()  # so that the mutants' processes leave the memory shared


def _try(work: _Work) -> Result:
    before = os.times()
    verdict = judge(work.mutant, _corpus, compiled=work.compiled)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    keys = {INTERPRETED: work.by_definition, COMPILED: work.by_definition, UNIT_TESTS: work.by_tests}
    return Result(work.mutant, verdict, keys.get(verdict.place, work.by_nothing), round(spent, 2))


def _table(results: Sequence[Result], argued: Iterable[str]) -> Table:
    made = Table("file", title="Mutants of the golden model")
    for column in (INTERPRETED, COMPILED, "tests", "survived", "equivalent", "no code", "score", "CPU s"):
        made.add_column(column, justify="right")
    argued = set(argued)
    for file in (*files(), ""):
        of_file = [r for r in results if r.mutant.file == file or not file]
        counts = Counter(
            r.verdict.place if r.verdict.status == KILLED else "argued" if r.mutant.name in argued else r.verdict.status
            for r in of_file
        )
        killed = counts[INTERPRETED] + counts[COMPILED] + counts[UNIT_TESTS]
        faults = killed + counts[SURVIVED]
        if of_file:
            kinds = (INTERPRETED, COMPILED, UNIT_TESTS, SURVIVED, "argued", NOT_COMPILED)
            numbers = (*(counts[kind] for kind in kinds),)
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
