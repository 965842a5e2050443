"""`make synth`: area on 7-series, or area and clock on an ECP5, block by block and as a whole."""

from __future__ import annotations

import concurrent.futures as futures
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.table import Table

from host.simulation import process
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.command import Command
from model.common.cores import cores
from model.common.errors import UserError
from model.common.files import write_text
from model.compiler.program_format import ARRAYS, PES
from syn import baseline, measure

PLAN = Path(__file__).parent / "blocks.yaml"
WHOLE = "whole"
KEYS = ("lc", "lc_per_pe", "lut", "ff", "dsp", "bram36", "fmax_mhz")


def chosen(plan: dict, names: Sequence[str]) -> list[str]:
    """Blocks that `names` stand for: `quick`, `all` (every block, then the whole), `whole`, or
    names of blocks. Raises UserError for a name that is none of them."""
    known = [*plan["blocks"], WHOLE]
    groups = {"quick": plan["quick"], "all": known}
    blocks: list[str] = []
    for name in names:
        if name not in known and name not in groups:
            raise UserError(f"no block named {name!r}; there are quick, all, {', '.join(known)}")
        blocks += groups.get(name, [name])
    return list(dict.fromkeys(blocks))


class Measurement:
    """Measures blocks for one target; keeps the names of those in work for the heartbeat."""

    def __init__(self, plan: dict, target: str, modules: int, planes: int, seeds: int):
        self.index = RtlIndex()
        self.plan, self.target = plan, target
        self.meaning = {"modules": modules, "planes": planes}
        self.seeds = list(range(1, seeds + 1))
        self.running: set[str] = set()

    def run(self, block: str) -> measure.Area | measure.Routed:
        """Measure one block, or the whole accelerator."""
        self.running.add(block)
        try:
            whole = self.plan["whole"]
            module = whole["module"] if block == WHOLE else block
            given = whole[self.target] if block == WHOLE else self.plan["blocks"][block]
            parameters = {k: self.meaning.get(v, v) for k, v in given.items()}
            if self.target == "xc7":
                return measure.area(self.index, module, parameters)
            return measure.routed(self.index, module, parameters, self.seeds, whole=block == WHOLE)
        finally:
            self.running.discard(block)


def table(target: str, results: Sequence[measure.Area | measure.Routed]) -> Table:
    """The results as a table of the terminal."""
    shown = Table(title=target)
    columns = {
        "xc7": ("block", "LC", "LUT", "FF", "DSP48", "RAMB36"),
        "ecp5": ("block", "LUT4", "FF", "MULT18", "DP16KD", "MHz", "slowest path, ns"),
    }
    for name in columns[target]:
        shown.add_column(name, justify="left" if name in ("block", "slowest path, ns") else "right")
    for r in results:
        if isinstance(r, measure.Area):
            row = [f"{r.lc:,}", f"{r.lut:,}", f"{r.ff:,}", f"{r.dsp}", f"{r.ramb36:g}"]
        else:
            ends = f"{r.path['from']} -> {r.path['to']}"
            path = f"{ends}, {r.path['ns']} ({r.path['logic_ns']} logic)"
            row = [
                f"{r.lut4:,}",
                f"{r.ff:,}",
                f"{r.mult18}",
                f"{r.ebr}",
                f"{r.median_mhz:.1f}",
                path,
            ]
        shown.add_row(r.block, *row)
    return shown


def summary(result: measure.Area | measure.Routed, modules: int) -> dict[str, float | None]:
    """Figures of the whole under the same names for both targets; None where one does not apply.
    lc_per_pe: logic cells of the whole for each PE."""
    found: dict[str, float | None] = dict.fromkeys(KEYS)
    if isinstance(result, measure.Routed):
        found |= {"lut": result.lut4, "dsp": result.mult18, "fmax_mhz": result.median_mhz}
    else:
        found |= {"lc": result.lc, "lc_per_pe": result.lc / (ARRAYS * PES * modules)}
        found |= {"lut": result.lut, "dsp": result.dsp, "bram36": result.ramb36}
    return found | {"ff": result.ff}


@click.command(cls=Command)
@click.option("--target", type=click.Choice(["xc7", "ecp5"]), default="ecp5", show_default=True)
@click.option("--modules", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--planes", type=click.Choice(["2", "3"]), default="3", show_default=True)
@click.option(
    "--block",
    "blocks",
    multiple=True,
    default=("all",),
    show_default=True,
    help="quick, all, whole, or the name of a block; may be given several times",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 20),
    default=3,
    show_default=True,
    help="runs of place and route, whose median counts",
)
@click.option("--jobs", type=click.IntRange(1), default=cores(), show_default=True)
@click.option("--check", is_flag=True, help="fail for a figure worse than syn/baseline.json")
@click.option("--update", is_flag=True, help="write the figures into syn/baseline.json")
def main(
    target: str,
    modules: str,
    planes: str,
    blocks: Sequence[str],
    seeds: int,
    jobs: int,
    check: bool,
    update: bool,
) -> None:
    """Synthesize blocks and the whole accelerator with open tools, and report area and clock.

    xc7: Yosys maps each block, its PEs alone; its estimate of logic cells counts. ecp5: each block
    is mapped, placed and routed on an LFE5U-85F, speed grade 6, between shift registers. A block
    that has not changed is not measured again.
    """
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    work = chosen(plan, blocks)
    build = modules if planes == "3" else f"{modules}-planes-{planes}"
    if check and not update:
        names = [plan["whole"]["module"] if block == WHOLE else block for block in work]
        baseline.require([f"{target}/{build}/{name}" for name in names], seeds)
    job = Measurement(plan, target, int(modules), int(planes), seeds)
    results: list[measure.Area | measure.Routed] = []

    def state() -> str:
        running = ", ".join(sorted(job.running))
        return f"{len(results)} of {len(work)} blocks done, running {running}"

    with process.pool(jobs) as pool, Heartbeat(state, 20.0):
        for done in futures.as_completed([pool.submit(job.run, block) for block in work]):
            results.append(done.result())
    results.sort(key=lambda r: r.block)
    Console(width=None if sys.stdout.isatty() else 120).print(table(target, results))
    out = measure.FOLDER / f"{target}-{build}.json"
    write_text(out, json.dumps([asdict(r) for r in results], indent=1) + "\n")
    click.echo(f"figures: {out.relative_to(ROOT)}")
    if WHOLE in work:
        (whole,) = (r for r in results if r.block == plan["whole"]["module"])
        out = ROOT / "build" / f"synth-{target}-{build}.json"
        write_text(out, json.dumps(summary(whole, int(modules)), indent=1) + "\n")
        click.echo(f"figures of the whole: {out.relative_to(ROOT)}")
    if update:
        baseline.update(target, build, results)
    if check:
        baseline.check(target, build, results)


if __name__ == "__main__":
    main()
