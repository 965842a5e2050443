"""The benches of ci/tests.yaml: a test for each simulator and set of parameters.

`pytest -k conv5x5` runs those whose name matches, `-n 2` two at a time; ci/conftest.py has the
options. A test is one simulation, which passes under the rules of host/simulation/runner.py; its
cocotb functions are properties of the test in JUnit files.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ci import cases, registry, waves
from host.simulation import environment, runner
from tb.lib import coverage


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option, tests = metafunc.config.option, registry.load()
    benches = tests.benches(option.nightly or bool(option.bench))
    found = [
        case
        for test in benches
        if not option.bench or test.name in option.bench
        for case in test.cases(option.sim, option.modules)
    ]
    metafunc.parametrize("case", found, ids=lambda case: case.key)


def test_bench(
    case: registry.Case,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    if reason := runner.missing(case.sim):
        pytest.skip(reason)
    option, settings = request.config.option, environment.bench_settings()
    seed = cases.seed_of(case, option.seed) if option.case_seed is None else option.case_seed
    result = cases.run_case(case, seed, option.waves, option.counters, env=settings)
    again = cases.command(case, seed, settings)
    record_property("seed", seed)
    print(f"\n{case.key}, seed {seed}: build {result.build_seconds:.1f} s", end=", ")
    print(f"simulation {result.seconds:.1f} s; log: {result.log}; waves: {result.waves}")
    if option.waves and runner.waves_format(case.sim) == "vcd":
        print("waves are VCD: FST needs liblz4-dev and zlib1g-dev (sudo apt-get install)")
    for test in result.tests:
        print(f"  {test.status:7} {test.name} ({test.seconds:.1f} s)")
        record_property(test.status, test.name)
    print(f"to run it again: {again}")
    if not result.passed:
        lines = result.log.read_text(errors="replace").splitlines() if result.log else []
        tail = "\n".join([f"end of {result.log}:", *lines[-cases.TAIL_LINES :]])
        shown = _waves(case, result, "\n".join(lines))
        pytest.fail(f"{result.error}\n{tail}\n{shown}to reproduce: {again} WAVES=1", pytrace=False)
    files = [result.log.with_name(coverage.FILE)] if result.log else []
    record_property("hits", json.dumps(coverage.merge(files)))  # before another run replaces them


def _waves(case: registry.Case, result: runner.Result, log: str) -> str:
    """The cycles before the first failure as text, if they were recorded."""
    if result.waves is None or (time := waves.failure_time(log)) is None:
        return ""
    text = waves.excerpt(result.waves, case.test.toplevel, time)
    return (
        f"the {waves.CYCLES} cycles before the failure:\n{text}\nmake waves TEST={case.test.name}\n"
    )
