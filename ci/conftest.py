"""pytest's options for benches, the order of a regression, its signs of life and its verdict."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from ci import cases, registry, results, testplan
from host.simulation.progress import Heartbeat

SUMMARY = pytest.StashKey[list[str]]()
SOURCES = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benches of ci/tests.yaml")
    group.addoption("--bench", action="append", default=[], help="only the benches of these names")
    group.addoption("--sim", choices=registry.SIMULATORS, help="one simulator only")
    group.addoption("--modules", type=int, choices=(4, 8, 16), help="NUM_MODULES (with --bench)")
    group.addoption("--nightly", action="store_true", help="also the long benches")
    group.addoption("--seed", type=int, default=1, help="each simulation derives its own from it")
    group.addoption("--case-seed", type=int, help="the seed of every simulation itself")
    group.addoption("--waves", action="store_true", help="record every signal")
    group.addoption("--counters", action="store_true", help="leave code coverage (Verilator)")
    text = "end with a count of tests, or of functions and the verdict on ci/testplan.yaml"
    group.addoption("--closing", choices=("sim", "regress"), help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.closing == "regress":
        config.stash[SOURCES] = results.checkout()  # as they are now
    try:
        tests = registry.load()
        for name in config.option.bench:
            tests.named(name)
    except registry.RegistryError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that the last ones are short; models that several need earliest."""
    tests = registry.load()
    models: defaultdict[str, float] = defaultdict(float)  # seconds of all benches of a model
    for case in filter(None, map(_case, items)):
        models[cases.model_key(case)] += case.test.seconds

    def urgency(item: pytest.Item) -> float:
        if case := _case(item):  # the first one of a model counts for all
            return max(models.pop(cases.model_key(case), 0), case.test.seconds)
        if suite := tests.suites.get(results.name_of(item.nodeid, tests)):
            item.add_marker(pytest.mark.timeout(suite.timeout))
        return suite.seconds if suite else 0.0

    keys = {item: -urgency(item) for item in items}
    items.sort(key=keys.__getitem__)


def _case(item: pytest.Item) -> registry.Case | None:
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return case if isinstance(case, registry.Case) else None


class _Units(LoadScopeScheduling):
    """What a worker takes at a time: one bench, or one file of tests that may share fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(results.BENCHES) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Units:
    config.option.loadscopereorder = False
    return _Units(config, log)


_running: dict[str, float] = {}


def pytest_runtest_logstart(nodeid: str) -> None:
    _running[nodeid] = time.monotonic()


def pytest_runtest_logfinish(nodeid: str) -> None:
    _running.pop(nodeid, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    config, terminal = session.config, session.config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput") or terminal is None:
        return (yield)
    with Heartbeat(_what_runs, 20.0, terminal.write_line):
        result = yield
    if config.option.closing == "regress":
        verdicts, config.stash[SUMMARY] = testplan.judge(
            results.reports(terminal.stats),
            config.option.sim,
            config.option.nightly,
            config.stash[SOURCES],
        )
        for verdict in verdicts:
            _report(config, verdict)
    return result


def _report(config: pytest.Config, verdict: testplan.Verdict) -> None:
    """Make a verdict one more test of the regression, for its count, JUnit and HTML."""
    file, name, problems = "ci/testplan.yaml", verdict.name, "\n".join(verdict.problems)
    why: dict[str, Any] = {"failed": problems, "skipped": (file, 0, problems)}
    facts = [("plan and coverage", "\n".join(verdict.facts))]
    parts: tuple[tuple[Any, Any], ...] = (("call", verdict.status), ("teardown", "passed"))
    for when, status in parts:
        place = (f"{file}::{name}", (file, None, name))
        report = pytest.TestReport(*place, {}, status, why.get(status), when, sections=facts)
        config.hook.pytest_runtest_logreport(report=report)


def _what_runs() -> str:
    now = time.monotonic()
    names = [(nodeid.partition("::")[2], now - begin) for nodeid, begin in [*_running.items()]]
    return "running " + ", ".join(f"{name} ({seconds:.0f} s)" for name, seconds in names)


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """The last lines of `make sim` and `make regress`."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if config.option.closing and terminal:
        found = results.reports(terminal.stats)
        statuses: list[str] = [report.outcome for report in found]
        if config.option.closing == "regress":
            statuses = [status for report in found for _, status in results.functions(report)]
        for line in (*config.stash.get(SUMMARY, []), results.closing_line(statuses)):
            terminal.write_line(line)
