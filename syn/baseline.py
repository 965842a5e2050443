"""Figures that must not get worse unaware: syn/baseline.json, changed on purpose only.

An entry is named target/build/block; the build is the number of modules, and -planes-2 for two
index planes. A block gets worse when its logic cells grow by more than
2 % or its clock falls by more than 5 %.
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
    return {"cells": result.lut4, "mhz": result.median_mhz}


def worse(old: dict[str, dict], new: dict[str, dict]) -> list[str]:
    """What got worse, one line each; an entry that the baseline lacks counts as worse."""
    lines = []
    for name, now in new.items():
        before = old.get(name)
        if before is None:
            lines.append(f"{name}: not in the baseline")
            continue
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
