"""Runs registered cases against a mutant, the nearest and cheapest first, until one of them fails.

What was found out is kept in build/mutate/results.json by the mutant's hash, so that an interrupted
run goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ci import cases, formal, registry
from ci import results as digests
from ci.mutation.forked import LOST, limit_of
from ci.mutation.mutants import Mutant, MutationError
from host.simulation import runner
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from model.common.files import write_text

ACCELERATOR = "accel_harness"
REACHES = ("block", "accel", "regress")  # how far a survivor is followed
LARGE = 12  # modules and packages of a hierarchy that Icarus simulates slowly
DECIDED = ("killed", "not compiled", "equivalent")


@dataclass
class Finding:
    """What is known about one mutant.

    status is killed, survived, equivalent, not compiled or not tried. reached: a survivor changed
    some value. passed: {case: seed and hash of its test bench}. verdicts: {proof: its hash and
    whether it found the bug}. sources: digest of those that it was killed on; otherwise of the last
    `make mutate` that had it.
    """

    key: str
    kind: str
    module: str
    title: str
    status: str = "not tried"
    killed_by: str = ""
    why: str = ""
    seconds: float = 0.0
    reached: bool = False
    passed: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, tuple[str, bool]] = field(default_factory=dict)
    sources: str = ""


class Results:
    """Findings by mutant hash, and seconds of unmutated runs by case, in a JSON file."""

    def __init__(self, path: Path):
        self.path = path
        data = json.loads(path.read_text()) if path.exists() else {}
        known = {f.name for f in fields(Finding)}
        self.findings = {
            key: Finding(**{name: fact for name, fact in facts.items() if name in known})
            for key, facts in data.get("findings", {}).items()
        }
        self.usual: dict[str, float] = data.get("usual", {})

    def finding(self, mutant: Mutant) -> Finding:
        """What is known about a mutant; a new finding if nothing is."""
        facts = (mutant.key, mutant.kind, mutant.module, mutant.title)
        old = self.findings.get(mutant.key, Finding(*facts))
        if old.status == "equivalent":  # an argument counts only as long as it is there
            old.status, old.why = "not tried", ""
        old.key, old.kind, old.module, old.title = facts
        self.findings[mutant.key] = old
        return old

    def save(self) -> None:
        """Write the file; whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        findings = {k: asdict(f) for k, f in self.findings.items()}
        write_text(self.path, json.dumps({"findings": findings, "usual": self.usual}, indent=1))


def cases_for(
    tests: registry.Registry,
    index: RtlIndex,
    units: Iterable[str],
    reach: str,
    *,
    sim: str | None = None,
) -> list[registry.Case]:
    """Cases whose top level contains one of `units`, in the order in which they are tried.

    First tests of small blocks on Icarus, which compiles at once, then those of large ones on
    Verilator, which runs fast; the smaller hierarchies first. Then the whole accelerator with 4
    modules on Verilator, then everything else. `reach` and `sim` cut the list. Tests on netlists
    are left out.
    """
    units, found = set(units), []
    for test in tests.tests.values():
        if "nightly" in test.tags or test.netlist:
            continue
        try:
            closure = index.closure(test.toplevel)
        except SourceError as error:
            raise MutationError(f"test {test.name}: {error}") from None
        if not units & closure:
            continue
        whole = test.toplevel == ACCELERATOR
        for number, case in enumerate(c for c in test.cases(sim) if not runner.missing(c.sim)):
            fast, large = case.sim == "verilator", len(closure) > LARGE
            small = case.parameters.get("NUM_MODULES", 4) == 4
            first = (2 if small else 3) if whole else 1 if large else 0
            stage = first if fast == (whole or large) else 3
            if reach == "regress" or not whole or (reach == "accel" and stage == 2):
                found.append(((stage, len(closure), test.seconds, number), case))
    return [case for _, case in sorted(found, key=lambda item: item[0])]


def bench_hash(case: registry.Case) -> str:
    """Hash of the Python files beside the test's module and of those that all test benches share"""
    folders = {ROOT / Path(*m.split(".")[:-1]) for m in case.test.module.split(",")}
    paths = {path for folder in (*folders, ROOT / "tb" / "lib") for path in folder.glob("*.py")}
    digest = hashlib.sha256(repr((case.test.env, case.test.filter)).encode())
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def proof_hash(proof: formal.Proof) -> str:
    """Hash of a proof's entry, of its harness and of the checks that harnesses share."""
    digest = hashlib.sha256(repr(proof.model_copy(update={"seconds": 0})).encode())
    for path in (formal.PROOFS / f"{proof.top}.sv", *sorted(formal.PROOFS.glob("*_check.sv"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Trials:
    """Tries mutants on cases."""

    def __init__(
        self,
        results: Results,
        tests: registry.Registry,
        seed: int,
        reach: str,
        jobs: int,
        *,
        sim: str | None = None,
        say: Callable[[str], None] = print,
    ):
        self.results, self.tests, self.seed, self.reach = results, tests, seed, reach
        self.jobs, self.sim, self.say, self.sources = jobs, sim, say, digests.sources()

    def forget(self, finding: Finding) -> None:
        """A kill on other sources: all is tried again, what has killed goes first."""
        if finding.status == "killed" and finding.sources != self.sources:
            finding.passed, finding.verdicts = {}, {}
            finding.status, finding.why = "not tried", ""

    def judge_all(
        self, mutants: dict[int, Finding], index: RtlIndex, *, alone: RtlIndex | None = None
    ) -> None:
        """Run the cases that contain the mutants' modules, the same on all that have survived so
        far, but first on each the case that has killed it before; sets their status.

        index is that of the sources with the mutants, by number. `alone` is that of sources with
        one mutant that is always on; it has number 1 there, and `index` gives its time limits.
        """
        files = {u.path.stem: set[str]() for u in index.units.values()}
        for unit in index.units.values():
            files[unit.path.stem].add(unit.name)
        units = {n: files[f.module] for n, f in mutants.items()}
        before = {n: f.killed_by for n, f in mutants.items()}
        hit = set().union(*units.values())
        known = cases_for(self.tests, index, hit, self.reach, sim=self.sim)
        killers = [(True, case) for case in known if case.key in {*before.values()}]
        for again, case in [*killers, *((False, case) for case in known)]:
            inside = index.closure(case.test.toplevel)
            open_ = {
                n: f
                for n, f in mutants.items()
                if units[n] & inside
                and f.status not in DECIDED
                and (not again or before[n] == case.key)
                and f.passed.get(case.key) != self._bench(case)
            }
            if open_ and alone:
                self._run_alone(case, open_[1], index, alone)
            elif open_:
                self._run_planted(case, open_, index)
        for finding in mutants.values():
            if finding.status not in DECIDED:
                finding.status = "survived" if finding.passed else "not tried"

    def _run_planted(self, case: registry.Case, open_: dict[int, Finding], index: RtlIndex) -> None:
        model = self._build(case, index)
        sound, *runs = self._simulate(case, model, [0], [*open_], case.test.timeout)
        reached = {n: f for n, f in open_.items() if n in sound["reached"]}
        seconds = sound["seconds"]
        self.say(f"          {case.key}: {len(reached)} of {len(open_)} reached, {seconds:.0f} s")
        for number, finding in open_.items():
            if number not in reached:
                finding.passed[case.key] = self._bench(case)
        for run in runs:
            self._note(reached[run["number"]], case, run)
        self.results.save()
        if {run["number"] for run in runs} != set(reached):
            raise MutationError(f"{case.key} ended before all its mutants were tried")

    def _run_alone(
        self, case: registry.Case, finding: Finding, index: RtlIndex, alone: RtlIndex
    ) -> None:
        key = f"{case.key} {self.seed} {self.sources}"
        if key not in self.results.usual:
            (sound,) = self._simulate(case, self._build(case, index), [0], [], case.test.timeout)
            self.results.usual[key] = sound["seconds"]
        try:
            model = cases.build_case(case, index=alone, jobs=self.jobs)
        except runner.RunnerError as error:
            finding.status, finding.why = "not compiled", str(error)
            return
        limit = min(limit_of(self.results.usual[key]), case.test.timeout)
        (run,) = self._simulate(case, model, [1], [], limit)
        shutil.rmtree(model.build_dir, ignore_errors=True)
        self._note(finding, case, run)
        self.results.save()

    def _note(self, finding: Finding, case: registry.Case, run: dict) -> None:
        finding.seconds += run["seconds"]
        finding.reached = True
        if run["error"] == LOST:
            self.say(f"          {case.key}: {LOST}, {finding.title} is not judged by it")
        elif run["error"]:
            finding.status, finding.killed_by, finding.why = "killed", case.key, run["error"]
            finding.sources = self.sources
        else:
            finding.passed[case.key] = self._bench(case)

    def _bench(self, case: registry.Case) -> str:
        """What decides a case beside the mutant."""
        return f"{self.seed} {bench_hash(case)}"

    def _build(self, case: registry.Case, index: RtlIndex) -> runner.Model:
        try:
            return cases.build_case(case, index=index, jobs=self.jobs)
        except runner.RunnerError as error:
            raise MutationError(
                f"{case.key} does not build with the planted bugs: {error} ({error.log})"
            ) from error

    def _simulate(
        self,
        case: registry.Case,
        model: runner.Model,
        numbers: list[int],
        mutants: list[int],
        limit: float,
    ) -> list[dict]:
        """The runs that forked.py tells of, in its order. Raises MutationError if the unmutated
        one fails, or nothing started."""
        run_dir = runner.BUILD / "run" / re.sub(r"[^\w=.-]", "_", case.key)
        folder = run_dir / "mutants"
        job = {"folder": str(folder), "numbers": numbers, "mutants": mutants, "limit": limit}
        parameters = {k: str(v) for k, v in case.parameters.items()}
        result = runner.simulate(
            model,
            f"{case.test.module},ci.mutation.forked",
            seed=cases.seed_of(case, self.seed),
            filter=case.test.filter,
            env={**parameters, **case.test.env, "CLIPQ_MUTANTS": json.dumps(job)},
            run_dir=run_dir,
            timeout=2 * (limit + 30) * (1 + len(mutants)),  # each may be late once and run again
        )
        verdicts = folder / "verdicts.jsonl"
        lines = verdicts.read_text().splitlines() if verdicts.exists() else []
        runs = [json.loads(line) for line in lines]
        if not runs:
            raise MutationError(f"{case.key} did not start: {result.error} ({run_dir}/sim.log)")
        if runs[0]["number"] == 0 and runs[0]["error"]:
            log = folder / "0" / "sim.log"
            raise MutationError(f"{case.key} fails without a mutant: {runs[0]['error']} ({log})")
        return runs
