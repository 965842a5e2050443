"""Bugs as designers make them, found on the syntax tree of a source: one small change each.

A comparison off by one or without its top bit, a constant off by one, a term of a condition left
out, priorities swapped, a set, clear or reset left out, a sticky bit for a pulse and the other way
round, two targets swapped, a neighbour's name, a wrong next state.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyslang.syntax import SyntaxKind as Kind
from pyslang.syntax import SyntaxNode, SyntaxTree

from ci.mutation.mutants import Mutant

Change = tuple[Any, str, str, str]  # node, its new text, class, what goes wrong
_RELATIONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_CONSTANT = re.compile(r"(?:\w+::)?[A-Z][A-Z0-9_]*|'[01]|1'b[01]|\d+'[bdh]\w+")
_LITERAL = re.compile(r"(\d+)'([bdh])([0-9a-fA-F]+)")
_SUFFIX = re.compile(r"(?:_d\d)?_[qdi]$")
_BASES = {"b": 2, "d": 10, "h": 16}
# Constant expressions, declarations and what is no logic: no bug can be switched on there.
_SKIPPED = {
    Kind.ModuleHeader,
    Kind.PackageDeclaration,
    Kind.ParameterDeclarationStatement,
    Kind.DataDeclaration,
    Kind.NetDeclaration,
    Kind.InitialBlock,
    Kind.ForVariableDeclaration,
    Kind.ParameterValueAssignment,
    Kind.FunctionPrototype,
    Kind.ElementSelect,
    Kind.EventControlWithExpression,
}
_ONLY_LAST = {  # their other parts are labels, targets, counts, types or generate conditions
    Kind.StandardCaseItem,
    Kind.NonblockingAssignmentExpression,
    Kind.AssignmentExpression,
    Kind.MultipleConcatenationExpression,
    Kind.CastExpression,
    Kind.LoopGenerate,
    Kind.ForLoopStatement,
}


def designed(path: Path) -> list[Mutant]:
    """All bugs of one source file, in its order; each is different code that parses."""
    source = path.read_text(encoding="utf-8")
    found: dict[str, Mutant] = {}
    for node, new, name, about in _Module(source).changes():
        start, end = _range(node)
        mutant = Mutant("designed", name, about, path, start, end, new, source)
        if mutant.key not in found and parses(mutant.text):
            found[mutant.key] = mutant
    return list(found.values())


def draw(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of the mutants, a fair sample; a mutant's turn depends on the seed and its hash."""
    turn = {m.key: hashlib.sha256(f"{seed} {m.key}".encode()).digest() for m in mutants}
    return sorted(mutants, key=lambda m: turn[m.key])[:count]


def parses(text: str) -> bool:
    """Whether a source has no syntax error."""
    return not any(d.isError() for d in SyntaxTree.fromText(text).diagnostics)


def types_of(root: Any, source: str, *, everywhere: bool) -> dict[str, str]:
    """Packed dimensions (with `signed`) of the signals of a module, empty for one bit; also those
    inside its blocks if `everywhere`. Memories, and names with two types, have none."""
    types: dict[str, str] = {}

    def visit(node: Any) -> None:
        if node.kind != Kind.Declarator or not (everywhere or _at_top(node)):
            return
        header = getattr(node.parent, "header", node.parent)
        kind = getattr(header, "dataType", None) or getattr(header, "type", None)
        if kind is not None:
            text = source[slice(*_range(kind))]
            known = re.fullmatch(r"logic\s*((?:signed\s*)?(?:\[.*\])?)", text, re.S)
            own = known[1] if known and not len(node.dimensions) else "?"
            types[node.name.value] = own if types.get(node.name.value, own) == own else "?"

    root.visit(visit)
    return {name: text for name, text in types.items() if text != "?"}


def _at_top(node: Any) -> bool:
    while node is not None and node.kind not in (Kind.GenerateBlock, Kind.FunctionDeclaration):
        node = node.parent
    return node is None


def _range(node: Any) -> tuple[int, int]:
    return node.sourceRange.start.offset, node.sourceRange.end.offset


def _exclude(*conditions: str) -> bool:
    """Whether two conditions compare a name with different constants."""
    one, two = (dict(re.findall(r"(\w+) == ([\w']+)", text)) for text in conditions)
    return any(name in two and two[name] != value for name, value in one.items())


class _Module:
    """One source file and what its names are declared as."""

    def __init__(self, source: str):
        self.source = source
        self.root = SyntaxTree.fromText(source).root
        self.types = types_of(self.root, source, everywhere=False)
        self.targets: dict[str, list[str]] = {}  # constants that a register is set to
        self.turn = itertools.count()  # one change goes up, the next down
        self.root.visit(self._states)

    def text(self, node: Any) -> str:
        start, end = _range(node)
        return self.source[start:end]

    def _states(self, node: Any) -> None:
        if node.kind == Kind.NonblockingAssignmentExpression:
            value = self.text(node.right)
            if re.fullmatch(r"[A-Z][A-Z0-9_]*", value):
                own = self.targets.setdefault(self.text(node.left), [])
                own += [value] * (value not in own)

    def changes(self) -> Iterator[Change]:
        yield from self._walk(self.root)

    def _walk(self, node: Any) -> Iterator[Change]:
        if node.kind in _SKIPPED:
            return
        if node.kind == Kind.NamedPortConnection and not node.name.value.endswith("_i"):
            return
        yield from self._own(node)
        children = [child for child in node if isinstance(child, SyntaxNode)]
        if node.kind in _ONLY_LAST:
            children = children[-1:]
        elif node.kind in (Kind.IfGenerate, Kind.CaseGenerate, Kind.CaseStatement):
            children = children[1:]
        for child in children:
            yield from self._walk(child)

    def _own(self, node: Any) -> Iterator[Change]:
        """The changes of one node itself."""
        text = self.text
        match node.kind:
            case (
                Kind.LessThanExpression
                | Kind.LessThanEqualExpression
                | Kind.GreaterThanExpression
                | Kind.GreaterThanEqualExpression
            ):
                left, right, op = text(node.left), text(node.right), node.operatorToken.valueText
                yield node, f"{left} {_RELATIONS[op]} {right}", "bound", "off by one"
                if not right.isdigit():
                    new = f"(({left}) << 1) {op} (({right}) << 1)"
                    yield node, new, "narrow", "compares without the top bit"
            case Kind.EqualityExpression | Kind.InequalityExpression:
                left, right, op = text(node.left), text(node.right), node.operatorToken.valueText
                if not right.isdigit() and right != "'1" and not right.startswith("1'"):
                    new = f"((({left}) ^ ({right})) << 1) {op} '0"
                    yield node, new, "narrow", "compares without the top bit"
            case Kind.LogicalAndExpression | Kind.LogicalOrExpression:
                yield node, text(node.left), "term", "a term is left out"
                if node.left.kind != node.kind:
                    yield node, text(node.right), "term", "a term is left out"
            case Kind.UnaryLogicalNotExpression:
                yield node, text(node.operand), "term", "the wrong way round"
            case Kind.IntegerVectorExpression:
                yield from self._literal(node)
            case Kind.CastExpression if _CONSTANT.fullmatch(text(node.right)[1:-1].strip()):
                sign = "+-"[next(self.turn) % 2]
                yield node, f"({text(node)} {sign} {text(node.left)}'(1))", "constant", "off by one"
            case Kind.IdentifierName:
                yield from self._neighbour(node)
            case Kind.ConditionalExpression:
                arm = (node.left, node.right)[next(self.turn) % 2]
                yield node, f"({text(arm)})", "choice", "always the same choice"
            case Kind.SimpleRangeSelect if text(node.left).isdigit() and text(node.left) != text(
                node.right
            ):
                new = f"{int(text(node.left)) - 1}:{text(node.right)}"
                yield node, new, "slice", "a slice is one bit short"
            case Kind.IdentifierSelectName:
                for select in node.selectors:
                    yield from self._own(select.selector)
            case Kind.ConditionalStatement:
                yield from self._condition(node)
            case Kind.ExpressionStatement:
                yield from self._assignment(node)
            case Kind.SequentialBlockStatement:
                yield from self._swapped([n for n in node.items if isinstance(n, SyntaxNode)])

    def _literal(self, node: Any) -> Iterator[Change]:
        match = _LITERAL.fullmatch(self.text(node))
        if match:
            width, base, digits = int(match[1]), match[2], match[3]
            value = int(digits, _BASES[base])
            step = 1 if value < 2 or next(self.turn) % 2 else -1
            new = (value + step) % 2**width
            yield (
                node,
                f"{width}'{base}{new:{base}}" if base != "h" else f"{width}'h{new:x}",
                ("constant"),
                "off by one",
            )

    def _neighbour(self, node: Any) -> Iterator[Change]:
        name = node.identifier.value
        stem, kind = _SUFFIX.sub("", name), self.types.get(name)
        if kind is None or stem == name:
            return
        for other in self.types:  # what feeds the register (`_d`) might close a loop
            same = _SUFFIX.sub("", other) == stem and self.types[other] == kind
            if same and other != name and not re.search(r"[^\d]_d$", other):
                yield node, other, "name", "a neighbour's name"
                return

    def _condition(self, node: Any) -> Iterator[Change]:
        text, predicate, body = self.text, node.predicate, node.statement
        condition = text(predicate)
        if node.elseClause:
            other = node.elseClause.clause
            if other.kind == Kind.ConditionalStatement and not _exclude(
                condition, text(other.predicate)
            ):
                new = f"({condition}) && !({text(other.predicate)})"
                yield predicate, new, "priority", "the later condition goes first"
        elif (
            body.kind == Kind.ExpressionStatement
            and body.expr.kind == Kind.NonblockingAssignmentExpression
        ):
            if text(body.expr.right) == "1'b1":
                new = f"{text(body.expr.left)} <= {condition};"
                yield node, new, "pulse", "a pulse instead of a sticky bit"
            elif not _CONSTANT.fullmatch(text(body.expr.right)):
                yield predicate, "1'b1", "enable", "in every cycle"

    def _assignment(self, node: Any) -> Iterator[Change]:
        if node.expr.kind != Kind.NonblockingAssignmentExpression:
            return
        left, right = self.text(node.expr.left), self.text(node.expr.right)
        states = self.targets.get(left, [])
        if right in states and len(states) > 1:
            other = states[(states.index(right) + 1) % len(states)]
            yield node.expr.right, other, "state", "a wrong next state"
        if _CONSTANT.fullmatch(right):
            yield node, ";", "left out", "a set, clear or reset is left out"
        elif self.types.get(left) == "" and not re.search(rf"\b{left}\b", right):
            yield (
                node.expr.right,
                f"({right}) || {left}",
                "sticky",
                "a sticky bit instead of a pulse",
            )
        if node.expr.right.kind in (Kind.AddExpression, Kind.SubtractExpression):
            new = f"(({right}) << 1) >> 1"
            yield node.expr.right, new, "narrow", "a result without its top bit"

    def _swapped(self, statements: list[Any]) -> Iterator[Change]:
        for one, two in zip(statements, statements[1:]):
            if one.kind != Kind.ExpressionStatement or two.kind != one.kind:
                continue
            a, b = one.expr, two.expr
            if a.kind != Kind.NonblockingAssignmentExpression or b.kind != a.kind:
                continue
            kinds = [self.types.get(self.text(n.left)) for n in (a, b)]
            if (
                kinds[0] is not None
                and kinds[0] == kinds[1]
                and self.text(a.right) != self.text(b.right)
            ):
                new = f"{self.text(b.left)} <= {self.text(a.right)};"
                new += f" {self.text(a.left)} <= {self.text(b.right)};"
                yield _Both(one, two), new, "targets", "two targets are swapped"


class _Both:
    """Two statements in a row as one node."""

    def __init__(self, one: Any, two: Any):
        class Range:
            start, end = one.sourceRange.start, two.sourceRange.end

        self.sourceRange = Range
