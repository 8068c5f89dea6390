"""A mutant of the golden model on trial: in a process of its own, which imports it in place of the module it changes.

Three stages, each for what survived the one before. First the golden model runs interpreted: its functions of numbers
against their definitions, then small cases of the suite. Then it runs the unit tests of what is refused, interpreted as
well. At last it is compiled and runs all cases and all unit tests. What the second opinion gives is computed once; each
case runs by itself and as one of a batch. POSIX systems alone have `fork`.
"""

import faulthandler
import importlib.abc
import importlib.util
import inspect
import io
import os
import pickle
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import hypothesis
import numba
import numpy as np
import pytest

from conformance.mutation.golden import interpreted
from conformance.mutation.golden.mutants import ROOT, files, is_compiled, mutated, source
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import KILLED, NOT_COMPILED, SURVIVED, Verdict
from conformance.opinion import Opinion
from conformance.opinion.functions import FUNCTIONS
from conformance.suite import for_each_case
from refsim.errors import ConformanceError
from refsim.ops import OPERATORS

TESTS = ("test_refusals.py", "test_parameters.py", "test_matrices.py", "test_numerics.py", "test_ops.py")
"""Those of tests/refsim that are about operators and what they are made of; the first three need no compiled code."""

INTERPRETED, COMPILED, UNIT_TESTS = "interpreted", "compiled", "tests/refsim"
"""Where a mutant is found: by the definition, as Python or compiled, or by a unit test."""

_ARGUMENTS = 1000
"""Drawn for each function."""

_SMALL = 2000
"""Bytes of a pickled case that Python runs in some milliseconds."""

_FEW = 24
"""Small cases of each operator that are interpreted."""

_SECONDS = {INTERPRETED: 3.0, COMPILED: 60.0, UNIT_TESTS: 120.0}
"""Of CPU that a mutant may take for one case, and for the tests; the original takes a tenth or less."""

_SHARED = tuple(file for file in files() if file[4:-3] not in OPERATORS)
"""Files of no single operator."""

_NUMBA: Any = numba
_NJIT = numba.njit

_MEMORY = 8 * 2**30
"""Bytes that a mutant may have."""

_DIFFERS, _TESTS_FAIL, _NO_CODE, _RAISES = 90, 91, 92, 93
_WORDS = {_DIFFERS: "a byte differs", _TESTS_FAIL: "a test fails", _RAISES: "an operator fails"}


@dataclass(frozen=True)
class Corpus:
    """Cases and what the second opinion gives.

    Attributes:
        cases: of each operator, a pickle of (operator, inputs, output bytes) each: read by the process that runs them.
        values: of each of `FUNCTIONS`, (arguments, value).
    """

    cases: dict[str, list[bytes]]
    values: dict[str, list[tuple[Any, Any]]]


def collect(operators: Sequence[str], count: int, seed: int, progress: Callable[[], None]) -> Corpus:
    """Draw the cases of the `definition` place, and arguments of functions.

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
        cases: list[bytes] = []

        def add(case: Any, _: int, operator: str = operator, to: list[bytes] = cases) -> None:
            if opinion.takes(case):
                output = opinion.run(case).tobytes()
                if case.op.run(*case.inputs)[0].tobytes() != output:
                    raise ConformanceError(f"{operator}: the golden model as it is differs from its definition")
                to.append(pickle.dumps((case.op, case.inputs, output)))

        for_each_case(operator, add, count=count, seed=seed)
        found[operator] = cases
        progress()
    values = {
        name: [(arguments, function.definition(*arguments)) for arguments in function.arguments(_ARGUMENTS, seed)]
        for name, function in FUNCTIONS.items()
    }
    return Corpus(found, values)


def judge(mutant: Mutant, corpus: Corpus, *, compiled: bool = True) -> Verdict:
    """Try a mutant.

    Args:
        mutant: which.
        corpus: of every operator that it may affect.
        compiled: also at the last stage, which takes most of the time.
    """
    # No unit test of these knows the loops of an operator.
    is_loop = mutant.file.startswith("ops/") and mutant.function and is_compiled(mutant)
    stages: tuple[tuple[str, bool, Callable[[Mutant, Corpus], int]], ...] = (
        (INTERPRETED, True, _run_small_cases),
        (UNIT_TESTS, not is_loop, partial(_run_tests, tests=TESTS[:3])),
        (COMPILED, compiled, _run_all_cases),
    )
    for place, _, run in (stage for stage in stages if stage[1]):
        status = _forked(mutant, place, partial(run, mutant, corpus))
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return Verdict(KILLED, place, "does not end" if number == signal.SIGPROF else f"dies of signal {number}")
        code = os.WEXITSTATUS(status)
        if code == _NO_CODE:
            return Verdict(NOT_COMPILED)
        if code:
            return Verdict(KILLED, UNIT_TESTS if code == _TESTS_FAIL else place, _WORDS.get(code, "fails"))
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


def _forked(mutant: Mutant, place: str, run: Callable[[], int]) -> int:
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
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        _allow(INTERPRETED)
        _install(mutant, place)
        code = run()
    except SyntaxError:
        code = _NO_CODE
    finally:
        os._exit(code)


def _allow(place: str) -> None:
    """Give the process so much CPU from now on; then it dies of SIGPROF."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS[place])


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


def load_interpreted() -> None:
    """Import the golden model interpreted, for the processes of all mutants: each imports but what holds its mutant."""
    _forget(lambda name: name.split(".")[0] == "refsim")
    _NUMBA.njit = interpreted.njit
    importlib.import_module("refsim.ops")
    _NUMBA.njit = _NJIT


def _install(mutant: Mutant, place: str) -> None:
    """Forget the golden model and whatever uses it; when it is imported again it holds the mutant."""
    changed = dependents(mutant.file)
    sys.meta_path.insert(0, _Finder(mutant))
    if place == INTERPRETED and inspect.isfunction(sys.modules["refsim.numerics"].srdhm):
        _forget(changed.__contains__)
    else:
        _forget(lambda name: name.split(".")[0] in ("refsim", "codegen", "conformance", "tests"))
    if place != COMPILED:
        _NUMBA.njit = interpreted.njit
        return

    def without_old_code(*arguments: Any, **options: Any) -> Any:
        if arguments or not options.get("cache"):
            return _NJIT(*arguments, **options)
        kept, fresh = _NJIT(**options), _NJIT(**options | {"cache": False})
        return lambda function: (fresh if is_compiled(mutant) and function.__module__ in changed else kept)(function)

    _NUMBA.njit = without_old_code


def _forget(is_meant: Callable[[str], bool]) -> None:
    for name in filter(is_meant, list(sys.modules)):
        del sys.modules[name]


def _run_small_cases(mutant: Mutant, corpus: Corpus) -> int:
    """Run small cases of what may be affected, a few of each operator; then the functions that may be; then more cases.

    An operator that is made of others, as attention is, shows nothing that those do not. What plain functions prepare
    shows in any case.
    """
    few, more = 8, _FEW if is_compiled(mutant) else 8
    small = {
        operator: [case for case in corpus.cases[operator] if len(case) <= _SMALL][:more]
        for operator in _affected(mutant, corpus)
        if mutant.file == f"ops/{operator}.py" or (mutant.file in _SHARED and operator != "attention")
    }
    try:
        if any(_differs(case, INTERPRETED) for cases in small.values() for case in cases[:few]):
            return _DIFFERS
        for name, values in corpus.values.items():
            if f"refsim.{FUNCTIONS[name].module}" in dependents(mutant.file):
                _allow(INTERPRETED)
                with np.errstate(all="ignore"):
                    if any(FUNCTIONS[name].computed(arguments) != value for arguments, value in values):
                        return _DIFFERS
        if any(_differs(case, INTERPRETED) for cases in small.values() for case in cases[few:]):
            return _DIFFERS
    except OverflowError:
        pass  # NumPy takes no number that is too large for its type, and Numba wraps it: only compiled code can tell
    return 0


def _run_all_cases(mutant: Mutant, corpus: Corpus) -> int:
    """Run all that may be affected, a few of each operator first, then the unit tests, compiled already."""
    try:
        for part in (slice(0, 40), slice(40, None)):
            for operator in _affected(mutant, corpus):
                if any(_differs(case, COMPILED) for case in corpus.cases[operator][part]):
                    return _DIFFERS
    except numba.core.errors.NumbaError:
        return _NO_CODE
    return _run_tests(mutant, corpus, TESTS)


def _affected(mutant: Mutant, corpus: Corpus) -> Iterator[str]:
    """Operators, those first that are made of little: what compiles sooner is tried sooner."""
    made_of = {
        operator: [file for file in files() if f"refsim.ops.{operator}" in dependents(file)]
        for operator in corpus.cases
        if f"refsim.ops.{operator}" in dependents(mutant.file)
    }
    yield from sorted(made_of, key=lambda operator: sum(len(source(file)) for file in made_of[operator]))


def _differs(case: bytes, place: str) -> bool:
    """Whether a case gives other bytes than it should, by itself or as the second of a batch."""
    _allow(place)
    op, inputs, output = pickle.loads(case)  # noqa: S301 - our own
    built = _rebuilt(op)
    batch = built.run(*(np.concatenate([~x, x]) for x in inputs))
    return bool(built.run(*inputs).tobytes() != output or len(batch) != 2 or batch[1].tobytes() != output)


def _rebuilt(op: Any) -> Any:
    """An operator built anew, so that what it checks and prepares is done by the mutant."""
    parts = {field.name: getattr(op, field.name) for field in fields(op) if field.init}
    return replace(op, **{name: _rebuilt(part) for name, part in parts.items() if is_dataclass(part)})


def _run_tests(mutant: Mutant, corpus: Corpus, tests: Sequence[str]) -> int:
    _allow(UNIT_TESTS)
    hypothesis.settings.register_profile("mutation", deadline=None, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutation")
    folder = ROOT.parent / "tests" / "refsim"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "--noconftest"]
    with np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
        return _TESTS_FAIL if pytest.main([*options, *(str(folder / name) for name in tests)]) else 0
