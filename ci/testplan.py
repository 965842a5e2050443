"""Checks ci/testplan.yaml against what ran: every requirement has a passing test, every test a
requirement, and every coverage point was hit.

It fails for an entry without a passing test; for a test that the run was to have and did not; for a
requirement of docs/requirements.md, a test (or test function) or a coverage point in no entry; and
for a point that was not hit. `make regress`
ends with it; `python -m ci testplan` reads the last regression's results again, and with --runs
those that single `make sim` commands have left.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
from pydantic import AfterValidator, BeforeValidator, Field

from ci import cases, registry, results
from ci.results import Outcomes
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.errors import UserError
from model.common.files import write_text
from model.compiler.hardware import MODULE_COUNTS
from tb.lib import coverage
from tb.lib.cover_groups import GROUPS

PLAN = ROOT / "ci" / "testplan.yaml"
REGRESSION = ROOT / "build" / "regress"
SHOWN = 5  # of the runs that are ignored
KEPT = ("outcomes.json", "coverage.json", "facts.json")  # of a regression
REQUIREMENTS = ROOT / "docs" / "requirements.md"


class PlanError(UserError):
    """testplan.yaml says something that cannot be; the message names the entry and the key."""


def declared() -> list[str]:
    """All coverage points, `group.point`."""
    return [f"{group}.{point}" for group in GROUPS for point in sorted(GROUPS[group])]


def requirements() -> set[str]:
    """Names of the requirements that the product's page of them defines."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([A-Z0-9-]+)` \|", text, re.M))


def _defined(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - requirements()):
        raise ValueError(f"{REQUIREMENTS.name} has no requirement {unknown[0]!r}")
    return names


def _points(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The points that groups and group.patterns (each with * and ?) stand for."""
    found: set[str] = set()
    for name in wanted:
        wild = name.partition(".")[0], name.partition(".")[2] or "*"
        own = {p for p in declared() if all(map(fnmatchcase, p.split(".", 1), wild))}
        if not own:
            raise ValueError(f"no coverage point is called {name!r}")
        found |= own
    return tuple(sorted(found))


def _patterns(tests: object) -> object:
    """`[alpha, {beta: regex}]` as a mapping."""
    items = tests if isinstance(tests, list) else [tests]
    return {k: v for i in items for k, v in (i if isinstance(i, dict) else {i: ""}).items()}


class Entry(registry.Strict):
    """One line of the plan; the fields are documented at the top of testplan.yaml. `tests` maps
    names to regular expressions on their functions, empty for all; `coverage` has points."""

    name: str
    requirements: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_defined)]
    desc: str
    stage: Literal["V1", "V2", "V3"]
    level: Literal["block", "top", "system"]
    tests: Annotated[dict[str, re.Pattern], Field(min_length=1), BeforeValidator(_patterns)]
    coverage: Annotated[tuple[str, ...], AfterValidator(_points)] = ()
    why: str = ""


def load(path: Path = PLAN) -> list[Entry]:
    """Read and check the plan. Raises PlanError naming the entry and key that is wrong."""
    entries = Annotated[dict[str, Entry], BeforeValidator(registry.by_name)]
    plan = registry.read(path, dict[Literal["entries"], entries], PlanError)
    return [*plan.get("entries", {}).values()]


@dataclass(frozen=True)
class Verdict:
    """What a run says of an entry, or of the plan as a whole: `status` is passed, failed, or
    skipped if its tests were left out; `problems` say why; `facts` are for the report."""

    name: str
    status: str
    problems: Sequence[str]
    facts: Sequence[str] = ()


def asked_for(tests: registry.Registry, sim: str | None, nightly: bool) -> list[str]:
    """Names of the tests and suites that a regression must run: on one simulator, or on those that
    are installed."""
    sims = [s for s in registry.SIMULATORS if sim in (None, s) and not runner.missing(s)]
    names = [t.name for t in tests.tests.values() if any(t.cases(s) for s in sims)]
    known = {test.name: test for test in (*tests.tests.values(), *tests.suites.values())}
    found = [*names, *tests.suites]
    return [name for name in found if nightly or "nightly" not in known[name].tags]


def evaluate(
    entries: Sequence[Entry],
    tests: registry.Registry,
    outcomes: Outcomes,
    hits: Mapping[str, int],
    asked: Collection[str] = (),
) -> list[Verdict]:
    """Compare the plan with a run: the verdict on the plan itself, then those on its entries.

    asked: names of the tests that must have run. Another one that did not (left out by SIM=, by a
    missing simulator, or a nightly one) is not held against its entries; coverage is judged only if
    no other test than nightly ones was left out, since any test may hit any point.
    """
    known = {test.name: test for test in (*tests.tests.values(), *tests.suites.values())}
    ran = {name: [o for o in found if o[1] != "skipped"] for name, found in outcomes.items()}
    lost = [name for name in asked if not ran.get(name)]
    left_out = [name for name in known if not ran.get(name) and name not in lost]
    judge_coverage = all("nightly" in known[name].tags for name in left_out)
    problems = _plan_problems(entries, [*known], ran, hits)
    problems += [f"test {name!r} was to run and did not" for name in lost]
    whole = Verdict("the plan is complete", "failed" if problems else "passed", problems)
    reason = f"left out: {', '.join(left_out)}"
    return [whole, *(_verdict(e, ran, hits if judge_coverage else None, reason) for e in entries)]


def _plan_problems(
    entries: Sequence[Entry], known: Sequence[str], ran: Outcomes, hits: Mapping[str, int]
) -> list[str]:
    """What is in no entry, or in an entry and nowhere else."""
    named = [(e, name, pattern) for e in entries for name, pattern in e.tests.items()]
    cited = {name for entry in entries for name in entry.requirements}
    planned = {point for entry in entries for point in entry.coverage}
    names = {name for _, name, _ in named}
    functions = sorted({(name, f) for name in names for f, _ in ran.get(name, ())})
    lost = [(n, f) for n, f in functions if not any(n == m and p.search(f) for _, m, p in named)]
    planless = [
        *(f"test {name!r} of ci/tests.yaml" for name in known if name not in names),
        *(f"requirement {r!r} of {REQUIREMENTS.name}" for r in sorted(requirements() - cited)),
        *(f"function {f} of test {name!r}" for name, f in lost),
        *(f"coverage point {point!r}" for point in sorted({*declared()} - planned)),
    ]
    return [
        *([] if any(ran.values()) else ["no test was executed"]),
        *(f"{what} is in no entry" for what in planless),
        *(f"entry {e.name!r}: no test is called {n!r}" for e, n, _ in named if n not in known),
        *(
            f"coverage point {p!r} was hit but is not declared"
            for p in sorted({*hits} - {*declared()})
        ),
    ]


def _verdict(entry: Entry, ran: Outcomes, hits: Mapping[str, int] | None, reason: str) -> Verdict:
    """Of one entry; `hits` is None if coverage cannot be judged, for the `reason` given."""
    problems: list[str] = []
    facts = [entry.desc, f"requirements: {', '.join(entry.requirements)}", entry.why]
    for name, pattern in entry.tests.items():
        found = [(f, status) for f, status in ran.get(name, ()) if pattern.search(f)]
        failed = sorted({f for f, status in found if status == "failed"})
        facts.append(f"{name} {pattern.pattern}: {len(found)} functions")
        if failed:
            problems.append(f"test {name!r} failed: {', '.join(failed)}")
        elif ran.get(name) and not found:
            problems.append(f"test {name!r} has no function that matches {pattern.pattern!r}")
    counts = {point: hits.get(point, 0) for point in entry.coverage} if hits is not None else {}
    facts += [f"{point}: {count}" for point, count in counts.items()]
    problems += [f"coverage hole: {point}" for point, count in counts.items() if not count]
    judged = any(map(ran.get, entry.tests)) and (hits is not None or not entry.coverage)
    status = "failed" if problems else "passed" if judged else "skipped"
    return Verdict(entry.name, status, [reason] if status == "skipped" else problems, facts)


def summary(verdicts: Sequence[Verdict], hits: Mapping[str, int]) -> list[str]:
    """Lines: what is wrong, how many entries hold, and the volume of what was checked."""
    whole, *entries = verdicts
    count = Counter(v.status for v in entries)
    why = {problem for v in entries if v.status == "skipped" for problem in v.problems}
    skipped = f", {count['skipped']} not judged ({why.pop()})" if why else ""
    layers, errors = (
        sum(n for point, n in hits.items() if point.startswith(group))
        for group in ("layer_op.", "error.")
    )
    failed = [(v.name, problem) for v in entries if v.status == "failed" for problem in v.problems]
    return [
        *(f"testplan: {problem}" for problem in whole.problems),
        *(f"testplan: entry {name!r}: {problem}" for name, problem in failed),
        f"testplan: {count['passed']} of {len(entries)} entries hold, {count['failed']} failed"
        f"{skipped}; {sum(hits.get(p, 0) > 0 for p in declared())} of "
        f"{len(declared())} coverage points hit",
        f"volume: {layers:,} layers computed and found equal, {errors:,} errors provoked, each "
        "followed by a right run",
    ]


def judge(
    reports: Sequence[pytest.TestReport], sim: str | None, nightly: bool, sources: str
) -> tuple[list[Verdict], list[str]]:
    """Verdicts on a regression and their summary. sim, nightly: its options; sources: their digest.
    What `python -m ci testplan` needs is kept."""
    outcomes = results.outcomes(reports)
    hits = {**dict.fromkeys(declared(), 0), **results.hits(reports)}
    tests = registry.load()
    asked = asked_for(tests, sim, nightly)
    facts = {"asked": asked, "sim": sim, "sources": sources}
    REGRESSION.mkdir(parents=True, exist_ok=True)
    for name, data in zip(KEPT, (outcomes, hits, facts), strict=True):
        write_text(REGRESSION / name, json.dumps(data, indent=0, sort_keys=True))
    verdicts = evaluate(load(), tests, outcomes, hits, asked)
    return verdicts, summary(verdicts, hits)


def read_runs(folder: Path) -> tuple[Outcomes, Counter]:
    """Outcomes and hits of the single runs in a folder (build/run), the newest of each case. Failed
    runs, and those that did not come to their end, give no hits. What is of other sources or of no
    case is ignored, which is said."""
    outcomes: dict[str, list[tuple[str, str]]] = {}
    files, tests, today = [], _tests_of_runs(), results.sources()
    logs = sorted(folder.glob("*/sim.log"))
    known = [path for path in logs if path.parent.name in tests]
    fresh = [path for path in known if _sources_of(path.parent) == today]
    _say_ignored("of no case of ci/tests.yaml, or with waves or counters", {*logs} - {*known})
    _say_ignored("of other sources: run make sim again", {*known} - {*fresh})
    for path in fresh:
        found = [(o.name, o.status) for o in runner.read_results(path.with_name("results.xml"))]
        passed = runner.has_passed(path.parent)
        if not passed and all(status != "failed" for _, status in found):  # none of them is right
            found = [(name, "failed") for name, _ in found] or [(path.parent.name, "failed")]
        outcomes.setdefault(tests[path.parent.name], []).extend(found)
        files += [path.with_name(coverage.FILE)] * passed
    return outcomes, coverage.merge(files)


def _tests_of_runs() -> dict[str, str]:
    """{name of the folder of a case's run: its test}, with any number of modules."""
    return {
        cases.run_dir(case).name: test.name
        for test in registry.load().tests.values()
        for modules in (None, *MODULE_COUNTS)
        for case in test.cases(modules=modules)
    }


def _sources_of(run: Path) -> str:
    """Digest of the sources that the run of a folder stands for; empty if it is not known."""
    path = run / runner.SOURCES
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _say_ignored(why: str, logs: Collection[Path]) -> None:
    names = sorted(path.parent.name for path in logs)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    if names:
        print(f"testplan: runs ignored, {why}: {', '.join(names[:SHOWN])}{more}")


@click.command(cls=Command, help=__doc__)
@click.option(
    "--runs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder of single runs, such as build/run, instead of the last regression",
)
@click.option("--entry", default="", help="regular expression: only these entries")
def main(runs: Path | None, entry: str) -> None:
    entries = [e for e in load() if re.search(entry, e.name)]
    if not entries:
        raise PlanError(f"{PLAN.name} has no entry that matches {entry!r}")
    asked: list[str] = []
    if runs:
        outcomes, hits = read_runs(runs)
        # What single runs lack is not held against them: an entry holds if its tests passed.
        for point in sorted({p for e in entries for p in e.coverage if not hits.get(p)}):
            print(f"testplan: not hit by these runs: {point}")
    elif (REGRESSION / KEPT[2]).exists():  # which an interrupted regression lacks
        outcomes, hits, facts = (json.loads((REGRESSION / name).read_text()) for name in KEPT)
        asked = facts["asked"]
        if facts["sources"] != results.checkout():
            raise PlanError(f"{REGRESSION} holds results of other sources: run make regress again")
    else:
        raise PlanError(f"{REGRESSION} holds no results: run make regress first")
    whole, *verdicts = evaluate(entries, registry.load(), outcomes, hits, asked)
    if runs:
        bare = [e.model_copy(update={"coverage": ()}) for e in entries]
        verdicts = evaluate(bare, registry.load(), outcomes, hits)[1:]
    if entry:  # what stands in other entries is missing in these
        judged = any(v.status != "skipped" for v in verdicts)
        nothing = [] if judged else ["nothing of these entries was run"]
        whole = Verdict(whole.name, "passed" if judged else "failed", nothing)
    print(*summary([whole, *verdicts], hits), sep="\n")
    sys.exit(any(v.status == "failed" for v in (whole, *verdicts)))
