"""`make regress`: runs every bench and suite of ci/tests.yaml by pytest and reports what passed,
failed and was skipped.

Besides the screen it writes build/regress/junit.xml, coverage.json (functional coverage) and
report.html. It fails if anything failed, if nothing ran, if a module under rtl/ lies in no
registered test, or if the testplan does not hold (ci/testplan.py).
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import click
import jinja2

from ci import registry, testplan
from ci.results import Report, closing_line, count, run_pytest
from host.simulation import environment, runner
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.files import write_text
from tb.lib import coverage

OUT = ROOT / "build" / "regress"


def plan_report(
    entries: tuple[testplan.Entry, ...], tests: registry.Registry, reports: list[Report]
) -> tuple[Report, testplan.PlanReport]:
    """The testplan as one more report, from the outcomes of all tests and the coverage of the
    benches that passed."""
    outcomes = testplan.by_test(reports)
    hits = coverage.merge(
        r.log.with_name(coverage.FILE) for r in reports if r.log and not r.count("failed")
    )
    testplan.write_coverage(hits, OUT / testplan.COVERAGE_FILE)
    plan = testplan.evaluate(entries, tests, outcomes, hits)
    about = "Every requirement has a passing test, every coverage point was hit"
    return Report("testplan", about, 0.0, plan.outcomes(), ".venv/bin/python -m ci testplan"), plan


def summarize(reports: list[Report]) -> str:
    """Print the table of all reports, skips and failures; return the closing line."""
    print("\n" + "-" * 100)
    print(f"{'case':64} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>9}")
    for r in sorted(reports, key=lambda r: r.key):
        passed, failed, skipped = (r.count(s) for s in ("passed", "failed", "skipped"))
        print(f"{r.key:64} {passed:7} {failed:7} {skipped:8} {r.seconds:9.1f}")
    print("-" * 100)
    reasons = Counter(t.message for r in reports for t in r.tests if t.status == "skipped")
    for reason, n in reasons.items():
        print(f"skipped {n}: {reason}")
    for r in reports:
        for test in (t for t in r.tests if t.status == "failed"):
            print(f"FAILED {r.key}: {test.name}: {(test.message.splitlines() or ['failed'])[0]}")
        if r.count("failed"):
            print(f"       again: {r.again}" + (f"\n       log: {r.log}" if r.log else ""))
    return closing_line(reports)


def add_to_junit(report: Report, path: Path) -> None:
    """Append a report to the JUnit file that pytest has written."""
    tree = ET.parse(path)
    numbers = {"failures": "failed", "skipped": "skipped"}
    counts = {name: str(report.count(status)) for name, status in numbers.items()}
    facts = {"name": report.key, "tests": str(len(report.tests)), **counts}
    suite = ET.SubElement(tree.getroot(), "testsuite", facts)
    for test in report.tests:
        case = ET.SubElement(suite, "testcase", classname=report.key, name=test.name, time="0")
        if test.status != "passed":
            tag = "failure" if test.status == "failed" else "skipped"
            ET.SubElement(case, tag, message=test.message)
    write_text(path, ET.tostring(tree.getroot(), encoding="unicode"))


def write_html(reports: list[Report], path: Path, **facts: Any) -> None:
    """One self-contained page."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    failed_first = sorted(reports, key=lambda r: (not r.count("failed"), r.key))
    page = templates.get_template("report.html.j2").render(reports=failed_first, **facts)
    write_text(path, page)


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    out = subprocess.run(command, cwd=ROOT, env=environment.child(), capture_output=True, text=True)
    return out.stdout.strip() or "unknown"


@click.command(cls=Command, help=__doc__)
@click.option(
    "--sim", type=click.Choice(registry.SIMULATORS), default=None, help="one simulator only"
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count(),
    help="tests at a time (default: all cores)",
)
@click.option(
    "--seed", default="1", help="a number, or 'random'; every case derives its own seed from it"
)
@click.option("--nightly", is_flag=True, help="also the long tests")
def main(sim: str | None, jobs: int, seed: str, nightly: bool) -> None:
    if sim and (reason := runner.missing(sim)):
        raise SystemExit(f"error: {reason}")
    if seed != "random" and not seed.isdecimal():
        raise SystemExit(f"error: SEED={seed} is neither a number nor 'random'")
    base = secrets.randbelow(2**31) if seed == "random" else int(seed)
    OUT.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        entries, tests = testplan.load(), registry.load()
    except (registry.RegistryError, testplan.PlanError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"regress: {jobs} tests at a time, seed {base}", flush=True)
    suites = [s.pytest for s in tests.suites.values() if nightly or "nightly" not in s.tags]
    arguments = ["ci/test_benches.py", *suites, f"-n{jobs}", f"--seed={base}"]
    arguments += [f"--sim={sim}"] * bool(sim) + ["--nightly"] * nightly
    reports = run_pytest(arguments, OUT / "junit.xml", {"NIGHTLY": str(int(nightly))})
    executed = count(reports, "passed")
    verdict, plan = plan_report(entries, tests, reports)
    if (OUT / "junit.xml").exists():
        add_to_junit(verdict, OUT / "junit.xml")
    reports.append(verdict)
    seconds = time.monotonic() - start
    closing = summarize(reports)
    print(testplan.summary(plan))
    write_html(
        reports,
        OUT / "report.html",
        plan=plan,
        closing=closing,
        seed=base,
        seconds=seconds,
        jobs=jobs,
        revision=_revision(),
        sim=sim or "all",
        python=sys.version.split()[0],
        when=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    print(f"reports: {OUT.relative_to(ROOT)}/junit.xml, report.html; {seconds:.0f} s")
    print(closing)
    sys.exit(0 if executed and not count(reports, "failed") else 1)
