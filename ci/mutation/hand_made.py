"""Hand-made bugs: a text of a source file replaced by another one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from ci.mutation.netlist import MutationError
from host.simulation.rtl_index import ROOT, RtlIndex

LIST = Path(__file__).with_name("hand_made.yaml")
_KEYS = {"id", "file", "find", "replace", "kind"}


@dataclass(frozen=True)
class HandMutant:
    """One entry of hand_made.yaml; `path` is the file that it changes."""

    id: str
    kind: str
    path: Path
    find: str
    replace: str
    first: str = ""  # name of the test to begin with, where the order by size would be slow

    @property
    def module(self) -> str:
        """Name of the module or package, which is the file's."""
        return self.path.stem

    @property
    def key(self) -> str:
        """Hash of the changed file and the change."""
        return hashlib.sha256(
            f"{self.path.read_text()}\0{self.find}\0{self.replace}".encode()
        ).hexdigest()[:12]

    @property
    def title(self) -> str:
        """One line: name, kind and change."""
        return (
            f"{self.id}: {self.kind} ({' '.join(self.find.split())}  ->  "
            f"{' '.join(self.replace.split()) or 'nothing'})"
        )

    def plant(self, folder: Path, index: RtlIndex) -> RtlIndex:
        """Write the changed file into `folder` and return the index of the sources with it."""
        folder.mkdir(parents=True, exist_ok=True)
        changed = folder / self.path.name
        changed.write_text(self.path.read_text().replace(self.find, self.replace))
        places = sorted({u.path for u in index.units.values()} - {self.path})
        return RtlIndex(*places, changed)


def load(path: Path = LIST, rtl: Path = ROOT / "rtl") -> list[HandMutant]:
    """Read the list. Raises MutationError naming an entry that is incomplete, used twice, or whose
    text is not there exactly once."""
    mutants = [
        _entry(entry, path, rtl) for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []
    ]
    names = [m.id for m in mutants]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise MutationError(f"{path.name}: id used twice: {', '.join(twice)}")
    return mutants


def _entry(entry: dict, path: Path, rtl: Path) -> HandMutant:
    name = entry.get("id", "?") if isinstance(entry, dict) else entry
    if not isinstance(entry, dict) or set(entry) - {"first"} != _KEYS:
        raise MutationError(
            f"{path.name}: entry {name!r} must have the keys {', '.join(sorted(_KEYS))} and may "
            "have 'first'"
        )
    source = rtl / entry["file"]
    if not source.is_file():
        raise MutationError(f"{path.name}: entry {name!r}: no file rtl/{entry['file']}")
    count = source.read_text(encoding="utf-8").count(entry["find"])
    if count != 1:
        raise MutationError(
            f"{path.name}: entry {name!r}: its text stands {count} times in rtl/{entry['file']}, "
            "not once"
        )
    if entry["find"] == entry["replace"]:
        raise MutationError(f"{path.name}: entry {name!r} changes nothing")
    return HandMutant(
        entry["id"], entry["kind"], source, entry["find"], entry["replace"], entry.get("first", "")
    )
