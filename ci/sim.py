"""`make sim`: runs one bench of ci/tests.yaml on one simulator and says how to run it again."""

from __future__ import annotations

import secrets
import sys

import click

from ci import registry, results
from host.simulation import environment, process, runner
from model.common.command import Command


@click.command(cls=Command, help=__doc__)
@click.option("--test", "name", default="", help="name in ci/tests.yaml")
@click.option("--sim", type=click.Choice(registry.SIMULATORS), default="verilator")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=None, help="random if not given")
@click.option("--waves", is_flag=True, help="record every signal")
@click.option(
    "--modules",
    type=click.Choice(["4", "8", "16"]),
    default=None,
    help="NUM_MODULES (default 4, or what the test is about)",
)
def main(name: str, sim: str, seed: int | None, waves: bool, modules: str | None) -> None:
    try:
        test = registry.named(registry.load(), name)
    except registry.RegistryError as error:
        raise SystemExit(f"error: {error}") from None
    if sim not in test.simulators:
        only = ", ".join(test.simulators)
        raise SystemExit(f"error: test {name!r} does not run on {sim}, only on {only}")
    if reason := runner.missing(sim):
        raise SystemExit(f"error: {reason}")
    if modules and not test.has_modules:
        print(
            f"note: {test.toplevel} has no parameter NUM_MODULES; MODULES={modules} changes nothing"
        )
    seed = secrets.randbelow(2**31) if seed is None else seed
    print(f"{name}: {test.about}\nseed {seed}", flush=True)
    arguments = ["ci/test_benches.py", f"--bench={name}", f"--sim={sim}", f"--case-seed={seed}"]
    arguments += ["-s", *[f"--modules={modules}"] * bool(modules), *["--waves"] * waves]
    with process.folder() as folder:
        settings = environment.bench_settings()
        reports = results.run_pytest(arguments, folder / "junit.xml", settings)
    failed = sum(report.count("failed") > 0 for report in reports)
    for again in sorted({report.again for report in reports}):
        print(f"to run it again: {again}")
    print(f"{len(reports) - failed} passed, {failed} failed")
    sys.exit(failed > 0)
