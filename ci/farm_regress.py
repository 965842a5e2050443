"""`make farm-regress`: the benches of the regression on a Dask cluster, each case a task that runs
in its worker's own checkout.

A case that has passed is a file in build/farm-regress, named by the sources and tools, the case and
its seed, so that an interrupted run continues. The other suites and the testplan are left to `make
regress`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ci import cases, registry, regress, results, testplan
from host import cluster
from host.simulation import runner
from model.common.command import Command
from model.common.errors import printable
from model.common.files import write_text
from tb.lib import coverage

FOLDER = runner.BUILD / "farm-regress"


@dataclass(frozen=True)
class Outcome:
    """Of one case: why it failed (empty if it passed), the statuses of its test functions, seconds,
    coverage hits if it passed, and the log's last lines if it failed."""

    error: str
    statuses: list[str]
    seconds: float
    hits: dict[str, int]
    tail: list[str]


def run_case(case: registry.Case, seed: int, wanted: str) -> Outcome:
    """On a worker. Raises UserError unless `cases.digest` is the `wanted` one, before and after."""
    cluster.check_same(cases.digest(), wanted)
    done = cases.run_case(case, seed)
    cluster.check_same(cases.digest(), wanted)
    statuses = [test.status for test in done.tests]
    if done.passed and done.log:
        hits = coverage.merge([done.log.with_name(coverage.FILE)])
        return Outcome("", statuses, done.seconds, dict(hits), [])
    lost = ["failed"] * ("failed" not in statuses)
    lines = done.log.read_text(errors="replace").splitlines() if done.log else []
    tail = lines[-cases.TAIL_LINES :]
    return Outcome(done.error, statuses + lost, done.seconds, {}, tail)


def outcome_of(future: Any) -> Outcome:
    """What a worker found. Several that died are the case's failure: Dask runs it again three
    times. Raises UserError for a worker that cannot run it."""
    from distributed import KilledWorker

    if isinstance(future.exception(), KilledWorker):
        return Outcome("each worker that ran it died", ["failed"], 0.0, {}, [])
    return cluster.result(future)


class Store:
    """The outcomes of cases that have passed, in files."""

    def __init__(self, seed: int) -> None:
        self.seed, self.digest = seed, cases.digest()

    def path(self, case: registry.Case) -> Path:
        """The file of a case."""
        name = f"{cases.run_dir(case).name}-{cases.seed_of(case, self.seed)}.json"
        return FOLDER / self.digest / name

    def kept(self, chosen: list[registry.Case]) -> dict[str, Outcome]:
        """Those of an earlier run, by the cases' keys."""
        paths = {case.key: self.path(case) for case in chosen}
        return {k: Outcome(**json.loads(p.read_text())) for k, p in paths.items() if p.exists()}

    def put(self, case: registry.Case, outcome: Outcome) -> None:
        """Keep an outcome, unless it is a failure, which may be the machine's."""
        if not outcome.error:
            self.path(case).parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path(case), json.dumps(asdict(outcome)) + "\n")


def compute(
    client: Any, todo: list[registry.Case], store: Store, found: dict[str, Outcome]
) -> None:
    """Have cases run, long ones first; each is told, kept and put into `found` as it ends."""

    def submit(case: registry.Case) -> Any:
        seed = cases.seed_of(case, store.seed)
        return client.submit(run_case, case, seed, store.digest, pure=False)

    todo = sorted(todo, key=lambda case: -case.test.seconds)
    ended = cluster.completed(client, todo, submit, before=len(found), what="cases")
    for case, future in ended:
        found[case.key] = outcome = outcome_of(future)
        store.put(case, outcome)
        verdict = f"FAILED: {printable(outcome.error)}" if outcome.error else "passed"
        click.echo(f"{case.key} ({outcome.seconds:.1f} s) {verdict}")


def report(chosen: list[registry.Case], found: dict[str, Outcome], seed: int) -> None:
    """Failures with the command that repeats each, and the coverage points that were hit."""
    for case in chosen:
        if (outcome := found[case.key]).error:
            click.echo(f"\nFAILED {case.key}: {printable(outcome.error)}")
            click.echo("\n".join(f"  {printable(line)}" for line in outcome.tail))
            click.echo(f"to reproduce: {cases.command(case, cases.seed_of(case, seed), {})}")
    hits = sum((Counter(outcome.hits) for outcome in found.values()), Counter[str]())
    click.echo(f"{len(hits)} of {len(testplan.declared())} coverage points hit")


@click.command(cls=Command, help=__doc__)
@click.option("--sim", type=click.Choice(registry.SIMULATORS), help="one simulator only")
@click.option("--seed", default="1", help="a number, or 'random'; each case derives its own")
@click.option("--nightly", is_flag=True, help="also the long tests")
@click.option("--scheduler", help="address of a Dask cluster  [one on this machine]")
@click.option("--workers", type=click.IntRange(min=1), help="of a cluster on this machine")
def main(
    sim: str | None, seed: str, nightly: bool, scheduler: str | None, workers: int | None
) -> None:
    tests = registry.load()
    store = Store(regress.begin(tests, sim, seed))
    known = [c for t in tests.benches(nightly) for c in t.cases(sim)]
    chosen = [case for case in known if not runner.missing(case.sim)]
    found = store.kept(chosen)
    todo = [case for case in chosen if case.key not in found]
    click.echo(f"farm-regress: {len(todo)} of {len(chosen)} cases to run, seed {store.seed}")
    for reason in sorted({runner.missing(case.sim) for case in known} - {""}):
        click.echo(f"skipped: {reason}")
    if todo:
        with cluster.connected(scheduler, workers) as client:
            compute(client, todo, store, found)
    report(chosen, found, store.seed)
    statuses = [status for outcome in found.values() for status in outcome.statuses]
    skipped = ["skipped"] * (len(known) - len(chosen))
    click.echo(results.closing_line(statuses + skipped))
    sys.exit("failed" in statuses or "passed" not in statuses)
