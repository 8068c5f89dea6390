"""A mutant of the golden model on trial: in a process of its own, which imports it in place of the module it changes.

What the second opinion gives for the suite's cases is computed once; each case runs by itself and as one of a batch. A
mutant that they do not find runs the golden model's unit tests. POSIX systems alone have `fork`.
"""

import faulthandler
import importlib.abc
import importlib.util
import io
import os
import pickle
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import hypothesis
import numba
import numpy as np
import pytest

from conformance.mutation.golden.mutants import ROOT, files, is_compiled, mutated, source
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import KILLED, NOT_COMPILED, SURVIVED, Verdict
from conformance.opinion import Opinion
from conformance.suite import for_each_case
from refsim.errors import ConformanceError

TESTS = ("test_refusals.py", "test_numerics.py", "test_ops.py", "test_matrices.py")
"""Those of tests/refsim that are about operators and what they are made of."""

_SECONDS = 120.0
"""Of CPU that a mutant may take at each of its two stages; the original takes a few."""

_DIFFERS, _TESTS_FAIL, _NO_CODE, _RAISES = 90, 91, 92, 93
_WORDS = {_DIFFERS: "a byte differs", _TESTS_FAIL: "a test fails", _RAISES: "an operator fails"}


@dataclass(frozen=True)
class Corpus:
    """Cases and what the second opinion gives.

    Attributes:
        cases: of each operator, a pickle of [(operator, inputs, output bytes)]: read by the process that runs them.
    """

    cases: dict[str, bytes]


def collect(operators: Sequence[str], count: int, seed: int, progress: Callable[[], None]) -> Corpus:
    """Draw the cases of the `definition` place.

    Args:
        operators: names.
        count: cases of each.
        seed: of the cases.
        progress: called after each operator.

    Raises:
        ConformanceError: the golden model as it is fails.
    """
    opinion, found = Opinion(), {}
    for operator in operators:
        cases: list[tuple[Any, tuple[Any, ...], bytes]] = []

        def add(case: Any, _: int, to: list[Any] = cases) -> None:
            if opinion.takes(case):
                to.append((case.op, case.inputs, opinion.run(case).tobytes()))

        for_each_case(operator, add, count=count, seed=seed)
        if any(op.run(*inputs)[0].tobytes() != output for op, inputs, output in cases):
            raise ConformanceError(f"{operator}: the golden model as it is differs from its definition")
        found[operator] = pickle.dumps(cases)
        progress()
    return Corpus(found)


def judge(mutant: Mutant, corpus: Corpus) -> Verdict:
    """Try a mutant."""
    for place, run in (("definition", _run_cases), ("tests/refsim", _run_tests)):
        status = _forked(mutant, lambda run=run: run(mutant, corpus))  # type: ignore[misc] # mypy: no default's type
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return Verdict(KILLED, place, "does not end" if number == signal.SIGPROF else f"dies of signal {number}")
        code = os.WEXITSTATUS(status)
        if code == _NO_CODE:
            return Verdict(NOT_COMPILED)
        if code:
            return Verdict(KILLED, place, _WORDS.get(code, "fails"))
    return Verdict(SURVIVED)


@cache
def dependents(file: str) -> set[str]:
    """The modules that hold a file's code, itself included: others paste its functions into theirs."""
    found = {file}
    while True:
        names = "|".join(re.escape(f"refsim.{each[:-3].replace('/', '.')}") for each in found)
        more = {each for each in files() if re.search(rf"^from ({names}) import", source(each), re.MULTILINE)}
        if more <= found:
            return {f"refsim.{each[:-3].replace('/', '.')}" for each in found}
        found |= more


def _forked(mutant: Mutant, run: Callable[[], int]) -> int:
    """The status of a process that runs the mutant."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = _RAISES
    try:
        faulthandler.disable()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        _install(mutant)
        code = run()
    except SyntaxError:
        code = _NO_CODE
    finally:
        os._exit(code)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the mutant where its module is asked for."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"refsim.{mutant.file[:-3].replace('/', '.')}"
        self._path = ROOT / mutant.file
        self._text = mutated(mutant)

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._text, str(self._path), "exec"), module.__dict__)  # noqa: S102 - that is what a mutant is for


def _install(mutant: Mutant) -> None:
    """Forget the golden model and whatever uses it; when it is imported again it holds the mutant."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("refsim", "codegen", "conformance", "tests"):
            del sys.modules[name]
    sys.meta_path.insert(0, _Finder(mutant))
    changed = dependents(mutant.file) if is_compiled(mutant) else set()
    njit = numba.njit

    def without_old_code(*arguments: Any, **options: Any) -> Any:
        if arguments or not options.get("cache"):
            return njit(*arguments, **options)
        kept, fresh = njit(**options), njit(**options | {"cache": False})
        return lambda function: (fresh if function.__module__ in changed else kept)(function)

    numba.njit = without_old_code


def _run_cases(mutant: Mutant, corpus: Corpus) -> int:
    """Run what may be affected, a few cases of each operator first."""
    affected = [name for name in corpus.cases if f"refsim.ops.{name}" in dependents(mutant.file)]
    read: dict[str, list[Any]] = {}
    for part in (slice(0, 40), slice(40, None)):
        for operator in sorted(affected, key=_size):
            if operator not in read:
                read[operator] = pickle.loads(corpus.cases[operator])  # noqa: S301 - our own
            for op, inputs, output in read[operator][part]:
                try:
                    built = _rebuilt(op)
                    batch = built.run(*(np.concatenate([~x, x]) for x in inputs))
                    if built.run(*inputs).tobytes() != output or len(batch) != 2 or batch[1].tobytes() != output:
                        return _DIFFERS
                except numba.core.errors.NumbaError:
                    return _NO_CODE
    return 0


def _size(operator: str) -> int:
    """Characters of all that an operator is compiled from: what compiles sooner is tried sooner."""
    return sum(len(source(file)) for file in files() if f"refsim.ops.{operator}" in dependents(file))


def _rebuilt(op: Any) -> Any:
    """An operator built anew, so that what it checks and prepares is done by the mutant."""
    parts = {field.name: getattr(op, field.name) for field in fields(op) if field.init}
    return replace(op, **{name: _rebuilt(part) for name, part in parts.items() if is_dataclass(part)})


def _run_tests(mutant: Mutant, corpus: Corpus) -> int:
    hypothesis.settings.register_profile("mutation", deadline=None, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutation")
    folder = ROOT.parent / "tests" / "refsim"
    options = ["-x", "-q", "-p", "no:cacheprovider", "--noconftest"]
    with redirect_stdout(io.StringIO()):
        return _TESTS_FAIL if pytest.main([*options, *(str(folder / name) for name in TESTS)]) else 0
