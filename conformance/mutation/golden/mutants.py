"""Mutants of the golden model: cosmic-ray's, of what computes, in the modules that define operators and primitives."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from conformance.mutation.mutants import Mutant

ROOT = Path(__file__).parents[3] / "refsim"

_BINARY = (
    "Add_Sub Sub_Add Mul_FloorDiv FloorDiv_Mul Mod_FloorDiv Div_Mul Pow_Mul RShift_LShift LShift_RShift "
    "BitAnd_BitOr BitOr_BitAnd"
)
_COMPARISONS = "Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_GtE GtE_Lt Gt_LtE LtE_Gt Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is"
_OTHERS = (
    "ReplaceUnaryOperator_Delete_USub ReplaceUnaryOperator_Delete_Not "
    "ReplaceAndWithOr ReplaceOrWithAnd ReplaceBreakWithContinue ReplaceContinueWithBreak NumberReplacer "
    "ZeroIterationForLoop"
)
RULES = (
    *(f"core/ReplaceBinaryOperator_{pair}" for pair in _BINARY.split()),
    *(f"core/ReplaceComparisonOperator_{pair}" for pair in _COMPARISONS.split()),
    *(f"core/{name}" for name in _OTHERS.split()),
)
"""cosmic-ray's operators that are applied: of arithmetic, comparison, logic, numbers and loops, without synonyms."""


@dataclass(frozen=True)
class Spot:
    """One change of one file, not yet made.

    Attributes:
        file: below refsim, "ops/softmax.py".
        first: the line where the statement begins, of those that are in no other.
        rule: cosmic-ray's operator.
        occurrence: which of the places in the statement that it applies to.
    """

    file: str
    first: int
    rule: str
    occurrence: int

    def mutant(self) -> Mutant:
        """The change itself."""
        statement = _statements(self.file)[self.first].get_code()
        after = mutate_code(statement, get_operator(self.rule)(), self.occurrence).split("\n")
        offset = next(i for i, (a, b) in enumerate(zip(statement.split("\n"), after, strict=True)) if a != b)
        before, line = source(self.file).split("\n"), self.first + offset
        function = _functions(self.file)[line]
        earlier = [
            i for i in range(1, line) if _functions(self.file)[i] == function and before[i - 1] == before[line - 1]
        ]
        rule = self.rule.removeprefix("core/")
        return Mutant(self.file, line, function, before[line - 1], after[offset], rule, len(earlier))


def files() -> list[str]:
    """What is mutated, below refsim: operators, primitives and the loops that they share."""
    shared = ["numerics.py", "matrices.py", "planes.py", "windows.py"]
    return [*shared, *sorted(f"ops/{path.name}" for path in (ROOT / "ops").glob("*.py") if path.stem != "__init__")]


@cache
def source(file: str) -> str:
    """The text of a file."""
    return (ROOT / file).read_text(encoding="utf-8")


def mutated(mutant: Mutant) -> str:
    """The text of a mutant's file, changed."""
    lines = source(mutant.file).split("\n")
    lines[mutant.line - 1] = mutant.new
    return "\n".join(lines)


def is_compiled(mutant: Mutant) -> bool:
    """Whether Numba compiles the mutant's line: a decorated function's, or a constant, which several may have."""
    for node in ast.parse(source(mutant.file)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first <= mutant.line <= (node.end_lineno or 0):
                return isinstance(node, ast.FunctionDef) and bool(node.decorator_list)
    return True


def spots(file: str) -> Iterator[Spot]:
    """Every change of a file, but for those of types, which compute nothing."""
    types = list(_annotations(file))
    for rule in RULES:
        operator = get_operator(rule)()
        for line, statement in _statements(file).items():
            places = [start for node in _nodes(statement) for start, _ in operator.mutation_positions(node)]
            for occurrence, start in enumerate(places):
                if not any(first <= start < last for first, last in types):
                    yield Spot(file, line, rule, occurrence)


@cache
def _statements(file: str) -> dict[int, Any]:
    """The statements that are in no other, by the line where the text of each begins, comments before it included."""
    found, line = {}, 1
    for statement in get_ast(source(file)).children:
        found[line] = statement
        line += str(statement.get_code()).count("\n")
    return found


def _nodes(node: Any) -> Iterator[Any]:
    """A tree's nodes in the order in which cosmic-ray visits them."""
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def _annotations(file: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(line, column) where each type begins and ends."""
    for node in ast.walk(ast.parse(source(file))):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef):
            found = [node.returns]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found = [node.annotation]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("Integer",):
            found = [node.value]
        for each in found:
            if each is not None:
                yield (each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)


@cache
def _functions(file: str) -> dict[int, str]:
    """The function or class that each line belongs to, by its number."""
    names = dict.fromkeys(range(1, source(file).count("\n") + 2), "")

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                first = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                names.update(dict.fromkeys(range(first, (child.end_lineno or 0) + 1), name))
                walk(child, f"{name}.")

    walk(ast.parse(source(file)), "")
    return names
