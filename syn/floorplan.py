"""Spreads the block RAMs of the partial-sum memory over an ECP5-85.

Each of them is 36 bits wide and has some hundred pins. nextpnr puts them side by side into one row
of block RAMs, where wires run out. Here two rows take them, over the device's whole width, and the
two copies of a word stay side by side.
"""

from __future__ import annotations

import re
from typing import Any

ROWS = (22, 46)  # the upper two of the part's four rows of block RAMs
# Block RAMs of a row come in fours; the clock's column lies between the seventh and eighth four.
COLUMNS = [x + step for x in [*range(4, 59, 9), *range(69, 115, 9)] for step in (0, 2, 4, 6)]
_RAM = re.compile(r"u_psum_memory\.u_(acc|drain)_ram\..*\.(\d+)$")  # its copy and its word


def spread(cells: dict[str, dict[str, Any]]) -> int:
    """Give the partial-sum memory's DP16KD in the cells of a flat netlist (Yosys' JSON) their
    places, in place. A netlist without this memory stays as it is. Returns how many it placed."""
    found = [
        (cell, int(name[2]), name[1] == "drain")
        for path, cell in cells.items()
        if cell["type"] == "DP16KD" and (name := _RAM.search(path))
    ]
    words = 1 + max((word for _, word, _ in found), default=0)
    for cell, word, second in found:
        at = min(int((word + 0.25) * len(COLUMNS) / words), len(COLUMNS) - 2) + second
        cell["attributes"]["BEL"] = f"X{COLUMNS[at]}/Y{ROWS[word % 2]}/EBR{at % 4}"
    return len(found)
