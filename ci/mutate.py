"""`make mutate`: plants bugs in the RTL and reports which of them the tests find
(docs/mutation.md).

Two kinds: hand-made ones, and ones drawn from the changes that designers make by mistake. All are
planted at once and switched on one at a time; a mutant meets only the tests that it can change,
the nearest first, until one fails, and then the proofs of its module. Results are kept by the
mutant's hash in build/mutate/results.json, so that an interrupted run goes on; the report is
build/mutate/report.html and mutate.json. Fails if a hand-made mutant or more than 5 % of the drawn
ones survive everything.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import logging
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import click
import jinja2
from pydantic import Field

from ci import formal, registry
from ci.mutation import designed, mutants, plant, trial
from ci.mutation.mutants import Mutant, MutationError
from ci.mutation.trial import Finding
from host.simulation import runner
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.command import Command
from model.common.files import write_text

log = logging.getLogger(__name__)

OUT = ROOT / "build" / "mutate"
REPORT = "mutate.json"  # what a run that came to its end leaves
DRAWN, SEED = 100, 1  # mutants and their draw, where nothing else is asked for
EQUIVALENT = Path(__file__).parent / "mutation" / "equivalent.yaml"
LEAST_KILLED = 0.95  # of the drawn mutants


@click.command(cls=Command, help=__doc__)
@click.option(
    "--count", "-n", type=click.IntRange(0), default=DRAWN, help=f"drawn mutants (default {DRAWN})"
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=SEED,
    help=f"of the drawn mutants and the tests (default {SEED})",
)
@click.option("--module", default="", help="only mutants of this module (or package)")
@click.option("--hand", is_flag=True, help="only the hand-made mutants")
@click.option("--designed", "only_drawn", is_flag=True, help="only the drawn mutants")
@click.option("--mutant", "wanted", multiple=True, help="only those with these hashes or ids")
@click.option(
    "--reach",
    type=click.Choice(trial.REACHES),
    default="regress",
    help="how far survivors are followed: block tests, the accelerator with 4 modules in "
    "Verilator, everything",
)
@click.option(
    "--sim", type=click.Choice(registry.SIMULATORS), default=None, help="only on this simulator"
)
@click.option(
    "--proofs",
    type=click.Choice(["survivors", "all", "only", "none"]),
    default="survivors",
    help="which mutants meet the proofs of their modules: those that pass all tests, all, all and "
    "no tests, none",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=2, help="C++ compiler processes of one build"
)
@click.option("--again", is_flag=True, help="forget what was found out before")
@click.option(
    "--out",
    type=click.Path(path_type=Path, resolve_path=True),
    help="folder of results [build/mutate]",
)
def main(
    count: int,
    seed: int,
    module: str,
    hand: bool,
    only_drawn: bool,
    wanted: tuple[str, ...],
    reach: str,
    sim: str | None,
    proofs: str,
    jobs: int,
    again: bool,
    out: Path | None,
) -> None:
    out = out or OUT
    runner.BUILD = out
    try:
        if again:
            (out / "results.json").unlink(missing_ok=True)
        results = trial.Results(out / "results.json")
        trials = trial.Trials(results, registry.load(), seed, reach, jobs, sim=sim, say=log.info)
        chosen = choose(count, seed, module, wanted, hand, only_drawn)
        findings = known(trials, chosen, bool(wanted))
        done = trial.DECIDED
        with Heartbeat(
            lambda: f"{sum(f.status in done for f in findings.values())} mutants decided", 60.0
        ):
            if proofs != "only":
                try_tests(trials, chosen, findings, RtlIndex(), out)
            if proofs != "none":
                try_proofs(trials, chosen, findings, proofs == "survivors", out)
        argue(findings, load_arguments(EQUIVALENT))
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from here") from None
    found = list(findings.values())
    for finding in found:
        if finding.status != "killed":  # by what has killed it on other sources
            finding.killed_by, finding.sources = "", trials.sources
    results.save()
    facts = {"count": count, "seed": seed, "reach": reach, "sim": sim or "both", "proofs": proofs}
    write_reports(found, facts, out)
    print_summary(found)
    everything = reach == "regress" and not sim and proofs != "only"
    sys.exit(everything and not good_enough(found))


@functools.cache
def official() -> tuple[Mutant, ...]:
    """The mutants of `make mutate` without options, which sign-off judges."""
    return tuple(choose(DRAWN, SEED, "", (), False, False))


def choose(
    count: int, seed: int, module: str, wanted: tuple[str, ...], hand: bool, only_drawn: bool
) -> list[Mutant]:
    """The mutants to try, each once: a change that is also hand-made counts as that. Raises
    MutationError if there are none."""
    made = [] if only_drawn else mutants.hand_made()
    files = [] if hand else sorted((ROOT / "rtl").rglob("*.sv"))
    pool = [m for path in files if module in ("", path.stem) for m in designed.designed(path)]
    drawn = pool if wanted else designed.draw(pool, count, seed)
    own = {m.key for m in made}
    drawn = [m for m in drawn if m.key not in own]
    chosen = [m for m in made + drawn if module in ("", m.module)]
    chosen = [m for m in chosen if not wanted or m.id in wanted or m.key in wanted]
    if not chosen:
        what = f" {' '.join(wanted)}" * bool(wanted) + f" in module {module}" * bool(module)
        raise MutationError(f"no mutant{what} to try")
    return chosen


def known(trials: trial.Trials, chosen: list[Mutant], asked: bool) -> dict[str, Finding]:
    """What holds of earlier runs, by the mutants' hashes: no kill on other sources.
    Arguments count where no kill is in doubt, and not for mutants that were asked for by name."""
    findings = {m.key: trials.results.finding(m) for m in chosen}
    doubtful = {key for key, f in findings.items() if asked or f.killed_by}
    for finding in findings.values():
        trials.forget(finding)
    sure = {k: f for k, f in findings.items() if k not in doubtful or f.status == "killed"}
    argue(sure, load_arguments(EQUIVALENT))
    return findings


def try_tests(
    trials: trial.Trials,
    chosen: list[Mutant],
    findings: dict[str, Finding],
    index: RtlIndex,
    out: Path,
) -> None:
    """Plant all mutants in one tree of sources below `out` and run the tests on those that are not
    decided; then on those that need sources of their own, one after the other."""
    todo = {
        number: m
        for number, m in enumerate(chosen, 1)
        if findings[m.key].status not in trial.DECIDED
    }
    name = hashlib.sha256(" ".join(m.key for m in chosen).encode()).hexdigest()[:12]
    tree, loose = plant.plant(dict(enumerate(chosen, 1)), out / "planted" / name, index)
    own = {n: findings[m.key] for n, m in todo.items() if n not in loose}
    log.info("%d mutants planted, %d need sources of their own", len(chosen), len(loose))
    trials.judge_all(own, tree)
    for number, mutant in todo.items():
        if number in loose:
            alone = plant.alone(mutant, out / "alone" / mutant.key, index)
            trials.judge_all({1: findings[mutant.key]}, tree, alone=alone)


def try_proofs(
    trials: trial.Trials,
    chosen: list[Mutant],
    findings: dict[str, Finding],
    survivors: bool,
    out: Path,
) -> None:
    """Run the proofs whose harness contains the module of a mutant, with the mutant in it."""
    index = RtlIndex(formal.PROOFS, ROOT / "rtl")
    proofs = [p for p in formal.load().values() if "nightly" not in p.tags]
    for mutant in chosen:
        finding = findings[mutant.key]
        if finding.status in ("equivalent", "not compiled", "killed" if survivors else ""):
            continue
        for proof in proofs:
            digest = trial.proof_hash(proof)
            known = finding.verdicts.get(proof.name, ("", False))[0] == digest
            if known or mutant.module not in index.closure(proof.top):
                continue
            changed = mutant.path.relative_to(ROOT / "rtl")
            error = formal.prove_changed(proof, changed, mutant.text, out / "proofs").error
            found = bool(formal.REFUTED.search(error))
            if error and not found:
                log.warning("proof %s says nothing of %s: %s", proof.name, mutant.title, error)
                continue
            finding.verdicts[proof.name] = (digest, found)
            if found and finding.status != "killed":
                finding.status, finding.why = "killed", error
                finding.killed_by, finding.sources = f"proof {proof.name}", trials.sources
            trials.results.save()


class Argument(registry.Strict):
    """One entry of equivalent.yaml; its first lines document the fields."""

    key: str
    mutant: str
    argument: Annotated[str, Field(min_length=20)]


def load_arguments(path: Path) -> dict[str, str]:
    """Arguments why a mutant changes nothing, by its hash. Raises MutationError for an entry
    without one."""
    listed = registry.read(path, list[Argument], MutationError)
    return {entry.key: " ".join(entry.argument.split()) for entry in listed}


def argue(findings: dict[str, Finding], arguments: dict[str, str]) -> None:
    """Call those with an argument equivalent. Raises MutationError for one that is killed."""
    for key in sorted(findings.keys() & arguments.keys()):
        finding = findings[key]
        if finding.status == "killed":
            raise MutationError(
                f"{EQUIVALENT.name}: {key} ({finding.module}) is killed by {finding.killed_by}: "
                "delete its entry"
            )
        finding.status, finding.why = "equivalent", arguments[key]


def good_enough(findings: list[Finding]) -> bool:
    """Whether every hand-made and 95 % of the drawn mutants were killed; equivalent ones do not
    count."""
    counted = [f for f in findings if f.status != "equivalent"]
    drawn = [f for f in counted if f.kind == "designed"]
    return all(f.status == "killed" for f in counted if f.kind == "hand-made") and sum(
        f.status == "killed" for f in drawn
    ) >= LEAST_KILLED * len(drawn)


def print_summary(findings: list[Finding]) -> None:
    """Survivors and counts by kind."""
    for f in findings:
        if f.status not in ("killed", "equivalent"):
            reached = (
                "" if f.reached or f.status != "survived" else " (no value differs in any test)"
            )
            print(f"{f.status.upper()} {f.key} {f.module}: {f.title} {f.why}{reached}")
    for kind in ("hand-made", "designed"):
        own = [f for f in findings if f.kind == kind]
        n = Counter(f.status for f in own)
        if own:
            share = 100 * n["killed"] / max(len(own) - n["equivalent"], 1)
            others = ", ".join(f"{n[s]} {s}" for s in sorted(n) if s != "killed")
            print(f"{kind}: {n['killed']} of {len(own)} killed ({share:.1f} %), {others or 'all'}")


def write_reports(findings: list[Finding], setting: dict, out: Path) -> None:
    """Write mutate.json and report.html."""
    shutil.rmtree(out / "alone", ignore_errors=True)
    rows = [{**asdict(f), "passed": sorted(f.passed)} for f in findings]
    scores = {"modules": score(findings), "proofs": proof_score(findings)}
    data = {"setting": setting, **scores, "mutants": rows}
    write_text(out / REPORT, json.dumps(data, indent=1))
    template = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "mutation" / "report.html.j2").read_text()
    )
    now = datetime.datetime.now().isoformat(" ", "minutes")
    total = Counter(f.status for f in findings)
    page = template.render(rows=rows, **scores, setting=setting, now=now, total=total)
    write_text(out / "report.html", page)


def score(findings: list[Finding]) -> dict[str, dict[str, int]]:
    """Number of mutants by module and status."""
    names = sorted({f.module for f in findings})
    return {m: dict(Counter(f.status for f in findings if f.module == m)) for m in names}


def proof_score(findings: list[Finding]) -> dict[str, dict[str, int]]:
    """By proof: how many mutants it was tried on, and how many it found."""
    names = sorted({name for f in findings for name in f.verdicts})
    return {
        name: {
            "tried": sum(name in f.verdicts for f in findings),
            "found": sum(f.verdicts.get(name, ("", False))[1] for f in findings),
        }
        for name in names
    }
