"""Points of Verilator's code coverage: read, added up over simulations, mapped to source lines,
held against exclusions.

A point is a counter that Verilator put into a source file. Counters of the same place are added up
over instances, sets of parameters and simulations. Three kinds of items are made of them:

    line     a source line with statements; covered if each statement on it was executed
    branch   one arm of an if, a case or a conditional expression; covered if it was taken
    toggle   one direction (0->1 or 1->0) of one bit of a signal or port; covered if it happened

The format of coverage.dat is one line a counter: C '<key>\\2<value>\\1<key>\\2<value>...' <count>,
where the keys used here are f (file), l (line), n (column), t (line, branch, toggle), o (which arm,
or signal and direction) and S (the lines of a block, such as 48-52,55).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, StringConstraints, model_validator

from ci import registry
from model.common.errors import UserError

Kind = Literal["line", "branch", "toggle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_COUNTER = re.compile(r"C '(.*)' (\d+)")
_CONDITIONAL = {"cond_then", "cond_else"}


class CoverageError(UserError):
    """Coverage data or an exclusion that cannot be used; the message names the file and the
    entry."""


@dataclass(frozen=True, order=True)
class Item:
    """Something to cover. `file` is relative to the root; `name`: empty (line), the arm with its
    column (branch), the bit and direction (toggle)."""

    file: str
    line: int
    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}{' ' + self.name if self.name else ''}"


class Counts:
    """How often each item was covered, added up over all data files read."""

    def __init__(self, root: Path, places: Iterable[str] = ("rtl/",)):
        self._prefix, self._places = f"{root}/", tuple(places)
        self._blocks: Counter[Item] = Counter()  # straight-line code, under a branch's kind of name
        self._lines: defaultdict[Item, set[int]] = defaultdict(set)  # source lines of a block
        self._items: Counter[Item] = Counter()

    def read(self, path: Path) -> int:
        """Add the counters of one coverage.dat; returns how many lie in the places looked at.
        Raises CoverageError if there are none."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise CoverageError(f"{path}: {error.strerror}") from error
        known = sum(self._add(match) for match in map(_COUNTER.fullmatch, lines) if match)
        if not known:
            raise CoverageError(f"{path}: no coverage of {', '.join(self._places)}")
        return known

    def _add(self, match: re.Match) -> bool:
        keys = dict(pair.split("\2", 1) for pair in match[1].split("\1") if pair)
        file = keys["f"].removeprefix(self._prefix)
        if not file.startswith(self._places):
            return False
        line, count, what = int(keys["l"]), int(match[2]), keys["o"]
        if keys["t"] == "toggle":
            self._items[Item(file, line, "toggle", what)] += count
            return True
        arm = Item(file, line, "branch", f"{what}@{keys['n']}")
        if what != "block":
            self._items[arm] += count
        if keys.get("S") and what not in _CONDITIONAL:
            self._blocks[arm] += count
            self._lines[arm].update(_expand(keys["S"]))
        return True

    def items(self) -> dict[Item, int]:
        """{item: how often}; a line counts as often as the statement on it that was executed
        least."""
        result = dict(self._items)
        for block, count in self._blocks.items():
            for line in self._lines[block]:
                item = Item(block.file, line, "line")
                result[item] = min(count, result.get(item, count))
        return result


def _expand(lines: str) -> Iterable[int]:
    """`48-52,55` as numbers."""
    for part in lines.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclass(frozen=True)
class Exclusion:
    """Items of one kind in one file that need not be covered, and why: by source line (and arm of a
    branch), or by signal (a regular expression)."""

    file: str
    kind: str
    reason: str
    source: str = ""
    arm: str = ""
    signal: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.file, self.kind, self.source or self.signal, self.arm)))

    def matches(self, item: Item, text: str) -> bool:
        """Whether this exclusion names `item`, whose source line is `text`."""
        if (self.file, self.kind) != (item.file, item.kind):
            return False
        name = item.name.split("@")[0]
        if self.signal:
            return bool(re.fullmatch(self.signal, name.rpartition(":")[0]))
        return text.split("//")[0].strip() == self.source and self.arm in ("", name)


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Several = BeforeValidator(lambda value: value if isinstance(value, list) else [value])


class _Entry(registry.Strict):
    """An entry of the exclusion file, which documents its fields."""

    file: Text
    kind: Annotated[list[Kind], Several]
    source: Annotated[list[Text], Several] = []
    arm: str = ""
    signal: Annotated[list[Text], Several] = []
    reason: Text

    def exclusions(self) -> list[Exclusion]:
        """One for each kind and place."""
        own = {"arm": self.arm, "reason": self.reason}
        return [
            *(Exclusion(self.file, k, source=s, **own) for k in self.kind for s in self.source),
            *(Exclusion(self.file, k, signal=s, **own) for k in self.kind for s in self.signal),
        ]

    @model_validator(mode="after")
    def _fits(self) -> _Entry:
        toggle = self.kind == ["toggle"]
        if toggle == bool(self.source) or toggle != bool(self.signal) or "toggle" in self.kind[1:]:
            raise ValueError("needs kind: toggle and signal, or kind: line or branch and source")
        return self


def load_exclusions(path: Path) -> list[Exclusion]:
    """Read the exclusion file. Raises CoverageError naming the entry that is wrong."""
    entries = registry.read(path, list[_Entry], CoverageError)
    return [exclusion for entry in entries for exclusion in entry.exclusions()]


@dataclass
class FileCoverage:
    """Coverage of one source file: items by kind, those excluded, and those still to cover."""

    path: str
    source: list[str]
    counts: dict[Item, int] = field(default_factory=dict)
    excluded: dict[Item, Exclusion] = field(default_factory=dict)

    def relevant(self, kind: str) -> list[Item]:
        """Items of a kind that are not excluded."""
        return [item for item in self.counts if item.kind == kind and item not in self.excluded]

    def missed(self, kind: str) -> list[Item]:
        """Items of a kind that should have been covered and were not, in source order."""
        return sorted(item for item in self.relevant(kind) if not self.counts[item])

    def tally(self, kind: str) -> tuple[int, int]:
        """(covered, relevant)"""
        items = self.relevant(kind)
        return sum(self.counts[item] > 0 for item in items), len(items)


def by_file(items: dict[Item, int], exclusions: list[Exclusion], root: Path) -> list[FileCoverage]:
    """Items sorted by file, with the exclusions applied."""
    files: dict[str, FileCoverage] = {}
    for item, count in items.items():
        if item.file not in files:
            files[item.file] = FileCoverage(
                item.file, (root / item.file).read_text(encoding="utf-8").splitlines()
            )
        files[item.file].counts[item] = count
    for coverage in files.values():
        own = [e for e in exclusions if e.file == coverage.path]
        for item in coverage.counts:
            match = next((e for e in own if e.matches(item, coverage.source[item.line - 1])), None)
            if match:
                coverage.excluded[item] = match
    return [files[path] for path in sorted(files)]


def check_exclusions(
    files: list[FileCoverage], exclusions: list[Exclusion]
) -> tuple[list[str], list[str]]:
    """(errors, notes): exclusions that match nothing or only what was covered are errors; those of
    which a part was covered are noted."""
    errors, notes = [], []
    for exclusion in exclusions:
        counts = {
            item: c.counts[item] for c in files for item, e in c.excluded.items() if e == exclusion
        }
        hit = [item for item, count in counts.items() if count]
        if not counts:
            errors.append(f"exclusion without a match: {exclusion}")
        elif len(hit) == len(counts):
            errors.append(f"exclusion of what was covered: {exclusion}")
        elif hit:
            notes.append(
                f"{len(hit)} of {len(counts)} excluded items were covered, such as {hit[0]}: "
                f"{exclusion}"
            )
    return errors, notes


def total(files: list[FileCoverage], kind: str) -> tuple[int, int]:
    """(covered, relevant) over all files."""
    tallies = [coverage.tally(kind) for coverage in files]
    return sum(t[0] for t in tallies), sum(t[1] for t in tallies)
