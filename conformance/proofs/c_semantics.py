"""What a C function means, as formulas over bit vectors: read from the headers themselves, not written down again.

The part of C99 that the primitives use: integers of 8 to 64 bits and structs of them, conversions and promotions,
every operator, if, and loops that end after a known number of turns. What C leaves undefined (overflow of signed
numbers, shifts by too much, shifts of negative numbers to the left, division by zero) becomes an obligation: a formula
that must hold wherever the statement is reached. What numerics.h relies on of the implementation is taken as it says
there: `>>` of negative numbers is arithmetic, and conversions to a narrower signed type keep the bits.

Products of two 32-bit numbers in 64 bits, which no solver likes, are a function that is not interpreted. `Products`
says what is known of it.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import z3
from pycparser import c_ast, c_parser

import ckernels
from conformance.toolchain import host_toolchains
from refsim.errors import ToolchainError

TURNS = 64
"""A loop that is not over after so many turns is none whose end is known."""


@dataclass(frozen=True)
class Kind:
    """An integer type: width in bits, and whether it is signed."""

    bits: int
    signed: bool


INT32, UINT32, INT64 = Kind(32, True), Kind(32, False), Kind(64, True)
_KINDS = {"int": INT32, "unsigned int": UINT32}
_KINDS |= {f"int{bits}_t": Kind(bits, True) for bits in (8, 16, 32, 64)}
_KINDS |= {f"uint{bits}_t": Kind(bits, False) for bits in (8, 16, 32, 64)}
_STDINT = """
typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t; typedef unsigned short uint16_t;
typedef int int32_t; typedef unsigned int uint32_t; typedef long long int64_t; typedef unsigned long long uint64_t;
#define INT32_MIN (-2147483647 - 1)
#define INT32_MAX 2147483647
"""


@dataclass(frozen=True)
class Value:
    """A bit vector and its type.

    Attributes:
        bits: the vector.
        kind: its type.
        narrow: the signed number that it was widened from, where it was.
    """

    bits: Any
    kind: Kind
    narrow: Any = None

    @property
    def significant(self) -> int:
        """Bits that hold the number."""
        return self.kind.bits if self.narrow is None else int(self.narrow.size())


Struct = dict[str, Value]


@dataclass
class Products:
    """Products of two 32-bit numbers in 64 bits, each once, and what is known of each.

    Attributes:
        facts: true of the products that were asked for.
    """

    facts: list[Any] = field(default_factory=list)
    _known: dict[tuple[int, int], Any] = field(default_factory=dict)
    _keep: list[Any] = field(default_factory=list)

    def of(self, a: Any, b: Any) -> Any:
        """The product of two 32-bit vectors, taken as signed."""
        a, b = z3.simplify(a), z3.simplify(b)
        if z3.is_bv_value(a) and z3.is_bv_value(b):
            return z3.BitVecVal(a.as_signed_long() * b.as_signed_long(), 64)
        first, second = sorted((a, b), key=lambda term: term.get_id())
        key = (first.get_id(), second.get_id())
        if key not in self._known:
            self._keep += [first, second]  # ids are those of living terms only
            p = z3.FreshConst(z3.BitVecSort(64), "product")
            self._known[key] = p
            lowest, zero = z3.BitVecVal(-(2**31), 32), z3.BitVecVal(0, 32)
            self.facts += [
                # at most 2^31 * 2^31, and otherwise at most 2^31 * (2^31 - 1)
                z3.Or(p == 2**62, z3.And(p <= 2**62 - 2**31, p >= -(2**62) + 2**31)),
                (p == 2**62) == z3.And(first == lowest, second == lowest),
                (p == 0) == z3.Or(first == zero, second == zero),
                z3.Implies(p != 0, (p > 0) == ((first > zero) == (second > zero))),
            ]
        return self._known[key]


@dataclass
class Meaning:
    """What a call came to.

    Attributes:
        result: its value.
        obligations: what must hold so that C defines it, and what for.
    """

    result: Value | Struct
    obligations: list[tuple[str, Any]]

    @property
    def bits(self) -> Any:
        """The value of a function that gives no struct."""
        assert isinstance(self.result, Value)
        return self.result.bits


class Program:
    """The functions of the headers.

    Args:
        headers: names below ckernels/include.

    Raises:
        ToolchainError: no compiler preprocesses them.
    """

    def __init__(self, headers: Sequence[str] = ("tinyformer/numerics.h", "tinyformer/dsp.h")) -> None:
        tree = c_parser.CParser().parse(_preprocessed(headers))
        self.functions = {node.decl.name: node for node in tree.ext if isinstance(node, c_ast.FuncDef)}
        self.structs = {
            node.name: [d.name for d in node.type.type.decls]
            for node in tree.ext
            if isinstance(node, c_ast.Typedef)
            and isinstance(node.type, c_ast.TypeDecl)
            and isinstance(node.type.type, c_ast.Struct)
        }

    def call(self, name: str, arguments: Sequence[Any], products: Products) -> Meaning:
        """What a function gives.

        Args:
            name: in C.
            arguments: bit vectors of the parameters' widths.
            products: those of the whole proof.
        """
        run = _Run(self, products)
        result = run.call(name, [run.typed(self.functions[name], i, bits) for i, bits in enumerate(arguments)])
        return Meaning(result, run.obligations)


def _preprocessed(headers: Sequence[str]) -> str:
    """The headers as plain C, without what compilers add of their own."""
    toolchain = host_toolchains()[0]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "stdint.h").write_text(_STDINT)
        source = Path(folder) / "all.c"
        source.write_text("".join(f'#include "{header}"\n' for header in headers))
        flags = ["-E", "-P", "-nostdinc", "-U__GNUC__", "-U__clang__", "-DTNF_NO_BUILTINS", f"-I{folder}"]
        command = [*toolchain.command, *flags, f"-I{ckernels.include_dir()}", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolchainError(f"{toolchain.name} cannot preprocess the headers: {done.stderr.strip()}")
    return re.sub(r"#.*", "", done.stdout)


class _Run:
    """One evaluation. Every branch is taken, under the condition that C would take it."""

    def __init__(self, program: Program, products: Products) -> None:
        self.program = program
        self.products = products
        self.obligations: list[tuple[str, Any]] = []
        self.path: Any = z3.BoolVal(True)  # within the function
        self.callers: Any = z3.BoolVal(True)  # that it is called at all
        self.scope: dict[str, Any] = {}
        self.result: Any = None

    # ---- functions and statements ----

    def typed(self, function: Any, index: int, bits: Any) -> Any:
        return bits if isinstance(bits, dict) else Value(bits, _kind(function.decl.type.args.params[index].type))

    def call(self, name: str, arguments: Sequence[Any]) -> Any:
        function = self.program.functions[name]
        outer = self.scope, self.path, self.callers, self.result
        self.callers = z3.And(self.callers, self.path)
        self.scope, self.path, self.result = {}, z3.BoolVal(True), None
        for parameter, argument in zip(function.decl.type.args.params, arguments, strict=True):
            known = isinstance(argument, dict)
            self.scope[parameter.name] = argument if known else self.convert(argument, _kind(parameter.type))
        self.statement(function.body)
        result = self.result
        if isinstance(result, Value):
            result = self.convert(result, _kind(function.decl.type.type))
        self.scope, self.path, self.callers, self.result = outer
        return result

    def statement(self, node: Any) -> None:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            self.expression(node)
        else:
            method(node)

    def _compound(self, node: Any) -> None:
        for item in node.block_items or []:
            self.statement(item)

    def _decllist(self, node: Any) -> None:
        for item in node.decls:
            self.statement(item)

    def _decl(self, node: Any) -> None:
        if isinstance(node.type, c_ast.ArrayDecl):
            self.scope[node.name] = [self.expression(item) for item in node.init.exprs]
        elif _type_name(node.type) in self.program.structs:
            fields = self.program.structs[_type_name(node.type)]
            self.scope[node.name] = {name: Value(z3.FreshConst(z3.BitVecSort(32)), INT32) for name in fields}
        else:
            kind = _kind(node.type)
            unset = Value(z3.FreshConst(z3.BitVecSort(kind.bits)), kind)
            self.scope[node.name] = self.convert(self.expression(node.init), kind) if node.init else unset

    def _return(self, node: Any) -> None:
        value = self.expression(node.expr)
        self.result = value if self.result is None else _choose(self.path, value, self.result)
        self.path = z3.BoolVal(False)

    def _if(self, node: Any) -> None:
        condition, before = self.truth(self.expression(node.cond)), self.path
        self.path = z3.simplify(z3.And(before, condition))
        then = self.path
        if not z3.is_false(then):
            self.statement(node.iftrue)
            then = self.path
        self.path = z3.simplify(z3.And(before, z3.Not(condition)))
        if node.iffalse is not None and not z3.is_false(self.path):
            self.statement(node.iffalse)
        self.path = z3.simplify(z3.Or(then, self.path))

    def _for(self, node: Any) -> None:
        self.statement(node.init)
        for _ in range(TURNS):
            condition = z3.simplify(self.truth(self.expression(node.cond)))
            if z3.is_false(condition):
                return
            assert z3.is_true(condition), "a loop whose number of turns depends on its data"
            self.statement(node.stmt)
            self.expression(node.next)
        raise AssertionError("a loop without end")

    # ---- expressions ----

    def expression(self, node: Any) -> Any:
        method: Any = getattr(self, f"_{type(node).__name__.lower()}")
        return method(node)

    def _constant(self, node: Any) -> Value:
        digits = node.value.lower().rstrip("ul")
        number = int(digits, 0)
        kind = UINT32 if "u" in node.value.lower() else INT32 if number < 2**31 else INT64
        return Value(z3.BitVecVal(number, kind.bits), kind)

    def _id(self, node: Any) -> Any:
        return self.scope[node.name]

    def _structref(self, node: Any) -> Value:
        value: Value = self.expression(node.name)[node.field.name]
        return value

    def _arrayref(self, node: Any) -> Value:
        index = z3.simplify(self.expression(node.subscript).bits)
        value: Value = self.expression(node.name)[index.as_signed_long()]
        return value

    def _funccall(self, node: Any) -> Any:
        arguments = [self.expression(item) for item in node.args.exprs]
        return self.call(node.name.name, arguments)

    def _cast(self, node: Any) -> Value:
        return self.convert(self.expression(node.expr), _kind(node.to_type.type))

    def _assignment(self, node: Any) -> Any:
        value = self.expression(node.rvalue)
        if node.op != "=":
            value = self.binary(node.op[:-1], self.expression(node.lvalue), value)
        return self.store(node.lvalue, value)

    def store(self, target: Any, value: Any) -> Any:
        if isinstance(target, c_ast.StructRef):
            place, key = self.expression(target.name), target.field.name
        else:
            place, key = self.scope, target.name
        if isinstance(value, Value):
            value = self.convert(value, place[key].kind)
        place[key] = _choose(self.path, value, place[key])
        return value

    def _unaryop(self, node: Any) -> Value:
        if node.op in ("p++", "p--", "++", "--"):
            old: Value = self.expression(node.expr)
            new: Value = self.store(node.expr, self.binary(node.op.strip("p")[0], old, _int(1)))
            return old if node.op.startswith("p") else new
        value = self.expression(node.expr)
        if node.op == "!":
            return _truth_value(z3.Not(self.truth(value)))
        value = self.promote(value)
        if node.op == "~":
            return Value(~value.bits, value.kind)
        if node.op == "-":
            return self.binary("-", Value(z3.BitVecVal(0, value.kind.bits), value.kind), value)
        assert node.op == "+", node.op
        return value

    def _ternaryop(self, node: Any) -> Any:
        condition, before = self.truth(self.expression(node.cond)), self.path
        self.path = z3.And(before, condition)
        yes = self.expression(node.iftrue)
        self.path = z3.And(before, z3.Not(condition))
        no = self.expression(node.iffalse)
        self.path = before
        if isinstance(yes, Value) and isinstance(no, Value):
            yes, no = self.usual(yes, no)
        return _choose(condition, yes, no)

    def _binaryop(self, node: Any) -> Value:
        if node.op in ("&&", "||"):
            left, before = self.truth(self.expression(node.left)), self.path
            self.path = z3.And(before, left if node.op == "&&" else z3.Not(left))
            right = self.truth(self.expression(node.right))
            self.path = before
            return _truth_value(z3.And(left, right) if node.op == "&&" else z3.Or(left, right))
        return self.binary(node.op, self.expression(node.left), self.expression(node.right))

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """An operator of two numbers, after the conversions that C makes first."""
        if op in ("<<", ">>"):
            return self.shift(op, self.promote(a), self.promote(b))
        a, b = self.usual(a, b)
        kind = a.kind
        if op in ("==", "!=", "<", ">", "<=", ">="):
            return _truth_value(_compare(op, a.bits, b.bits, kind.signed))
        if op in ("&", "|", "^"):
            return Value({"&": a.bits & b.bits, "|": a.bits | b.bits, "^": a.bits ^ b.bits}[op], kind)
        if op in ("/", "%"):
            assert not kind.signed, "signed division is not needed by any primitive"
            self.require("division by zero", b.bits != 0)
            return Value(z3.UDiv(a.bits, b.bits) if op == "/" else z3.URem(a.bits, b.bits), kind)
        if op == "*" and kind == INT64 and a.significant == b.significant == 32:
            return Value(self.products.of(a.narrow, b.narrow), kind)  # which always fits
        wide = [z3.SignExt(kind.bits, v) if kind.signed else z3.ZeroExt(kind.bits, v) for v in (a.bits, b.bits)]
        exact = {"+": wide[0] + wide[1], "-": wide[0] - wide[1], "*": wide[0] * wide[1]}[op]
        result = {"+": a.bits + b.bits, "-": a.bits - b.bits, "*": a.bits * b.bits}[op]
        if kind.signed and not (op == "*" and a.significant + b.significant <= kind.bits):
            self.require(f"overflow of {op}", exact == z3.SignExt(kind.bits, result))
        return Value(result, kind)

    def shift(self, op: str, a: Value, b: Value) -> Value:
        bits = a.kind.bits
        by = z3.ZeroExt(bits - b.kind.bits, b.bits) if bits >= b.kind.bits else z3.Extract(bits - 1, 0, b.bits)
        self.require("shift by too much", z3.ULT(by, bits))
        if op == ">>":
            return Value(a.bits >> by if a.kind.signed else z3.LShR(a.bits, by), a.kind)
        result = a.bits << by
        if a.kind.signed:
            self.require("left shift that does not fit", z3.And(a.bits >= 0, result >> by == a.bits, result >= 0))
        return Value(result, a.kind)

    # ---- conversions ----

    def promote(self, v: Value) -> Value:
        return self.convert(v, INT32) if v.kind.bits < 32 else v

    def usual(self, a: Value, b: Value) -> tuple[Value, Value]:
        a, b = self.promote(a), self.promote(b)
        bits = max(a.kind.bits, b.kind.bits)
        kind = Kind(bits, all(v.kind.signed for v in (a, b) if v.kind.bits == bits))
        return self.convert(a, kind), self.convert(b, kind)

    def convert(self, v: Value, kind: Kind) -> Value:
        if v.kind == kind:
            return v
        more = kind.bits - v.kind.bits
        if more <= 0:
            return Value(z3.Extract(kind.bits - 1, 0, v.bits) if more else v.bits, kind)
        wide = z3.SignExt(more, v.bits) if v.kind.signed else z3.ZeroExt(more, v.bits)
        origin = v.bits if v.narrow is None else v.narrow
        return Value(wide, kind, origin if v.kind.signed else None)

    def truth(self, v: Value) -> Any:
        return v.bits != 0

    def require(self, what: str, condition: Any) -> None:
        obligation = z3.simplify(z3.Implies(z3.And(self.callers, self.path), condition))
        if not z3.is_true(obligation):
            self.obligations.append((what, obligation))


def _int(number: int) -> Value:
    return Value(z3.BitVecVal(number, 32), INT32)


def _truth_value(condition: Any) -> Value:
    return Value(z3.If(condition, z3.BitVecVal(1, 32), z3.BitVecVal(0, 32)), INT32)


def _compare(op: str, a: Any, b: Any, signed: bool) -> Any:
    if op in ("==", "!="):
        return a == b if op == "==" else a != b
    if signed:
        return {"<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[op]
    return {"<": z3.ULT, ">": z3.UGT, "<=": z3.ULE, ">=": z3.UGE}[op](a, b)


def _choose(condition: Any, yes: Any, no: Any) -> Any:
    if isinstance(yes, dict):
        return {name: _choose(condition, yes[name], no[name]) for name in yes}
    if z3.is_true(condition):
        return yes
    return Value(z3.If(condition, yes.bits, no.bits), yes.kind)


def _type_name(node: Any) -> str:
    while not isinstance(node, c_ast.IdentifierType):
        node = node.type
    return " ".join(node.names)


def _kind(node: Any) -> Kind:
    return _KINDS.get(_type_name(node), INT32)
