"""`make mutate`: plants bugs in the RTL and reports which of them the tests find
(docs/mutation.md).

A mutant meets the tests of its own module first and stops at the first failure; only survivors meet
the further tests. Results are kept by the mutant's hash in build/mutate/results.json, so that an
interrupted run goes on; the report is build/mutate/report.html and mutate.json. Fails if a
hand-made mutant or more than 5 % of the random ones survive.
"""

from __future__ import annotations

import datetime
import itertools
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jinja2
import yaml

from ci import registry
from ci.mutation import hand_made, netlist, trial
from ci.mutation.netlist import MutationError
from ci.mutation.trial import Finding
from host.simulation import runner
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.command import Command
from model.common.files import write_text

log = logging.getLogger(__name__)

OUT = ROOT / "build" / "mutate"
EQUIVALENT = Path(__file__).parent / "mutation" / "equivalent.yaml"
LEAST_KILLED = 0.95  # of the random mutants


@click.command(cls=Command, help=__doc__)
@click.option(
    "--count", "-n", type=click.IntRange(0, 60000), default=200, help="random mutants (default 200)"
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=1,
    help="of the random mutants and the tests (default 1)",
)
@click.option("--module", default="", help="only mutants of this module (or package)")
@click.option("--hand", is_flag=True, help="only the hand-made mutants")
@click.option("--random", "only_random", is_flag=True, help="only the random mutants")
@click.option("--mutant", default="", help="only the mutant with this hash or this id")
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
    "--jobs", type=click.IntRange(1), default=2, help="C++ compiler processes of one build"
)
@click.option(
    "--prove/--no-prove",
    default=True,
    help="ask Yosys whether a random survivor is equivalent (default: yes)",
)
@click.option("--again", is_flag=True, help="forget what was found out before")
def main(
    count: int,
    seed: int,
    module: str,
    hand: bool,
    only_random: bool,
    mutant: str,
    reach: str,
    sim: str | None,
    jobs: int,
    prove: bool,
    again: bool,
) -> None:
    runner.BUILD = OUT
    try:
        if again:
            (OUT / "results.json").unlink(missing_ok=True)
        results = trial.Results(OUT / "results.json")
        trials = trial.Trials(results, registry.load(), seed, reach, jobs, sim=sim, say=log.info)
        index = RtlIndex()
        arguments = load_arguments(EQUIVALENT)
        findings: list[Finding] = []
        with Heartbeat(lambda: f"{len(findings)} mutants done", 60.0):
            if not only_random:
                for finding in try_hand_made(trials, index, module, mutant, arguments):
                    findings.append(finding)
            if not hand and count:
                for finding in try_random(
                    trials, index, count, seed, module, mutant, arguments, prove
                ):
                    findings.append(finding)
        if not findings:
            raise MutationError(f"no mutant to try{f' in module {module}' if module else ''}")
    except (MutationError, registry.RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from here") from None
    write_reports(findings, {"count": count, "seed": seed, "reach": reach, "sim": sim or "both"})
    print_summary(findings)
    sys.exit(not good_enough(findings))


def try_hand_made(
    trials: trial.Trials, index: RtlIndex, module: str, wanted: str, arguments: dict[str, str]
) -> Iterator[Finding]:
    """Try the entries of hand_made.yaml (of one module, or the one named `wanted`)."""
    mutants = [
        m for m in hand_made.load() if module in ("", m.module) and wanted in ("", m.id, m.key)
    ]
    for number, mutant in enumerate(mutants):
        finding = trials.results.finding(mutant.key, "hand-made", mutant.module, mutant.title)
        units = {u.name for u in index.units.values() if u.path == mutant.path}
        changed = mutant.plant(OUT / "hand" / mutant.id, index)
        if mutant.key not in arguments:
            trials.judge(finding, units, changed, index, mutant.first)
        yield _conclude(trials, finding, arguments, number, len(mutants))


def try_random(
    trials: trial.Trials,
    index: RtlIndex,
    count: int,
    seed: int,
    module: str,
    wanted: str,
    arguments: dict[str, str],
    prove: bool,
) -> Iterator[Finding]:
    """Draw `count` mutants with Yosys (in one module, if `module` is given), plant them in one tree
    and try them."""
    folder = OUT / "-".join(filter(None, ("random", module, str(seed), str(count))))
    variants = netlist.elaborate(folder, index)
    chosen = [v for v in variants if module in ("", v.module)]
    if not chosen:
        return
    drawn = netlist.draw(folder, index, chosen, count, seed)
    public = {name for test in trials.tests.tests.values() for name in test.public}
    tree = netlist.plant(folder, index, variants, drawn, public)
    done = itertools.count()
    mutants = [m for m in drawn if wanted in ("", m.key)]
    findings = {
        m.number: (trials.results.finding(m.key, "random", m.module, m.title), m.variant.name)
        for m in mutants
    }
    for name in dict.fromkeys(
        m.module for m in mutants
    ):  # the mutants of a module share its simulations
        own = {m.number: findings[m.number] for m in mutants if m.module == name}
        argued = [own.pop(m.number)[0] for m in mutants if m.number in own and m.key in arguments]
        yield from (
            _conclude(trials, finding, arguments, next(done), len(mutants)) for finding in argued
        )
        trials.judge_all(own, {name}, tree, index, whole=False)
        for mutant in (
            m
            for m in mutants
            if prove and m.number in own and own[m.number][0].status not in trial.DECIDED
        ):
            if netlist.proved_equivalent(folder, mutant):
                findings[mutant.number][0].status, findings[mutant.number][0].why = (
                    "equivalent",
                    trial.PROOF,
                )
        yield from (
            _conclude(trials, f, arguments, next(done), len(mutants))
            for f, _ in own.values()
            if trials.ends(f)
        )
    left = {
        number: found
        for number, found in findings.items()
        if not trials.ends(found[0]) and found[0].key not in arguments
    }
    trials.judge_all(
        left, {finding.module for finding, _ in left.values()}, tree, index, whole=True
    )  # all of them share these
    yield from (
        _conclude(trials, finding, arguments, next(done), len(mutants))
        for finding, _ in left.values()
    )


def _conclude(
    trials: trial.Trials, finding: Finding, arguments: dict[str, str], number: int, total: int
) -> Finding:
    if finding.status not in trial.DECIDED and finding.key in arguments:
        finding.status, finding.why = "equivalent", arguments[finding.key]
    trials.results.save()
    by = f" by {finding.killed_by}" if finding.killed_by else ""
    print(
        f"[{number + 1:3}/{total}] {finding.status:10} {finding.key} {finding.module}: "
        f"{finding.title}{by}",
        flush=True,
    )
    return finding


def load_arguments(path: Path) -> dict[str, str]:
    """Arguments why a mutant changes nothing, by its hash. Raises MutationError for an entry
    without one."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or set(entry) != {"key", "mutant", "argument"}
            or len(str(entry["argument"])) < 20
        ):
            raise MutationError(
                f"{path.name}: entry {entry!r} must have key, mutant and an argument"
            )
    return {str(e["key"]): " ".join(e["argument"].split()) for e in entries}


def good_enough(findings: list[Finding]) -> bool:
    """Whether every hand-made and 95 % of the random mutants were killed; what is shown to be
    equivalent does not count."""
    counted = [f for f in findings if f.status != "equivalent"]
    drawn = [f for f in counted if f.kind == "random"]
    return all(f.status == "killed" for f in counted if f.kind == "hand-made") and sum(
        f.status == "killed" for f in drawn
    ) >= LEAST_KILLED * len(drawn)


def print_summary(findings: list[Finding]) -> None:
    """Survivors and counts by kind."""
    for finding in findings:
        if finding.status not in ("killed", "equivalent"):
            print(
                f"{finding.status.upper()} {finding.key} {finding.module}: {finding.title} "
                f"{finding.why}"
            )
    for kind in ("hand-made", "random"):
        own = [f for f in findings if f.kind == kind]
        count = Counter(f.status for f in own)
        if own:
            counted = len(own) - count["equivalent"]
            print(
                f"{kind}: {count['killed']} of {counted} killed "
                f"({100 * count['killed'] / max(counted, 1):.1f} %), "
                f"{count['survived']} survived, {count['not tried']} not tried, "
                f"{count['not compiled']} not compiled, "
                f"{count['equivalent']} equivalent"
            )


def write_reports(findings: list[Finding], setting: dict) -> None:
    """Write mutate.json and report.html."""
    OUT.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [
        {
            "key": f.key,
            "kind": f.kind,
            "module": f.module,
            "title": f.title,
            "status": f.status,
            "killed_by": f.killed_by,
            "why": f.why,
            "seconds": round(f.seconds, 1),
            "passed": sorted(f.passed),
        }
        for f in findings
    ]
    write_text(OUT / "mutate.json", json.dumps({"setting": setting, "mutants": rows}, indent=1))
    modules = {
        m: Counter(r["status"] for r in rows if r["module"] == m)
        for m in sorted({r["module"] for r in rows})
    }
    template = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "mutation" / "report.html.j2").read_text()
    )
    page = template.render(
        rows=rows,
        modules=modules,
        setting=setting,
        now=datetime.datetime.now().isoformat(" ", "minutes"),
        total=Counter(r["status"] for r in rows),
    )
    write_text(OUT / "report.html", page)
