"""Run a suite on another engine: a command that reads a case's folder and writes outputs, held to every byte."""

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from conformance.comparison import difference
from conformance.exchange.export import DESCRIPTOR, INDEX, VERSION
from refsim.errors import DataError

REFUSED, UNSUPPORTED = 3, 4
"""Exit codes by which an engine refuses a descriptor as illegal, or says that it cannot run it."""

_SHOWN = 20  # failures below the table


class Verdict(StrEnum):
    """What became of a case."""

    EQUAL = "equal"
    REFUSED = "refused, rightly"
    UNSUPPORTED = "not supported"
    DIFFERS = "differs"


_STYLES = {Verdict.EQUAL: "green", Verdict.REFUSED: "green", Verdict.UNSUPPORTED: "yellow", Verdict.DIFFERS: "bold red"}


@dataclass(frozen=True)
class Result:
    """A case and what became of it.

    Attributes:
        case: its path in the suite.
        verdict: see there.
        message: one line; empty where all is well.
    """

    case: str
    verdict: Verdict
    message: str = ""


@dataclass
class Trial:
    """An engine's results.

    Attributes:
        results: one a case.
    """

    results: list[Result] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Something was computed and nothing differs. What an engine does not support is not held against it."""
        verdicts = {result.verdict for result in self.results}
        return Verdict.EQUAL in verdicts and Verdict.DIFFERS not in verdicts

    def render(self) -> RenderableType:
        """A table by operator and model, and the failures."""
        counts: dict[str, Counter[Verdict]] = {}
        for result in self.results:
            counts.setdefault(result.case.rpartition("/")[0], Counter())[result.verdict] += 1
        table = Table("operator", *(verdict.value for verdict in Verdict))
        for column in table.columns[1:]:
            column.justify = "right"
        for name, row in counts.items():
            cells = [Text(f"{row[v]:,}" if row[v] else "-", _STYLES[v] if row[v] else "dim") for v in Verdict]
            table.add_row(name, *cells)
        failed = [r for r in self.results if r.verdict is Verdict.DIFFERS]
        lines = [Text(f"{r.case}: {r.message}", "red") for r in failed[:_SHOWN]]
        rest = [Text(f"and {len(failed) - _SHOWN} more", "red")] if len(failed) > _SHOWN else []
        return Group(table, *lines, *rest)

    def as_json(self) -> str:
        """Every result."""
        rows = [{"case": r.case, "verdict": r.verdict.name.lower(), "message": r.message} for r in self.results]
        return json.dumps({"version": VERSION, "passed": self.passed, "results": rows}, indent=2) + "\n"


def read_index(suite: Path) -> list[str]:
    """The paths of a suite's cases.

    Raises:
        DataError: the folder holds no suite of this version.
    """
    try:
        index = json.loads((suite / INDEX).read_text(encoding="utf-8"))
        if (index["format"], index["version"]) != ("tinyformer-vectors", VERSION):
            raise DataError(f"{suite}: this program reads suites of version {VERSION}, found {index['version']}")
        return [str(path) for path in index["cases"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{suite} holds no suite ({error}); `tinyformer vectors export` writes one") from error


def run(suite: Path, command: Sequence[str], *, timeout: float, progress: Callable[[], None] = lambda: None) -> Trial:
    """Give every case of a suite to an engine.

    Args:
        suite: its folder.
        command: the engine; a case's folder and an empty folder for its outputs follow as two more arguments.
        timeout: seconds for one case.
        progress: called after each case.

    Raises:
        DataError: the suite is unreadable, or the command cannot be started.
    """
    trial = Trial()
    for name in read_index(suite):
        try:
            descriptor = json.loads((suite / name / DESCRIPTOR).read_text(encoding="utf-8"))
            trial.results.append(_run_case(suite / name, name, descriptor, command, timeout))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{suite / name}: damaged, or the engine cannot be started ({error})") from error
        progress()
    return trial


def _run_case(folder: Path, name: str, descriptor: dict[str, Any], command: Sequence[str], timeout: float) -> Result:
    with tempfile.TemporaryDirectory() as out:
        try:
            done = subprocess.run([*command, str(folder), out], capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return Result(name, Verdict.DIFFERS, f"no end within {timeout:g} s")
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
        note = f": {said[0]}" if said else ""
        if done.returncode == UNSUPPORTED:
            return Result(name, Verdict.UNSUPPORTED)
        if descriptor["kind"] == "refusal":
            if done.returncode == REFUSED:
                return Result(name, Verdict.REFUSED)
            return Result(
                name, Verdict.DIFFERS, f"must be refused ({descriptor['reason']}), ended with {done.returncode}"
            )
        if done.returncode != 0:
            verb = "refused, but it is legal" if done.returncode == REFUSED else f"ended with code {done.returncode}"
            return Result(name, Verdict.DIFFERS, f"{verb}{note}")
        for what, file, needed in _expected(descriptor):
            found = Path(out) / file
            if not found.exists():
                if needed:
                    return Result(name, Verdict.DIFFERS, f"{file} was not written")
                continue
            message = _compare(folder / file, found)
            if message:
                return Result(name, Verdict.DIFFERS, f"{what}{message}")
    return Result(name, Verdict.EQUAL)


def _expected(descriptor: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(what, file, whether it has to be there) of everything that an engine may write, in the order of computing."""
    if descriptor["kind"] == "operator":
        yield "", descriptor["output"]["file"], True
        return
    for node in descriptor["nodes"]:
        file = descriptor["tensors"][node["output"]]["file"]
        yield f"{node['name']} ({node['operator']}): ", file, node["output"] in descriptor["outputs"]


def _compare(golden: Path, found: Path) -> str:
    """What differs, in one line; empty where nothing does."""
    expected = np.load(golden, allow_pickle=False)
    try:
        array = np.load(found, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return f"{found.name} is no .npy file ({error})"
    if array.dtype != np.int8 or array.shape != expected.shape:
        return f"must be int8 of shape {expected.shape}, found {array.dtype} {array.shape}"
    return difference(expected, array)
