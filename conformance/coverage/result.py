"""What was covered: plain data, merged from several builds, and what is argued to be out of reach."""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from refsim.errors import DataError

UNREACHABLE = Path(__file__).with_name("unreachable.toml")

Place = tuple[int, int, int, int]
"""Where a piece of source begins and ends: line, column, last line, column after it; all from 1."""


@dataclass
class Branch:
    """A condition, and how often it was true and false.

    Attributes:
        function: that it is part of.
        condition: its text.
        taken: how often it was (true, false).
    """

    function: str
    condition: str
    taken: tuple[int, int] = (0, 0)


@dataclass
class SourceFile:
    """A C file.

    Attributes:
        text: its lines.
        lines: executions of each line that holds code, by its number.
        branches: its conditions.
        regions: executions of each piece of code that runs as a whole.
        chip: lines that only a chip's build has.
    """

    text: list[str]
    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[Place, Branch] = field(default_factory=dict)
    regions: dict[Place, int] = field(default_factory=dict)
    chip: set[int] = field(default_factory=set)


@dataclass
class Instruction:
    """One of an assembly function.

    Attributes:
        text: as a disassembler prints it.
        executed: whether it was.
        ways: of a branch: (taken, not taken); of a computed jump: to how many places it went; else empty.
    """

    text: str
    executed: bool
    ways: tuple[int, ...] = ()


@dataclass
class Assembly:
    """A function in assembly, as one core runs it; copies of it in several kernels are one.

    Attributes:
        name, core: of function and core.
        file, line: where it is written.
        instructions: by their offset from its start, bytes.
    """

    name: str
    core: str
    file: str
    line: int
    instructions: dict[int, Instruction]

    def missed(self) -> list[str]:
        """What did not happen."""
        found = []
        for offset, each in self.instructions.items():
            if not each.executed:
                found.append(f"+{offset:#x} `{each.text}` is never executed")
            elif len(each.ways) == 2:
                ways = zip(("taken", "passed by"), each.ways, strict=True)
                found += [f"+{offset:#x} `{each.text}` is never {way}" for way, count in ways if not count]
        return found


@dataclass(frozen=True)
class Argument:
    """Why a condition never has an outcome.

    Attributes:
        file, function, condition: which, as in `Branch`.
        outcome: "true" or "false".
        why: the reason.
    """

    file: str
    function: str
    condition: str
    outcome: str
    why: str


@dataclass
class Coverage:
    """Everything that was found.

    Attributes:
        files: by name, such as "src/softmax.c".
        assembly: functions.
        arguments: what is out of reach.
        cases: of each operator.
        places: what ran, as "name: detail".
    """

    files: dict[str, SourceFile]
    assembly: list[Assembly]
    arguments: tuple[Argument, ...]
    cases: int
    places: list[str]

    def missed_branches(self, name: str) -> Iterator[tuple[Place, str, Argument | None]]:
        """Outcomes that a file's conditions never had: where, "true" or "false", and the argument if there is one."""
        for place, branch in sorted(self.files[name].branches.items()):
            for outcome, count in zip(("true", "false"), branch.taken, strict=True):
                if not count:
                    yield place, outcome, self._argument(name, branch, outcome)

    def missed_lines(self, name: str) -> list[int]:
        """Lines of a file that never ran and are not out of reach."""
        file = self.files[name]
        out = {
            line
            for place, outcome, argument in self.missed_branches(name)
            if argument is not None and outcome == "true"
            for line in _lines_after(file, place)
        }
        return [line for line, count in sorted(file.lines.items()) if not count and line not in out]

    def missed(self) -> list[str]:
        """Everything in reach that never happened, and arguments that do not hold; one line each."""
        found = []
        for name, file in self.files.items():
            found += [f"{name}:{line}: never executed" for line in self.missed_lines(name)]
            for place, outcome, argument in self.missed_branches(name):
                if argument is None:
                    branch = file.branches[place]
                    found.append(f"{name}:{place[0]}: `{branch.condition}` in {branch.function} is never {outcome}")
        for each in self.assembly:
            found += [f"{each.file}:{each.line}: {each.name} on {each.core}: {what}" for what in each.missed()]
        held = {argument for name in self.files for _, _, argument in self.missed_branches(name)}
        for argument in self.arguments:
            if argument not in held:
                there = any(self._is(argument, argument.file, branch) for branch in self._branches(argument.file))
                what = f"is {argument.outcome} at times" if there else "is not there"
                found.append(
                    f"{argument.file}: `{argument.condition}` in {argument.function} is listed as never "
                    f"{argument.outcome}, but {what}"
                )
        return found

    def _branches(self, name: str) -> Iterable[Branch]:
        return self.files[name].branches.values() if name in self.files else ()

    def _argument(self, name: str, branch: Branch, outcome: str) -> Argument | None:
        return next((a for a in self.arguments if a.outcome == outcome and self._is(a, name, branch)), None)

    @staticmethod
    def _is(argument: Argument, name: str, branch: Branch) -> bool:
        return (argument.file, argument.function, argument.condition) == (name, branch.function, branch.condition)


def arguments(path: Path = UNREACHABLE) -> tuple[Argument, ...]:
    """What is argued to be out of reach.

    Raises:
        DataError: the file cannot be read, or an entry is not as it should be.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("branch", [])
        found = tuple(Argument(**entry) for entry in entries)
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise DataError(f"{path}: {error}; a branch has file, function, condition, outcome and why") from error
    for argument in found:
        if argument.outcome not in ("true", "false") or not argument.why.strip():
            raise DataError(f"{path}: `{argument.condition}`: outcome must be true or false, and why a reason")
    return found


def _lines_after(file: SourceFile, condition: Place) -> range:
    """Lines of the code that runs where a condition holds: the first piece that begins behind it."""
    behind = [place for place in file.regions if place[:2] >= condition[2:]]
    place = min(behind, default=(0, 0, -1, 0))
    return range(place[0], place[2] + 1)
