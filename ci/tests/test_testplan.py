"""The testplan fails for whatever is missing: tests, entries, points, and the collector of coverage
itself."""

import ast
import re
import textwrap

import pytest
from click.testing import CliRunner

from ci import cases, registry, results, testplan
from ci.__main__ import main
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from tb.lib import coverage

GROUPS = {"op": frozenset({"conv", "pool"}), "pad": frozenset({"0", "1"})}
PLAN = """
entries:
  - {name: first, requirements: [A-1], desc: x, stage: V1, level: block,
     tests: [alpha, {beta: one}], coverage: [op]}
  - {name: second, requirements: [A-1, A-2], desc: x, stage: V2, level: system,
     tests: [{beta: two}], coverage: [pad.0, pad.1]}
"""
REQUIREMENTS = "| name | requirement |\n|---|---|\n| `A-1` | x |\n| `A-2` | `A-3` is none |\n"
TESTS = """
tests:
  - {name: alpha, about: x, toplevel: top, module: m}
  - {name: beta, about: x, toplevel: top, module: m}
"""
RAN = {"alpha": [("m.all", "passed")], "beta": [("m.one", "passed"), ("m.two", "passed")]}
HITS = {"op.conv": 3, "op.pool": 1, "pad.0": 1, "pad.1": 7}


@pytest.fixture(autouse=True)
def small_groups(request, monkeypatch, tmp_path):
    """The groups and requirements of this file instead of the project's."""
    if "shipped" not in request.node.name and "simulation" not in request.node.name:
        (tmp_path / "requirements.md").write_text(REQUIREMENTS)
        monkeypatch.setattr(testplan, "GROUPS", GROUPS)
        monkeypatch.setattr(testplan, "REQUIREMENTS", tmp_path / "requirements.md")


def judge(tmp_path, plan=PLAN, tests=TESTS, ran=RAN, hits=HITS, asked=()):
    """(whether it fails, what it says) of a plan, a registry and a run."""
    (tmp_path / "plan.yaml").write_text(plan)
    (tmp_path / "tests.yaml").write_text(tests)
    plan = testplan.load(tmp_path / "plan.yaml")
    verdicts = testplan.evaluate(plan, registry.load(tmp_path / "tests.yaml"), ran, hits, asked)
    failed = any(verdict.status == "failed" for verdict in verdicts)
    return failed, "\n".join(testplan.summary(verdicts, hits))


def test_complete_plan_holds(tmp_path):
    failed, text = judge(tmp_path)
    assert not failed and "2 of 2 entries hold" in text and "4 of 4 coverage points hit" in text


@pytest.mark.parametrize(
    "change, culprit",
    [
        (
            dict(ran={**RAN, "alpha": [("m.all", "failed")]}),
            "entry 'first': test 'alpha' failed: m.all",
        ),
        (
            dict(ran={**RAN, "beta": [("m.two", "passed")]}),
            "test 'beta' has no function that matches 'one'",
        ),
        (
            dict(ran={**RAN, "beta": [*RAN["beta"], ("m.three", "passed")]}),
            "function m.three of test 'beta' is in no entry",
        ),
        (
            dict(tests=TESTS + "  - {name: gamma, about: x, toplevel: top, module: m}"),
            "test 'gamma' of ci/tests.yaml is in no entry",
        ),
        (dict(tests=TESTS.replace("alpha", "gamma")), "entry 'first': no test is called 'alpha'"),
        (dict(hits={**HITS, "op.pool": 0}), "entry 'first': coverage hole: op.pool"),
        (dict(hits={}), "coverage hole: op.conv"),
        (dict(ran={"alpha": [("m.all", "skipped")]}), "no test was executed"),
        (
            dict(plan=PLAN.replace("[pad.0, pad.1]", "[pad.0]")),
            "coverage point 'pad.1' is in no entry",
        ),
        (dict(hits={**HITS, "op.add": 1}), "'op.add' was hit but is not declared"),
        (dict(plan=PLAN.replace("A-1, A-2", "A-1")), "requirement 'A-2' of requirements.md is in"),
    ],
)
def test_what_is_missing_is_named(tmp_path, change, culprit):
    failed, text = judge(tmp_path, **change)
    assert failed and culprit in text


def test_what_was_left_out_is_not_judged(tmp_path):
    """SIM= or a missing simulator left `alpha` out: its coverage cannot be expected, and the other
    entry's may have come from it."""
    failed, text = judge(tmp_path, ran={**RAN, "alpha": [("m.all", "skipped")]}, hits={})
    assert not failed and "left out: alpha" in text and "0 of 2 entries hold" in text
    failed, _ = judge(
        tmp_path,
        ran={"alpha": [("m.all", "skipped")], "beta": [("m.one", "failed"), ("m.two", "passed")]},
    )
    assert failed


def test_what_was_to_run_and_did_not_is_named(tmp_path):
    for ran in ({"beta": RAN["beta"]}, {**RAN, "alpha": [("m.all", "skipped")]}):
        failed, text = judge(tmp_path, ran=ran, hits={}, asked=["alpha", "beta"])
        assert failed and "test 'alpha' was to run and did not" in text
        assert "coverage hole: op.conv" in text  # it is judged, too


def test_what_a_regression_must_run(monkeypatch):
    tests = registry.load()
    monkeypatch.setattr(runner, "missing", lambda sim: "")
    whole = testplan.asked_for(tests, None, False)
    assert {"conv5x5", "nin_layers", "train"} <= {*whole} and "many_networks" not in whole
    assert "many_networks" in testplan.asked_for(tests, None, True)
    icarus = testplan.asked_for(tests, "icarus", False)
    assert "conv5x5" in icarus and "nin_layers" not in icarus
    monkeypatch.setattr(runner, "missing", lambda sim: "none" if sim == "icarus" else "")
    assert testplan.asked_for(tests, None, False) == whole


@pytest.mark.parametrize("nothing", ["matrix: {W: []}", "simulators: []", "simulators: {}"])
def test_a_test_without_a_case_is_refused(tmp_path, nothing):
    (tmp_path / "tests.yaml").write_text(TESTS.replace("module: m}", f"module: m, {nothing}}}", 1))
    with pytest.raises(registry.RegistryError, match="alpha: matrix and simulators give no case"):
        registry.load(tmp_path / "tests.yaml")


def test_shipped_entries_of_which_nothing_ran_do_not_hold(tmp_path):
    arguments = ["testplan", "--runs", str(tmp_path), "--entry"]
    done = CliRunner().invoke(main, [*arguments, "padding"])
    assert done.exit_code == 1 and "nothing of these entries was run" in done.output
    entry = next(e for e in testplan.load() if e.name == "padding")
    (case, *_) = registry.load().named(next(iter(entry.tests))).cases("verilator")
    run = tmp_path / cases.run_dir(case).name
    run.mkdir()
    (run / runner.SOURCES).write_text(results.sources())
    (run / "sim.log").touch()
    (run / "results.xml").write_text(
        "<testsuite><testcase classname='m' name='corners'/></testsuite>"
    )
    for verdict, code in (("", 0), ("f: x", 1)):
        (run / runner.VERDICT).write_text(verdict)
        assert CliRunner().invoke(main, [*arguments, "^padding$"]).exit_code == code
    done = CliRunner().invoke(main, [*arguments, "no such entry"])
    assert done.exit_code == 1 and "has no entry that matches" in done.output


def test_an_interrupted_regression_has_no_results(tmp_path, monkeypatch):
    monkeypatch.setattr(testplan, "REGRESSION", tmp_path)
    monkeypatch.setattr(testplan, "load", lambda: [testplan.Entry.model_construct(name="x")])
    for name in testplan.KEPT[:2]:
        (tmp_path / name).write_text("{}")
    done = CliRunner().invoke(main, ["testplan"])
    assert done.exit_code == 1 and "holds no results: run make regress first" in done.output


def test_nightly_tests_may_be_left_out(tmp_path):
    tests = TESTS + "  - {name: gamma, about: x, toplevel: top, module: m, tags: [nightly]}"
    plan = PLAN.replace("[alpha,", "[alpha, gamma,")
    assert not judge(tmp_path, plan, tests)[0]
    assert judge(tmp_path, plan, tests, hits={**HITS, "op.pool": 0})[0]


@pytest.mark.parametrize(
    "old, new, culprit",
    [
        ("stage: V1", "stage: V9", "first.stage: Input should be"),
        ("level: block", "level: moon", "first.level: Input should be"),
        ("[A-1]", "[A-3]", "first.requirements: .*requirements.md has no requirement 'A-3'"),
        ("[A-1]", "[]", "first.requirements: .*at least 1 item"),
        ("requirements: [A-1], ", "", "first.requirements: Field required"),
        (
            "coverage: [op]",
            "coverage: [oops]",
            "first.coverage.*: .*no coverage point is called 'oops'",
        ),
        ("[alpha, {beta: one}]", "[]", "first.tests: .*at least 1 item"),
        ("{beta: one}", "{beta: '('}", "first.tests.beta: .*valid regular expression"),
        ("name: second", "name: first", "'first' is used twice"),
        ("desc: x, stage: V1", "stage: V1", "first.desc: Field required"),
        ("desc: x, stage: V1", "desc: x, colour: red, stage: V1", "first.colour: Extra inputs"),
        ("entries:", "other:", "other.*: Input should be 'entries'"),
    ],
)
def test_wrong_plan_is_named(tmp_path, old, new, culprit):
    with pytest.raises(testplan.PlanError, match=culprit):
        judge(tmp_path, PLAN.replace(old, new))


def cocotb_functions(test):
    """Outcomes as of a good run of all functions of a registered test, from its source."""
    names = []
    for module in test.module.split(","):
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        names += [
            f"{module}.{node.name}"
            for node in ast.parse(source).body
            if isinstance(node, ast.AsyncFunctionDef)
            and any("cocotb.test" in ast.unparse(d) for d in node.decorator_list)
        ]
    return [(name, "passed") for name in names if re.search(test.filter or "", name)]


def test_shipped_plan_is_complete():
    """Every registered test, every function of one that is planned by function and every coverage
    group is in an entry, before anything has run."""
    tests = registry.load()
    outcomes = {name: cocotb_functions(test) for name, test in tests.tests.items()}
    assert outcomes["host_behaviour"] and outcomes["corners"]
    assert not testplan.evaluate(testplan.load(), tests, outcomes, {})[0].problems


COLLECTS = """
import os
import cocotb
from tb.lib import coverage

@cocotb.test()
async def collects(dut):
    if os.environ.get("NO_WRITER"):
        coverage.atexit.unregister(coverage.write)
    coverage.hit("layer_op", "conv signed")
    coverage.hit("layer_op", "conv signed", "maxpool signed")

@cocotb.test()
async def undeclared(dut):
    coverage.hit("layer_op", "division signed")
"""


def run_collector(toy, which, env):
    """Result of a test function of COLLECTS on the toy module."""
    (toy.folder / "collects.py").write_text(textwrap.dedent(COLLECTS))
    return toy.run(which, module="collects", env={"PYTHONPATH": f"{toy.folder}:{ROOT}", **env})


@pytest.mark.parametrize("disabled", [False, True])
def test_simulation_leaves_its_hits_unless_the_writer_is_disabled(toy, disabled):
    result = run_collector(toy, "collects.collects", {"NO_WRITER": "1"} if disabled else {})
    hits = coverage.merge([result.log.with_name(coverage.FILE)])
    assert result.passed and hits == (
        {} if disabled else {"layer_op.conv signed": 2, "layer_op.maxpool signed": 1}
    )
    point = "layer_op.conv signed"
    facts = {"name": "ops", "requirements": ["ARITH-ADD"], "desc": "x", "stage": "V1"}
    entry = testplan.Entry(**facts, level="block", tests=["alpha"], coverage=[point])
    toy_test = {"name": "alpha", "about": "x", "toplevel": "toy", "module": "collects"}
    tests = registry.Registry(tests=[toy_test])
    outcomes = {"alpha": [(test.name, test.status) for test in result.tests]}
    _, verdict = testplan.evaluate([entry], tests, outcomes, hits)
    assert verdict.problems == ([f"coverage hole: {point}"] if disabled else [])
    assert verdict.status == ("failed" if disabled else "passed")


def test_undeclared_point_fails_the_simulation(toy):
    result = run_collector(toy, "collects.undeclared", {})
    assert not result.passed and "layer_op.division signed" in result.error


@pytest.fixture
def leave(tmp_path, monkeypatch):
    """A function that leaves the folder of a run of alpha, beta, gamma or delta."""
    test = "{{name: {}, about: x, toplevel: top, module: m}}"
    names = map(test.format, ("alpha", "beta", "gamma", "delta"))
    (tmp_path / "tests.yaml").write_text(f"tests: [{', '.join(names)}]")
    tests = registry.load(tmp_path / "tests.yaml")
    monkeypatch.setattr(registry, "load", lambda: tests)

    def leave(name, body="", verdict: str | None = "", sources=None):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sim.log").touch()
        if verdict is not None:
            (tmp_path / name / runner.VERDICT).write_text(verdict)
        (tmp_path / name / "results.xml").write_text(
            f"<testsuites><testcase classname='m' name='f'>{body}</testcase></testsuites>"
        )
        (tmp_path / name / coverage.FILE).write_text('{"op.conv": 2}')
        (tmp_path / name / runner.SOURCES).write_text(sources or results.sources())

    return leave


def test_runs_of_other_sources_and_of_no_case_are_ignored(tmp_path, leave, capsys):
    leave("alpha-verilator")
    leave("beta-icarus", sources="old")
    leave("gamma-verilator")
    (tmp_path / "gamma-verilator" / runner.SOURCES).unlink()
    for name in ("removed-icarus", "alpha-verilator-W=3", "beta-verilator-coverage"):
        leave(name)
    outcomes, hits = testplan.read_runs(tmp_path)
    assert outcomes == {"alpha": [("m.f", "passed")]} and hits == {"op.conv": 2}
    text = capsys.readouterr().out
    assert "of other sources: run make sim again: beta-icarus, gamma-verilator\n" in text
    assert "counters: alpha-verilator-W=3, beta-verilator-coverage, removed-icarus\n" in text


def test_runs_that_failed_give_no_hits(tmp_path, leave):
    leave("alpha-verilator")
    leave("beta-icarus", "<failure message='x'/>", "m.f: x")
    leave("gamma-icarus", verdict="the simulator reported: %Error: x")
    leave("delta-icarus", verdict=None)
    outcomes, hits = testplan.read_runs(tmp_path)
    assert {name: found[-1][1] for name, found in outcomes.items()} == {
        "alpha": "passed",
        "beta": "failed",
        "gamma": "failed",
        "delta": "failed",
    } and hits == {"op.conv": 2}
