"""`python -m conformance.proofs`: prove every theorem, then try what is tried; `--quick` tries a part alone."""

import argparse
import sys
import time
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from conformance.proofs.bounds import BOUNDS
from conformance.proofs.c_semantics import Program
from conformance.proofs.exhaustive import DOMAINS, Trial
from conformance.proofs.prove import prove
from conformance.proofs.theorems import THEOREMS

QUICK = 4001
"""With --quick only every so many-th argument is tried."""


def main() -> None:
    """Print what holds; exit with 1 where something does not."""
    parser = argparse.ArgumentParser(prog="python -m conformance.proofs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"try every {QUICK}th argument, which proves nothing")
    step = QUICK if parser.parse_args().quick else 1
    title = "The primitives in C against docs/numerics.md, and the bounds of every operator"
    table = Table("primitive or operators", "domain", "method", "holds", title=title)
    table.add_column("seconds", justify="right")
    failures: list[str] = []
    with Console(stderr=True).status("") as status:
        for proof in prove((*THEOREMS, *BOUNDS), Program(), progress=status.update):
            held = Text("no", "bold red") if proof.failure else Text("yes", "green")
            method = f"SMT, {proof.queries} queries"
            table.add_row(proof.theorem.function, proof.theorem.domain, method, held, f"{proof.seconds:.1f}")
            failures += [f"{proof.theorem.function}: {proof.failure}"] if proof.failure else []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        trial = Trial()
        for domain in DOMAINS:
            task = progress.add_task(f"trying tnf_{domain.function}", total=domain.count)
            start = time.perf_counter()
            wrong = trial.wrong(domain, step, partial(progress.advance, task))
            seconds = time.perf_counter() - start
            held = Text(f"{wrong:,} differ", "bold red") if wrong else Text("yes", "green")
            method = "every argument" if step == 1 else f"every {step:,}th argument"
            table.add_row(f"tnf_{domain.function}", domain.words, method, held, f"{seconds:.1f}")
            failures += [f"tnf_{domain.function}: {wrong:,} arguments differ"] if wrong else []
            progress.remove_task(task)
    console = Console()
    console.print(table)
    for failure in failures:
        console.print(Text(failure, "red"))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
