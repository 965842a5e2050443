"""`make waves`: opens the last waves of a test in GTKWave or Surfer, with a view that groups the
signals that steer each block and shows states by name.

Beside the waves it writes view.gtkw with its tables of names for GTKWave, and view.sucl with
.surfer/mappings for Surfer. `excerpt` is for those without a viewer: the cycles before a failure as
text.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pywellen
from pyslang.syntax import SyntaxKind, SyntaxTree

from ci import registry
from host.register_map import ErrorCode
from host.simulation import runner
from host.simulation.rtl_index import RtlIndex
from model.common.command import Command
from model.common.errors import UserError

VIEWERS = {  # program: arguments before the waves
    "gtkwave": ("view.gtkw",),
    "surfer": ("-c", "view.sucl"),
}
CYCLES = 10  # of an excerpt
SIGNALS = 40
# What steers a block: its states, handshakes and pulses, and the streams.
_STEERING = re.compile(
    r"state_q|(?:\w+_)?(?:valid|ready|busy|done|start|idle|error|err|irq|last|clear|enable)(?:_[io])?"
    r"|\w*err\w*_code(?:_[io])?|[ms]?_?axis_\w+|layer_[qo]"
)
_STATES = re.compile(r"localparam\s+logic\s*\[\d+:0\]\s*([^;]+);")
_STATE = re.compile(r"(\w+)\s*=\s*\d+'([bdh])([\da-fA-F]+)")
_FAILED = re.compile(r"^\s*([\d.]+)ns\s.*\bfailed\b", re.M)
_BASES = {"b": 2, "d": 10, "h": 16}


@dataclass(frozen=True)
class Signal:
    """A signal of the waves; names: what its values are called."""

    path: str
    bits: int
    names: dict[int, str]
    wave: Any

    def at(self, time: int) -> str:
        """Its value: a name, a hexadecimal number, or bits if some are unknown."""
        value = self.wave.value_at(time)
        if not isinstance(value, int):
            return str(value or "-")[-16:]
        return self.names.get(value, f"{value:x}")


def states(source: str) -> dict[int, str]:
    """The states that a module declares: the local parameters ST_*, or the first list of several of
    one width."""
    lists = [
        [(name, int(digits, _BASES[base])) for name, base, digits in _STATE.findall(text)]
        for text in _STATES.findall(source)
    ]
    named = [pair for found in lists for pair in found if pair[0].startswith("ST_")]
    chosen = named or next((found for found in lists if len(found) > 2), [])
    return {value: name.removeprefix("ST_") for name, value in chosen}


def _instances(index: RtlIndex) -> dict[tuple[str, str], str]:
    """{(module, instance): module of the instance}"""
    found = {}
    for unit in index.units.values():

        def visit(node: Any, unit: Any = unit) -> None:
            if node.kind == SyntaxKind.HierarchyInstantiation:
                for instance in node.instances:
                    if getattr(instance, "decl", None):
                        found[unit.name, instance.decl.name.value] = node.type.value

        SyntaxTree.fromText(unit.path.read_text(encoding="utf-8")).root.visit(visit)
    return found


def groups(dump: Path, top: str, index: RtlIndex | None = None) -> dict[str, list[Signal]]:
    """{block: signals that steer it} from the top level down; blocks without any are left out."""
    index = index or RtlIndex()
    instances, modules = _instances(index), {}
    named: dict[str, dict[int, str]] = {}
    codes = {int(code): code.name for code in ErrorCode}
    found: dict[str, list[Signal]] = {}
    for var in pywellen.Waveform(str(dump)).all_vars():
        *scopes, name = var.full_name.split(".")
        if top not in scopes or not _STEERING.fullmatch(name):
            continue
        scopes = scopes[scopes.index(top) :]
        scope = ".".join(scopes)
        if scope not in modules:
            module = top
            for instance in scopes[1:]:  # blocks of generate loops are no instances
                module = instances.get((module, instance), module)
            modules[scope] = module
            source = index.units[module].path.read_text(encoding="utf-8")
            named.setdefault(module, states(source))
        names = named[modules[scope]] if name == "state_q" else codes if "err" in name else {}
        bits = int(var.bitwidth or 1)
        names = names if bits > 1 else {}
        signal = Signal(var.full_name, bits, names, var.signal)
        found.setdefault(scope, []).append(signal)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("."), item[0])))


def gtkwave(dump: Path, view: dict[str, list[Signal]]) -> dict[str, str]:
    """{file: text} of a view for GTKWave: a group for each block, a file for each set of names."""
    lines, tables = [f'[dumpfile] "{dump.name}"'], dict[str, str]()
    for scope, signals in view.items():
        lines += ["@800200", f"-{scope}"]
        for signal in signals:
            path = signal.path + (f"[{signal.bits - 1}:0]" if signal.bits > 1 else "")
            if signal.names:
                width = -(-signal.bits // 4)
                text = "".join(f"{v:0{width}X} {n}\n" for v, n in signal.names.items())
                table = tables.setdefault(text, f"names-{len(tables)}.txt")
                lines += ["@2022", f"^{list(tables).index(text) + 1} {table}", path]
            else:
                lines += ["@28" if signal.bits == 1 else "@22", path]
        lines += ["@1000200", f"-{scope}"]
    files = {table: text for text, table in tables.items()}
    return {"view.gtkw": "\n".join(lines) + "\n", **files}


def surfer(view: dict[str, list[Signal]]) -> dict[str, str]:
    """{file: text} of a view for Surfer: a divider for each block, a mapping for each set."""
    lines, tables = list[str](), dict[str, str]()
    for scope, signals in view.items():
        lines.append(f"divider_add {scope}")
        for signal in signals:
            lines.append(f"variable_add {signal.path}")
            if signal.names:
                values = "".join(f"{value} {name}\n" for value, name in signal.names.items())
                text = f"Bits = {signal.bits}\n{values}"
                table = tables.setdefault(text, f"clipq{len(tables)}")
                lines += [f"item_focus {signal.path.rpartition('.')[2]}"]
                lines += [f"item_set_format {table}", "item_unfocus"]
    files = {f".surfer/mappings/{t}.txt": f"Name = {t}\n{text}" for text, t in tables.items()}
    return {"view.sucl": "\n".join([*lines, "zoom_fit", ""]), **files}


def failure_time(log: str) -> float | None:
    """Nanoseconds at which the first test of a simulation's log failed."""
    found = _FAILED.search(log)
    return float(found.group(1)) if found else None


def excerpt(dump: Path, top: str, nanoseconds: float) -> str:
    """The signals that changed in the last clock cycles before a moment, one line each, sampled
    before the rising edges."""
    view = groups(dump, top)
    wave = pywellen.Waveform(str(dump))
    clock = next((v for v in wave.all_vars() if v.full_name.endswith(f"{top}.clk_i")), None)
    if clock is None:
        return "the waves hold no clock"
    unit = {"ps": 1000, "ns": 1}[str(wave.timescale)[-2:]] / int(str(wave.timescale)[:-2])
    end = nanoseconds * unit
    edges = [t for t, value in clock.signal if value == 1 and t <= end][-CYCLES:]
    rows = [["ns", *(f"{edge / unit:.0f}" for edge in edges)]]
    for scope, signals in view.items():
        for signal in signals:
            values = [signal.at(edge - 1) for edge in edges]
            if len(set(values)) > 1:
                name = f"{scope}.{signal.path.rpartition('.')[2]}".partition(".")[2]
                rows.append([name, *values])
    hidden, rows = len(rows) - 1 - SIGNALS, rows[: SIGNALS + 1]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    return "\n".join(lines + [f"({hidden} more signals changed)"] * (hidden > 0))


def last_dump(name: str) -> Path:
    """The newest waves of a test. Raises UserError if there are none."""
    folders = (runner.BUILD / "run").glob(f"{name}-*waves*")
    dumps = [d for folder in folders for d in folder.glob("dump.*")]
    if not dumps:
        raise UserError(f"no waves of {name!r}: make sim TEST={name} WAVES=1 records them")
    return max(dumps, key=lambda path: path.stat().st_mtime)


@click.command(cls=Command, help=__doc__.split("\n\n")[0])
@click.option("--test", "name", default="", help="name in ci/tests.yaml")
def main(name: str) -> None:
    try:
        test = registry.load().named(name)
    except registry.RegistryError as error:
        raise UserError(str(error)) from None
    dump = last_dump(test.name)
    view = groups(dump, test.toplevel)
    for file, text in {**gtkwave(dump, view), **surfer(view)}.items():
        path = dump.parent / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    click.echo(f"{dump}: {len(view)} blocks, {sum(map(len, view.values()))} signals")
    viewer = next((v for v in VIEWERS if shutil.which(v)), None)
    if viewer is None:
        raise UserError(
            f"no viewer is installed (sudo apt-get install gtkwave); the view is in {dump.parent}"
        )
    os.chdir(dump.parent)
    first = [dump.name] if viewer == "surfer" else []
    os.execlp(viewer, viewer, *first, *VIEWERS[viewer])
