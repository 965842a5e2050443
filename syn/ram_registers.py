"""Moves flip-flops behind block RAM into the RAM's own output register (ECP5).

Yosys leaves the output registers of DP16KD unused, so that a path begins with the RAM's long delay
from clock to output. A port takes its register when each bit that is read goes to one plain
flip-flop of the port's clock and nowhere else: no enable, no reset, no inverted clock. The words
that leave the flip-flops are the same ones in the same cycles.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Cell = dict[str, Any]
# Parameters of a flip-flop that takes its input at every rising edge.
_PLAIN = {"CEMUX": "1", "CLKMUX": "CLK", "REGSET": "RESET"}


def move(cells: dict[str, Cell], outputs: set[int]) -> int:
    """Move what can be moved in the cells of a flat netlist (Yosys' JSON), in place; outputs: bits
    that leave it. Returns the number of ports that took their register."""
    sinks: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for bit in bits:
                    sinks[bit].append((name, port))
    moved = 0
    for ram in [cell for cell in cells.values() if cell["type"] == "DP16KD"]:
        for port in "AB":
            read = {
                name: bits[0]
                for name, bits in ram["connections"].items()
                if name.startswith(f"DO{port}") and (sinks[bits[0]] or bits[0] in outputs)
            }
            registers = {}
            for name, bit in read.items():
                register = _register(cells, sinks[bit], ram["connections"][f"CLK{port}"])
                if register and bit not in outputs:
                    registers[name] = register
            if not read or len(registers) < len(read):
                continue
            for name, register in registers.items():
                ram["connections"][name] = cells.pop(register)["connections"]["Q"]
            ram["parameters"][f"REGMODE_{port}"] = "OUTREG"
            moved += 1
    return moved


def _register(cells: dict[str, Cell], sinks: list[tuple[str, str]], clock: list) -> str | None:
    """Name of the one plain flip-flop of `clock` that a bit goes to, None if it goes elsewhere."""
    if len(sinks) != 1:
        return None
    ((name, port),) = sinks
    cell = cells[name]
    plain = bool(
        cell["type"] == "TRELLIS_FF"
        and port == "DI"
        and all(cell["parameters"].get(key, "").strip() == value for key, value in _PLAIN.items())
        and cell["connections"]["CLK"] == clock
        and cell["connections"].get("LSR", ["0"]) == ["0"]
    )
    return name if plain else None
