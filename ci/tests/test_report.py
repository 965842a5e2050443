"""The report: pages that open without an error, and goals that miss what is absent, failed or too
low."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from ci import coverage_points, formal, mutate, results
from ci.mutation import designed, mutants, trial
from ci.report import goals, site, verification
from ci.report.page import Badge, Link, Missing, Page, Section, Table, bars
from ci.tests import browsing
from model.data.images import ZOO

# Charts of each page, at least.
PAGES = {"index": 0, "signoff": 1, "tests": 1, "coverage": 3, "performance": 3, "networks": 5}
PAGES |= {"synthesis": 2, "history": 2}
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
    names = [p.name for p in formal.load().values()]
    seed = '<properties><property name="seed" value="7"/></properties>'
    regress = (
        f'<testcase name="a" time="2">{seed}</testcase><testcase name="b"><skipped/></testcase>'
    )
    for folder, cases in (
        ("regress", regress + f'<testcase name="c">{failure}</testcase>'),
        ("formal", "".join(f'<testcase name="{name}"/>' for name in names)),
    ):
        (build / folder / "junit.xml").write_text(f"<testsuite>{cases}</testsuite>")
    (build / "regress" / "coverage.json").write_text('{"g.x": 3, "g.y": 1}')
    today = results.sources()
    (build / "formal" / "planted" / "planted.txt").write_text(
        f"formal: 3 of 3 planted bugs found\n{today}\n"
    )
    (build / "formal" / "sources.txt").write_text(f"{today}\n")
    facts = {"asked": [], "sim": None, "sources": results.checkout()}
    _write(build / "regress" / "facts.json", facts)
    tally = {"covered": 9, "relevant": 10, "percent": 90.0}
    kinds = coverage_points.KINDS
    data = {"total": dict.fromkeys(kinds, tally), "gates": dict.fromkeys(kinds, 90), "seed": 1}
    own = {"missed": [], "excluded": 2, **dict.fromkeys(kinds, tally)}
    names = (str(path.relative_to(goals.ROOT)) for path in (goals.ROOT / "rtl").rglob("*.sv"))
    data["files"] = dict.fromkeys(names, own)
    data["files"]["rtl/stream/stream_parser.sv"] = {**own, "missed": list(missed)}
    data |= {"judged": True, "errors": [], "sources": today}
    _write(build / "regress" / "outcomes.json", {"skid_buffer": [("a", "passed"), ("b", "failed")]})
    (build / "coverage" / "coverage.json").write_text(json.dumps(data))


def _more_results(build):
    """What the other commands leave."""
    names = ["a", "b"]
    numbers = {"cycles": 9, "stalls": 1, "reads": 2, "writes": 3, "weight_words": 4}
    layers = [{"layer": name, "measured": numbers, "predicted": numbers} for name in names]
    _write(
        build / "perf.json",
        {
            "network": "x",
            "modules": 4,
            "layers": layers,
            "total_cycles": {"measured": 18, "predicted": 18, "paper": 80},
            "simulation_seconds_per_image": 2.5,
        },
    )
    answers = {"network": "x", "dataset": "cifar10", "images": 8, "right": 5, "classes": names}
    _write(build / "accuracy" / "x-cifar10.json", {**answers, "confusion": [[3, 1], [2, 2]]})
    area = {"block": "pe", "parameters": {"N": 4}, "lc": 7, "lut": 6, "ff": 5, "dsp": 0}
    _write(build / "synth" / "xc7-4.json", [{**area, "ramb36": 0.5}])
    path = {"from": "a", "to": "b", "ns": 5.5, "logic_ns": 2.5}
    routed = {"block": "pe", "parameters": {}, "lut4": 7, "ff": 5, "mult18": 0, "ebr": 0}
    _write(build / "synth" / "ecp5-4.json", [{**routed, "mhz": {"1": 90.5}, "path": path}])
    farm = {"network": "x", "modules": 4, "images": 8, "equal_to_integer_model": 8, "right": 5}
    _write(
        build / "farm" / "x-8.json",
        {**farm, "total_cycles": {"min": 5, "max": 6}, "simulator": "verilator 5"},
    )
    _write(
        build / "history" / "abc.json",
        {"commit": "abc", "time": 1, "figures": {"x, cycles with 4": 900, "tests": 99.5}},
    )
    history = [{"epoch": e, "loss": 1 / e, "val": 0.5 + e / 10} for e in (1, 2, 3)]
    stage = build / "train" / "full_precision-0"
    stage.mkdir(parents=True)
    np.savez(stage / "state.npz", meta=json.dumps({"history": history}))
    _tried(build, _drawn()[:3])


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def _drawn(kind="designed"):
    return [m for m in mutate.official() if m.kind == kind]


def _tried(build, drawn, statuses=("killed", "survived", "equivalent"), sources=""):
    """Mutants of each status, and one of sources that are gone."""
    kept = trial.Results(build / "mutate" / "results.json")
    for mutant, status in zip(drawn, statuses):
        finding = kept.finding(mutant)
        finding.status, finding.sources = status, sources or results.sources()
    kept.findings["0" * 12] = trial.Finding("0" * 12, "designed", "gone", "old", "killed")
    kept.save()


def _goals(build):
    return {goal.name: goal for goal in goals.reached(build, goals.tried(build))}


def _report(build, kinds, *options):
    """The report of a zoo with one network, of which these kinds of files are there."""
    zoo = build / "zoo"
    zoo.mkdir(exist_ok=True)
    for kind in kinds:
        (zoo / f"nin-cifar10.{kind}.npz").symlink_to(ZOO / f"nin-cifar10.{kind}.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "ZOO", zoo)
        return CliRunner().invoke(site.main, ["--build", str(build), *options])


def test_goals_are_met_by_results_and_missed_without(tmp_path):
    assert not any(goal.met for goal in _goals(tmp_path).values())
    _results(tmp_path)
    reached = _goals(tmp_path)
    missed = {name for name, goal in reached.items() if not goal.met}
    assert missed == {"mutants killed, hand-made", "mutants killed, designed"}
    assert reached["tests"].note == "1 skipped; 1 seeds of simulations"
    assert (reached["tests"].hit, reached["functional coverage"].total) == (2, 2)
    page = verification.sign_off([*reached.values()], [], tmp_path)
    waived = {
        part.columns[-1]: part for s in page.sections for part in s.parts if s.title == "Waivers"
    }
    assert any(row[-1] == Badge("holds", True) for row in waived["proof"].rows)
    assert all(row[3] for row in waived["proof"].rows)
    assert {"random test", "proof", "mutation"} <= {bug.method for bug in goals.bugs()}


def test_what_failed_or_was_not_covered_is_missed(tmp_path):
    path = goals.ROOT / "rtl" / "stream" / "stream_parser.sv"
    line = next(line for what, line in goals.machines(path) if what == "transitions")
    _results(tmp_path, [f"rtl/stream/stream_parser.sv:{line} branch if"], "<failure/>")
    reached = _goals(tmp_path)
    lost = reached["transitions of state machines"]
    assert 1 <= lost.total - lost.hit <= 2 and not lost.met
    assert reached["states of state machines"].met
    assert (reached["tests"].hit, reached["tests"].total) == (1, 2)


def _edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


PARSER = "rtl/stream/stream_parser.sv"  # which has a state machine
COVERAGE = ("line coverage", "states of state machines")


@pytest.mark.parametrize(
    "path, change, lost",
    [
        ("coverage/coverage.json", lambda d: d.update(judged=False), COVERAGE),
        (
            "coverage/coverage.json",
            lambda d: d.update(errors=["x"]),
            ("waivers of code coverage in use",),
        ),
        ("coverage/coverage.json", lambda d: d["files"].pop(PARSER), COVERAGE[1:]),
        ("coverage/coverage.json", lambda d: d.update(sources="old"), COVERAGE),
        ("regress/facts.json", lambda d: d.update(sources="old"), ("tests", "functional coverage")),
        ("regress/facts.json", lambda d: d.update(sim="verilator"), ("tests",)),
    ],
)
def test_results_in_part_or_of_other_sources_meet_nothing(tmp_path, path, change, lost):
    _results(tmp_path)
    _edit(tmp_path / path, change)
    reached = _goals(tmp_path)
    assert not any(reached[name].met for name in lost)


@pytest.mark.parametrize(
    "file, names",
    [
        ("sources.txt", ("proofs", "proofs that waivers of the unreachable cite")),
        ("planted/planted.txt", ("planted bugs found by proofs",)),
    ],
)
def test_proofs_of_other_sources_meet_nothing(tmp_path, file, names):
    _results(tmp_path)
    path = tmp_path / "formal" / file
    path.write_text(path.read_text().replace(results.sources(), "old"))
    assert not any(_goals(tmp_path)[name].met for name in names)


def test_a_nightly_proof_that_did_not_run_is_missed(tmp_path):
    _results(tmp_path)
    nightly = [p.name for p in formal.load().values() if "nightly" in p.tags]
    path = tmp_path / "formal" / "junit.xml"
    lost = f'<testcase name="{nightly[0]}"/>'
    assert lost in path.read_text() and _goals(tmp_path)["proofs"].met
    path.write_text(path.read_text().replace(lost, ""))
    assert not _goals(tmp_path)["proofs"].met


def test_a_bench_that_was_skipped_has_not_passed(tmp_path):
    _results(tmp_path)
    path = tmp_path / "regress" / "junit.xml"
    path.write_text(path.read_text().replace('name="b"', 'name="b" classname="ci.test_benches"'))
    assert not _goals(tmp_path)["tests"].met


def test_mutants_of_today_count(tmp_path):
    drawn = _drawn()
    _tried(tmp_path, drawn)
    goal = _goals(tmp_path)["mutants killed, designed"]
    assert (goal.hit, goal.total, goal.met) == (1, len(drawn) - 1, False)
    tally = {f.key: f.status for f in goals.tried(tmp_path) if f.status != "not tried"}
    assert tally == dict(zip((m.key for m in drawn), ("killed", "survived", "equivalent")))


def test_mutants_beyond_the_draw_do_not_count(tmp_path):
    asked = {m.key for m in mutate.official()}
    easy = designed.designed(goals.ROOT / "rtl" / "control" / "descriptor_check.sv")
    _tried(tmp_path, [m for m in easy if m.key not in asked], ["killed"] * len(easy))
    assert len(easy) > mutate.DRAWN
    assert _goals(tmp_path)["mutants killed, designed"].hit == 0


def test_hand_made_mutants_that_are_also_designed_count_once(tmp_path):
    """And as hand-made, whatever a run of the drawn ones has noted; one is not tried."""
    made = mutants.hand_made()
    every = [m for p in (goals.ROOT / "rtl").rglob("*.sv") for m in designed.designed(p)]
    assert {m.key for m in made} & {m.key for m in every}
    assert len({m.key for m in mutate.official()}) == len(mutate.official())
    keys = {m.key for m in made[1:]}
    kept = [*made[1:], *(m for m in every if m.key in keys)]
    _tried(tmp_path, kept, ["killed"] * len(kept))
    goal = _goals(tmp_path)["mutants killed, hand-made"]
    assert (goal.hit, goal.total, goal.met) == (len(made) - 1, len(made), False)


def test_mutants_judged_on_other_sources_do_not_count(tmp_path):
    made = _drawn("hand-made")
    _tried(tmp_path, made, ["killed"] * len(made))
    assert _goals(tmp_path)["mutants killed, hand-made"].met
    _tried(tmp_path, made, ["killed"] * len(made), "old")
    assert _goals(tmp_path)["mutants killed, hand-made"].hit == 0


def test_state_machines_are_found(tmp_path):
    path = tmp_path / "machine.sv"
    path.write_text(MACHINE)
    assert sorted(goals.machines(path)) == [
        *[("states", 5), ("states", 6), ("states", 6)],
        *[("transitions", 5), ("transitions", 7), ("transitions", 7)],
    ]


def test_a_bug_needs_a_known_method(tmp_path):
    path = tmp_path / "bugs.yaml"
    path.write_text("bugs: [{commit: abc, where: rtl, method: luck, bug: lost}]")
    with pytest.raises(goals.SignoffError, match="bugs.0.method: Input should be"):
        goals.bugs(path)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with a result of every kind."""
    build = tmp_path_factory.mktemp("full")
    _results(build)
    _more_results(build)
    done = _report(build, ("clipq", "float", "ckpt"))
    assert done.exit_code == 0, done.output
    return build / "report"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A report without results."""
    build = tmp_path_factory.mktemp("empty")
    done = _report(build, ("clipq",), "--check")
    assert done.exit_code == 1 and "NO RESULT" in done.output
    return build / "report"


@pytest.mark.parametrize("page", PAGES)
def test_page_of_full_results_opens(full, browser, page):
    path = full / f"{page}.html"
    assert path.read_text().count('class="plot"') >= PAGES[page]
    assert not browsing.problems(path, browser)
    assert not browsing.broken(path)


@pytest.mark.parametrize("page", PAGES)
def test_page_without_results_opens(empty, browser, page):
    path = empty / f"{page}.html"
    assert not browsing.problems(path, browser, [390])
    assert not browsing.broken(path)


def test_what_is_missing_is_said(empty):
    assert {path.stem for path in empty.glob("*.html")} == {*PAGES}
    assert not any(goal["met"] for goal in json.loads((empty / "goals.json").read_text()))
    text = (empty / "index.html").read_text()
    for command in ("regress", "coverage", "mutate", "perf", "accuracy", "train", "synth"):
        assert f"<code>make {command}" in text


@pytest.mark.parametrize(
    "part, problem",
    [
        (bars([], {"x": []}, "nothing", "s"), "empty plot: nothing"),
        (Table(("x",), [["<script>console.error('broken')</script>"]]), None),
        (Table(("x",), [["y" * 600]]), None),
        (Missing("x", "y" * 900), "wider than 390"),
    ],
)
def test_what_is_wrong_with_a_page_is_noticed(tmp_path, browser, part, problem):
    """An escaped text and a wide table, which scrolls, are not."""
    site.write([Page("index", "x", "", [Section("x", [part])])], tmp_path, "0")
    found = browsing.problems(tmp_path / "index.html", browser)
    assert any(problem in one for one in found) if problem else not found


@pytest.mark.parametrize(
    "text, problem",
    [
        ("<script>console.error('broken')</script>", "broken"),
        ("<script>lost()</script>", "lost is not defined"),
        ('<script src="lost.js"></script>', "not loaded"),
        ('<img src="http://localhost:9/x.png">', "network"),
    ],
)
def test_an_error_in_a_page_is_noticed(tmp_path, browser, text, problem):
    (tmp_path / "index.html").write_text(f"<!doctype html>{text}")
    assert any(problem in one for one in browsing.problems(tmp_path / "index.html", browser))


def test_a_broken_link_is_noticed(tmp_path):
    cells = [[Link("gone", "gone.html"), Link("far", "https://example.org/")]]
    site.write([Page("index", "x", "", [Section("x", [Table(("x",), cells)])])], tmp_path, "0")
    assert browsing.broken(tmp_path / "index.html") == ["gone.html", "https://example.org/"]
