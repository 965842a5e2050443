"""The sign-off page: it shows what was reached, and misses what is absent, failed or too low."""

import json

import pytest
from click.testing import CliRunner

from ci import signoff

MACHINE = """
module machine;
  always_ff @(posedge clk_i)
    case (state_q)
      IDLE: if (go_i) state_q <= RUN;
      RUN, WAIT:
        state_q <= done_i ? IDLE : WAIT;
      default: other_q <= IDLE;
    endcase
endmodule
"""


def _results(build, missed=(), failure=""):
    for name in ("regress", "coverage", "formal/planted"):
        (build / name).mkdir(parents=True, exist_ok=True)
    names = [p.name for p in signoff.formal.load().values()]
    seed = '<properties><property name="seed" value="7"/></properties>'
    regress = f'<testcase name="a">{seed}</testcase><testcase name="b"><skipped/></testcase>'
    for folder, cases in (
        ("regress", regress + f'<testcase name="c">{failure}</testcase>'),
        ("formal", "".join(f'<testcase name="{name}"/>' for name in names)),
    ):
        (build / folder / "junit.xml").write_text(f"<testsuite>{cases}</testsuite>")
    (build / "regress" / "coverage.json").write_text('{"g.x": 3, "g.y": 1}')
    (build / "formal" / "planted" / "planted.txt").write_text("formal: 3 of 3 planted bugs found\n")
    tally = {"covered": 9, "relevant": 10}
    kinds = signoff.coverage_points.KINDS
    data = {"total": dict.fromkeys(kinds, tally), "gates": dict.fromkeys(kinds, 90), "seed": 1}
    data["files"] = {"rtl/stream/stream_parser.sv": {"missed": list(missed)}}
    (build / "coverage" / "coverage.json").write_text(json.dumps(data))


def _page(build):
    arguments = ["--build", str(build), "--out", str(build / "signoff")]
    done = CliRunner().invoke(signoff.main, arguments)
    page = json.loads((build / "signoff" / "signoff.json").read_text())
    html = (build / "signoff" / "index.html").read_text()
    return done, {g["name"]: g for g in page["goals"]}, page, html


def test_goals_are_met_by_results_and_missed_without(tmp_path):
    done, goals, _, _ = _page(tmp_path)
    assert done.exit_code == 1 and "NO RESULT" in done.output
    assert not any(goal["met"] for goal in goals.values())
    _results(tmp_path)
    done, goals, page, html = _page(tmp_path)
    missed = {name for name, goal in goals.items() if not goal["met"]}
    assert missed == {"mutants killed, hand-made", "mutants killed, designed"}
    assert goals["tests"]["note"] == "1 skipped; 1 seeds of simulations"
    assert (goals["tests"]["hit"], goals["functional coverage"]["total"]) == (2, 2)
    assert done.exit_code == 1
    assert page["waivers"] and all(w["reason"] for w in page["waivers"])
    assert any(w["proof"] == "axil_slave" and w["proved"] for w in page["waivers"])
    assert {"random test", "proof", "mutation"} <= {bug["method"] for bug in page["bugs"]}
    assert all(bug["commit"] in html for bug in page["bugs"])


def test_what_failed_or_was_not_covered_is_missed(tmp_path):
    path = signoff.ROOT / "rtl" / "stream" / "stream_parser.sv"
    places = signoff.machines(path)
    line = next(line for what, line in places if what == "transitions")
    _results(tmp_path, [f"rtl/stream/stream_parser.sv:{line} branch if"], "<failure/>")
    _, goals, _, _ = _page(tmp_path)
    lost = goals["transitions of state machines"]
    assert 1 <= lost["total"] - lost["hit"] <= 2 and not lost["met"]
    assert goals["states of state machines"]["met"]
    assert (goals["tests"]["hit"], goals["tests"]["total"]) == (1, 2)


def test_mutants_of_today_count(tmp_path):
    drawn = signoff.designed.designed(signoff.ROOT / "rtl" / "common" / "skid_buffer.sv")[:3]
    (tmp_path / "mutate").mkdir()
    results = signoff.trial.Results(tmp_path / "mutate" / "results.json")
    for mutant, status in zip(drawn, ("killed", "survived", "equivalent")):
        results.finding(mutant).status = status
    results.findings["0" * 12] = signoff.trial.Finding(
        "0" * 12, "designed", "gone", "old", "killed"
    )
    results.save()
    _, goals, page, _ = _page(tmp_path)
    goal = goals["mutants killed, designed"]
    assert (goal["hit"], goal["total"], goal["met"]) == (1, 2, False)
    assert page["modules"] == {"skid_buffer": {"killed": 1, "survived": 1, "equivalent": 1}}


def test_state_machines_are_found(tmp_path):
    path = tmp_path / "machine.sv"
    path.write_text(MACHINE)
    assert sorted(signoff.machines(path)) == [
        *[("states", 5), ("states", 6), ("states", 6)],
        *[("transitions", 5), ("transitions", 7), ("transitions", 7)],
    ]


def test_a_bug_needs_a_known_method(tmp_path):
    path = tmp_path / "bugs.yaml"
    path.write_text("bugs: [{commit: abc, where: rtl, method: luck, bug: lost}]")
    with pytest.raises(signoff.SignoffError, match="needs commit, where, bug and method"):
        signoff.bugs(path)
