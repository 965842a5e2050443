"""The goals of verification, and how far the last runs of `make regress`, `coverage`, `mutate` and
`formal` have reached them; the waivers of rtl/coverage_exclusions.yaml and the bugs of
ci/provenance.yaml."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pyslang.syntax import SyntaxKind as Kind
from pyslang.syntax import SyntaxNode, SyntaxTree

from ci import code_coverage, coverage_points, formal, mutate, registry, results
from ci.mutation import trial
from host.simulation.rtl_index import ROOT
from model.common.errors import UserError

PROVENANCE = ROOT / "ci" / "provenance.yaml"
_TESTS = Literal["random test", "directed test", "netlist test"]


class SignoffError(UserError):
    """provenance.yaml says something that cannot be."""


class Bug(registry.Strict):
    """One entry of provenance.yaml; its first lines document the fields."""

    commit: str
    where: Literal["rtl", "bench"]
    method: Literal[_TESTS, "proof", "mutation", "review", "not recorded"]
    bug: str


@dataclass(frozen=True)
class Goal:
    """One line of the page: `hit` of `total`, `least` per cent of which are asked."""

    name: str
    hit: int
    total: int
    least: float
    command: str
    note: str = ""

    @property
    def percent(self) -> float:
        """Share in per cent, 0 of nothing."""
        return 100.0 * self.hit / self.total if self.total else 0.0

    @property
    def met(self) -> bool:
        """Whether there is a result that reaches the goal."""
        return self.total > 0 and self.percent >= self.least


def reached(build: Path, findings: list[trial.Finding]) -> list[Goal]:
    """All goals, with what the results in `build` say; findings: of `tried`."""
    parts = (regression(build), code(build), proofs(build), mutation(findings))
    return [goal for part in parts for goal in part]


def regression(build: Path) -> Iterator[Goal]:
    """Tests that passed, and functional coverage; a bench that was skipped, because its simulator
    is missing, has not passed."""
    folder = build / "regress"
    facts = read(folder / "facts.json", {})
    fresh = facts.get("sources") == results.checkout() and facts["sim"] is None
    cases = testcases(folder / "junit.xml") if fresh else []
    failed = sum(c.find("failure") is not None or c.find("error") is not None for c in cases)
    skipped = sum(c.find("skipped") is not None for c in cases)
    seeds = {p.get("value") for c in cases for p in c.iter("property") if p.get("name") == "seed"}
    note = f"{skipped} skipped; {len(seeds)} seeds of simulations"
    benches = [c for c in cases if c.get("classname") == "ci.test_benches"]
    ran = len(cases) - skipped
    lost = sum(c.find("skipped") is not None for c in benches)
    yield Goal("tests", ran - failed, ran + lost, 100, "make regress", note)
    hits = read(folder / "coverage.json", {}) if fresh else {}
    hit = sum(n > 0 for n in hits.values())
    yield Goal("functional coverage", hit, len(hits), 100, "make regress")


def code(build: Path) -> Iterator[Goal]:
    """Line, branch and toggle coverage, and that of state machines."""
    data = read(build / "coverage" / "coverage.json", {})
    if not data.get("judged") or data["sources"] != results.sources():
        data = {}
    for kind in coverage_points.KINDS:
        total = data.get("total", {}).get(kind, {"covered": 0, "relevant": 0})
        least = data.get("gates", {}).get(kind, 100)
        note = f"seed {data['seed']}" if data else ""
        name = f"{kind} coverage"
        yield Goal(name, total["covered"], total["relevant"], least, "make coverage", note)
    wrong, known = data.get("errors", ()), len(waivers()) if data else 0
    note = wrong[0] if wrong else ""
    left = max(0, known - len(wrong))
    yield Goal("waivers of code coverage in use", left, known, 100, "make coverage", note)
    missed = {" ".join(m.split()[:2]) for f in data.get("files", {}).values() for m in f["missed"]}
    waived = {(e.file, e.source) for e in waivers() if e.source}
    found, total = Counter[str](), Counter[str]()
    for path in sorted((ROOT / "rtl").rglob("*.sv")) if data else ():
        file, lines = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8").splitlines()
        for what, line in machines(path):
            if (file, lines[line - 1].partition("//")[0].strip()) not in waived:
                total[what] += 1
                lost = {f"{file}:{line} line", f"{file}:{line} branch"} & missed
                found[what] += file in data["files"] and not lost
    for what in ("states", "transitions"):
        name = f"{what} of state machines"
        yield Goal(name, found[what], total[what], 100, "make coverage")


def machines(path: Path) -> list[tuple[str, int]]:
    """The places of a source's state machines, (`states` or `transitions`, line): the labels of
    each `case` on a register `state_q`, and each constant that is assigned to a next state."""
    source, found = path.read_text(encoding="utf-8"), list[tuple[str, int]]()
    assignments = (Kind.NonblockingAssignmentExpression, Kind.AssignmentExpression)

    def line(node: SyntaxNode) -> int:
        return source.count("\n", 0, node.sourceRange.start.offset) + 1

    def visit(node: Any) -> None:
        if node.kind == Kind.CaseStatement and str(node.expr).strip().endswith("state_q"):
            items = [item for item in node.items if item.kind == Kind.StandardCaseItem]
            found.extend(("states", line(item)) for item in items for _ in [*item.expressions][::2])
        elif node.kind in assignments and re.search(r"\bstate_[qd]\s*$", str(node.left)):
            states = re.findall(r"\b[A-Z][A-Z0-9_]*\b(?!')", str(node.right))
            found.extend(("transitions", line(node)) for _ in states)

    SyntaxTree.fromText(source).root.visit(visit)
    return found


def proofs(build: Path) -> Iterator[Goal]:
    """Assertions: the proofs that passed, covers and all, the bugs planted in them, and waivers."""
    passed = proved(build)
    asked = {*formal.load()}
    texts = [p.read_text() for p in formal.PROOFS.glob("*.sv")]
    count = {w: sum(len(re.findall(rf"\b{w}\s*\(", t)) for t in texts) for w in ("assert", "cover")}
    note = f"{count['assert']} assertions, {count['cover']} covers in the harnesses"
    yield Goal("proofs", len(passed & asked), len(asked), 100, "make formal NIGHTLY=1", note)
    report = text(build / "formal" / "planted" / "planted.txt")
    fresh = report.endswith(f"{results.sources()}\n")
    planted = re.search(r"(\d+) of (\d+)", report) if fresh else None
    hit, total = (int(planted[1]), int(planted[2])) if planted else (0, 0)
    yield Goal("planted bugs found by proofs", hit, total, 100, "python -m ci formal --planted")
    cited = {cited for w in waivers() if (cited := proof_of(w))}
    name = "proofs that waivers of the unreachable cite"
    yield Goal(name, len(cited & passed), len(cited), 100, "make formal")


def proved(build: Path) -> set[str]:
    """Names of the proofs that have passed on today's sources."""
    fresh = text(build / "formal" / "sources.txt").strip() == results.sources()
    cases = testcases(build / "formal" / "junit.xml") if fresh else []
    return {c.get("name", "") for c in cases if c.find("failure") is None}


def proof_of(waiver: coverage_points.Exclusion) -> str:
    """The proof that a waiver's reason cites; empty if it cites none."""
    cited = re.search(r"\bproof (\w+)", waiver.reason)
    return cited[1] if cited else ""


def mutation(findings: list[trial.Finding]) -> Iterator[Goal]:
    """Mutants of today's sources, by kind; one that was not tried is not killed."""
    for kind, least in (("hand-made", 100.0), ("designed", 100 * mutate.LEAST_KILLED)):
        own = [f for f in findings if f.kind == kind]
        count = Counter(f.status for f in own)
        total = len(own) - count["equivalent"]
        note = f"{count['equivalent']} equivalent"
        yield Goal(f"mutants killed, {kind}", count["killed"], total, least, "make mutate", note)


def tried(build: Path) -> list[trial.Finding]:
    """What is known, on today's sources, of the mutants that `make mutate` draws by itself."""
    known, today = trial.Results(build / "mutate" / "results.json").findings, results.sources()
    found = []
    for m in mutate.official():
        old = known.get(m.key)
        new = trial.Finding(m.key, m.kind, m.module, m.title)
        found.append(replace(old, kind=m.kind) if old and old.sources == today else new)
    return found


def waivers() -> list[coverage_points.Exclusion]:
    """What code coverage does not ask for."""
    return coverage_points.load_exclusions(code_coverage.EXCLUSIONS)


def bugs(path: Path = PROVENANCE) -> list[Bug]:
    """The bugs of this project. Raises SignoffError naming an entry that is wrong."""
    return registry.read(path, dict[Literal["bugs"], list[Bug]], SignoffError).get("bugs", [])


def text(path: Path) -> str:
    """Of a file; empty if there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def read(path: Path, default: Any) -> Any:
    """What a JSON file holds, or the default if there is none."""
    return json.loads(text(path)) if path.exists() else default


def testcases(path: Path) -> list[ET.Element]:
    """Of a JUnit file; none if there is no file."""
    return [*ET.parse(path).iter("testcase")] if path.exists() else []
