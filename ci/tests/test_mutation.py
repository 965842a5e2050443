"""Mutation testing itself: a planted bug is found, one that changes nothing survives, and a wrong
list names its entry."""

import dataclasses
import functools
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from ci import mutate, registry
from ci.mutation import forked, hand_made, netlist, trial
from ci.mutation.netlist import MutationError
from host.simulation import runner
from host.simulation.rtl_index import ROOT, RtlIndex

COUNTER = """
`timescale 1ns/1ps
module counter (
    input  wire logic       clk_i,
    input  wire logic       rst_ni,
    output wire logic [3:0] count_o
);
  logic [3:0] count_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) count_q <= '0;
    else count_q <= count_q + 4'd1;
  end
  assign count_o = count_q;
endmodule
"""
TESTS = """
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

@cocotb.test()
async def test_counts(dut):
    Clock(dut.clk_i, 10, unit="ns").start()
    dut.rst_ni.value = 0
    await FallingEdge(dut.clk_i)
    await FallingEdge(dut.clk_i)
    dut.rst_ni.value = 1
    for count in range(20):
        assert dut.count_o.value.to_unsigned() == count % 16
        await FallingEdge(dut.clk_i)
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Folder with counter.sv and its cocotb module, and what tries mutants on it under Icarus."""
    if reason := runner.missing("icarus"):
        pytest.skip(reason)
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "counter.sv").write_text(COUNTER)
    (tmp_path / "check_counter.py").write_text(TESTS)
    monkeypatch.setattr(runner, "BUILD", tmp_path / "build")
    entry = {
        "name": "counter",
        "about": "counts",
        "toplevel": "counter",
        "module": "check_counter",
        "simulators": ["icarus"],
        "env": {"PYTHONPATH": f"{tmp_path}"},
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"tests": [entry]}))
    results = trial.Results(tmp_path / "results.json")
    return tmp_path, trial.Trials(
        results, registry.load(tmp_path / "tests.yaml"), 1, "regress", 1, say=lambda line: None
    )


def _entries(folder, *entries):
    path = folder / "hand_made.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return hand_made.load(path, folder / "rtl")


def _entry(**changes):
    return {
        "id": "steps",
        "file": "counter.sv",
        "kind": "counts by two",
        "find": "4'd1",
        "replace": "4'd2",
        **changes,
    }


def test_planted_bug_is_killed_and_a_harmless_one_survives(bench):
    folder, trials = bench
    index = RtlIndex(folder / "rtl")
    found = []
    for mutant in _entries(
        folder, _entry(), _entry(id="same", replace="4'd17"), _entry(id="typo", replace="4'oops")
    ):
        found.append(trials.results.finding(mutant.key, "hand-made", mutant.module, mutant.title))
        trials.judge(found[-1], {"counter"}, mutant.plant(folder / mutant.id, index), index)
    assert [f.status for f in found] == ["killed", "survived", "not compiled"]
    assert (
        found[0].killed_by == "counter[icarus]" and "test_counts" in found[0].why
    )  # as the log or the results file says it, whichever is read first
    assert not mutate.good_enough(found[:2]) and mutate.good_enough(found[:1])
    trials.results.save()  # an interrupted run goes on: nothing is run again
    again = trial.Results(trials.results.path)
    assert again.findings[found[0].key].status == "killed" and len(again.baselines) == 1


def test_failing_test_bench_is_refused(bench):
    folder, trials = bench
    (folder / "rtl" / "counter.sv").write_text(COUNTER.replace("4'd1", "4'd3"))
    index = RtlIndex(folder / "rtl")
    (mutant,) = _entries(folder, _entry(find="'0", replace="'1"))
    finding = trials.results.finding(mutant.key, "hand-made", mutant.module, mutant.title)
    with pytest.raises(MutationError, match=r"counter\[icarus\] fails without a mutant"):
        trials.judge(finding, {"counter"}, mutant.plant(folder / "hand", index), index)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"find": "nowhere"}, "'steps': its text stands 0 times in rtl/counter.sv"),
        ({"find": "count_q"}, "'steps': its text stands 5 times in rtl/counter.sv"),
        ({"file": "lost.sv"}, "'steps': no file rtl/lost.sv"),
        ({"replace": "4'd1"}, "'steps' changes nothing"),
    ],
)
def test_wrong_entry_is_named(tmp_path, changes, message):
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "counter.sv").write_text(COUNTER)
    with pytest.raises(MutationError, match=message):
        _entries(tmp_path, _entry(**changes))


def test_every_file_has_a_hand_made_mutant():
    changed = {m.path for m in hand_made.load()}
    lacking = [
        str(p.relative_to(ROOT)) for p in sorted((ROOT / "rtl").rglob("*.sv")) if p not in changed
    ]
    assert not lacking and len(hand_made.load()) >= 60


def test_argument_is_needed_for_an_equivalent(tmp_path):
    path = tmp_path / "equivalent.yaml"
    path.write_text(yaml.safe_dump([{"key": "0123", "mutant": "m", "argument": "because"}]))
    with pytest.raises(MutationError, match="argument"):
        mutate.load_arguments(path)
    assert isinstance(mutate.load_arguments(mutate.EQUIVALENT), dict)


def test_random_mutants_are_drawn_planted_and_judged(tmp_path, monkeypatch):
    """Bugs of the CRC in one model: the same ones are drawn again, two real ones are killed, one
    that changes nothing survives, by proof."""
    if reason := runner.missing("icarus"):
        pytest.skip(reason)
    folder = ROOT / "build" / "mutate" / "self-test"
    shutil.rmtree(folder, ignore_errors=True)
    index = RtlIndex()
    variants = netlist.elaborate(
        folder, index, "stream_parser"
    )  # seconds instead of a minute for the whole accelerator
    crc = [v for v in variants if v.module == "crc32_word"]
    drawn = netlist.draw(folder, index, crc, 3, 5)
    assert [m.command for m in drawn] == [m.command for m in netlist.draw(folder, index, crc, 3, 5)]
    assert [m.number for m in drawn] == [1, 2, 3] and len({m.key for m in drawn}) == 3
    drawn[2] = dataclasses.replace(
        drawn[2], command=re.sub(r"-mode \w+", "-mode none", drawn[2].command)
    )
    tree = netlist.plant(folder, index, variants, drawn)

    monkeypatch.setattr(runner, "BUILD", tmp_path / "build")
    tests = registry.load()
    tests = registry.Registry({"crc32_word": tests.tests["crc32_word"]}, {})
    trials = trial.Trials(
        trial.Results(tmp_path / "results.json"),
        tests,
        1,
        "block",
        1,
        sim="icarus",
        say=lambda line: None,
    )
    own = {
        m.number: (trials.results.finding(m.key, "random", m.module, m.title), m.variant.name)
        for m in drawn
    }
    trials.judge_all(own, {"crc32_word"}, tree, index, whole=False)
    assert [own[n][0].status for n in (1, 2, 3)] == ["killed", "killed", "survived"]
    assert netlist.proved_equivalent(folder, drawn[2]) and not netlist.proved_equivalent(
        folder, drawn[0]
    )
    shutil.rmtree(folder)


def test_survivors_of_all_modules_share_the_accelerators_cases(monkeypatch):
    """Block tests come module by module; what they leave is first put to Yosys, and only the rest
    meets the accelerator, all at once."""
    drawn = [
        SimpleNamespace(number=n, key=f"k{n}", module=m, title="", variant=SimpleNamespace(name=m))
        for n, m in enumerate("aabc", 1)
    ]
    for name, value in (
        ("elaborate", [SimpleNamespace(module=m) for m in "abc"]),
        ("draw", drawn),
        ("plant", "tree"),
    ):
        monkeypatch.setattr(mutate.netlist, name, lambda *_, value=value: value)
    monkeypatch.setattr(
        mutate.netlist, "proved_equivalent", lambda folder, mutant: mutant.number == 3
    )
    calls = []

    def judge_all(own, units, tree, index, *, whole):
        calls.append((sorted(own), sorted(units), whole))
        for number, (finding, _) in own.items():
            finding.status = "killed" if number in ((2, 4) if whole else (1,)) else "survived"

    found = {}
    for reach in ("regress", "block"):
        calls.clear()
        trials = SimpleNamespace(
            results=trial.Results(Path("none.json")),
            tests=SimpleNamespace(tests={}),
            judge_all=judge_all,
            reach=reach,
        )
        trials.results.save, trials.ends = (
            lambda: None,
            functools.partial(trial.Trials.ends, trials),
        )
        found[reach] = {
            f.key: f.status for f in mutate.try_random(trials, None, 4, 1, "", "", {}, True)
        }
        whole = ([2, 4], ["a", "c"], True) if reach == "regress" else ([], [], True)
        assert calls == [([1, 2], ["a"], False), ([3], ["b"], False), ([4], ["c"], False), whole]
    assert found["block"] == {
        "k1": "killed",
        "k2": "survived",
        "k3": "equivalent",
        "k4": "survived",
    }
    assert found["regress"] == {"k1": "killed", "k2": "killed", "k3": "equivalent", "k4": "killed"}


def test_verdicts_of_forked_runs():
    """Nothing but a summary without failures counts as passed."""
    summary = "** TESTS=2 PASS=2 FAIL=0 SKIP=0 **"
    assert forked.verdict(summary, 0, 5) == ""
    assert "before the tests did" in forked.verdict("", 0, 5)
    assert "no end after 5 s" in forked.verdict("", None, 5)
    assert forked.verdict(summary, -6, 5) == "" and "status -6" in forked.verdict("", -6, 5)
    assert "PASS=0" in forked.verdict("** TESTS=1 PASS=0 FAIL=0 SKIP=1 **", 0, 5)
    assert (
        forked.verdict(
            "  10.00ns WARNING  cocotb.regression   tb.x.test_y.z failed\n" + summary, 0, 5
        )
        == "tb.x.test_y.z failed"
    )
    assert forked.verdict("ERROR: rtl/x.sv:7: planted\n" + summary, 0, 5).startswith("ERROR")


def test_forked_run_that_hangs_after_its_summary_counts(tmp_path, monkeypatch):
    """A process that does not end although its tests have is ended, and judged by its summary; one
    without a summary has the whole limit."""
    monkeypatch.setattr(forked, "GRACE", 0.3)
    log = tmp_path / "sim.log"
    for summary, verdict in (
        ("** TESTS=2 PASS=2 FAIL=0 SKIP=0 **", ""),
        ("** TESTS=2 PASS=1 FAIL=0 SKIP=1 **", ""),
        ("no tests yet", "no end after 2 s"),
    ):
        child = subprocess.Popen(["sh", "-c", f"echo '{summary}' > {log}; exec sleep 60"])
        assert forked._watch(child.pid, log, 2) == verdict
        log.unlink()
