"""What became of the mutants: tallies by file, and every survivor as a diff."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from conformance.mutation.mutants import Mutant, files, mutants
from conformance.mutation.session import Result
from conformance.mutation.trial import ABSENT, KILLED, NOT_COMPILED, SAME_CODE, SURVIVED
from refsim.errors import DataError

ARGUMENTS = Path(__file__).parent / "equivalent.toml"


@dataclass(frozen=True)
class Tally:
    """Counts of a file's mutants, or of all.

    Attributes:
        killed, survived: by and of the suite.
        argued: survivors that compute the same bytes for a reason that is written down; not among the survived.
        same_code, absent, not_compiled: no faults at all.
        seconds: of CPU.
    """

    killed: int
    survived: int
    argued: int
    same_code: int
    absent: int
    not_compiled: int
    seconds: float

    @property
    def score(self) -> float | None:
        """Part of the mutants that are not equivalent that was killed; None where there are none."""
        faults = self.killed + self.survived
        return self.killed / faults if faults else None


def arguments(path: Path = ARGUMENTS) -> dict[str, str]:
    """Why a mutant is equivalent, by the mutant's name.

    Raises:
        DataError: the file cannot be read, or an entry lacks its reason.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])
        found = {}
        for entry in entries:
            again = entry.get("again", 0)
            changed = Mutant(entry["file"], 0, entry["function"], entry["old"], entry["new"], "", again)
            found[changed.name] = str(entry["why"])
        return found
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: {error}; an entry has file, function, old, new and why") from error


def tally(results: Iterable[Result], argued: Iterable[str]) -> Tally:
    """Count results.

    Args:
        results: what to count.
        argued: names of the mutants that are equivalent for a reason.
    """
    results, argued = list(results), set(argued)
    counts = Counter(
        "argued" if r.verdict.status == SURVIVED and r.mutant.name in argued else r.verdict.status for r in results
    )
    ordered = (KILLED, SURVIVED, "argued", SAME_CODE, ABSENT, NOT_COMPILED)
    killed, survived, equivalent, same_code, absent, not_compiled = (counts[status] for status in ordered)
    seconds = round(sum(r.seconds for r in results), 1)
    return Tally(killed, survived, equivalent, same_code, absent, not_compiled, seconds)


def stale(results: Sequence[Result], argued: Iterable[str]) -> list[str]:
    """What is wrong with the list of equivalent mutants: those that are killed or that are no mutants any more."""
    killed = {r.mutant.name: r for r in results if r.verdict.status == KILLED}
    there = {mutant.name for file in files() for mutant in mutants(file)}
    lines = []
    for name in argued:
        if name in killed:
            verdict = killed[name].verdict
            lines.append(f"{name} is listed as equivalent, but {verdict.how} at {verdict.place}")
        elif name not in there:
            lines.append(f"{name} is listed as equivalent, but there is no such mutant")
    return lines


def table(results: Sequence[Result], argued: Iterable[str]) -> Table:
    """The tallies by file."""
    argued = set(argued)
    made = Table(title="Mutants of the C kernels")
    made.add_column("file", no_wrap=True)
    for column in ("killed", "survived", "equivalent", "same code", "absent", "not compiled", "score", "CPU s"):
        made.add_column(column, justify="right")
    for file in (*files(), "all"):
        chosen = [r for r in results if file in (r.mutant.file, "all")]
        if chosen:
            t = tally(chosen, argued)
            score = "-" if t.score is None else f"{t.score:.1%}"
            counts = (t.killed, t.survived, t.argued, t.same_code, t.absent, t.not_compiled)
            made.add_row(Path(file).name, *(f"{n:,}" for n in counts), score, f"{t.seconds:,.0f}")
    return made


def as_json(results: Sequence[Result], argued: Iterable[str], notes: dict[str, Any]) -> dict[str, Any]:
    """Everything, as JSON knows it."""
    argued = set(argued)
    by_file = {file: tally([r for r in results if r.mutant.file == file], argued) for file in files()}
    return {
        **notes,
        "all": _numbers(tally(results, argued)),
        "files": {file: _numbers(t) for file, t in by_file.items()},
        "survivors": [_entry(r) for r in survivors(results, argued)],
        "killed_at": dict(Counter(r.verdict.place for r in results if r.verdict.status == KILLED)),
    }


def survivors(results: Sequence[Result], argued: Iterable[str]) -> list[Result]:
    """Those that are not argued, in the order of files and lines."""
    argued = set(argued)
    left = (r for r in results if r.verdict.status == SURVIVED and r.mutant.name not in argued)
    return sorted(left, key=lambda r: (r.mutant.file, r.mutant.line))


def page(results: Sequence[Result], argued: Iterable[str], notes: dict[str, Any]) -> str:
    """A page of Markdown: the score, and every survivor as a diff."""
    argued = set(argued)
    t = tally(results, argued)
    lines = ["# Mutants of the C kernels", "", ", ".join(f"{name}: {value}" for name, value in notes.items()), ""]
    lines += [f"Killed {t.killed:,}, survived {t.survived:,}, equivalent {t.argued:,}.", ""]
    for r in survivors(results, argued):
        m = r.mutant
        lines += [f"## {m.file}:{m.line}, {m.function}", "", f"`{m.name}`, rule `{m.rule}`", ""]
        lines += ["```diff", f"-{m.old}", f"+{m.new}", "```", ""]
    return "\n".join(lines)


def _numbers(t: Tally) -> dict[str, Any]:
    return {**t.__dict__, "score": t.score}


def _entry(r: Result) -> dict[str, Any]:
    kept = ("name", "file", "line", "function", "old", "new", "again")
    return {name: getattr(r.mutant, name) for name in kept}
