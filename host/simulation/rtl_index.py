"""Which SystemVerilog file defines which module, and what each module needs.

A file under `rtl/` holds one module or package. The index finds the files of a top level and orders
them (packages first). No list of files is kept by hand, and an edit rebuilds only the models that
it affects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from model.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.S)
_DEFINITION = re.compile(r"^[ \t]*(module|package)\s+(?:automatic\s+|static\s+)?(\w+)", re.M)
_INCLUDE = re.compile(r'^\s*`include\s+"([^"]+)"', re.M)
_WORD = re.compile(r"\b[A-Za-z_]\w*\b")


class SourceError(UserError):
    """A module or file that is missing, or defined twice."""


@dataclass(frozen=True)
class Unit:
    """One module or package: its name, file, whether it is a package, and the names of the units it
    mentions."""

    name: str
    path: Path
    is_package: bool
    words: frozenset[str]
    includes: tuple[str, ...]


class RtlIndex:
    """All modules and packages below the given directories or in the given files."""

    def __init__(self, *places: Path):
        self.units: dict[str, Unit] = {}
        self.headers: dict[str, Path] = {}
        for place in places or (ROOT / "rtl", ROOT / "tb", ROOT / "host"):
            files = [place] if place.is_file() else sorted(place.rglob("*"))
            for path in files:
                if path.suffix in (".sv", ".v"):
                    self._add(path)
                elif path.suffix in (".svh", ".vh"):
                    self.headers[path.name] = path

    def _add(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        includes = tuple(_INCLUDE.findall(text))
        code = _COMMENT_OR_STRING.sub(" ", text)
        words = frozenset(_WORD.findall(code))
        for kind, name in _DEFINITION.findall(code):
            if name in self.units:
                raise SourceError(
                    f"{kind} {name} is defined in {self.units[name].path} and in {path}"
                )
            self.units[name] = Unit(name, path, kind == "package", words, includes)

    def needs(self, name: str) -> set[str]:
        """Names of the units that unit `name` mentions directly."""
        return {w for w in self.units[name].words if w in self.units and w != name}

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
        names = self.closure(top)
        packages = _topological(self, sorted(n for n in names if self.units[n].is_package))
        modules = sorted(n for n in names if not self.units[n].is_package)
        return list(dict.fromkeys(self.units[n].path for n in packages + modules))

    def include_files(self, top: str) -> list[Path]:
        """Header files that the units of `top` include, also through other headers."""
        todo = [inc for n in self.closure(top) for inc in self.units[n].includes]
        found: dict[str, Path] = {}
        while todo:
            name = Path(todo.pop()).name
            if name in self.headers and name not in found:
                found[name] = self.headers[name]
                todo.extend(_INCLUDE.findall(self.headers[name].read_text(encoding="utf-8")))
        return sorted(found.values())

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


def _topological(index: RtlIndex, names: list[str]) -> list[str]:
    done: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise SourceError("packages need each other in a circle: " + " -> ".join((*path, name)))
        if name not in done:
            for other in sorted(index.needs(name)):
                if other in names:
                    visit(other, (*path, name))
            done.append(name)

    for name in names:
        visit(name, ())
    return done
