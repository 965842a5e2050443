"""Which SystemVerilog file defines which module, and what each module needs, as slang parses it.

A file under `rtl/` holds one module or package. The index finds the files of a top level and orders
them (packages first). No list of files is kept by hand, and an edit rebuilds only what it affects.
"""

from __future__ import annotations

import graphlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyslang.syntax import SyntaxKind, SyntaxTree

from model.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


class SourceError(UserError):
    """A module or file that is missing, or defined twice."""


@dataclass(frozen=True)
class Unit:
    """One module or package.

    name: of the module or package. path: its file. is_package: whether it is a package. needs:
    modules and packages that the file instantiates, imports or takes names from, known or not.
    """

    name: str
    path: Path
    is_package: bool
    needs: frozenset[str]


class RtlIndex:
    """All modules and packages below the given folders or in the given files.

    The default is the project's. Raises SourceError for a name that is defined twice and for a
    file that includes another one.
    """

    def __init__(self, *places: Path) -> None:
        self.units: dict[str, Unit] = {}
        for place in places or (ROOT / "rtl", ROOT / "syn", ROOT / "tb", ROOT / "host"):
            files = [place] if place.is_file() else sorted(place.rglob("*"))
            for path in files:
                if path.suffix in (".sv", ".v"):
                    self._add(path)

    def _add(self, path: Path) -> None:
        tree = SyntaxTree.fromText(path.read_text(encoding="utf-8"))
        if tree.getIncludeDirectives():
            raise SourceError(f"{path}: `include is not followed; use a package")
        defined: dict[str, bool] = {}
        needs: set[str] = set()

        def visit(node: Any) -> None:
            match node.kind:
                case SyntaxKind.ModuleDeclaration | SyntaxKind.PackageDeclaration:
                    defined[node.header.name.value] = node.kind == SyntaxKind.PackageDeclaration
                case SyntaxKind.HierarchyInstantiation:
                    needs.add(node.type.value)
                case SyntaxKind.PackageImportItem:
                    needs.add(node.package.value)
                case SyntaxKind.ScopedName if node.left.kind == SyntaxKind.IdentifierName:
                    needs.add(node.left.identifier.value)

        tree.root.visit(visit)
        for name, is_package in defined.items():
            if name in self.units:
                kind, other = "package" if is_package else "module", self.units[name].path
                raise SourceError(f"{kind} {name} is defined in {other} and in {path}")
            self.units[name] = Unit(name, path, is_package, frozenset(needs))

    def needs(self, name: str) -> set[str]:
        """Names of the units that unit `name` needs directly."""
        return {n for n in self.units[name].needs if n in self.units and n != name}

    def closure(self, top: str) -> set[str]:
        """Names of `top` and everything below it. Raises SourceError for an unknown top."""
        if top not in self.units:
            raise SourceError(f"no module named {top!r} in the sources")
        seen: set[str] = set()
        todo = [top]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(self.needs(name))
        return seen

    def files(self, top: str) -> list[Path]:
        """The files of `top` and everything below it: packages first, in the order they need each
        other."""
        names = sorted(self.closure(top))
        packages = {n: sorted(self.needs(n)) for n in names if self.units[n].is_package}
        try:
            ordered = [*graphlib.TopologicalSorter(packages).static_order()]
        except graphlib.CycleError as error:
            circle = " -> ".join(error.args[1])
            raise SourceError(f"packages need each other in a circle: {circle}") from None
        modules = [n for n in names if not self.units[n].is_package]
        return list(dict.fromkeys(self.units[n].path for n in ordered + modules))

    def modules_in(self, place: Path) -> list[Unit]:
        """All modules (no packages) whose file lies below `place`, by name."""
        return sorted(
            (u for u in self.units.values() if not u.is_package and u.path.is_relative_to(place)),
            key=lambda u: u.name,
        )

    def roots(self, place: Path) -> list[str]:
        """Modules below `place` that no other module there instantiates."""
        names = [u.name for u in self.modules_in(place)]
        used = {n for name in names for n in self.needs(name)}
        return [n for n in names if n not in used]
