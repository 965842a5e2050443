"""Figures that must not get worse unaware: syn/baseline.json, changed on purpose only.

An entry is named target/build/block; the build is the number of modules, and -planes-2 for two
index planes. `seeds` are the runs of place and route whose median clock it has. A block gets worse
when its logic cells grow by more than 2 % or its clock falls by more than 5 %.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from model.common.errors import UserError
from model.common.files import write_text
from syn.measure import Area, Routed

FILE = Path(__file__).parent / "baseline.json"
CELLS_GROWTH, CLOCK_LOSS = 0.02, 0.05


class Worse(UserError):
    """A figure is worse than the baseline; the message names each with both values."""


def figures(target: str, build: str, results: Sequence[Area | Routed]) -> dict[str, dict]:
    """The figures that the baseline holds, by name of the entry."""
    return {f"{target}/{build}/{r.block}": _figures(r) for r in results}


def _figures(result: Area | Routed) -> dict[str, float]:
    if isinstance(result, Area):
        return {"cells": result.lc}
    return {"cells": result.lut4, "mhz": result.median_mhz, "seeds": len(result.mhz)}


def require(names: Sequence[str], seeds: int) -> None:
    """Raise UserError unless there are figures of all these entries, of as many seeds."""
    known = read()
    if missing := [name for name in names if name not in known]:
        raise UserError(
            f"{FILE.name} has no {', '.join(missing)}: name blocks that it has (BLOCK=), or write "
            "them with --update"
        )
    if other := [name for name in names if known[name].get("seeds", seeds) != seeds]:
        found = ", ".join(f"{known[name]['seeds']} for {name}" for name in other)
        raise UserError(f"--seeds {seeds} is not that of {FILE.name}: {found}")


def worse(old: dict[str, dict], new: dict[str, dict]) -> list[str]:
    """What got worse, one line each; the baseline has all entries."""
    lines = []
    for name, now in new.items():
        before = old[name]
        if now["cells"] > before["cells"] * (1 + CELLS_GROWTH):
            lines.append(f"{name}: {now['cells']:,} cells, {before['cells']:,} in the baseline")
        if "mhz" in now and now["mhz"] < before["mhz"] * (1 - CLOCK_LOSS):
            lines.append(f"{name}: {now['mhz']} MHz, {before['mhz']} in the baseline")
    return lines


def read() -> dict[str, dict]:
    """{entry: figures} of the baseline."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def update(target: str, build: str, results: Sequence[Area | Routed]) -> None:
    """Put the figures of these results into the baseline."""
    kept = {**read(), **figures(target, build, results)}
    write_text(FILE, json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def check(target: str, build: str, results: Sequence[Area | Routed]) -> None:
    """Raise Worse if a figure is worse than the baseline."""
    if lines := worse(read(), figures(target, build, results)):
        raise Worse(
            "; ".join(lines) + " (intended? then run the same command with --update and commit)"
        )
