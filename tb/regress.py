"""`make regress`: runs every case of tb/tests.yaml and reports what passed, failed and was skipped.

Besides the screen it writes build/regress/junit.xml and build/regress/report.html. It fails if anything failed, if
nothing ran, or if a module under rtl/ lies in no registered test.
"""
from __future__ import annotations

import concurrent.futures as futures
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
import jinja2

from tb import process, registry, runner
from tb.progress import Heartbeat
from tb.rtl_index import ROOT, RtlIndex, SourceError
from tb.runner import TestOutcome

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
    """The jobs of one regression and the state that its threads share."""

    def __init__(self, sim: str | None, seed: int, jobs: int, nightly: bool):
        self.sim, self.seed, self.jobs, self.nightly = sim, seed, jobs, nightly
        self.index = RtlIndex()
        self.registry = registry.load()
        self.running: dict[str, float] = {}
        self.history = _load_history()

    def work(self) -> list[registry.Case | registry.PytestSuite]:
        """Everything to run, longest first so that the last jobs are short."""
        items = [*self.registry.suites.values(),
                 *(c for t in self.registry.tests.values() for c in t.cases(self.sim))]
        chosen = [i for i in items if self.nightly or "nightly" not in _entry(i).tags]
        return sorted(chosen, key=lambda i: -self.history.get(i.key, _entry(i).seconds))

    def run_all(self, work) -> list[Report]:
        """Run `work` on `jobs` threads (each waits for a simulator process), printing each result as it comes."""
        reports = []
        with futures.ThreadPoolExecutor(self.jobs) as pool, Heartbeat(self._what_runs, 20.0):
            pending = [pool.submit(self._run, item) for item in work]
            try:
                for done in futures.as_completed(pending):
                    reports.append(done.result())
                    _print_line(len(reports), len(work), reports[-1])
            except BaseException:
                for job in pending:
                    job.cancel()
                process.kill_all()
                raise
        _save_history(self.history, reports)
        return reports

    def _what_runs(self) -> str:
        now = time.monotonic()
        return "running " + ", ".join(f"{k} ({now - t:.0f} s)" for k, t in list(self.running.items()))

    def _run(self, item) -> Report:
        self.running[item.key] = time.monotonic()
        try:
            return self._suite(item) if isinstance(item, registry.PytestSuite) else self._case(item)
        except Exception as error:  # a broken entry must fail alone, by name
            return _failed(item.key, _entry(item).about, f"{type(error).__name__}: {error}")
        finally:
            del self.running[item.key]

    def _case(self, case: registry.Case) -> Report:
        seed = zlib.crc32(f"{self.seed} {case.key}".encode()) >> 1
        modules = case.parameters.get("NUM_MODULES")
        again = f"make sim TEST={case.test.name} SIM={case.sim} SEED={seed}" + (f" MODULES={modules}" if modules else "")
        if reason := runner.missing(case.sim):
            return Report(case.key, case.test.about, 0.0, (TestOutcome(case.key, "skipped", 0.0, reason),), again)
        result = runner.run_case(case, seed, index=None if case.test.sources else self.index)
        tests = result.tests
        if not result.passed and not any(t.status == "failed" for t in tests):
            tests = (*tests, TestOutcome(case.key, "failed", 0.0, result.error))
        return Report(case.key, case.test.about, result.seconds + result.build_seconds, tests, again, result.log)

    def _suite(self, suite: registry.PytestSuite) -> Report:
        folder = OUT / "pytest"
        folder.mkdir(parents=True, exist_ok=True)
        log, results = folder / f"{suite.name}.log", folder / f"{suite.name}.xml"
        results.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", suite.pytest, f"--junitxml={results}", "-p", "no:cacheprovider"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        start, error = time.monotonic(), ""
        try:
            with open(log, "wb") as handle:
                code = process.run(command, handle, cwd=ROOT, env=env, timeout=suite.timeout)
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


def _entry(item) -> registry.CocotbTest | registry.PytestSuite:
    return item.test if isinstance(item, registry.Case) else item


def _failed(key: str, about: str, message: str) -> Report:
    return Report(key, about, 0.0, (TestOutcome(key, "failed", 0.0, message),), "make regress")


def registry_report(tests: registry.Registry, index: RtlIndex) -> Report:
    """One check per registered top level (exists?) and per module under rtl/ (in the hierarchy of some test?)."""
    covered: set[str] = set()
    outcomes = []
    for test in tests.tests.values():
        try:
            covered |= index.closure(test.toplevel)
        except SourceError as error:
            outcomes.append(TestOutcome(f"{test.name} has a top level", "failed", 0.0, str(error)))
    for unit in index.modules_in(ROOT / "rtl"):
        known = unit.name in covered
        outcomes.append(TestOutcome(f"{unit.path.relative_to(ROOT)} is tested", "passed" if known else "failed", 0.0,
                                    "" if known else f"module {unit.name} lies in no test of tb/tests.yaml"))
    return Report("registry", "Every module under rtl/ lies in a registered test", 0.0, tuple(outcomes), "make regress")


# ------------------------------------------------------------------------------------------------------ reporting

def _load_history() -> dict[str, float]:
    """Durations of earlier runs by case; only used to order the work."""
    try:
        return json.loads((OUT / "durations.json").read_text())
    except (OSError, ValueError):
        return {}


def _save_history(history: dict[str, float], reports: list[Report]) -> None:
    history.update({r.key: round(r.seconds, 1) for r in reports if r.seconds})
    (OUT / "durations.json").write_text(json.dumps(history, indent=1, sort_keys=True))


def _print_line(done: int, total: int, report: Report) -> None:
    status = "FAIL" if report.count("failed") else "pass" if report.count("passed") else "skip"
    print(f"[{done:3}/{total}] {status} {report.key:60} {report.count('passed'):4} tests {report.seconds:7.1f} s", flush=True)
    for test in report.tests:
        if test.status == "failed":
            print(f"          {test.name}: {(test.message.splitlines() or ['failed'])[0]}", flush=True)


def summarize(reports: list[Report]) -> str:
    """Print the table of failures and skips and return the closing line."""
    print("\n" + "-" * 100)
    print(f"{'case':64} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>9}")
    for r in sorted(reports, key=lambda r: r.key):
        print(f"{r.key:64} {r.count('passed'):7} {r.count('failed'):7} {r.count('skipped'):8} {r.seconds:9.1f}")
    print("-" * 100)
    for reason, n in Counter(t.message for r in reports for t in r.tests if t.status == "skipped").items():
        print(f"skipped {n}: {reason}")
    for r in reports:
        if r.count("failed"):
            print(f"FAILED {r.key}: {r.again}" + (f"\n       log: {r.log}" if r.log else ""))
    return closing_line(reports)


def closing_line(reports: list[Report]) -> str:
    """`N passed, N failed`, and `, N skipped` if there are any; single tests are counted."""
    passed, failed, skipped = (sum(r.count(s) for r in reports) for s in ("passed", "failed", "skipped"))
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def write_junit(reports: list[Report], path: Path) -> None:
    """JUnit XML: one testsuite a case, one testcase a test."""
    root = ET.Element("testsuites", name="regress")
    for r in reports:
        suite = ET.SubElement(root, "testsuite", name=r.key, tests=str(len(r.tests)), failures=str(r.count("failed")),
                              skipped=str(r.count("skipped")), errors="0", time=f"{r.seconds:.3f}")
        for t in r.tests:
            case = ET.SubElement(suite, "testcase", classname=r.key, name=t.name, time=f"{t.seconds:.3f}")
            if t.status == "failed":
                ET.SubElement(case, "failure", message=_printable(t.message)).text = _printable(f"{t.message}\n{r.again}")
            elif t.status == "skipped":
                ET.SubElement(case, "skipped", message=_printable(t.message))
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def write_html(reports: list[Report], path: Path, **facts) -> None:
    """One self-contained page."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "report.html.j2")
    path.write_text(template.render(reports=sorted(reports, key=lambda r: (not r.count("failed"), r.key)), **facts),
                    encoding="utf-8")


def _revision() -> str:
    out = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return out.stdout.strip() or "unknown"


@click.command(help=__doc__)
@click.option("--sim", type=click.Choice(registry.SIMULATORS), default=None, help="one simulator only")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count(), help="cases at a time (default: all cores)")
@click.option("--seed", default="1", help="a number, or 'random'; every case derives its own seed from it")
@click.option("--nightly", is_flag=True, help="also the long tests")
def main(sim: str | None, jobs: int, seed: str, nightly: bool) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sim and (reason := runner.missing(sim)):
        raise SystemExit(f"error: {reason}")
    if seed != "random" and not seed.isdecimal():
        raise SystemExit(f"error: SEED={seed} is neither a number nor 'random'")
    base = secrets.randbelow(2**31) if seed == "random" else int(seed)
    OUT.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        regression = Regression(sim, base, jobs, nightly)
    except (registry.RegistryError, SourceError) as error:
        raise SystemExit(f"error: {error}") from None
    work = regression.work()
    print(f"regress: {len(work)} cases, {jobs} at a time, seed {base}", flush=True)
    reports = [registry_report(regression.registry, regression.index), *regression.run_all(work)]
    _print_line(len(work), len(work), reports[0])
    seconds = time.monotonic() - start
    closing = summarize(reports)
    write_junit(reports, OUT / "junit.xml")
    write_html(reports, OUT / "report.html", closing=closing, seed=base, seconds=seconds, jobs=jobs, revision=_revision(),
               sim=sim or "all", python=sys.version.split()[0], when=time.strftime("%Y-%m-%d %H:%M:%S"))
    print(f"reports: {(OUT / 'junit.xml').relative_to(ROOT)}, {(OUT / 'report.html').relative_to(ROOT)}; {seconds:.0f} s")
    print(closing)
    executed = sum(r.count("passed") for r in reports[1:])
    sys.exit(0 if executed and not any(r.count("failed") for r in reports) else 1)


if __name__ == "__main__":
    main()
