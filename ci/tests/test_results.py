"""What pytest reports of a run is counted in full: every function, and no failure gets lost."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from ci import registry, results
from ci.tests.conftest import TESTS
from host.simulation import environment
from host.simulation.rtl_index import ROOT

# Runs pytest with the registry and the empty testplan of the folder that the first argument names.
PYTEST = """
import functools, pathlib, sys
import pytest
from ci import registry, testplan
folder = pathlib.Path(sys.argv[1])
registry.load = functools.partial(registry.load, folder / "tests.yaml")
testplan.load = functools.partial(testplan.load, folder / "plan.yaml")
testplan.REGRESSION = folder
sys.exit(pytest.main(["ci/test_benches.py", "-v", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def run(folder, *tests, options=("--closing=regress",)):
    """(exit status, output) of ci/test_benches.py for a registry of these tests."""
    (folder / "tests.yaml").write_text(f"tests: [{', '.join(tests)}]")
    (folder / "plan.yaml").write_text("entries: []")
    done = subprocess.run(
        [sys.executable, "-c", PYTEST, str(folder), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def entry(toy, name, which, complain=0):
    """An entry of ci/tests.yaml for those functions of the toy that match; it may also complain."""
    (toy.folder / f"{toy.module}.py").write_text(TESTS)
    return (
        f"{{name: {name}, about: x, toplevel: toy, module: {toy.module}, sources: [{toy.source}], "
        f"simulators: [{toy.sim}], filter: '{which}', env: {{PYTHONPATH: {toy.folder}}}, "
        f"matrix: {{COMPLAIN: {complain}}}}}"
    )


def test_functions_of_benches_are_counted(toy, tmp_path):
    junit, html = tmp_path / "junit.xml", tmp_path / "report.html"
    code, text = run(
        tmp_path,
        entry(toy, "good", "test_adds_one"),
        entry(toy, "bad", "test_adds_one|test_fails"),
        entry(toy, "dead", "test_dies"),
        entry(toy, "noisy", "test_adds_one", complain=1),
        options=["--closing=regress", f"--junitxml={junit}", f"--html={html}"],
    )
    # Verilator ends at a complaint, Icarus goes on and cocotb's function passes.
    ran = toy.sim == "icarus"
    # Three benches and the plan, in which none of them stands, have failed.
    assert code == 1 and text.endswith(f"\n{2 + ran} passed, 4 failed\n")
    module, outcomes = toy.module, json.loads((tmp_path / "outcomes.json").read_text())
    assert outcomes["good"] == [[f"{module}.test_adds_one", "passed"]]
    bad = {f"{module}.test_adds_one": "passed", f"{module}.test_fails": "failed"}
    assert dict(outcomes["bad"]) == bad
    assert [status for _, status in outcomes["dead"]] == ["failed"]
    assert [status for _, status in outcomes["noisy"]] == [*["passed"] * ran, "failed"]
    again = f"make sim TEST=bad SIM={toy.sim} SEED="
    for words in ("planted failure", "the simulator reported", f"to reproduce: {again}"):
        assert words in text and words in html.read_text()
    cases = {case.get("name"): case for case in ET.parse(junit).iter("testcase")}
    assert {
        p.get("value") for p in cases[f"test_bench[bad[{toy.sim},COMPLAIN=0]]"].iter("property")
    } >= set(bad)
    assert "test 'good' of ci/tests.yaml" in cases["the plan is complete"].find("failure").get(
        "message"
    )
    assert "the plan is complete" in html.read_text()


def test_model_that_does_not_build_fails_by_name(tmp_path):
    test = "{name: lost, about: x, toplevel: no_such_top, module: m, simulators: [icarus]}"
    code, text = run(tmp_path, test, options=["--closing=sim"])
    assert (
        code and "no module named 'no_such_top'" in text and text.endswith("0 passed, 1 failed\n")
    )


def test_wrong_registry_is_one_line(tmp_path):
    code, text = run(tmp_path, "{name: a}")
    assert code and "tests.a.about: Field required" in text and "Traceback" not in text


def test_long_benches_and_shared_models_come_first(tmp_path):
    seconds = {"short": ("x", 5), "long": ("y", 50), "one": ("shared", 30), "two": ("shared", 30)}
    tests = [
        f"{{name: {name}, about: x, toplevel: {top}, module: m, simulators: [icarus], "
        f"seconds: {s}}}"
        for name, (top, s) in seconds.items()
    ]
    _, text = run(tmp_path, *tests, options=["--collect-only", "-qq"])
    places = {name: text.index(f"test_bench[{name}[") for name in seconds}
    assert sorted(places, key=places.get) == ["one", "long", "two", "short"]


def test_hits_are_those_of_benches_that_passed():
    """As their reports hold them, whatever a later run has left in the folder."""
    reports = [
        pytest.TestReport("x", ("x", 0, "x"), {}, outcome, None, "call", user_properties=own)
        for outcome, own in (
            ("passed", [("seed", 1), ("hits", '{"op.conv": 2}')]),
            ("passed", [("hits", '{"op.conv": 1, "op.pool": 1}')]),
            ("passed", []),
            ("failed", [("hits", '{"op.add": 1}')]),
        )
    ]
    assert results.hits(reports) == {"op.conv": 3, "op.pool": 1}


@pytest.mark.parametrize(
    "code, counts",
    [
        ("def test_a(): pass\ndef test_b(): assert 0", "1 passed, 1 failed"),
        ("import os\ndef test_a(): pass\ndef test_b(): os._exit(0)", "1 passed, 1 failed"),
        ("import no_such_module", "0 passed, 1 failed"),
        ("", "0 passed, 0 failed"),
        ("def test_a(no_such_fixture): pass", "0 passed, 1 failed"),
    ],
)
def test_ends_of_pytest(tmp_path, capfd, code, counts):
    (tmp_path / "test_it.py").write_text(code)
    status = results.run_pytest(
        [str(tmp_path / "test_it.py"), "-n1", "-pci.conftest", "--closing=sim"], {}
    )
    assert status and f"\n{counts}\n" in capfd.readouterr().out


def test_sources_are_all_that_decides_results(tmp_path, monkeypatch):
    changed = ("requirements.txt", "pyproject.toml", "formal/bin/bitwuzla", "docs/requirements.md")
    for name in (*changed, "ci/templates/x.j2", "ci/x.sh", "rtl/x.sv", "rtl/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
        assert name == "rtl/notes.md" or (ROOT / name).exists() or "x." in name
    monkeypatch.setattr(results, "ROOT", tmp_path)
    seen = {results.sources()}
    for number, name in enumerate((*changed, "ci/templates/x.j2", "ci/x.sh", "rtl/x.sv"), 2):
        (tmp_path / name).write_text("new")
        seen.add(results.sources())
        assert len(seen) == number, name
    (tmp_path / "rtl" / "notes.md").write_text("new")
    assert results.sources() in seen


def test_a_regression_stands_for_all_that_git_tracks(tmp_path, monkeypatch):
    """A file that it does not track may be an output; without git the sources are what is known."""
    names = (*results.FILES, "rtl/x.sv", "README.md", "out.npz")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.checkout() == results.sources()
    for command in (["init", "-q"], ["add", "-f", *names[:-1]]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environment.child(), check=True)
    seen = {results.checkout()}
    for number, name in enumerate(("README.md", "rtl/x.sv"), 2):
        (tmp_path / name).write_text("new")
        seen.add(results.checkout())
        assert len(seen) == number, name
    (tmp_path / "out.npz").write_text("new")
    assert results.checkout() in seen


def test_suites_are_found_by_their_path():
    tests = registry.load()
    found = {
        results.name_of(file, tests)
        for file in ("ci/tests/test_results.py", "ci/test_formal.py", "train/tests/test_clipq.py")
    }
    assert found == {"test_runner", "formal", "train"}
    assert results.name_of("train/tests/processors.py", tests) == "processors"
    assert results.name_of("ci/test_benches.py::test_bench[corners[icarus]]", tests) == "corners"
