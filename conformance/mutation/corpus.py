"""The suite's calls of each kernel, with what memory must hold afterwards: computed once for all mutants."""

import copyreg
import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import ckernels
from codegen.emit import KernelCall
from conformance.layout import Layout
from conformance.strategies.base import Case
from conformance.suite import attempts, for_each_case
from refsim.compiled import cache_folder
from refsim.files import write_whole


def _proxy(mapping: dict[str, object]) -> MappingProxyType[str, object]:
    return MappingProxyType(mapping)


copyreg.pickle(MappingProxyType, lambda mapping: (_proxy, (dict(mapping),)))  # a call's parameters are one


@dataclass(frozen=True)
class Run:
    """One call of a kernel.

    Attributes:
        call, layout: the kernel and the memory that it works on.
        golden: what the golden model gives, the output's bytes.
        kinds: of cores that make this call: with the DSP extension (True), without it, or both.
    """

    call: KernelCall
    layout: Layout
    golden: bytes
    kinds: frozenset[bool]


@dataclass(frozen=True)
class Corpus:
    """The calls of some operators' cases.

    Attributes:
        runs: by the kernel, without "tnf_"; the smallest first.
        digests: of the calls of each kernel.
        sources: those that each kernel is linked from, without suffix.
    """

    runs: dict[str, list[Run]]
    digests: dict[str, str]
    sources: dict[str, tuple[str, ...]]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes that the calls of each kernel work on."""
        return {kernel: sum(len(run.layout.image) for run in calls) for kernel, calls in self.runs.items()}

    def digest(self, kernels: Sequence[str]) -> str:
        """Tells two suites apart by what they ask of some kernels."""
        return hashlib.sha256("".join(self.digests.get(kernel, "") for kernel in kernels).encode()).hexdigest()[:12]


def collect(operators: Sequence[str], count: int, seed: int, progress: Callable[[str], None]) -> Corpus:
    """The calls that the cases of some operators make, of any kernels.

    Args:
        operators: names of `refsim.ops.OPERATORS`, or "primitives".
        count: cases of each.
        seed: of the cases.
        progress: called with each operator's name once it is done.
    """
    runs: dict[str, list[Run]] = {}
    digests: dict[str, str] = {}
    version_of_all = _version()
    for operator in operators:
        path = cache_folder() / "corpus" / f"{operator}-{count}-{seed}-{version_of_all}.pickle"
        if path.exists():
            found: dict[str, list[Run]] = pickle.loads(path.read_bytes())  # noqa: S301 - written below
        else:
            found = _calls(operator, count, seed)
            write_whole(path, pickle.dumps(found, pickle.HIGHEST_PROTOCOL))
        for kernel, calls in found.items():
            runs.setdefault(kernel, []).extend(calls)
            content = hashlib.sha256(digests.get(kernel, "").encode())
            for run in calls:
                content.update(run.layout.image + run.golden + repr(run.call.params).encode())
            digests[kernel] = content.hexdigest()
        progress(operator)
    sources = {kernel: {name for run in calls for name in run.call.sources} for kernel, calls in runs.items()}
    ordered = {kernel: sorted(calls, key=lambda run: len(run.layout.image)) for kernel, calls in runs.items()}
    return Corpus(ordered, digests, {kernel: tuple(sorted(names)) for kernel, names in sources.items()})


def _calls(operator: str, count: int, seed: int) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}

    def add(case: Case, _: int) -> None:
        golden = case.op.run(*case.inputs)[0].tobytes()
        ways = {kind: {attempt.way for attempt in attempts(case, len(golden), [kind])} for kind in (False, True)}
        for attempt in attempts(case, len(golden), (False, True)):
            kinds = frozenset(kind for kind in ways if attempt.way in ways[kind])
            run = Run(attempt.call, attempt.layout, golden, kinds)
            found.setdefault(attempt.call.kernel.removeprefix("tnf_"), []).append(run)

    for_each_case(operator, add, count=count, seed=seed)
    return found


def _version() -> str:
    """Tells apart whatever makes other cases or other calls of them."""
    root = Path(__file__).parents[2]
    folders = ("refsim/ops", "codegen/emit", "conformance/strategies", "conformance/primitives", "conformance/opinion")
    files = (
        "refsim/numerics.py",
        "codegen/encoding.py",
        "conformance/suite.py",
        "conformance/exploration.py",
        "conformance/layout.py",
    )
    sources = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    sources += [*(root / file for file in files), Path(__file__), *ckernels.headers()]
    content = hashlib.sha256(version("hypothesis").encode() + version("numpy").encode())
    for path in sources:
        content.update(path.read_bytes())
    return content.hexdigest()[:16]
