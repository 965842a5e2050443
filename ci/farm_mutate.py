"""`make farm-mutate`: `make mutate` on a Dask cluster.

A piece is a few mutants, neighbours by module, that a worker judges by `make mutate` in its own
checkout, with a tree of sources of their own. What is found is put into build/mutate/results.json
as it arrives, so that an interrupted run, or `make mutate`, goes on. At the end `make mutate` does
what is left here, which is the reports, and gives the verdict.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Any

import click

from ci import cases, mutate, registry
from ci.mutation import trial
from ci.mutation.mutants import Mutant
from ci.mutation.trial import Finding
from host import cluster
from host.simulation import process
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.errors import UserError
from model.common.files import write_text

PIECE = 10  # mutants, which share the compiled benches


def try_piece(findings: dict[str, dict], seed: int, wanted: str) -> dict[str, dict]:
    """On a worker: the findings, by the mutants' hashes, after `make mutate`. Raises UserError if
    it does not come to its end or `cases.digest` is not the `wanted` one."""
    cluster.check_same(cases.digest(), wanted)
    with process.folder(mutate.OUT / "farm") as folder:
        results, log = folder / "results.json", folder / "log"
        write_text(results, json.dumps({"findings": findings}))
        command = [sys.executable, "-m", "ci", "mutate", "--seed", str(seed), "--out", str(folder)]
        command += [f"--mutant={key}" for key in findings]
        with log.open("wb") as output:
            process.run(command, output, cwd=ROOT, timeout=math.inf)
        cluster.check_same(cases.digest(), wanted)
        if not (folder / mutate.REPORT).exists():
            said = log.read_text(errors="replace").splitlines() or ["it said nothing"]
            raise UserError(f"make mutate failed on a worker: {said[-1].removeprefix('error: ')}")
        found = json.loads(results.read_text())["findings"]
        return {key: found[key] for key in findings}


def pieces_of(chosen: list[Mutant], findings: dict[str, Finding]) -> list[list[str]]:
    """The hashes of those that are not decided, in pieces."""
    todo = [m for m in chosen if findings[m.key].status not in trial.DECIDED]
    keys = [m.key for m in sorted(todo, key=lambda m: m.path)]
    return [keys[first : first + PIECE] for first in range(0, len(keys), PIECE)]


def compute(client: Any, pieces: list[list[str]], results: trial.Results, seed: int) -> None:
    """Have the pieces judged; each is kept as it arrives."""
    wanted = cases.digest()

    def submit(piece: list[str]) -> Any:
        findings = {key: asdict(results.findings[key]) for key in piece}
        return client.submit(try_piece, findings, seed, wanted, pure=False)

    ended = cluster.completed(client, pieces, submit, before=0, what="pieces")
    for _, future in ended:
        found = {key: Finding(**facts) for key, facts in cluster.result(future).items()}
        results.findings |= found
        results.save()
        for finding in found.values():
            click.echo(f"{finding.status} {finding.key} {finding.title}")


@click.command(cls=Command, help=__doc__)
@click.option("--count", "-n", type=click.IntRange(0), default=mutate.DRAWN, help="drawn mutants")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=mutate.SEED, help="of the draw")
@click.option("--module", default="", help="only mutants of this module (or package)")
@click.option("--hand", is_flag=True, help="only the hand-made mutants")
@click.option("--scheduler", help="address of a Dask cluster  [one on this machine]")
@click.option("--workers", type=click.IntRange(min=1), help="of a cluster on this machine")
@click.pass_context
def main(
    context: click.Context,
    count: int,
    seed: int,
    module: str,
    hand: bool,
    scheduler: str | None,
    workers: int | None,
) -> None:
    results = trial.Results(mutate.OUT / "results.json")
    trials = trial.Trials(results, registry.load(), seed, "regress", 1)
    chosen = mutate.choose(count, seed, module, (), hand, False)
    pieces = pieces_of(chosen, mutate.known(trials, chosen, False))
    if pieces:
        with cluster.connected(scheduler, workers) as client:
            compute(client, pieces, results, seed)
    context.invoke(mutate.main, count=count, seed=seed, module=module, hand=hand)
