"""What tables and figures work with: results that are kept, cards of trained models, marked parts of a document."""

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codegen.code_size import MEASURED
from codegen.predictor import BUILT_IN, kernels_hash
from conformance.console import write_whole
from conformance.paper.published import TABLE_II
from conformance.toolchain import arm_toolchains
from refsim import model_zoo
from refsim.errors import DataError
from refsim.model_zoo import CARD, Card

PACKAGES = ("tinyformer", "numpy", "unicorn", "ziglang")

_SAID = ("compiler", "kernels", "seed", *PACKAGES)
"""Settings and versions that a section names; all are in its result."""

_LONGEST = 24
"""Characters of each, of which a hash needs no more."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper beside what was found here.

    Attributes:
        what: is stated.
        paper: its figure.
        here: ours.
        verdict: whether it was reproduced, in few words; where not, why.
    """

    what: str
    paper: str
    here: str
    verdict: str


@dataclass(frozen=True)
class Section:
    """A table or figure.

    Attributes:
        text: Markdown.
        claims: of the paper that it answers.
        results: names of those it is made from.
        pictures: SVG by file name, beside the results.
    """

    text: str
    claims: tuple[Claim, ...] = ()
    results: tuple[str, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Workspace:
    """Where results are kept, and what they are made from.

    Attributes:
        document: Markdown file with a marked part for each section.
        data: labelled test images, .npz; None where there are none.
        resnet8: MLPerf Tiny's network, .tflite; None likewise.
        fresh: make every result anew.
        status: told what is done next.
    """

    document: Path
    data: Path | None = None
    resnet8: Path | None = None
    fresh: bool = False
    status: Callable[[str], None] = lambda what: None

    @property
    def folder(self) -> Path:
        """Of results and pictures: named as the document, beside it."""
        return self.document.with_suffix("")

    def stored(
        self, name: str, settings: Mapping[str, Any], make: Callable[[], Any], *, files: Sequence[str] = ()
    ) -> Any:
        """A result, made now where none is kept that was made with the same settings.

        Args:
            name: of the result; its file is name.json.
            settings: that decide it, as JSON has them.
            make: makes it, as JSON has it.
            files: that come with it, in the folder.
        """
        kept = self.kept(name, settings)
        if kept is not None and not self.fresh and all((self.folder / file).exists() for file in files):
            return kept
        path, wanted = self.folder / f"{name}.json", json.loads(json.dumps(settings))
        result = json.loads(json.dumps(make()))
        versions = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
        text = json.dumps({"settings": wanted, "versions": versions, "result": result}, indent=1) + "\n"
        write_whole(path, text)
        return result

    def kept(self, name: str, settings: Mapping[str, Any] | None = None) -> Any:
        """A result that was made earlier with the same settings, or with any; None where there is none."""
        path = self.folder / f"{name}.json"
        kept = _read(path) if path.exists() else {}
        same = settings is None or kept.get("settings") == json.loads(json.dumps(settings))
        return kept.get("result") if same else None

    def cards(self) -> dict[str, Card]:
        """Cards of the zoo, and of models that were trained for the tables and are not shipped, by name."""
        found = {name: model_zoo.card(name) for name in model_zoo.names()}
        for path in sorted((self.folder / "trained").glob(f"*{Path(CARD).suffix}")):
            found[path.stem] = model_zoo.read_card(path)
        return found

    def cards_by_row(self) -> dict[str, Card]:
        """The same by the row of the paper's tables that they stand for, which may be their name."""
        return {name if name in TABLE_II else card.row or name: card for name, card in self.cards().items()}

    def check(self, name: str) -> None:
        """Make sure that the document has a place for a section, before that is made.

        Raises:
            DataError: it is unreadable or has no marks for the section.
        """
        for part in (name, "summary"):
            _marked(self._text(), part, "", self.document)

    def write(self, name: str, section: Section) -> None:
        """Put a section into the document, its pictures beside it, and its claims into the summary.

        Raises:
            DataError: the document is unreadable or has no marks for the section.
        """
        for file, picture in section.pictures.items():
            write_whole(self.folder / file, picture)
        path = self.folder / "claims.json"
        claims = (_read(path) if path.exists() else {}) | {name: [asdict(claim) for claim in section.claims]}
        order = sorted(claims, key=lambda part: (part.startswith("fig"), len(part), part))  # as the paper has them
        summary = [Claim(**claim) for part in order for claim in claims[part]]
        content = f"{section.text}\n\n{self._provenance(name, section)}"
        text = _marked(self._text(), name, content, self.document)
        text = _marked(text, "summary", _summary(summary), self.document)
        write_whole(path, json.dumps(claims, indent=1) + "\n")
        write_whole(self.document, text)

    def _provenance(self, name: str, section: Section) -> str:
        """The line that says how a section was made."""
        said = [f"`tinyformer paper {name}`"]
        for result in section.results:
            path = self.folder / f"{result}.json"
            if path.exists():
                kept = _read(path)
                facts = {key: str(value)[:_LONGEST] for key, value in (kept["settings"] | kept["versions"]).items()}
                said.append(f"{result}.json: " + ", ".join(f"{key} {facts[key]}" for key in _SAID if key in facts))
        return f"*{'; '.join(said)}*"

    def _text(self) -> str:
        try:
            return self.document.read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"{self.document} cannot be read: {error.strerror}; name it with --document") from error


def decided_by() -> dict[str, str]:
    """Settings of whatever is evaluated: kernels, and the times and sizes by which they are chosen."""
    digest = hashlib.sha256()
    for path in sorted([*BUILT_IN.glob("*.json"), MEASURED]):
        digest.update(path.read_bytes())
    return {"kernels": kernels_hash(), "predictors": digest.hexdigest()}


def provenance() -> dict[str, str]:
    """Settings of whatever is measured with compiled kernels."""
    tool = arm_toolchains()[0]
    return decided_by() | {"compiler": f"{tool.name} {tool.version} -O2"}


def file_hash(path: Path) -> str:
    """SHA-256 of a file that a result is made from.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _summary(claims: Sequence[Claim]) -> str:
    rows = [(claim.what, claim.paper, claim.here, claim.verdict) for claim in claims]
    return table(("statement", "paper", "here", ""), rows)


def _marked(text: str, name: str, content: str, document: Path) -> str:
    """The document with another part between the marks of a section."""
    begin, end = f"<!-- paper: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise DataError(f"{document} must hold the marks {begin} and {end} once")
    return pattern.sub(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", text)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"result {path} cannot be read: {error}; delete it to make it anew") from error
    if not isinstance(value, dict):
        raise DataError(f"result {path} is not one of this command; delete it to make it anew")
    return value
