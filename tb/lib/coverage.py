"""Functional coverage: counts the points that a simulation hits and writes them to coverage.json in
its folder.

A point is `group.point`. tb/lib/cover_groups.py declares all points, and a hit of any other one is
an error. Test benches call `hit` after they have compared the RTL's results, not when they send a
stimulus. Only cases that passed are merged.

The cocotb-coverage package does not fit: its points are decorators, which exist only once their
test bench is imported, so a point that nobody samples is not reported as missed.
"""

from __future__ import annotations

import atexit
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tb.lib.cover_groups import GROUPS

FILE = "coverage.json"  # in the folder of the simulation
_hits: Counter = Counter()


class CoverageError(AssertionError):
    """A group or point that tb/lib/cover_groups.py does not declare."""


def hit(group: str, *points: str) -> None:
    """Count one hit of each point of a group. Raises CoverageError for what is not declared."""
    if group not in GROUPS:
        raise CoverageError(f"coverage group {group!r} is not declared in tb/lib/cover_groups.py")
    for point in points:
        if point not in GROUPS[group]:
            raise CoverageError(
                f"coverage point {group}.{point} is not declared in tb/lib/cover_groups.py"
            )
        _hits[f"{group}.{point}"] += 1


def hits() -> Counter:
    """Hits of this process so far, by `group.point`."""
    return Counter(_hits)


def write() -> None:
    """Write the hits into the current folder; a simulation does so when it ends."""
    if _hits:
        Path(FILE).write_text(json.dumps(_hits, indent=0, sort_keys=True), encoding="utf-8")


def merge(files: Iterable[Path]) -> Counter:
    """Sum of the hits in the files; those that do not exist count nothing."""
    total: Counter = Counter()
    for path in files:
        if path.exists():
            total.update(json.loads(path.read_text(encoding="utf-8")))
    return total


atexit.register(write)
