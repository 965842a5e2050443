"""Mutation testing itself: bugs are made, planted and switched on, a test meets those it reaches, a
real one is found, one that changes nothing survives, and a wrong list names its entry."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from click.testing import CliRunner

from ci import formal, mutate, registry, results
from ci.mutation import designed, forked, mutants, plant, trial
from ci.mutation.mutants import MutationError
from host.simulation import runner
from host.simulation.rtl_index import ROOT, RtlIndex

COUNTER = """
`timescale 1ns/1ps
module counter (
    input  wire logic       clk_i,
    input  wire logic       rst_ni,
    input  wire logic       en_i,
    output wire logic [3:0] count_o,
    output wire logic       top_o
);
  localparam int STEP = 1;
  logic [3:0] count_q;
  logic       top_q, was_q;
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      count_q <= 4'd0;
      top_q   <= 1'b0;
      was_q   <= 1'b0;
    end else if (en_i && count_q != 4'd15) begin
      count_q <= count_q + 4'(STEP);
      top_q   <= count_q == 4'd14;
      was_q   <= count_q[3:2] > 2'd2;
    end else if (en_i) begin
      count_q <= '0;
    end
  end
  assign count_o = count_q;
  assign top_o   = top_q && was_q;
endmodule
"""
TESTS = """
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

@cocotb.test()
async def test_counts(dut):
    Clock(dut.clk_i, 10, unit="ns").start()
    dut.rst_ni.value, dut.en_i.value = 0, 1
    await FallingEdge(dut.clk_i)
    await FallingEdge(dut.clk_i)
    dut.rst_ni.value = 1
    for count in range(12):
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
    return mutants.hand_made(path, folder / "rtl")


def _entry(**changes):
    return {
        "id": "steps",
        "file": "counter.sv",
        "kind": "counts by two",
        "find": "count_q + 4'(STEP)",
        "replace": "count_q + 4'd2",
        **changes,
    }


def _judged(folder, trials, *chosen):
    """Findings of mutants, those planted together and those with sources of their own."""
    findings = {m.key: trials.results.finding(m) for m in chosen}
    index = RtlIndex(folder / "rtl")
    mutate.try_tests(trials, list(chosen), findings, index, folder / "sources")
    return [findings[m.key] for m in chosen]


def test_planted_bug_is_killed_and_a_harmless_one_survives(bench):
    """In one model: a bug, one that no value shows, one that the test does not reach; then one that
    no number can switch on, and one that is no Verilog."""
    folder, trials = bench
    chosen = _entries(
        folder,
        _entry(),
        _entry(id="same", find="count_q + 4'(STEP)", replace="4'(STEP) + count_q"),
        _entry(id="wrap", find="count_q <= '0", replace="count_q <= '1"),
        _entry(id="parameter", find="STEP = 1", replace="STEP = 3"),
        _entry(id="typo", find="4'd14", replace="4'oops"),
    )
    found = _judged(folder, trials, *chosen)
    assert [f.status for f in found] == [
        *("killed", "survived", "survived"),
        "killed",
        "not compiled",
    ]
    assert [f.reached for f in found[:4]] == [True, False, False, True]
    assert found[0].killed_by == "counter[icarus]" and "test_counts" in found[0].why
    assert not mutate.good_enough(found[:2]) and mutate.good_enough(found[:1])
    again = trial.Results(trials.results.path)  # an interrupted run goes on: nothing is run again
    assert again.findings[found[0].key].status == "killed" and len(again.usual) == 1
    trials.results = again
    trials._simulate = None
    assert [f.status for f in _judged(folder, trials, *chosen)] == [f.status for f in found]


def test_failing_test_bench_is_refused(bench):
    folder, trials = bench
    (folder / "rtl" / "counter.sv").write_text(COUNTER.replace("4'(STEP)", "4'd3"))
    (mutant,) = _entries(folder, _entry(find="4'd14", replace="4'd13"))
    with pytest.raises(MutationError, match=r"counter\[icarus\] fails without a mutant"):
        _judged(folder, trials, mutant)


def test_a_bench_is_tried_without_mutant_after_every_change(bench):
    """Also before a mutant that needs sources of its own."""
    folder, trials = bench
    _judged(folder, trials, *_entries(folder, _entry(find="STEP = 1", replace="STEP = 3")))
    (folder / "rtl" / "counter.sv").write_text(COUNTER.replace("4'(STEP)", "4'd3"))
    trials.sources = "changed"
    with pytest.raises(MutationError, match=r"counter\[icarus\] fails without a mutant"):
        _judged(folder, trials, *_entries(folder, _entry(find="STEP = 1", replace="STEP = 2")))


def test_changes_are_those_of_designers(tmp_path):
    """Each class on the counter, each once and different; the draw depends on the seed alone."""
    path = tmp_path / "counter.sv"
    path.write_text(COUNTER)
    made = designed.designed(path)
    texts = {m.text for m in made}
    for old, new in (
        ("if (!rst_ni)", "if (rst_ni)"),
        ("top_q   <= 1'b0;", ";"),
        ("en_i && count_q != 4'd15", "en_i"),
        ("en_i && count_q != 4'd15", "count_q != 4'd15"),
        ("en_i && count_q != 4'd15", "(en_i && count_q != 4'd15) && !(en_i)"),
        ("count_q != 4'd15", "(((count_q) ^ (4'd15)) << 1) != '0"),
        ("count_q + 4'(STEP)", "((count_q + 4'(STEP)) << 1) >> 1"),
        ("> 2'd2", ">= 2'd2"),
        ("count_q[3:2]", "count_q[2:2]"),
        ("top_q && was_q", "top_q"),
        ("<= count_q == 4'd14", "<= (count_q == 4'd14) || top_q"),
        ("top_q   <= 1'b0;\n      was_q   <= 1'b0;", "top_q   <= 1'b0;\n      was_q   <= 1'b1;"),
    ):
        assert COUNTER.replace(old, new, 1) in texts, new
    assert any(re.search(r"was_q <= count_q == 4'd14;\s*top_q <=", t) for t in texts)
    assert len(texts) == len(made) and COUNTER not in texts
    assert designed.draw(made, 5, 1) == designed.draw(made[::-1], 5, 1)
    assert designed.draw(made, 5, 1) != designed.draw(made, 5, 2)
    path.write_text("// other words\n" + COUNTER.replace("  ", " "))
    assert {m.key for m in designed.designed(path)} == {m.key for m in made}


def test_designed_bugs_are_judged(bench):
    """All of the counter's in one model: what the test looks at is killed, the rest is not."""
    folder, trials = bench
    made = designed.designed(folder / "rtl" / "counter.sv")
    found = dict(zip((m.text for m in made), _judged(folder, trials, *made)))
    step = found[COUNTER.replace("if (!rst_ni)", "if (rst_ni)")]
    late = found[COUNTER.replace("top_q && was_q", "top_q")]
    top = found[COUNTER.replace("count_q != 4'd15", "(((count_q) ^ (4'd15)) << 1) != '0")]
    assert (step.status, late.status, top.status) == ("killed", "survived", "killed")
    assert not late.reached and len({f.status for f in found.values()}) == 2
    assert set(mutate.score(list(found.values()))["counter"]) == {"killed", "survived"}


def test_every_bug_of_the_design_can_stand_in_one_tree(tmp_path):
    """At least 1,000 over all modules; few need sources of their own, and Icarus takes the rest."""
    made = [m for p in sorted((ROOT / "rtl").rglob("*.sv")) for m in designed.designed(p)]
    assert len(made) >= 1000 and len({m.module for m in made}) > 35
    numbered = dict(enumerate(mutants.hand_made() + made, 1))
    tree, loose = plant.plant(numbered, tmp_path, RtlIndex())
    assert len(loose) < 100
    if not runner.missing("icarus"):
        files = [str(f) for f in tree.files("clipq_accel")]
        command = ["iverilog", "-g2012", "-s", "clipq_accel", "-o", "/dev/null", *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_proofs_find_a_planted_bug(tmp_path):
    """A survivor of the tests meets the proofs of its module; what they find counts."""
    out = mutate.OUT / "self-test"  # YoWASP reads below the project
    (drawn,) = (
        m
        for m in designed.designed(ROOT / "rtl" / "pooling" / "loop_counter.sv")
        if "left_q == WIDTH'(2)  ->  (((" in m.title
    )
    trials = trial.Trials(trial.Results(tmp_path / "r.json"), registry.load(), 1, "block", 1)
    finding = trials.results.finding(drawn)
    finding.status = "survived"
    mutate.try_proofs(trials, [drawn], {drawn.key: finding}, True, out)
    assert (finding.status, finding.killed_by) == ("killed", "proof loop_counter")
    assert mutate.proof_score([finding])["loop_counter"] == {"tried": 1, "found": 1}


def test_a_verdict_of_a_proof_is_kept_until_the_proof_changes(tmp_path, monkeypatch):
    """The failure of a tool is none; what a file holds from before proofs had hashes is none."""
    path, tried = tmp_path / "results.json", []
    mutant = next(m for m in mutants.hand_made() if m.module == "skid_buffer")
    facts = {"key": mutant.key, "kind": "hand-made", "module": mutant.module, "title": ""}
    old = {**facts, "status": "survived", "bench": "0", "proofs": {"skid_buffer": False}}
    path.write_text(json.dumps({"findings": {mutant.key: old}}))

    def verdicts(error):
        def prove(proof, *_):
            tried.append(proof.name)
            return formal.Outcome(proof, 0.0, error)

        monkeypatch.setattr(formal, "prove_changed", prove)
        trials = trial.Trials(trial.Results(path), registry.load(), 1, "block", 1)
        findings = {mutant.key: trials.results.finding(mutant)}
        mutate.try_proofs(trials, [mutant], findings, True, tmp_path)
        trials.results.save()
        return findings[mutant.key].verdicts

    assert verdicts("proof: no result: see log") == {} and "skid_buffer" in tried
    assert not verdicts("")["skid_buffer"][1]
    tried.clear()
    assert verdicts("") and not tried
    monkeypatch.setattr(trial, "proof_hash", lambda proof: "changed")
    assert verdicts("proof: FAIL: Assert failed")["skid_buffer"] == ("changed", True) and tried


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"find": "nowhere"}, "'steps': its text stands 0 times in rtl/counter.sv"),
        ({"find": "top_q"}, "'steps': its text stands 4 times in rtl/counter.sv"),
        ({"file": "lost.sv"}, "'steps': no file rtl/lost.sv"),
        ({"replace": "count_q + 4'(STEP)"}, "'steps' changes nothing"),
        ({"replace": None}, "0.replace: Input should be a valid string"),
        ({"colour": "red"}, "0.colour: Extra inputs"),
    ],
)
def test_wrong_entry_is_named(tmp_path, changes, message):
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "counter.sv").write_text(COUNTER)
    with pytest.raises(MutationError, match=message):
        _entries(tmp_path, _entry(**changes))


def test_every_file_has_a_hand_made_mutant():
    changed = {m.path for m in mutants.hand_made()}
    lacking = [
        str(p.relative_to(ROOT)) for p in sorted((ROOT / "rtl").rglob("*.sv")) if p not in changed
    ]
    assert not lacking and len(mutants.hand_made()) >= 60


def test_argument_is_needed_for_an_equivalent(tmp_path):
    path = tmp_path / "equivalent.yaml"
    path.write_text(yaml.safe_dump([{"key": "0123", "mutant": "m", "argument": "because"}]))
    with pytest.raises(MutationError, match="argument"):
        mutate.load_arguments(path)
    path.write_text("# none\n")
    assert mutate.load_arguments(path) == {} != mutate.load_arguments(mutate.EQUIVALENT)


def test_an_argument_hides_no_kill(tmp_path, monkeypatch):
    """The command ends with an error that names the mutant, when the kill is kept and when it comes
    from a run that asks for the mutant; it runs one whose kill has become doubtful."""
    (mutant, *_) = mutants.hand_made()
    arguments, tried = {mutant.key: "it changes nothing"}, []
    monkeypatch.setattr(mutate, "OUT", tmp_path)
    monkeypatch.setattr(runner, "BUILD", tmp_path)
    monkeypatch.setattr(mutate, "choose", lambda *_: [mutant])
    monkeypatch.setattr(mutate, "load_arguments", lambda path: arguments)

    def run(finds, *options):
        def try_tests(trials, chosen, findings, *_):
            finding = findings[mutant.key]
            tried.append(finding.status)
            if finds:
                finding.status, finding.killed_by = "killed", finds
                finding.sources = trials.sources

        monkeypatch.setattr(mutate, "try_tests", try_tests)
        return CliRunner().invoke(mutate.main, ["--proofs", "none", *options])

    assert run("").exit_code == 0 and tried == ["equivalent"]
    done = run("alpha[icarus]", "--mutant", mutant.key)
    error = f"equivalent.yaml: {mutant.key} ({mutant.module}) is killed by alpha[icarus]: delete"
    assert done.exit_code == 1 and error in done.output and tried[1:] == ["not tried"]
    arguments.clear()
    assert run("alpha[icarus]").exit_code == 0
    arguments[mutant.key] = "it changes nothing"
    tried.clear()
    assert error in run("").output and not tried  # before anything is run
    monkeypatch.setattr(results, "sources", lambda: "changed")
    tried.clear()
    assert run("").exit_code == 0 and tried == ["not tried"]


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


FORKS = """
import json, os, time
from pathlib import Path
os.environ["CLIPQ_MUTANTS"] = json.dumps(
    {"folder": os.getcwd(), "numbers": [1, 2, 3], "mutants": [], "limit": 1.5}
)
import ci.mutation.forked
number = Path("mutant.txt").read_text()
before = Path(f"../before {number}")
if number == "1" or (number == "2" and not before.exists()):
    before.touch()
    time.sleep(60)
print("TESTS=1 PASS=1 FAIL=0", flush=True)
os._exit(0)
"""


def test_a_time_out_counts_only_when_repeated(tmp_path):
    """2 is late once, as by a load of the machine, 1 twice, 3 never."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    runs = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    errors = {run["number"]: run["error"] for run in runs}
    assert done.returncode == 0 and len(runs) == 3
    assert errors == {1: "time-out, twice: no end after 1.5 s", 2: "", 3: ""}


def test_a_run_that_the_system_ends_is_no_kill():
    assert forked.verdict("", -9, 5) == forked.LOST
    assert "before the tests did" in forked.verdict("", -11, 5)


def test_a_kill_counts_only_on_its_sources(bench):
    """What has found it is tried again, and goes first."""
    folder, trials = bench
    (mutant,) = _entries(folder, _entry())
    finding = trials.results.finding(mutant)
    for sources, status, kept in ((trials.sources, "killed", True), ("old", "not tried", False)):
        finding.status, finding.killed_by, finding.sources = "killed", "other[icarus]", sources
        finding.passed, finding.verdicts = {"case": "x"}, {"proof": ("x", False)}
        trials.forget(finding)
        assert finding.status == status
        assert bool(finding.passed) == bool(finding.verdicts) == kept
    tests = yaml.safe_load((folder / "tests.yaml").read_text())["tests"]
    tests.append({**tests[0], "name": "other"})
    (folder / "tests.yaml").write_text(yaml.safe_dump({"tests": tests}))
    trials.tests = registry.load(folder / "tests.yaml")
    (found,) = _judged(folder, trials, mutant)
    assert (found.status, found.killed_by, found.passed) == ("killed", "other[icarus]", {})
    assert found.sources == trials.sources


def test_a_bench_that_no_longer_looks_kills_no_longer(bench, monkeypatch):
    folder, trials = bench
    monkeypatch.setattr(trial, "ROOT", folder)  # where its bench lies
    (mutant,) = _entries(folder, _entry())
    (found,) = _judged(folder, trials, mutant)
    trials.forget(found)
    assert found.status == "killed" and trial.Results(trials.results.path).findings[mutant.key]
    (folder / "check_counter.py").write_text(re.sub(r"assert .*", "pass", TESTS))
    trials.sources = "changed"
    trials.forget(found)
    assert [f.status for f in _judged(folder, trials, mutant)] == ["survived"]


def test_another_seed_or_bench_is_another_trial():
    tests = registry.load()
    (case, *_) = tests.named("two_planes").cases("verilator")
    trials = [trial.Trials(None, tests, seed, "regress", 1) for seed in (1, 2)]
    assert trials[0]._bench(case) != trials[1]._bench(case)
    assert "," in case.test.module  # of several modules
    shared = replace(case, test=case.test.model_copy(update={"module": "nowhere.x"}))
    assert trial.bench_hash(case) != trial.bench_hash(shared)  # of tb/lib alone


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
