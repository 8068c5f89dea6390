"""Many mutants on trial, by several processes; what became of each is written down at once, and not tried again."""

import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.mutation.corpus import Corpus
from conformance.mutation.mutants import Mutant, files, without_comments
from conformance.mutation.trial import Trial, Verdict, kernels_with
from conformance.primitives import SOURCE
from refsim.errors import DataError


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        mutant, verdict: the one and the other.
        key: tells the same mutant from that of other kernels or another suite.
        seconds: of CPU, compilers included.
    """

    mutant: Mutant
    verdict: Verdict
    key: str
    seconds: float


class Record:
    """A file of results, a line of JSON each.

    Args:
        path: the file; made where it is missing.

    Raises:
        DataError: it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, Result] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            for line in lines:
                found = json.loads(line)
                mutant, verdict = Mutant(**found["mutant"]), Verdict(**found["verdict"])
                self.results[found["key"]] = Result(mutant, verdict, found["key"], found["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no results of mutants ({error}); name another file or delete it") from error

    def add(self, result: Result) -> None:
        """Append a result."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
        self.results[result.key] = result


class Keys:
    """Tells mutants apart: by their own text, that of the sources that hold it, and what the suite asks of those.

    Args:
        corpus: the suite's calls.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._known: dict[tuple[str, ...], str] = {}
        sources = {**files(), SOURCE.name: SOURCE}
        self._texts = {file: without_comments(path.read_text(encoding="utf-8")) for file, path in sources.items()}

    def of(self, mutant: Mutant) -> str:
        """16 hexadecimal digits."""
        parts = mutant.name + self._of_all(tuple(kernels_with(mutant, self._corpus)))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def _of_all(self, kernels: tuple[str, ...]) -> str:
        """What all mutants within the same kernels have in common."""
        if kernels not in self._known:
            stems = {name for kernel in kernels for name in self._corpus.sources[kernel]}
            texts = [t for file, t in self._texts.items() if file.startswith("include") or Path(file).stem in stems]
            parts = (self._corpus.digest(kernels), *texts)
            self._known[kernels] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return self._known[kernels]


def try_all(mutants: Sequence[Mutant], corpus: Corpus, record: Record, jobs: int) -> Iterator[Result]:
    """Try mutants, but for those that the record knows; each result is recorded.

    Args:
        mutants: which.
        corpus: the suite's calls.
        record: of results.
        jobs: processes.

    Yields:
        Each result as it comes, those known first.

    Raises:
        ConformanceError: the kernels as they are fail.
    """
    keys = Keys(corpus)
    keyed = [(mutant, keys.of(mutant)) for mutant in mutants]
    for _, key in keyed:
        if key in record.results:
            yield record.results[key]
    new = [(mutant, key) for mutant, key in keyed if key not in record.results]
    with tempfile.TemporaryDirectory(prefix="tnf-mutation-") as folder:
        # Forked, so that all of them share the suite's calls.
        context = multiprocessing.get_context("fork")
        with context.Pool(min(jobs, len(new)) or 1, _begin, (corpus, Path(folder))) as pool:
            for result in pool.imap_unordered(_try, new):
                record.add(result)
                yield result


_trial: Trial


def _begin(corpus: Corpus, folder: Path) -> None:
    global _trial  # noqa: PLW0603 - a process of the pool has no other place for what it keeps
    _trial = Trial(corpus, folder / str(os.getpid()))


def _try(work: tuple[Mutant, str]) -> Result:
    mutant, key = work
    before = _cpu_seconds()
    verdict = _trial.judge(mutant)
    return Result(mutant, verdict, key, round(_cpu_seconds() - before, 3))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
