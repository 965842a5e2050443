"""`make regress`: runs every bench and suite of ci/tests.yaml by pytest and reports what passed,
failed and was skipped.

Besides the screen it writes build/regress/junit.xml, coverage.json (functional coverage) and
report.html. It fails if anything failed, if nothing ran, if a module under rtl/ lies in no
registered test, or if the testplan does not hold (ci/testplan.py).
"""

from __future__ import annotations

import secrets
import subprocess
import sys

import click

from ci import registry, results, testplan
from host.simulation import environment, runner
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.cores import cores
from model.common.errors import UserError


@click.command(cls=Command, help=__doc__)
@click.option("--sim", type=click.Choice(registry.SIMULATORS), help="one simulator only")
@click.option("--jobs", type=click.IntRange(1), default=cores(), help="tests at a time")
@click.option("--seed", default="1", help="a number, or 'random'; each case derives its own")
@click.option("--nightly", is_flag=True, help="also the long tests")
def main(sim: str | None, jobs: int, seed: str, nightly: bool) -> None:
    tests = registry.load()
    seed = str(begin(tests, sim, seed))
    out, suites = testplan.REGRESSION, tests.suites.values()
    testplan.load()
    (out / testplan.KEPT[2]).unlink(missing_ok=True)  # it says that the rest is complete
    extent = "with" if nightly else "without"
    print(f"regress: {jobs} tests at a time, seed {seed}, {extent} the long tests", flush=True)
    arguments = [results.BENCHES, *(s.pytest for s in suites if nightly or "nightly" not in s.tags)]
    arguments += [f"-n{jobs}", f"--seed={seed}", "--closing=regress", "-rfEs"]
    arguments += [f"--sim={sim}"] * bool(sim) + ["--nightly"] * nightly
    arguments += [f"--junitxml={out}/junit.xml", f"--html={out}/report.html"]
    describe = ["git", "describe", "--always", "--dirty"]
    git = subprocess.run(describe, cwd=ROOT, env=environment.child(), capture_output=True)
    arguments += ["--self-contained-html", "--metadata", "revision", git.stdout.decode().strip()]
    arguments += ["--metadata", "seed", seed, "--metadata", "simulators", sim or "all"]
    sys.exit(results.run_pytest(arguments, {"NIGHTLY": str(int(nightly))}))


def begin(tests: registry.Registry, sim: str | None, seed: str) -> int:
    """The seed, drawn if it is 'random'; says what SIM=icarus leaves out. Raises UserError for
    another word or a missing simulator."""
    if sim:
        runner.require(sim)
    if seed != "random" and not seed.isdecimal():
        raise UserError(f"SEED={seed} is neither a number nor 'random'")
    for test in tests.tests.values() if sim == "icarus" else ():
        if test.left_out_on_icarus:
            print(f"warning: Icarus leaves out of {test.name} {test.left_out_on_icarus}")
    return secrets.randbelow(2**31) if seed == "random" else int(seed)
