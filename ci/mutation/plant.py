"""Plants many bugs in one tree of sources; a number in the file `mutant.txt` switches one on at
time 0 (0, or no file: none).

The smallest part of the source around a bug that can stand in two versions does: a condition, a
statement, the value of a continuous assignment or of an input port. With number 0, a model prints
`mutant N reached` once an instance where version N would have given another value at a rising clock
edge (where values cannot be compared: when the statement is reached, or at once). A test that
prints nothing of a mutant passes with it, too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyslang.syntax import StatementSyntax, SyntaxNode, SyntaxTree
from pyslang.syntax import SyntaxKind as Kind

from ci.mutation.designed import parses, types_of
from ci.mutation.mutants import Mutant
from host.simulation.rtl_index import RtlIndex

_SELECTOR = """
  integer mutant_file, mutant_found, mutant = 0;
  initial begin
    mutant_file = $fopen("mutant.txt", "r");
    if (mutant_file != 0) begin
      mutant_found = $fscanf(mutant_file, "%d", mutant);
      $fclose(mutant_file);
    end
  end
"""
_PROCESSES = (Kind.AlwaysFFBlock, Kind.AlwaysCombBlock, Kind.AlwaysBlock)
_ITEMS = (*_PROCESSES, Kind.ContinuousAssign, Kind.HierarchyInstantiation)
_ASSIGNMENTS = (Kind.AssignmentExpression, Kind.NonblockingAssignmentExpression)
Span = tuple[int, int]


def plant(
    mutants: dict[int, Mutant], folder: Path, index: RtlIndex
) -> tuple[RtlIndex, dict[int, Mutant]]:
    """Write the changed files of `mutants` (by number) into `folder`; the index of the sources with
    them, and the mutants that cannot be switched on: each needs a model of its own."""
    files: dict[Path, dict[int, Mutant]] = defaultdict(dict)
    for number, mutant in mutants.items():
        files[mutant.path][number] = mutant
    loose: dict[int, Mutant] = {}
    folder.mkdir(parents=True, exist_ok=True)
    places = {u.path for u in index.units.values()}
    for path, own in files.items():
        changed, left = planted(own)
        loose |= left
        if len(left) < len(own):
            (folder / path.name).write_text(changed, encoding="utf-8")
            places = places - {path} | {folder / path.name}
    return RtlIndex(*sorted(places)), loose


def alone(mutant: Mutant, folder: Path, index: RtlIndex) -> RtlIndex:
    """Write one mutant's file into `folder`, bug and all; the index of the sources with it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mutant.path.name).write_text(mutant.text, encoding="utf-8")
    places = {u.path for u in index.units.values()} - {mutant.path}
    return RtlIndex(*sorted(places), folder / mutant.path.name)


def planted(mutants: dict[int, Mutant]) -> tuple[str, dict[int, Mutant]]:
    """The text of the file that all `mutants` change, and those that it cannot hold."""
    source = next(iter(mutants.values())).source
    file = _File(source)
    loose = {n: m for n, m in mutants.items() if not (parses(m.text) and file.add(n, m))}
    return file.render(), loose


def _span(node: Any) -> Span:
    return node.sourceRange.start.offset, node.sourceRange.end.offset


def _is_input(port: str) -> bool:
    return port.endswith("_i") or port.startswith("hwif_in")


def _holds(outer: Span, inner: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


@dataclass
class _Item:
    """What is added around an item of a module: declarations, resets at the start of its process,
    and processes behind it."""

    before: str = ""
    start: str = ""
    after: str = ""


class _File:
    """A source whose spans are replaced from the inside out."""

    def __init__(self, source: str):
        self.source, self.root = source, SyntaxTree.fromText(source).root
        self.types = types_of(self.root, source, everywhere=True)
        self.versions: dict[Span, dict[int, str]] = defaultdict(dict)  # of conditions, statements
        self.values: dict[Span, dict[int, str]] = defaultdict(dict)  # of assignments and ports
        self.targets: dict[Span, str] = {}  # types of those values that are assigned
        self.conditions: set[Span] = set()
        self.monitors: dict[Span, str] = defaultdict(str)  # statements to put before a statement
        self.items: dict[Span, _Item] = defaultdict(_Item)
        self.bodies: dict[Span, Span] = {}  # the statement of a process -> its item
        clock = re.search(r"\b(clk_i|clk)\b\s*[,)]", source[: self._header()[1]])
        self.clock = clock[1] if clock else ""

    def _header(self) -> Span:
        nodes: list[Any] = [self.root, *(n for n in self.root if isinstance(n, SyntaxNode))]
        return next((_span(n.header) for n in nodes if n.kind == Kind.ModuleDeclaration), (0, 0))

    def add(self, number: int, mutant: Mutant) -> bool:
        """Take up one mutant; whether it can be switched on."""
        place = (mutant.start, mutant.end)
        chain = self._chain(place)
        first = next((i for i, n in enumerate(chain) if n.kind in _ITEMS), None)
        if first is None or not any(n.kind == Kind.ModuleDeclaration for n in chain[:first]):
            return False
        item, inside = chain[first], chain[first + 1 :]
        if any(n.kind == Kind.ParameterValueAssignment for n in inside):
            return False
        for depth in reversed(range(len(inside))):
            node, span = inside[depth], _span(inside[depth])
            new = mutant.within(*span)
            if node.kind == Kind.ConditionalPredicate:
                self.conditions.add(span)
                self.versions[span][number] = new
                differ = f"((|({new})) !== (|({self.source[slice(*span)]})))"
                outer = inside[:depth]
            elif isinstance(node, StatementSyntax):
                if node.kind == Kind.TimingControlStatement:
                    return False
                self.versions[span][number] = new
                outer = inside[: depth + 1]
                differ = self._assigned(number, mutant, item, node)
            elif self._is_value(node, item, place):
                return self._add_value(number, mutant, node, item)
            else:
                continue
            host = next((n for n in reversed(outer) if isinstance(n, StatementSyntax)), None)
            self._watch(number, differ, item, host)
            return True
        return False

    def _chain(self, place: Span) -> list[Any]:
        """The nodes around a place, from the root to the smallest."""
        chain: list[Any] = []
        node: Any = self.root
        while node is not None:
            chain.append(node)
            children = (n for n in node if isinstance(n, SyntaxNode) and _span(n)[0] < _span(n)[1])
            node = next((n for n in children if _holds(_span(n), place)), None)
        return chain

    def _is_value(self, node: Any, item: Any, place: Span) -> bool:
        """Whether the place lies in the value of an assignment or input port, which is `node`."""
        if item.kind == Kind.ContinuousAssign and node.kind == Kind.AssignmentExpression:
            return len(item.assignments) == 1 and _holds(_span(node.right), place)
        if node.kind == Kind.NamedPortConnection:
            own = node.expr and _holds(_span(node.expr), place)
            return bool(own) and _is_input(node.name.value)
        return False

    def _add_value(self, number: int, mutant: Mutant, node: Any, item: Any) -> bool:
        assigned = node.kind == Kind.AssignmentExpression
        span = _span(node.right if assigned else node.expr)
        new, old = mutant.within(*span), self.source[slice(*span)]
        differ = f"(({new}) !== ({old}))"
        if assigned:
            if (kind := self._type(node.left)) is None:
                return False
            self.targets[span] = kind
            differ = f"(mutant_{number} !== mutant_at_{span[0]})"
        elif "signed" in old + new:  # the widths that count are the port's
            differ = "1'b1"
        self.values[span][number] = new
        self._watch(number, differ, item, None)
        return True

    def _type(self, target: Any) -> str | None:
        """Sign and dimensions of what is assigned; None if that is hard to tell."""
        if target.kind == Kind.IdentifierName:
            return self.types.get(target.identifier.value)
        if target.kind != Kind.IdentifierSelectName or len(target.selectors) != 1:
            return None
        whole, select = self.types.get(target.identifier.value, ""), target.selectors[0].selector
        parts = [self.source[slice(*_span(n))] for n in select if isinstance(n, SyntaxNode)]
        inner = re.sub(r"^(?:signed\s*)?\[[^]]*\]", "", whole)
        if select.kind == Kind.BitSelect:
            return inner if whole else None
        if inner or not whole:
            return None
        ascending = select.kind == Kind.AscendingRangeSelect
        return f"[({parts[1]})-1:0]" if ascending else f"[({parts[0]})-({parts[1]}):0]"

    def _assigned(self, number: int, mutant: Mutant, item: Any, node: Any) -> str:
        """When the versions of a statement differ: for the value of an assignment alone, when the
        values do, in the width of their target."""
        if node.kind != Kind.ExpressionStatement or node.expr.kind not in _ASSIGNMENTS:
            return "1'b1"
        right, kind = _span(node.expr.right), self._type(node.expr.left)
        if kind is None or not _holds(right, (mutant.start, mutant.end)):
            return "1'b1"
        name = f"mutant_{number}"
        self.items[_span(item)].before += f"logic {kind} {name}, {name}_not;\n"
        values = f"{name} = {mutant.within(*right)};\n"
        values += f"{name}_not = {self.source[slice(*right)]};\n"
        self.monitors[_span(node)] += values
        return f"({name} !== {name}_not)"

    def _watch(self, number: int, differ: str, item: Any, host: Any) -> None:
        """Print that a mutant is reached when `differ` holds where statement `host` (None: the item
        itself) is reached."""
        added, seen = self.items[_span(item)], f"mutant_{number}_reached"
        if not self.clock:
            added.after += f'\ninitial $display("mutant {number} reached");'
            return
        if host is not None:
            body = item.statement
            if body.kind == Kind.TimingControlStatement:
                body = body.statement
            self.bodies[_span(body)] = _span(item)
            added.before += f"logic {seen};\n"
            added.start += f"{seen} = 1'b0;\n"
            self.monitors[_span(host)] += f"if ({differ}) {seen} = 1'b1;\n"
            differ = seen
        added.after += (
            f"\nreg {seen}_once = 1'b0;\nalways @(posedge {self.clock}) "
            f"if (mutant == 0 && {differ} && !{seen}_once) begin {seen}_once <= 1'b1; "
            f'$display("mutant {number} reached"); end'
        )

    def render(self) -> str:
        """The whole text with everything planted."""
        steps: list[tuple[Span, int, Callable[[Span, str], str]]] = []
        for group, order, step in (
            (self.items, 0, self._around_item),
            (self.bodies, 1, self._at_start),
            (self.monitors.keys() | self.versions.keys() - self.conditions, 2, self._statement),
            (self.conditions, 3, self._condition),
            (self.values, 3, self._value),
        ):
            steps += [(span, order, step) for span in group]
        if steps:
            steps.append((self._header(), 0, lambda span, inner: inner + _SELECTOR))
        steps.sort(key=lambda s: (s[0][0], -s[0][1], s[1]))
        return self._rewrite((0, len(self.source)), steps)

    def _rewrite(self, span: Span, steps: list) -> str:
        out, at, i = "", span[0], 0
        while i < len(steps):
            own, _, step = steps[i]
            j = i + 1
            while j < len(steps) and _holds(own, steps[j][0]):
                j += 1
            out += self.source[at : own[0]] + step(own, self._rewrite(own, steps[i + 1 : j]))
            at, i = own[1], j
        return out + self.source[at : span[1]]

    def _around_item(self, span: Span, inner: str) -> str:
        item = self.items[span]
        return f"{item.before}{inner}{item.after}"

    def _at_start(self, span: Span, inner: str) -> str:
        return f"begin {self.items[self.bodies[span]].start}{inner}\nend"

    def _statement(self, span: Span, inner: str) -> str:
        versions = self.versions.get(span, {})
        chain = "".join(
            f"if (mutant == {n}) begin\n{new}\nend else " for n, new in versions.items()
        )
        return f"begin {self.monitors.get(span, '')}{chain}begin\n{inner}\nend end"

    def _condition(self, span: Span, inner: str) -> str:
        versions = self.versions[span].items()
        return "(" + "".join(f"mutant == {n} ? |({new}) : " for n, new in versions) + f"|({inner}))"

    def _value(self, span: Span, inner: str) -> str:
        versions, kind = self.values[span], self.targets.get(span)
        if kind is None:
            return (
                "".join(f"mutant == {n} ? ({new}) : " for n, new in versions.items()) + f"({inner})"
            )
        item = next(s for s in self.items if _holds(s, span))
        wires = {f"mutant_at_{span[0]}": inner, **{f"mutant_{n}": v for n, v in versions.items()}}
        self.items[item].before += "".join(
            f"wire logic {kind} {name} = {value};\n" for name, value in wires.items()
        )
        return "".join(f"mutant == {n} ? mutant_{n} : " for n in versions) + f"mutant_at_{span[0]}"
