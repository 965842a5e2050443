"""`make sim`: runs one registered test on one simulator and says how to run it again."""

from __future__ import annotations

import secrets
import shlex
import sys

import click

from ci import cases, registry
from host.simulation import environment, runner
from host.simulation.progress import Heartbeat
from model.common.command import Command

TAIL_LINES = 40


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
        cases = _cases(registry.load(), name, sim, modules)
    except (registry.RegistryError, runner.RunnerError) as error:
        raise SystemExit(f"error: {error}") from None
    seed = secrets.randbelow(2**31) if seed is None else seed
    settings = environment.bench_settings()
    again = " ".join(
        [
            f"make sim TEST={name} SIM={sim} SEED={seed}",
            *([f"MODULES={modules}"] if modules else []),
            *(f"{variable}={shlex.quote(value)}" for variable, value in settings.items()),
        ]
    )
    print(f"{name}: {cases[0].test.about}\nseed {seed}; to run it again: {again}", flush=True)
    failed = sum(not _run(case, seed, waves, settings) for case in cases)
    if failed:
        print(f"to reproduce: {again} WAVES=1")
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


def _cases(
    tests: registry.Registry, name: str, sim: str, modules: str | None
) -> list[registry.Case]:
    if name not in tests.tests:
        known = "\n".join(f"  {t.name:24} {t.about}" for t in tests.tests.values()) or "  (none)"
        reason = f"no test named {name!r}" if name else "which test? Give TEST=name"
        raise runner.RunnerError(f"{reason}. Tests there are:\n{known}")
    test = tests.tests[name]
    if sim not in test.simulators:
        raise runner.RunnerError(
            f"test {name!r} does not run on {sim}, only on {', '.join(test.simulators)}"
        )
    if reason := runner.missing(sim):
        raise runner.RunnerError(reason)
    if modules and not test.has_modules:
        print(
            f"note: {test.toplevel} has no parameter NUM_MODULES; MODULES={modules} changes nothing"
        )
    return test.cases(sim, int(modules)) if modules else test.usual_cases(sim)


def _run(case: registry.Case, seed: int, waves: bool, settings: dict[str, str]) -> bool:
    with Heartbeat(lambda: f"{case.key} builds or runs"):
        result = cases.run_case(case, seed, waves, jobs=2, env=settings)
    for test in result.tests:
        print(f"  {test.status:7} {test.name} ({test.seconds:.1f} s)")
    times = f"build {result.build_seconds:.1f} s, simulation {result.seconds:.1f} s"
    print(
        f"{'pass' if result.passed else 'FAIL'} {case.key}: {times}"
        + (f"; {result.error}" if result.error else "")
    )
    if not result.passed and result.log:
        lines = result.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        print(f"----- last {len(lines)} lines of {result.log}", *lines, "-----", sep="\n")
    elif result.log:
        print(f"log: {result.log}")
    if result.waves:
        print(f"waves: {result.waves}")
    return result.passed


if __name__ == "__main__":
    main()
