"""Runs pytest for the flow and reads what it leaves: JUnit XML with the functions of each bench."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci import registry
from host.simulation import process
from host.simulation.rtl_index import ROOT
from host.simulation.runner import TestOutcome, outcome

BENCHES = "ci/test_benches.py"
NO_LIMIT = 7 * 86400.0  # seconds; every test has a limit of its own


@dataclass(frozen=True)
class Report:
    """One bench with its parameters, or one suite: its functions and how to run it again."""

    key: str
    about: str
    seconds: float
    tests: tuple[TestOutcome, ...]
    again: str
    log: Path | None = None

    def count(self, status: str) -> int:
        """Number of functions with this status."""
        return sum(t.status == status for t in self.tests)


def run_pytest(arguments: Sequence[str], junit: Path, env: Mapping[str, str]) -> list[Report]:
    """Run pytest in the environment of host/simulation/environment.py; the reports of what ran.

    Nothing that it has started outlives this call. An end other than "all passed" and "some failed"
    is a report of its own.
    """
    junit.unlink(missing_ok=True)
    own = [f"--junitxml={junit}", "-ojunit_family=xunit1", "-v", "--no-header"]
    own += ["-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *own, *arguments]
    sys.stdout.flush()
    code = process.run(command, sys.stdout.buffer, cwd=ROOT, env=env, timeout=NO_LIMIT)
    reports = read(junit, registry.load())
    if code not in (0, 1) or not reports or (code == 1 and not count(reports, "failed")):
        end = TestOutcome("pytest", "failed", 0.0, f"pytest ended with status {code}")
        reports.append(Report("pytest", "The run itself", 0.0, (end,), "make regress"))
    return reports


def read(junit: Path, tests: registry.Registry) -> list[Report]:
    """Reports in a JUnit file of pytest; none if it is missing or cut short."""
    try:
        found = list(ET.parse(junit).iter("testcase"))
    except (OSError, ET.ParseError):
        return []
    reports: list[Report] = []
    others: dict[registry.PytestSuite, list[TestOutcome]] = {}
    for element in found:
        name = element.get("name", "")
        if element.get("file") == BENCHES and name.startswith("test_bench["):
            reports.append(_bench(name[len("test_bench[") : -1], element, tests))
        else:
            file = element.get("file") or name.replace(".", "/")  # of a collection: the module
            others.setdefault(suite_of(file, tests), []).append(outcome(element))
    for suite, outcomes in others.items():
        seconds = sum(o.seconds for o in outcomes)
        again = f".venv/bin/python -m pytest {suite.pytest}"
        reports.append(Report(suite.name, suite.about, seconds, tuple(outcomes), again))
    return reports


def _bench(key: str, element: ET.Element, tests: registry.Registry) -> Report:
    facts = [(p.get("name", ""), p.get("value", "")) for p in element.iter("property")]
    whole = outcome(element)
    functions = [
        TestOutcome(value, name, 0.0, whole.message if name == "failed" else "")
        for name, value in facts
        if name in ("passed", "failed", "skipped")
    ]
    if not functions or (whole.status == "failed" and all(f.status != "failed" for f in functions)):
        functions.append(TestOutcome(key, whole.status, whole.seconds, whole.message))
    others, test = dict(facts), tests.tests.get(key.partition("[")[0])
    log = Path(others["log"]) if "log" in others else None
    about, again = test.about if test else "", others.get("again", "make regress")
    return Report(key, about, whole.seconds, tuple(functions), again, log)


def suite_of(file: str, tests: registry.Registry) -> registry.PytestSuite:
    """The suite of ci/tests.yaml with the longest path that a file lies in."""
    unknown = registry.PytestSuite("pytest", "Tests in no suite of ci/tests.yaml", "")
    found = [s for s in tests.suites.values() if file.startswith(s.pytest)]
    return max(found, key=lambda suite: len(suite.pytest), default=unknown)


def count(reports: Sequence[Report], status: str) -> int:
    """Number of functions with this status in all reports."""
    return sum(report.count(status) for report in reports)


def closing_line(reports: Sequence[Report]) -> str:
    """`N passed, N failed`, and `, N skipped` if there are any; single functions are counted."""
    passed, failed, skipped = (count(reports, s) for s in ("passed", "failed", "skipped"))
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
