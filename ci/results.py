"""Runs pytest for the flow, and counts what it reports: a bench counts as the cocotb functions of
its simulation, any other test as itself."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from ci import registry
from host.simulation import environment, process
from host.simulation.rtl_index import ROOT
from model.common.errors import UserError, printable

BENCHES = "ci/test_benches.py"
SOURCES = {".py", ".sv", ".v", ".vlt", ".c", ".h", ".cpp", ".tcl", ".yaml", ".rdl", ".npz", ".j2"}
SOURCES |= {".sh"}
FOLDERS = ("ci", "formal", "host", "model", "rtl", "syn", "tb", "train")
# What else decides results: tools' versions and settings, the solver, what is promised.
FILES = ("requirements.txt", "pyproject.toml", "formal/bin/bitwuzla", "docs/requirements.md")
STATUSES = ("passed", "failed", "skipped")
Outcomes = Mapping[str, Sequence[tuple[str, str]]]  # {name in ci/tests.yaml: (function, status)}


def sources() -> str:
    """Digest of what a simulation or proof stands for: design, models, benches, training, flow."""
    return _digest(_sources())


def checkout() -> str:
    """Digest of what a regression stands for: also pages, examples and whatever else git tracks.
    Outside of a git checkout, or without git, those are not known. Raises UserError where git
    fails."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return sources()
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    git = subprocess.run(command, cwd=ROOT, env=environment.child(), capture_output=True, text=True)
    if git.returncode:
        raise UserError(f"git ls-files: {printable(git.stderr.strip())}")
    tracked = [ROOT / name for name in git.stdout.split("\0") if name]
    return _digest({*_sources(), *filter(Path.is_file, tracked)})


def _sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    own = [path for path in found if path.suffix in SOURCES and path.is_file()]
    return [*own, *(ROOT / file for file in FILES)]


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_pytest(arguments: Iterable[str], env: Mapping[str, str]) -> int:
    """Run pytest in the environment of host/simulation/environment.py; its exit status.

    Nothing that it has started outlives this call.
    """
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", "-p", "no:cacheprovider"]
    sys.stdout.flush()
    command = [*command, *arguments]
    code = process.run(command, sys.stdout.buffer, cwd=ROOT, env=env, timeout=math.inf)
    if code not in (0, 1):
        print(f"error: pytest ended with status {code}")
    return code


def reports(stats: Mapping[str, Sequence]) -> list[pytest.TestReport]:
    """One report of each test, or of a file that could not be read, from the `stats` of pytest's
    terminal reporter. A failure goes before all else that is reported of the same test."""
    categories = ("passed", "skipped", "xfailed", "xpassed", "failed", "error")
    found = [report for category in categories for report in stats.get(category, ())]
    return [*{report.nodeid: report for report in found}.values()]


def functions(report: pytest.TestReport) -> list[tuple[str, str]]:
    """(name, status) of each function that a report stands for. A failure that is none of theirs
    counts as one more."""
    found = [(name, status) for status, name in properties(report) if status in STATUSES]
    lost = report.failed and all(status != "failed" for _, status in found)
    return [*found, (report.nodeid, report.outcome)] if lost or not found else found


def properties(report: pytest.TestReport) -> list[tuple[str, str]]:
    """What the test has recorded with `record_property`; nothing for a collection."""
    return [(key, str(value)) for key, value in getattr(report, "user_properties", ())]


def outcomes(found: Iterable[pytest.TestReport]) -> Outcomes:
    """What the reports say of each test and suite of ci/tests.yaml."""
    tests, result = registry.load(), defaultdict[str, list[tuple[str, str]]](list)
    for report in found:
        result[name_of(report.nodeid, tests)] += functions(report)
    return result


def hits(found: Iterable[pytest.TestReport]) -> Counter[str]:
    """Coverage points that the benches that passed have hit."""
    total = Counter[str]()
    for text in (v for r in found if r.passed for key, v in properties(r) if key == "hits"):
        total.update(json.loads(text))
    return total


def name_of(nodeid: str, tests: registry.Registry) -> str:
    """The bench of a test, or else the suite with the longest path that it lies in; empty if there
    is none."""
    if nodeid.startswith(f"{BENCHES}::test_bench["):
        return nodeid.split("[")[1]
    found = [s for s in tests.suites.values() if nodeid.startswith(s.pytest)]
    return max(found, key=lambda suite: len(suite.pytest)).name if found else ""


def closing_line(statuses: Iterable[str]) -> str:
    """`N passed, N failed`, and `, N skipped` if there are any."""
    count = Counter(statuses)
    skipped = f", {count['skipped']} skipped" * bool(count["skipped"])
    return f"{count['passed']} passed, {count['failed']} failed{skipped}"
