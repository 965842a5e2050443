"""`make regress`: runs every case of ci/tests.yaml and reports what passed, failed and was skipped.

Besides the screen it writes build/regress/junit.xml, coverage.json (functional coverage) and
report.html. It fails if anything failed, if nothing ran, if a module under rtl/ lies in no
registered test, or if the testplan does not hold (ci/testplan.py).
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import secrets
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import jinja2

from ci import cases, registry, testplan
from host.simulation import environment, process, runner
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from host.simulation.runner import TestOutcome
from model.common.command import Command
from model.common.files import write_text
from tb.lib import coverage

OUT = ROOT / "build" / "regress"


@dataclass(frozen=True)
class Report:
    """One finished case or suite: its test outcomes (at least one) and how to run it again."""

    key: str
    about: str
    seconds: float
    tests: tuple[TestOutcome, ...]
    again: str
    log: Path | None = None

    def count(self, status: str) -> int:
        """Number of tests with this status."""
        return sum(t.status == status for t in self.tests)


class Regression:
    """The jobs of one regression and the state that its threads share.

    A model that several cases need is built once, by a job of its own; its cases wait for that job,
    not for a thread.
    """

    def __init__(self, sim: str | None, seed: int, jobs: int, nightly: bool):
        self.sim, self.seed, self.jobs, self.nightly = sim, seed, jobs, nightly
        self.index = RtlIndex()
        self.registry = registry.load()
        self.history = _load_history()
        self.running: dict[str, float] = {}
        self.reports: list[Report] = []
        self.queue = JobQueue()

    def work(self) -> list[registry.Case | registry.PytestSuite]:
        """All cases and suites to run."""
        items = [
            *self.registry.suites.values(),
            *(c for t in self.registry.tests.values() for c in t.cases(self.sim)),
        ]
        return [i for i in items if self.nightly or "nightly" not in _entry(i).tags]

    def run_all(self, work) -> list[Report]:
        """Run `work` on `jobs` threads (each waits for a compiler or simulator), printing each
        result as it comes.

        The longest jobs start first, so that the last ones are short; a model counts as much as all
        that waits for it.
        """
        models: dict[str, list[registry.Case]] = {}
        for item in work:
            if isinstance(item, registry.Case) and not runner.missing(item.sim):
                models.setdefault(_model_key(item), []).append(item)
            else:
                self.queue.add(self._expected(item), lambda item=item: self._run(item, len(work)))
        for same in models.values():
            priority = 1e6 + sum(map(self._expected, same))
            self.queue.add(priority, lambda same=same: self._build(same, len(work)))
        with process.pool(self.jobs) as pool, Heartbeat(self._what_runs, 20.0):
            threads = [pool.submit(self.queue.work) for _ in range(self.jobs)]
            try:
                for thread in threads:
                    thread.result()
            except BaseException:
                self.queue.stop()
                raise
        _save_history(self.history, self.reports)
        return self.reports

    def _expected(self, item) -> float:
        return self.history.get(item.key, _entry(item).seconds)

    def _what_runs(self) -> str:
        now = time.monotonic()
        return "running " + ", ".join(
            f"{k} ({now - t:.0f} s)" for k, t in list(self.running.items())
        )

    def _build(self, group: list[registry.Case], total: int) -> None:
        """Build the model that `group` shares, then queue them."""
        name = f"build {group[0].test.toplevel} for {group[0].key}"
        start = self.running[name] = time.monotonic()
        try:
            model, error = cases.build_case(group[0], jobs=2, index=self.index), None
        except Exception as problem:  # all its cases fail, by name; the others go on
            model, error = None, problem
        del self.running[name]
        if time.monotonic() - start > 20:
            print(
                f"          built {group[0].test.toplevel} ({group[0].sim}) in "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
        for case in group:
            self.queue.add(
                self._expected(case), lambda case=case: self._run(case, total, model, error)
            )

    def _run(
        self, item, total: int, model: runner.Model | None = None, error: Exception | None = None
    ) -> None:
        self.running[item.key] = time.monotonic()
        try:
            report = (
                self._suite(item)
                if isinstance(item, registry.PytestSuite)
                else self._case(item, model, error)
            )
        except Exception as problem:  # a broken entry must fail alone, by name
            report = _failed(item.key, _entry(item).about, f"{type(problem).__name__}: {problem}")
        del self.running[item.key]
        self.reports.append(report)
        _print_line(len(self.reports), total, report)

    def _case(
        self, case: registry.Case, model: runner.Model | None, error: Exception | None
    ) -> Report:
        seed = zlib.crc32(f"{self.seed} {case.key}".encode()) >> 1
        modules = case.parameters.get("NUM_MODULES")
        again = f"make sim TEST={case.test.name} SIM={case.sim} SEED={seed}" + (
            f" MODULES={modules}" if modules else ""
        )
        if reason := runner.missing(case.sim):
            return Report(
                case.key,
                case.test.about,
                0.0,
                (TestOutcome(case.key, "skipped", 0.0, reason),),
                again,
            )
        if model is None:
            outcome = TestOutcome(case.key, "failed", 0.0, str(error))
            return Report(
                case.key, case.test.about, 0.0, (outcome,), again, getattr(error, "log", None)
            )
        result = cases.run_case(case, seed, model=model)
        tests = result.tests
        if not result.passed and not any(t.status == "failed" for t in tests):
            tests = (*tests, TestOutcome(case.key, "failed", 0.0, result.error))
        return Report(case.key, case.test.about, result.seconds, tests, again, result.log)

    def _suite(self, suite: registry.PytestSuite) -> Report:
        folder = OUT / "pytest"
        folder.mkdir(parents=True, exist_ok=True)
        log, results = folder / f"{suite.name}.log", folder / f"{suite.name}.xml"
        results.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            suite.pytest,
            f"--junitxml={results}",
            "-p",
            "no:cacheprovider",
        ]
        start, error = time.monotonic(), ""
        try:
            with open(log, "wb") as handle:
                code = process.run(
                    command,
                    handle,
                    cwd=ROOT,
                    env={"NIGHTLY": str(int(self.nightly))},
                    timeout=suite.timeout,
                )
            error = {0: "", 5: "no test was executed"}.get(code, f"pytest ended with status {code}")
        except process.CommandTimeout as late:
            error = str(late)
        tests = runner.read_results(results)
        if error and not any(t.status == "failed" for t in tests):
            tests = (*tests, TestOutcome(suite.name, "failed", 0.0, error))
        if not tests:
            tests = (TestOutcome(suite.name, "failed", 0.0, "no test was executed"),)
        again = f".venv/bin/python -m pytest {suite.pytest}"
        return Report(suite.key, suite.about, time.monotonic() - start, tests, again, log)


class JobQueue:
    """Jobs by priority, highest first; a job may add further ones."""

    def __init__(self):
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = itertools.count()
        self._unfinished = 0
        self._changed = threading.Condition()

    def add(self, priority: float, job: Callable[[], None]) -> None:
        """Queue `job`; from any thread."""
        with self._changed:
            heapq.heappush(self._jobs, (-priority, next(self._ids), job))
            self._unfinished += 1
            self._changed.notify()

    def work(self) -> None:
        """Run jobs until none is left and none that runs could add one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or not self._unfinished)
                if not self._jobs:
                    return
                job = heapq.heappop(self._jobs)[2]
            try:
                job()
            finally:
                with self._changed:
                    self._unfinished -= 1
                    self._changed.notify_all()

    def stop(self) -> None:
        """Forget the jobs that have not begun."""
        with self._changed:
            self._unfinished -= len(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()


def _model_key(case: registry.Case) -> str:
    test = case.test
    return json.dumps(
        [
            test.toplevel,
            case.sim,
            case.parameters,
            test.defines,
            test.public,
            test.sources,
            test.netlist,
        ],
        default=str,
    )


def _entry(item) -> registry.CocotbTest | registry.PytestSuite:
    return item.test if isinstance(item, registry.Case) else item


def _failed(key: str, about: str, message: str) -> Report:
    return Report(key, about, 0.0, (TestOutcome(key, "failed", 0.0, message),), "make regress")


def registry_report(tests: registry.Registry, index: RtlIndex) -> Report:
    """One check per registered top level (exists?) and per module under rtl/ (in the hierarchy of
    some test?)."""
    covered: set[str] = set()
    outcomes = []
    for test in tests.tests.values():
        try:
            covered |= index.closure(test.toplevel)
        except SourceError as error:
            outcomes.append(TestOutcome(f"{test.name} has a top level", "failed", 0.0, str(error)))
    for unit in index.modules_in(ROOT / "rtl"):
        known = unit.name in covered
        outcomes.append(
            TestOutcome(
                f"{unit.path.relative_to(ROOT)} is tested",
                "passed" if known else "failed",
                0.0,
                "" if known else f"module {unit.name} lies in no test of ci/tests.yaml",
            )
        )
    return Report(
        "registry",
        "Every module under rtl/ lies in a registered test",
        0.0,
        tuple(outcomes),
        "make regress",
    )


def plan_report(
    entries, tests: registry.Registry, reports: list[Report]
) -> tuple[Report, testplan.PlanReport]:
    """The testplan as one more report, from the outcomes of all cases and the coverage of those
    that passed."""
    outcomes: dict[str, list[TestOutcome]] = {}
    for r in reports:
        outcomes.setdefault(r.key.partition("[")[0], []).extend(r.tests)
    hits = coverage.merge(
        r.log.with_name(coverage.FILE) for r in reports if r.log and not r.count("failed")
    )
    testplan.write_coverage(hits, OUT / testplan.COVERAGE_FILE)
    plan = testplan.evaluate(entries, tests, outcomes, hits)
    about = "Every requirement has a passing test, every coverage point was hit"
    return Report("testplan", about, 0.0, plan.outcomes(), ".venv/bin/python -m ci testplan"), plan


# ---------------------------------------------------------------------------------------- reporting


def _load_history() -> dict[str, float]:
    """Durations of earlier runs by case; only used to order the work."""
    try:
        return json.loads((OUT / "durations.json").read_text())
    except (OSError, ValueError):
        return {}


def _save_history(history: dict[str, float], reports: list[Report]) -> None:
    history.update({r.key: round(r.seconds, 1) for r in reports if r.seconds})
    write_text(OUT / "durations.json", json.dumps(history, indent=1, sort_keys=True))


def _print_line(done: int, total: int, report: Report) -> None:
    status = "FAIL" if report.count("failed") else "pass" if report.count("passed") else "skip"
    print(
        f"[{done:3}/{total}] {status} {report.key:60} {report.count('passed'):4} tests "
        f"{report.seconds:7.1f} s",
        flush=True,
    )
    for test in report.tests:
        if test.status == "failed":
            print(
                f"          {test.name}: {(test.message.splitlines() or ['failed'])[0]}", flush=True
            )


def summarize(reports: list[Report]) -> str:
    """Print the table of failures and skips and return the closing line."""
    print("\n" + "-" * 100)
    print(f"{'case':64} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>9}")
    for r in sorted(reports, key=lambda r: r.key):
        print(
            f"{r.key:64} {r.count('passed'):7} {r.count('failed'):7} {r.count('skipped'):8} "
            f"{r.seconds:9.1f}"
        )
    print("-" * 100)
    for reason, n in Counter(
        t.message for r in reports for t in r.tests if t.status == "skipped"
    ).items():
        print(f"skipped {n}: {reason}")
    for r in reports:
        if r.count("failed"):
            print(f"FAILED {r.key}: {r.again}" + (f"\n       log: {r.log}" if r.log else ""))
    return closing_line(reports)


def closing_line(reports: list[Report]) -> str:
    """`N passed, N failed`, and `, N skipped` if there are any; single tests are counted."""
    passed, failed, skipped = (
        sum(r.count(s) for r in reports) for s in ("passed", "failed", "skipped")
    )
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def write_junit(reports: list[Report], path: Path) -> None:
    """JUnit XML: one testsuite a case, one testcase a test."""
    root = ET.Element("testsuites", name="regress")
    for r in reports:
        suite = ET.SubElement(
            root,
            "testsuite",
            name=r.key,
            tests=str(len(r.tests)),
            failures=str(r.count("failed")),
            skipped=str(r.count("skipped")),
            errors="0",
            time=f"{r.seconds:.3f}",
        )
        for t in r.tests:
            case = ET.SubElement(
                suite, "testcase", classname=r.key, name=t.name, time=f"{t.seconds:.3f}"
            )
            if t.status == "failed":
                ET.SubElement(case, "failure", message=_printable(t.message)).text = _printable(
                    f"{t.message}\n{r.again}"
                )
            elif t.status == "skipped":
                ET.SubElement(case, "skipped", message=_printable(t.message))
    ET.indent(root)
    write_text(
        path, '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")
    )


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def write_html(reports: list[Report], path: Path, **facts) -> None:
    """One self-contained page."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html.j2")
    write_text(
        path,
        template.render(
            reports=sorted(reports, key=lambda r: (not r.count("failed"), r.key)), **facts
        ),
    )


def _revision() -> str:
    out = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        env=environment.child(),
        capture_output=True,
        text=True,
        check=False,
    )
    return out.stdout.strip() or "unknown"


@click.command(cls=Command, help=__doc__)
@click.option(
    "--sim", type=click.Choice(registry.SIMULATORS), default=None, help="one simulator only"
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count(),
    help="cases at a time (default: all cores)",
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
        entries = testplan.load()
        regression = Regression(sim, base, jobs, nightly)
    except (registry.RegistryError, testplan.PlanError, SourceError) as error:
        raise SystemExit(f"error: {error}") from None
    work = regression.work()
    print(f"regress: {len(work)} cases, {jobs} at a time, seed {base}", flush=True)
    reports = [registry_report(regression.registry, regression.index), *regression.run_all(work)]
    _print_line(len(work), len(work), reports[0])
    executed = sum(r.count("passed") for r in reports[1:])
    verdict, plan = plan_report(entries, regression.registry, reports)
    reports.append(verdict)
    seconds = time.monotonic() - start
    closing = summarize(reports)
    print(testplan.summary(plan))
    write_junit(reports, OUT / "junit.xml")
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
    print(
        f"reports: {(OUT / 'junit.xml').relative_to(ROOT)}, "
        f"{(OUT / 'report.html').relative_to(ROOT)}; {seconds:.0f} s"
    )
    print(closing)
    sys.exit(0 if executed and not any(r.count("failed") for r in reports) else 1)


if __name__ == "__main__":
    main()
