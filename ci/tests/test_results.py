"""What pytest leaves of a run is read in full: every function counts, and no failure gets lost."""

import subprocess
import sys

import pytest

from ci import registry, regress, results
from ci.tests.conftest import TESTS
from host.simulation.rtl_index import ROOT
from host.simulation.runner import TestOutcome as Outcome

# Runs pytest with the registry that the first argument names.
PYTEST = """
import functools, pathlib, sys
import pytest
from ci import registry
registry.load = functools.partial(registry.load, pathlib.Path(sys.argv[1]))
sys.exit(pytest.main(sys.argv[2:]))
"""


def run(folder, *tests, options=()):
    """(exit status, JUnit file, output) of ci/test_benches.py for a registry of these tests."""
    listed, junit = folder / "tests.yaml", folder / "junit.xml"
    listed.write_text(f"tests: [{', '.join(tests)}]")
    own = ["ci/test_benches.py", f"--junitxml={junit}", "-ojunit_family=xunit1", "-v"]
    done = subprocess.run(
        [sys.executable, "-c", PYTEST, str(listed), *own, "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, junit, done.stdout + done.stderr


def entry(toy, name, which, complain=0):
    """An entry of ci/tests.yaml for those functions of the toy that match; it may also complain."""
    (toy.folder / f"{toy.module}.py").write_text(TESTS)
    return (
        f"{{name: {name}, about: x, toplevel: toy, module: {toy.module}, sources: [{toy.source}], "
        f"simulators: [{toy.sim}], filter: '{which}', env: {{PYTHONPATH: {toy.folder}}}, "
        f"matrix: {{COMPLAIN: {complain}}}}}"
    )


def test_functions_of_benches_are_counted(toy, tmp_path):
    code, junit, text = run(
        tmp_path,
        entry(toy, "good", "test_adds_one"),
        entry(toy, "bad", "test_adds_one|test_fails"),
        entry(toy, "dead", "test_dies"),
        entry(toy, "noisy", "test_adds_one", complain=1),
    )
    reports = results.read(junit, registry.load(tmp_path / "tests.yaml"))
    # Verilator ends at a complaint, Icarus goes on and cocotb's function passes.
    ran = ["passed"] if toy.sim == "icarus" else []
    assert code == 1 and results.closing_line(reports) == f"{2 + len(ran)} passed, 3 failed"
    by_key = {r.key: r for r in reports}
    good, bad, dead = (by_key[f"{n}[{toy.sim},COMPLAIN=0]"] for n in ("good", "bad", "dead"))
    assert good.tests == (Outcome(f"{toy.module}.test_adds_one", "passed", 0.0),)
    assert good.log.parent.name == f"good-{toy.sim}-COMPLAIN=0" and good.log.exists()
    assert {t.name: t.status for t in bad.tests} == {
        f"{toy.module}.test_adds_one": "passed",
        f"{toy.module}.test_fails": "failed",
    }
    assert "planted failure" in next(t.message for t in bad.tests if t.status == "failed")
    assert bad.again.startswith(f"make sim TEST=bad SIM={toy.sim} SEED=")
    assert f"to reproduce: {bad.again} WAVES=1" in text
    assert dead.count("failed") == 1
    noisy = by_key[f"noisy[{toy.sim},COMPLAIN=1]"]
    assert [t.status for t in noisy.tests] == [*ran, "failed"]
    assert "the simulator reported" in noisy.tests[-1].message


def test_model_that_does_not_build_fails_by_name(tmp_path):
    test = "{name: lost, about: x, toplevel: no_such_top, module: m, simulators: [icarus]}"
    code, junit, _ = run(tmp_path, test)
    (report,) = results.read(junit, registry.load(tmp_path / "tests.yaml"))
    assert code and report.key == "lost[icarus]" and "no_such_top" in report.tests[0].message


def test_wrong_registry_is_one_line(tmp_path):
    code, _, text = run(tmp_path, "{name: a}")
    assert code and "entry 'a': key 'about' is missing" in text and "Traceback" not in text


def test_long_benches_and_shared_models_come_first(tmp_path):
    seconds = {"short": ("x", 5), "long": ("y", 50), "one": ("shared", 30), "two": ("shared", 30)}
    tests = [
        f"{{name: {name}, about: x, toplevel: {top}, module: m, simulators: [icarus], "
        f"seconds: {s}}}"
        for name, (top, s) in seconds.items()
    ]
    _, _, text = run(tmp_path, *tests, options=["--collect-only", "-qq"])
    places = {name: text.index(f"test_bench[{name}[") for name in seconds}
    assert sorted(places, key=places.get) == ["one", "long", "two", "short"]


@pytest.mark.parametrize(
    "code, counts",
    [
        ("def test_a(): pass\ndef test_b(): assert 0", "1 passed, 1 failed"),
        ("import pytest\ndef test_a(): pytest.skip('why')", "0 passed, 0 failed, 1 skipped"),
        ("import os\ndef test_a(): pass\ndef test_b(): os._exit(0)", "1 passed, 1 failed"),
        ("import no_such_module", "0 passed, 1 failed"),
        ("", "0 passed, 1 failed"),
        ("def test_a(no_such_fixture): pass", "0 passed, 1 failed"),
    ],
)
def test_ends_of_pytest(tmp_path, code, counts):
    (tmp_path / "test_it.py").write_text(code)
    reports = results.run_pytest([str(tmp_path / "test_it.py"), "-n1"], tmp_path / "junit.xml", {})
    assert results.closing_line(reports) == counts


def test_suites_are_found_by_their_path():
    tests = registry.load()
    found = {
        results.suite_of(file, tests).name
        for file in ("ci/tests/test_results.py", "ci/test_formal.py", "train/tests/test_clipq.py")
    }
    assert found == {"test_runner", "formal", "train"}
    assert results.suite_of("train/tests/processors.py", tests).name == "processors"


def test_the_testplan_is_added_to_the_junit_file(tmp_path):
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites><testsuite name='pytest'/></testsuites>")
    outcomes = (Outcome("one", "passed", 0.0), Outcome("two", "failed", 0.0, "a hole <&>"))
    regress.add_to_junit(results.Report("testplan", "", 0.0, outcomes, ""), junit)
    assert results.closing_line(results.read(junit, registry.load())) == "1 passed, 1 failed"
