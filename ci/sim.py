"""`make sim`: runs one bench of ci/tests.yaml on one simulator and says how to run it again."""

from __future__ import annotations

import secrets
import sys

import click

from ci import registry, results
from host.simulation import environment, runner
from model.common.command import Command


@click.command(cls=Command, help=__doc__)
@click.option("--test", "name", default="", help="name in ci/tests.yaml")
@click.option("--sim", type=click.Choice(registry.SIMULATORS), default="verilator")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=None, help="random if not given")
@click.option("--waves", is_flag=True, help="record every signal")
@click.option("--modules", type=click.Choice(["4", "8", "16"]), help="NUM_MODULES (usually 4)")
def main(name: str, sim: str, seed: int | None, waves: bool, modules: str | None) -> None:
    test = registry.load().named(name)
    if sim not in test.simulators:
        only = ", ".join(test.simulators)
        raise registry.RegistryError(f"test {name!r} does not run on {sim}, only on {only}")
    runner.require(sim)
    known = {case.parameters.get("NUM_MODULES") for case in test.cases(sim)}
    if modules and known == {None}:
        print(f"note: {test.toplevel} has no NUM_MODULES; MODULES={modules} changes nothing")
    if sim == "icarus" and test.left_out_on_icarus:
        print(f"warning: Icarus leaves out {test.left_out_on_icarus}")
    seed = secrets.randbelow(2**31) if seed is None else seed
    print(f"{name}: {test.about}\nseed {seed}", flush=True)
    arguments = [results.BENCHES, f"--bench={name}", f"--sim={sim}", f"--case-seed={seed}"]
    arguments += ["-s", "--closing=sim"]
    modules = modules or ("4" if {4, None} & known else None)  # or those that the test is about
    arguments += [f"--modules={modules}"] * bool(modules) + ["--waves"] * waves
    sys.exit(results.run_pytest(arguments, environment.bench_settings()))
