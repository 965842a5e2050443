"""Bugs as changes of a source text: those of hand_made.yaml, and those that `designed` makes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ci import registry
from host.simulation.rtl_index import ROOT
from model.common.errors import UserError

LIST = Path(__file__).with_name("hand_made.yaml")


class MutationError(UserError):
    """Mutation testing cannot go on; the message names the culprit."""


class Entry(registry.Strict):
    """One entry of hand_made.yaml; its first lines document the fields."""

    id: str
    file: str
    kind: str
    find: str
    replace: str


@dataclass(frozen=True)
class Mutant:
    """Characters `start` to `end` of the file `path`, whose text is `source`, become `new`.

    kind: hand-made or designed. id: name of a hand-made one, class of a designed one. about: what
    goes wrong.
    """

    kind: str
    id: str
    about: str
    path: Path
    start: int
    end: int
    new: str
    source: str = field(repr=False)

    @property
    def module(self) -> str:
        """Name of the module or package, which is the file's."""
        return self.path.stem

    @property
    def text(self) -> str:
        """The whole file with the bug."""
        return self.within(0, len(self.source))

    def within(self, start: int, end: int) -> str:
        """Characters `start` to `end` of the source, which hold the bug's place, with the bug."""
        return self.source[start : self.start] + self.new + self.source[self.end : end]

    @cached_property
    def key(self) -> str:
        """Hash of the code before and after: it holds until the module changes in more than
        comments and blanks."""
        facts = (self.module, code(self.source), code(self.text))
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """One line: place, what goes wrong, and change."""
        line = self.source.count("\n", 0, self.start) + 1
        old, new = (
            " ".join(text.split()) for text in (self.source[self.start : self.end], self.new)
        )
        return f"{self.id}, {self.path.name}:{line}: {self.about} ({old}  ->  {new or 'nothing'})"


def code(text: str) -> str:
    """A source without comments, words separated by single blanks."""
    return " ".join(re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S).split())


def hand_made(path: Path = LIST, rtl: Path = ROOT / "rtl") -> list[Mutant]:
    """Read the list. Raises MutationError naming an entry that is incomplete, used twice, or whose
    text is not there exactly once."""
    entries = registry.read(path, list[Entry], MutationError)
    mutants = [_mutant(entry, path, rtl) for entry in entries]
    names = [m.id for m in mutants]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise MutationError(f"{path.name}: id used twice: {', '.join(twice)}")
    return mutants


def _mutant(entry: Entry, path: Path, rtl: Path) -> Mutant:
    file, where = rtl / entry.file, f"{path.name}: entry {entry.id!r}"
    if not file.is_file():
        raise MutationError(f"{where}: no file rtl/{entry.file}")
    source = file.read_text(encoding="utf-8")
    if (count := source.count(entry.find)) != 1:
        what = f"its text stands {count} times in rtl/{entry.file}, not once"
        raise MutationError(f"{where}: {what}")
    if entry.find == entry.replace:
        raise MutationError(f"{where} changes nothing")
    old, new, shift = _trimmed(entry.find, entry.replace)
    start = source.index(entry.find) + shift
    place = (file, start, start + len(old))
    return Mutant("hand-made", entry.id, entry.kind, *place, new, source)


def _trimmed(find: str, replace: str) -> tuple[str, str, int]:
    """Both texts without the words that they share at their ends, but for one, and the number of
    characters left out in front."""
    old, new = (re.findall(r"\s+|[\w$']+|.", text, re.S) for text in (find, replace))
    while min(len(old), len(new)) > 1 and old[-1] == new[-1]:
        del old[-1], new[-1]
    shift = 0
    while min(len(old), len(new)) > 1 and old[0] == new[0]:
        shift += len(old[0])
        del old[0], new[0]
    return "".join(old), "".join(new), shift
