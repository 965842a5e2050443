"""pytest's options for benches, the order of a regression, and its signs of life."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from ci import cases, registry, results
from host.simulation.progress import Heartbeat


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benches of ci/tests.yaml")
    group.addoption("--bench", help="only the bench of this name")
    group.addoption("--sim", choices=registry.SIMULATORS, help="one simulator only")
    group.addoption("--modules", type=int, choices=(4, 8, 16), help="NUM_MODULES (with --bench)")
    group.addoption("--nightly", action="store_true", help="also the long benches")
    group.addoption("--seed", type=int, default=1, help="each simulation derives its own from it")
    group.addoption("--case-seed", type=int, help="the seed of every simulation itself")
    group.addoption("--waves", action="store_true", help="record every signal")


def pytest_configure(config: pytest.Config) -> None:
    try:
        tests = registry.load()
        if config.option.bench:
            registry.named(tests, config.option.bench)
    except registry.RegistryError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that the last ones are short; models that several need earliest."""
    tests = registry.load()
    models: defaultdict[str, float] = defaultdict(float)  # seconds of all benches of a model
    for case in filter(None, map(_case, items)):
        models[cases.model_key(case)] += case.test.seconds
    first: set[str] = set()

    def urgency(item: pytest.Item) -> float:
        case = _case(item)
        if case is None:
            suite = results.suite_of(item.nodeid, tests)
            item.add_marker(pytest.mark.timeout(suite.timeout))
            return suite.seconds
        key = cases.model_key(case)
        shared = models[key] if key not in first and models[key] > case.test.seconds else 0
        first.add(key)
        return shared or case.test.seconds

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
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(session.config, "workerinput") or terminal is None:
        return (yield)
    with Heartbeat(_what_runs, 20.0, terminal.write_line):
        return (yield)


def _what_runs() -> str:
    now = time.monotonic()
    names = [(nodeid.partition("::")[2], now - begin) for nodeid, begin in [*_running.items()]]
    return "running " + ", ".join(f"{name} ({seconds:.0f} s)" for name, seconds in names)
