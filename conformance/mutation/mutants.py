"""Mutants of the C kernels: each is one source file with one line changed.

universalmutator applies `kernels.rules` to each line, after comments are gone. What the line of a mutant belongs to is
found by the few habits that the kernels keep: a definition begins in the first column, and its name is the last word
before the first bracket.
"""

import contextlib
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ckernels
from conformance.primitives import PRIMITIVES, SOURCE
from refsim.errors import TinyFormerError

_COMMUTES = re.compile(
    r"\b(adds?|ands?|orrs?|eors?|muls?|mla|qadd|smuad|smlad|sm(?:la|ul)(?:bb|tt)|smmlar?|smmulr?) "
    r"((?:\" #\w+ \"|[^,\"\\]+),)([^,\"\\]+),([^,\"\\]+)(?=[,\"\\])(?!, ?(?:lsl|lsr|asr|ror))"
)
"""An instruction whose two operands may change places: operation, result, operands."""

RULES = Path(__file__).parent / "kernels.rules"


@dataclass(frozen=True)
class Mutant:
    """One line of one file, changed.

    Attributes:
        file: path below ckernels, "src/softmax.c".
        line: its number, from 1.
        function: function, macro or type that the line belongs to; empty where it is none's.
        old, new: the line without its comments, as it is and as it becomes.
        rule: what changed it.
        again: how many equal changes of equal lines of the function come before.
    """

    file: str
    line: int
    function: str
    old: str
    new: str
    rule: str
    again: int = 0

    @property
    def name(self) -> str:
        """What stays the same while other lines change: 12 hexadecimal digits."""
        parts = (self.file, self.function, self.old, self.new, str(self.again))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def apply(self, text: str) -> str:
        """The file's text with the line changed."""
        lines = without_comments(text).split("\n")
        lines[self.line - 1] = self.new
        return "\n".join(lines)


def files() -> dict[str, Path]:
    """Every file that is mutated, by its path below ckernels; kernels.h has declarations alone and is none of them."""
    headers = [path for path in ckernels.headers() if path.name != "kernels.h"]
    root = ckernels.include_dir().parent
    return {str(path.relative_to(root)): path for path in (*ckernels.sources().values(), *headers)}


def without_comments(text: str) -> str:
    """C without its comments and without spaces at the ends of lines; lines stay where they are."""
    bare = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in bare.split("\n"))


def definitions(text: str) -> list[str]:
    """Of each line of a C file the name of the function, macro or type that it belongs to; empty where it is none's."""
    names: list[str] = []
    current, macro = "", False
    lines = without_comments(text).split("\n")
    for index, line in enumerate(lines):
        define = re.match(r"\s*#\s*define\s+(\w+)", line)
        if define:
            current, macro = define[1], True
        elif re.match(r"[A-Za-z_]", line) and not macro:
            head = re.search(r"(\w+)\s*\(", re.sub(r"__attribute__\s*\(\(.*?\)\)+", "", line))
            ends = (re.match(r"\}\s*(\w+);", later) for later in lines[index:])
            current = head[1] if head else next((end[1] for end in ends if end), "")
        names.append(current)
        if (macro and not line.endswith("\\")) or (not macro and line.startswith("}")):
            current, macro = "", False
    return names


@cache
def _usages() -> Mapping[str, frozenset[str]]:
    """Of each name that a header defines the words of its definition."""
    found: dict[str, set[str]] = {}
    for file, path in files().items():
        if file.startswith("include"):
            text = path.read_text(encoding="utf-8")
            for name, line in zip(definitions(text), without_comments(text).split("\n"), strict=True):
                found.setdefault(name, set()).update(re.findall(r"[A-Za-z_]\w*", line))
    return {name: frozenset(words) for name, words in found.items() if name}


@cache
def users(name: str) -> tuple[str, ...]:
    """The sources, by stem, that use what a header defines, at first or second hand; all where the name is empty.

    Beside the kernels the suite's callers of primitives are one.
    """
    stems = {**ckernels.sources(), PRIMITIVES: SOURCE}
    if not name:
        return tuple(stems)
    reached, before = {name}, set[str]()
    while reached != before:
        before = set(reached)
        reached |= {definition for definition, words in _usages().items() if words & reached}
    words = {stem: set(re.findall(r"[A-Za-z_]\w*", path.read_text(encoding="utf-8"))) for stem, path in stems.items()}
    return tuple(stem for stem in stems if words[stem] & reached)


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines.

    Raises:
        TinyFormerError: universalmutator is not installed.
    """
    try:
        from universalmutator.mutator import mutants_regexp  # noqa: PLC0415 - an extra, which only this function needs
    except ImportError:
        raise TinyFormerError("mutants are made by universalmutator: pip install 'tinyformer[mutation]'") from None
    text = files()[file].read_text(encoding="utf-8")
    bare, owners = without_comments(text).split("\n"), definitions(text)
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
        changed = mutants_regexp([line + "\n" for line in bare], [str(RULES)], ignorePatterns=[])
    seen = {(number, _meaning(line)) for number, line in enumerate(bare, 1)}
    before: Counter[tuple[str, str, str]] = Counter()
    for number, line, (rule, _), _ in sorted(changed, key=lambda mutant: int(mutant[0])):
        old, new, owner = bare[number - 1].strip(), without_comments(line).strip(), owners[number - 1]
        if (number, _meaning(new)) not in seen:
            seen.add((number, _meaning(new)))
            yield Mutant(file, number, owner, old, new, rule, before[owner, old, new])
            before[owner, old, new] += 1


def _meaning(line: str) -> str:
    """A line without its spaces, and with the operands of sums and products in one order."""

    def ordered(found: re.Match[str]) -> str:
        return f"{found[1]} {found[2]}{','.join(sorted((found[3].strip(), found[4].strip())))}"

    return re.sub(r"\s", "", _COMMUTES.sub(ordered, line))
