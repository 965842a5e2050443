"""The pages of goals, tests and coverage."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import plotly.graph_objects as go

from ci import coverage_points, formal, mutate, registry, results, testplan
from ci.mutation import trial
from ci.report import goals
from ci.report.page import (
    BAD,
    GOOD,
    NEUTRAL,
    Badge,
    Card,
    Cards,
    Cell,
    Link,
    Missing,
    Page,
    Part,
    Section,
    Table,
    bars,
    chart,
)

STATUS = {"passed": True, "failed": False, "killed": True, "survived": False}


def badge(status: str) -> Badge:
    """A status as a word in a table."""
    return Badge(status, STATUS.get(status))


def sign_off(reached: Sequence[goals.Goal], findings: Sequence[trial.Finding], build: Path) -> Page:
    """All goals, what is waived, and which method has found which bug."""
    passed, bugs = goals.proved(build), goals.bugs()
    rows: list[list[Cell]] = [
        [
            g.name,
            Badge("met" if g.met else "missed" if g.total else "no result", g.met),
            g.hit,
            g.total,
            g.percent,
            float(g.least),
            g.command,
            g.note,
        ]
        for g in reached
    ]
    names = ("goal", "", "reached", "of", "%", "asked, %", "made by", "")
    waived: list[list[Cell]] = []
    for w in goals.waivers():
        proof = goals.proof_of(w)
        state = Badge("holds" if proof in passed else "no result", proof in passed)
        what = f"{w.source or w.signal} {w.arm}"
        waived.append([w.file, w.kind, what, w.reason, state if proof else ""])
    ways = Counter(bug.method for bug in bugs)
    places: list[str] = sorted({bug.where for bug in bugs})
    tally = Counter[tuple[str, str]]((bug.method, bug.where) for bug in bugs)
    methods = [method for method, _ in ways.most_common()]
    series = {place: [tally[method, place] for method in methods] for place in places}
    found = bars(
        methods, series, "Bugs by the method that found them, and where they were.", "bugs"
    )
    listed = [[b.commit, b.where, b.bug, b.method] for b in bugs]
    met = sum(g.met for g in reached)
    return Page(
        "signoff",
        "Sign-off",
        f"{met} of {len(reached)} goals are met by the last run of each command.",
        [
            Section("Goals", [Table(names, rows)]),
            Section(
                "Waivers",
                [Table(("file", "kind", "what", "reason", "proof"), waived)],
                "What code coverage does not ask for, with the proof that it cannot happen.",
            ),
            Section("Bugs", [found, Table(("mended by", "in", "bug", "found by"), listed)]),
        ],
        {g.name: round(g.percent, 2) for g in reached if g.total},
    )


def tests(build: Path) -> Page:
    """What the last regression has run, and the requirements that it verifies."""
    folder = build / "regress"
    cases, known = goals.testcases(folder / "junit.xml"), registry.load()
    outcomes = goals.read(folder / testplan.KEPT[0], {})
    count = Counter(status for found in outcomes.values() for _, status in found)
    facts = goals.read(folder / testplan.KEPT[2], {})
    if not cases or not outcomes or facts.get("sources") != results.checkout():
        parts: list[Part] = [Missing("Tests of today's sources", "make regress")]
        return Page("tests", "Tests", "No regression has run here.", [Section("Results", parts)])
    seconds: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for case in cases:
        file, name = case.get("classname", "").replace(".", "/"), case.get("name", "")
        node = f"{results.BENCHES}::{name}" if name.startswith("test_bench[") else f"{file}.py"
        simulator = re.search(r"\[\w+\[(\w+)", name)
        test_name = results.name_of(node, known)
        taken = float(case.get("time", 0))
        seconds[test_name or "testplan"][simulator[1] if simulator else "other"] += taken
    rows: list[list[Cell]] = []
    for test in (*known.tests.values(), *known.suites.values()):
        own = Counter(status for _, status in outcomes.get(test.name, ()))
        status = "failed" if own["failed"] else "passed" if own["passed"] else "skipped"
        taken = round(sum(seconds[test.name].values()), 1)
        rows.append([test.name, badge(status), own["passed"], own["failed"], taken, test.about])
    failed = [
        [name, function]
        for name, found in outcomes.items()
        for function, status in found
        if status == "failed"
    ]
    ran = [name for name, own in seconds.items() if sum(own.values())]
    longest = sorted(ran, key=lambda name: -sum(seconds[name].values()))[:25]
    series = {s: [seconds[n][s] for n in longest] for s in ("verilator", "icarus", "other")}
    cards = Cards(
        [
            Card(f"{count['passed']:,}", "passed", "tests and bench functions", True),
            Card(f"{count['failed']:,}", "failed", "", not count["failed"]),
            Card(f"{count['skipped']:,}", "skipped"),
            Card(
                f"{sum(sum(s.values()) for s in seconds.values()) / 60:.0f} min", "computing time"
            ),
        ]
    )
    names = ("test", "", "passed", "failed", "seconds", "what it checks")
    caption = "Seconds of the 25 tests that take longest, by simulator."
    sections = [
        Section(
            "Results", [cards, *([Table(("test", "failed function"), failed)] if failed else [])]
        ),
        Section("Requirements", [*_requirements(outcomes, build)]),
        Section("Where the time goes", [bars(longest, series, caption, "s")]),
        Section("All tests", [Table(names, rows)]),
    ]
    figures: dict[str, float] = {"passed tests": count["passed"]}
    text = "What the last regression has run, and the requirements that it verifies."
    return Page("tests", "Tests", text, sections, figures)


def _requirements(outcomes: results.Outcomes, build: Path) -> Iterator[Part]:
    page = testplan.REQUIREMENTS.read_text(encoding="utf-8")
    texts = dict(re.findall(r"^\| `([A-Z0-9-]+)` \| (.*?) *\|$", page, re.M))
    entries = testplan.load()
    hits, facts = (goals.read(build / "regress" / name, {}) for name in testplan.KEPT[1:])
    found = testplan.evaluate(entries, registry.load(), outcomes, hits, facts.get("asked", ()))
    verdicts = {v.name: v.status for v in found}
    rows: list[list[Cell]] = []
    for name, text in texts.items():
        own = [entry.name for entry in entries if name in entry.requirements]
        states = {verdicts[entry] for entry in own}
        status = next((s for s in ("failed", "skipped", "passed") if s in states), "skipped")
        rows.append([name, badge(status), text.replace("`", ""), ", ".join(own)])
    yield Table(("requirement", "", "what is promised", "entries of the testplan"), rows)


def coverage(findings: Sequence[trial.Finding], build: Path, out: Path) -> Page:
    """Functional and code coverage, mutants and proofs."""
    sections = [
        Section(
            "Functional coverage",
            [*_functional(build)],
            "Points that tests are to reach, in groups (tb/lib/cover_groups.py).",
        ),
        Section("Code coverage", [*_code(build, out)]),
        Section(
            "Mutants",
            [*_mutants(findings)],
            "Bugs planted in the RTL, and whether a test or a proof finds them.",
        ),
        Section("Proofs", [*_proofs(build)]),
    ]
    text = "How far the tests went, and whether they would notice a bug there."
    return Page("coverage", "Coverage", text, sections)


def _functional(build: Path) -> Iterator[Part]:
    hits = goals.read(build / "regress" / "coverage.json", {})
    if not hits:
        yield Missing("Functional coverage", "make regress")
        return
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for point, number in hits.items():
        groups[point.partition(".")[0]].append(number)
    reached = {name: sum(n > 0 for n in own) for name, own in groups.items()}
    open_points = {name: len(own) - reached[name] for name, own in groups.items()}
    series = {"reached": [*reached.values()], "not reached": [*open_points.values()]}
    yield bars([*groups], series, "Points of each group.", "points", (GOOD, BAD))
    if holes := [[point] for point, number in hits.items() if not number]:
        yield Table(("not reached",), holes)


def _code(build: Path, out: Path) -> Iterator[Part]:
    data = goals.read(build / "coverage" / "coverage.json", {})
    if not data:
        yield Missing("Code coverage", "make coverage")
        return
    kinds = coverage_points.KINDS
    yield Cards(
        [
            Card(
                f"{data['total'][kind]['percent']:.1f} %",
                kind,
                f"{data['total'][kind]['covered']:,} of {data['total'][kind]['relevant']:,}, "
                f"at least {data['gates'][kind]} % asked",
                data["total"][kind]["percent"] >= data["gates"][kind],
            )
            for kind in kinds
        ]
    )
    files = sorted(data["files"])
    names = [name.removeprefix("rtl/") for name in files]
    share = [
        [data["files"][f][k]["percent"] if data["files"][f][k]["relevant"] else None for k in kinds]
        for f in files
    ]
    scale = [[0, BAD], [0.5, "#fde68a"], [1, GOOD]]
    figure = go.Figure(
        go.Heatmap(
            z=share,
            x=list(kinds),
            y=names,
            zmin=0,
            zmax=100,
            colorscale=scale,
            texttemplate="%{z:.0f}",
            xgap=2,
            ygap=2,
            colorbar={"title": "%", "thickness": 10},
            hovertemplate="%{y}, %{x}: %{z:.1f} %<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", dtick=1)
    figure.update_xaxes(side="top")
    yield chart(figure, "Per cent of each source that tests have reached.", 90 + 20 * len(files))
    pages = [build / "coverage" / f"{name.replace('/', '_')}.html" for name in files]
    rows: list[list[Cell]] = [
        [Link(name, os.path.relpath(page, out)), data["files"][name]["excluded"]]
        for name, page in zip(files, pages)
        if page.exists()
    ]
    yield Table(("source, line by line", "items waived"), rows)


def _mutants(findings: Sequence[trial.Finding]) -> Iterator[Part]:
    kinds = ("killed", "survived", "equivalent")
    score = {
        name: own
        for name, own in mutate.score([*findings]).items()
        if any(own.get(kind) for kind in kinds)
    }
    if not score:
        yield Missing("Mutants of today's sources", "make mutate")
        return
    series = {kind: [own.get(kind, 0) for own in score.values()] for kind in kinds}
    caption = "Mutants of each module; equivalent ones cannot be told from the original."
    yield bars([*score], series, caption, "mutants", (GOOD, BAD, NEUTRAL))
    alive: list[list[Cell]] = [
        [f.key, f.module, f.title, ", ".join(f.passed)] for f in findings if f.status == "survived"
    ]
    if alive:
        yield Table(("survivor", "module", "change", "tests that pass"), alive)


def _proofs(build: Path) -> Iterator[Part]:
    cases = {c.get("name", ""): c for c in goals.testcases(build / "formal" / "junit.xml")}
    if not cases:
        yield Missing("Proofs", "make formal")
    rows: list[list[Cell]] = []
    for proof in formal.load().values():
        case = cases.get(proof.name)
        lost = case is not None and case.find("failure") is not None
        state = badge("not run" if case is None else "failed" if lost else "passed")
        taken = None if case is None else float(case.get("time", 0))
        kind = "for all time" if proof.mode == "prove" else f"for {proof.depth} cycles"
        rows.append([proof.name, state, kind, taken, proof.about])
    yield Table(("proof", "", "holds", "seconds", "what is proven"), rows)
