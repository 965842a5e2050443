"""Moves flip-flops behind block RAM and multipliers into these blocks' output registers (ECP5).

Yosys leaves the output registers of DP16KD and MULT18X18D unused, so that a path begins with the
RAM's long delay from clock to output or crosses a whole multiplier. An output takes its register
when each bit of it that is read goes to one plain flip-flop of one clock (the RAM port's) and
nowhere else: no enable, no reset, no inverted clock. The words that leave the flip-flops are the
same ones in the same cycles.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Cell = dict[str, Any]
Sinks = dict[int, list[tuple[str, str]]]  # {bit: cells and their ports that it goes to}
# Parameters of a flip-flop that takes its input at every rising edge.
_PLAIN = {"CEMUX": "1", "CLKMUX": "CLK", "REGSET": "RESET"}
_MULTIPLIER = {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0"}


def move(cells: dict[str, Cell], outputs: set[int]) -> int:
    """Move what can be moved in the cells of a flat netlist (Yosys' JSON), in place; outputs: bits
    that leave it. Returns the number of RAM ports and multipliers that took their register."""
    sinks: Sinks = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for bit in bits:
                    sinks[bit].append((name, port))
    for bit in outputs:
        sinks[bit].append(("", ""))
    moved = 0
    for block in list(cells.values()):
        if block["type"] == "DP16KD":
            for port in "AB":
                if _take(cells, sinks, block, f"DO{port}", block["connections"][f"CLK{port}"]):
                    block["parameters"][f"REGMODE_{port}"] = "OUTREG"
                    moved += 1
        elif block["type"] == "MULT18X18D" and (clock := _take(cells, sinks, block, "P")):
            pins = {"CLK0": clock, "CE0": ["1"], "RST0": ["0"]}
            block["connections"] |= pins
            block["port_directions"] |= dict.fromkeys(pins, "input")
            block["parameters"] |= _MULTIPLIER
            moved += 1
    return moved


def _take(
    cells: dict[str, Cell], sinks: Sinks, block: Cell, prefix: str, clock: list | None = None
) -> list | None:
    """Let the outputs with this prefix drive what their flip-flops drive, and remove these, if all
    can; clock: theirs (None: any, but one). Returns it, None if nothing was moved."""
    registers = {}
    for port, bits in block["connections"].items():
        if port.startswith(prefix) and (reached := sinks[bits[0]]):
            name = _register(cells, reached)
            if name is None or cells[name]["connections"]["CLK"] != (
                clock := clock or cells[name]["connections"]["CLK"]
            ):
                return None
            registers[port] = name
    if not registers:
        return None
    for port, name in registers.items():
        block["connections"][port] = cells.pop(name)["connections"]["Q"]
    return clock


def _register(cells: dict[str, Cell], reached: list[tuple[str, str]]) -> str | None:
    """Name of the one plain flip-flop that a bit goes to, None if it goes elsewhere."""
    if len(reached) != 1:
        return None
    ((name, port),) = reached
    cell = cells.get(name)
    plain = bool(
        cell
        and cell["type"] == "TRELLIS_FF"
        and port == "DI"
        and all(cell["parameters"].get(key, "").strip() == value for key, value in _PLAIN.items())
        and cell["connections"].get("LSR", ["0"]) == ["0"]
    )
    return name if plain else None
