"""Checks ci/testplan.yaml against what ran: every requirement has a passing test, every test a
requirement, and every coverage point was hit.

It fails for an entry without a passing test; for a requirement of docs/requirements.md, a test (or
test function) or a coverage point in no entry; and for a point that was not hit. `make regress`
calls it at the end; `python -m ci testplan` reads the last regression's results again, and with
--runs those that single `make sim` commands have left.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import click

from ci import registry, results
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from host.simulation.runner import TestOutcome
from model.common.command import Command
from model.common.errors import UserError
from model.common.files import write_text
from tb.lib import coverage
from tb.lib.cover_groups import GROUPS

PLAN = ROOT / "ci" / "testplan.yaml"
COVERAGE_FILE = "coverage.json"  # in the folder of the regression: the merged hits
REQUIREMENTS = ROOT / "docs" / "requirements.md"
_CHOICES = {"stage": ("V1", "V2", "V3"), "level": ("block", "top", "system")}
Outcomes = Mapping[str, Sequence[TestOutcome]]  # by name in ci/tests.yaml, of all its cases
Known = Mapping[str, registry.CocotbTest | registry.PytestSuite]  # all of ci/tests.yaml


class PlanError(UserError):
    """testplan.yaml says something that cannot be; the message names the entry and the key."""


@dataclass(frozen=True)
class Entry:
    """One line of the plan.

    requirements: names in docs/requirements.md. stage: V1, V2 or V3 (what must hold first).
    level: block (one module), top (the accelerator's ports) or system (commands, models, whole
    networks). tests: {name in tests.yaml: regular expression on its functions, or None for all}.
    coverage: groups, or group.pattern with * and ?.
    why: what makes the crosses worth their runs.
    """

    name: str
    requirements: tuple[str, ...]
    desc: str
    stage: str
    level: str
    tests: dict[str, str | None]
    coverage: tuple[str, ...] = ()
    why: str = ""

    def points(self) -> list[str]:
        """All coverage points of the entry, `group.point`."""
        return sorted({p for wanted in self.coverage for p in points_of(wanted)})


@dataclass(frozen=True)
class Verdict:
    """An entry after a run. status: passed, failed, or skipped (its tests were left out); problems
    say why.

    tests: (name, passed functions, failed functions). holes: its points that were not hit.
    """

    entry: Entry
    status: str
    problems: tuple[str, ...]
    tests: tuple[tuple[str, int, int], ...]
    holes: tuple[str, ...]


@dataclass(frozen=True)
class PlanReport:
    """All verdicts, what is wrong with the plan itself, and the hits of every declared point by
    group."""

    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]
    left_out: tuple[str, ...]
    groups: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.problems) or any(v.status == "failed" for v in self.verdicts)

    @property
    def hit(self) -> int:
        """Points that were hit."""
        return sum(count > 0 for points in self.groups.values() for count in points.values())

    @property
    def declared(self) -> int:
        """Points that there are."""
        return sum(map(len, self.groups.values()))

    @property
    def layers(self) -> int:
        """Layers whose tensors came out of the RTL and were equal; every one hits one point of its
        group."""
        return sum(self.groups.get("layer_op", {}).values())

    @property
    def errors(self) -> int:
        """Errors that were provoked, reported with their code and followed by a right run."""
        return sum(self.groups.get("error", {}).values())

    def outcomes(self) -> tuple[TestOutcome, ...]:
        """One test outcome for the plan itself and one per entry, for the regression's report."""
        status, reason = "failed" if self.problems else "passed", ", ".join(self.left_out)
        whole = TestOutcome("the plan is complete", status, 0.0, "\n".join(self.problems))
        entries = [
            (v, f"left out: {reason}" if v.status == "skipped" else "\n".join(v.problems))
            for v in self.verdicts
        ]
        return whole, *(TestOutcome(v.entry.name, v.status, 0.0, why) for v, why in entries)


def points_of(wanted: str) -> list[str]:
    """`group.point`s that a group or a group.pattern (each with * and ?) stands for; empty if there
    are none."""
    group_pattern, _, pattern = wanted.partition(".")
    return [
        f"{group}.{point}"
        for group in GROUPS
        if fnmatchcase(group, group_pattern)
        for point in sorted(GROUPS[group])
        if fnmatchcase(point, pattern or "*")
    ]


# --------------------------------------------------------------------------------------------- plan


def load(path: Path = PLAN) -> tuple[Entry, ...]:
    """Read and check the plan. Raises PlanError naming the entry and key that is wrong."""
    data = registry.read_yaml(path, {"entries"}, PlanError)
    entries = tuple(_entry(raw) for raw in data.get("entries") or [])
    registry.refuse_twins(path, [e.name for e in entries], PlanError)
    return entries


def _entry(raw: dict) -> Entry:
    entry = registry.from_mapping(Entry, raw, PlanError)
    name = f"entry {entry.name!r}"
    for key, known in _CHOICES.items():
        if raw[key] not in known:
            raise PlanError(f"{name}: {key} {raw[key]!r} (there are: {', '.join(known)})")
    if not isinstance(raw["requirements"], list) or not raw["requirements"]:
        raise PlanError(f"{name}: requirements must be a list that is not empty")
    if unknown := sorted(set(entry.requirements) - requirements()):
        raise PlanError(f"{name}: {REQUIREMENTS.name} has no requirement {unknown[0]!r}")
    for wanted in entry.coverage:
        if not points_of(wanted):
            raise PlanError(f"{name}: no coverage point is called {wanted!r}")
    return dataclasses.replace(entry, tests=_tests(entry.name, raw["tests"]))


def requirements() -> set[str]:
    """Names of the requirements that the product's page of them defines."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([A-Z0-9-]+)` \|", text, re.M))


def _tests(entry: str, raw: list) -> dict[str, str | None]:
    if not isinstance(raw, list) or not raw:
        raise PlanError(f"entry {entry!r}: tests must be a list that is not empty")
    tests: dict[str, str | None] = {}
    for item in raw:
        tests.update(item if isinstance(item, dict) else {item: None})
    for name, pattern in tests.items():
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise PlanError(
                f"entry {entry!r}: test {name!r}: {pattern!r} is no regular expression: {error}"
            ) from None
    return tests


# -------------------------------------------------------------------------------------------- check


def evaluate(
    entries: Sequence[Entry], tests: registry.Registry, outcomes: Outcomes, hits: Mapping[str, int]
) -> PlanReport:
    """Compare the plan with a run.

    A test that ran on no simulator (left out by SIM=, by a missing simulator, or a nightly one) is
    not held against its entries; coverage is judged only if no other test than nightly ones was
    left out, since any test may hit any point.
    """
    known: Known = {**tests.tests, **tests.suites}
    ran = {name: [o for o in found if o.status != "skipped"] for name, found in outcomes.items()}
    left_out = tuple(name for name, test in known.items() if not ran.get(name))
    judge_coverage = all("nightly" in known[name].tags for name in left_out)
    verdicts = tuple(
        _verdict(entry, known, ran, hits if judge_coverage else None) for entry in entries
    )
    groups = {
        group: {point: hits.get(f"{group}.{point}", 0) for point in sorted(points)}
        for group, points in GROUPS.items()
    }
    return PlanReport(verdicts, tuple(_plan_problems(entries, known, ran, hits)), left_out, groups)


def _plan_problems(
    entries: Sequence[Entry], known: Known, ran: Outcomes, hits: Mapping[str, int]
) -> list[str]:
    named = {name for entry in entries for name in entry.tests}
    problems = [
        f"test {name!r} of ci/tests.yaml is in no entry" for name in known if name not in named
    ]
    cited = {name for entry in entries for name in entry.requirements}
    problems += [
        f"requirement {name!r} of {REQUIREMENTS.name} is in no entry"
        for name in sorted(requirements() - cited)
    ]
    problems += [
        f"entry {entry.name!r}: no test is called {name!r}"
        for entry in entries
        for name in entry.tests
        if name not in known
    ]
    for name, found in ran.items():
        patterns = [entry.tests[name] or "" for entry in entries if name in entry.tests]
        if patterns:
            problems += [
                f"function {f} of test {name!r} is in no entry"
                for f in sorted({o.name for o in found})
                if not any(re.search(p, f) for p in patterns)
            ]
    planned = {point for entry in entries for point in entry.points()}
    problems += [
        f"coverage group {group!r}: {len(lost)} points are in no entry, first {min(lost)!r}"
        for group, points in GROUPS.items()
        if (lost := [p for p in points if f"{group}.{p}" not in planned])
    ]
    declared = {f"{group}.{point}" for group, points in GROUPS.items() for point in points}
    return problems + [
        f"coverage point {point!r} was hit but is not declared"
        for point in sorted(set(hits) - declared)
    ]


def _verdict(entry: Entry, known: Known, ran: Outcomes, hits: Mapping[str, int] | None) -> Verdict:
    """hits: None if coverage cannot be judged."""
    problems, counts, judged = [], [], 0
    for name, pattern in entry.tests.items():
        found = [o for o in ran.get(name, ()) if pattern is None or re.search(pattern, o.name)]
        passed, failed = (sum(o.status == s for o in found) for s in ("passed", "failed"))
        counts.append((name if pattern is None else f"{name}: {pattern}", passed, failed))
        judged += bool(ran.get(name))
        if failed:
            problems.append(
                f"test {name!r} failed: "
                + ", ".join(sorted({o.name for o in found if o.status == "failed"}))
            )
        elif ran.get(name) and not passed:
            problems.append(f"test {name!r} has no function that matches {pattern!r}")
    holes = [] if hits is None else [point for point in entry.points() if not hits.get(point)]
    problems += [f"coverage hole: {hole}" for hole in holes]
    status = (
        "failed"
        if problems
        else "passed"
        if judged and (hits is not None or not entry.coverage)
        else "skipped"
    )
    return Verdict(entry, status, tuple(problems), tuple(counts), tuple(holes))


def summary(report: PlanReport) -> str:
    """What is wrong, a line each, and the closing line."""
    lines = [f"testplan: {problem}" for problem in report.problems]
    lines += [
        f"testplan: entry {v.entry.name!r}: {problem}"
        for v in report.verdicts
        for problem in v.problems
    ]
    count = Counter(v.status for v in report.verdicts)
    left = (
        f", {count['skipped']} not judged (left out: {', '.join(report.left_out)})"
        if count["skipped"]
        else ""
    )
    lines.append(
        f"testplan: {count['passed']} of {len(report.verdicts)} entries hold, {count['failed']} "
        f"failed{left}; "
        f"{report.hit} of {report.declared} coverage points hit"
    )
    lines.append(
        f"volume: {report.layers:,} layers computed and found equal, {report.errors:,} errors "
        "provoked, each followed by a right run"
    )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------ results


def by_test(reports: Sequence[results.Report]) -> dict[str, list[TestOutcome]]:
    """Outcomes of all cases of each test or suite of ci/tests.yaml."""
    outcomes: dict[str, list[TestOutcome]] = {}
    for report in reports:
        outcomes.setdefault(report.key.partition("[")[0], []).extend(report.tests)
    return outcomes


def read_regression(folder: Path) -> tuple[dict[str, list[TestOutcome]], Counter]:
    """Outcomes and hits that `make regress` left in its folder."""
    reports = results.read(folder / "junit.xml", registry.load())
    hits = json.loads((folder / COVERAGE_FILE).read_text(encoding="utf-8"))
    return by_test(reports), Counter(hits)


def read_runs(folder: Path) -> tuple[dict[str, list[TestOutcome]], Counter]:
    """Outcomes and hits of the single runs in a folder (build/run), the newest of each case. Failed
    runs give no hits."""
    outcomes: dict[str, list[TestOutcome]] = {}
    files = []
    for path in sorted(folder.glob("*/results.xml")):
        found = runner.read_results(path)
        outcomes.setdefault(path.parent.name.partition("-")[0], []).extend(found)
        if found and not any(o.status == "failed" for o in found):
            files.append(path.with_name(coverage.FILE))
    return outcomes, coverage.merge(files)


def write_coverage(hits: Mapping[str, int], path: Path) -> None:
    """The merged hits, zeros of declared points included."""
    declared = {f"{group}.{point}": 0 for group, points in GROUPS.items() for point in points}
    write_text(path, json.dumps({**declared, **hits}, indent=0, sort_keys=True))


@click.command(cls=Command, help=__doc__)
@click.option(
    "--results",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build" / "regress",
    help="folder of a regression",
)
@click.option(
    "--runs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder of single runs (build/run) instead",
)
@click.option("--entry", default="", help="regular expression: only these entries")
def main(folder: Path, runs: Path | None, entry: str) -> None:
    try:
        entries = tuple(e for e in load() if re.search(entry, e.name))
        outcomes, hits = read_runs(runs) if runs else read_regression(folder)
        tests = registry.load()
    except (PlanError, registry.RegistryError) as error:
        raise SystemExit(f"error: {error}") from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: no results of a regression in {folder}: {error}") from None
    report = evaluate(entries, tests, outcomes, hits)
    if runs:  # single runs: say what they lack
        holes = [
            f"{g}.{p}"
            for g, points in report.groups.items()
            for p, count in points.items()
            if not count
        ]
        print("".join(f"testplan: not hit by these runs: {hole}\n" for hole in holes), end="")
    if entry:
        report = PlanReport(report.verdicts, (), report.left_out, report.groups)
    print(summary(report))
    sys.exit(report.failed)
