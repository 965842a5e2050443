"""Runs registered cases against a mutant, the nearest and cheapest first, until one of them fails.

What was found out is kept in build/mutate/results.json by the mutant's hash, so that an interrupted
run goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ci import cases, registry
from ci.mutation.forked import FAILED, limit_of
from ci.mutation.netlist import MARKER, MutationError
from host.simulation import process, runner
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from model.common.files import write_text

ACCELERATOR = "accel_harness"
REACHES = ("block", "accel", "regress")  # how far a survivor is followed
DECIDED = ("killed", "not compiled", "equivalent")
PROOF = "proved equivalent by Yosys (equiv_induct)"
_VARIANT = re.compile(rf"^{MARKER} (\w+)$", re.M)
POLL = 0.3  # seconds


@dataclass
class Finding:
    """What is known about one mutant: status is killed, survived, equivalent, not compiled or not
    tried."""

    key: str
    kind: str
    module: str
    title: str
    status: str = "not tried"
    killed_by: str = ""
    why: str = ""
    seconds: float = 0.0
    passed: dict[str, str] = field(default_factory=dict)  # case -> hash of its test bench


@dataclass(frozen=True)
class Run:
    """One simulation of a case: `error` is empty if it passed."""

    error: str
    seconds: float


class Results:
    """Findings by mutant hash and unmutated runs by model and case, in a JSON file."""

    def __init__(self, path: Path):
        self.path = path
        data = json.loads(path.read_text()) if path.exists() else {}
        self.findings = {k: Finding(**v) for k, v in data.get("findings", {}).items()}
        self.baselines = {
            k: Run(v["error"], v["seconds"]) for k, v in data.get("baselines", {}).items()
        }

    def finding(self, key: str, kind: str, module: str, title: str) -> Finding:
        """The finding with this hash; a new one if there is none."""
        old = self.findings.get(key)
        if (
            old and old.status == "equivalent" and old.why != PROOF
        ):  # an argument counts only as long as it is there
            old.status, old.why = "not tried", ""
        self.findings[key] = Finding(
            **{
                **(asdict(old) if old else {}),
                "key": key,
                "kind": kind,
                "module": module,
                "title": title,
            }
        )
        return self.findings[key]

    def save(self) -> None:
        """Write the file; whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            self.path,
            json.dumps(
                {
                    "findings": {k: asdict(f) for k, f in self.findings.items()},
                    "baselines": {k: asdict(b) for k, b in self.baselines.items()},
                },
                indent=1,
            ),
        )


def cases_for(
    tests: registry.Registry,
    index: RtlIndex,
    units: Iterable[str],
    reach: str,
    *,
    sim: str | None = None,
    whole_on: str = "verilator",
) -> list[registry.Case]:
    """Cases whose top level contains one of `units`, in the order in which they are tried.

    First the tests of the module itself, then other block tests (the smaller ones first, Icarus
    before Verilator, which has to be compiled longer), then the whole accelerator with 4 modules on
    simulator `whole_on`, then everything else. `reach` and `sim` cut the list.
    """
    units, found = set(units), []
    for test in tests.tests.values():
        if "nightly" in test.tags:
            continue
        try:
            closure = index.closure(test.toplevel)
        except SourceError as error:
            raise MutationError(f"test {test.name}: {error}") from None
        if not units & closure:
            continue
        whole = test.toplevel == ACCELERATOR
        for number, case in enumerate(c for c in test.cases(sim) if not runner.missing(c.sim)):
            small = case.parameters.get("NUM_MODULES", 4) == 4
            stage = (
                0
                if test.toplevel in units and not whole
                else 1
                if not whole
                else 2
                if small and case.sim == whole_on
                else 3
            )
            if stage <= {"block": 1, "accel": 2, "regress": 3}[reach]:
                found.append(
                    ((stage, case.sim == "verilator", len(closure), test.seconds, number), case)
                )
    return [case for _, case in sorted(found, key=lambda item: item[0])]


def bench_hash(case: registry.Case) -> str:
    """Hash of the Python files beside the test's module and of those that all test benches share"""
    folder = ROOT / Path(*case.test.module.split(".")[:-1])
    digest = hashlib.sha256(repr((case.test.env, case.test.filter)).encode())
    for path in sorted({*folder.glob("*.py"), *(ROOT / "tb" / "lib").glob("*.py")}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Trials:
    """Tries mutants on cases; keeps the unmutated runs that every judgement needs."""

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
        self.results, self.tests, self.seed, self.reach, self.jobs, self.sim, self.say = (
            results,
            tests,
            seed,
            reach,
            jobs,
            sim,
            say,
        )

    def judge(
        self, finding: Finding, units: set[str], index: RtlIndex, sound: RtlIndex, first: str = ""
    ) -> None:
        """Run the cases of `units` on the mutated sources `index` until one fails; sets the
        finding's status.

        sound  the unmutated sources
        first  name of the test to begin with
        """
        if finding.status in DECIDED:
            return
        near = cases_for(self.tests, index, units, self.reach, sim=self.sim, whole_on="icarus")
        for case in sorted(near, key=lambda case: case.test.name != first):
            if finding.passed.get(case.key) == bench_hash(case):
                continue
            usual = self.baseline(case, sound)
            try:
                model = cases.build_case(case, index=index, jobs=self.jobs)
            except runner.RunnerError as error:
                finding.status, finding.why = "not compiled", str(error)
                return
            run = self._simulate(case, model, limit_of(usual.seconds))
            shutil.rmtree(model.build_dir, ignore_errors=True)
            if self._note(finding, case, run):
                return
        finding.status = _undecided(finding)

    def judge_all(
        self,
        mutants: dict[int, tuple[Finding, str]],
        units: set[str],
        index: RtlIndex,
        sound: RtlIndex,
        *,
        whole: bool,
    ) -> None:
        """Run the cases of `units` on a model that holds many mutants, {number: (finding,
        variant)}; sets their status.

        index is that of the sources with the mutants, sound that of the unmutated ones. Each case
        runs on all that have survived so far and whose variant occurs in its model. whole: only the
        cases of the whole accelerator, else only the others.
        """
        near = cases_for(self.tests, sound, units, self.reach, sim=self.sim)
        for case in (case for case in near if (case.test.toplevel == ACCELERATOR) == whole):
            open_ = {
                n: (f, v)
                for n, (f, v) in mutants.items()
                if f.status not in DECIDED and f.passed.get(case.key) != bench_hash(case)
            }
            if not open_:
                continue
            try:
                model = cases.build_case(case, index=index, jobs=self.jobs)
            except runner.RunnerError as error:
                raise MutationError(
                    f"{case.key} does not build with the planted netlists: {error} ({error.log})"
                ) from error
            runs = self._simulate_many(case, model, {n: v for n, (_, v) in open_.items()})
            for number, run in runs.items():
                self._note(open_[number][0], case, run)
        for finding, _ in mutants.values():
            if finding.status not in DECIDED:
                finding.status = _undecided(finding)

    def ends(self, finding: Finding) -> bool:
        """Whether the whole accelerator has nothing more to tell about a mutant."""
        return finding.status in DECIDED or self.reach == "block"

    def _note(self, finding: Finding, case: registry.Case, run: Run) -> bool:
        """Keep what a run told; whether it killed the mutant."""
        finding.seconds += run.seconds
        if run.error:
            finding.status, finding.killed_by, finding.why = "killed", case.key, run.error
        else:
            finding.passed[case.key] = bench_hash(case)
        self.results.save()
        return bool(run.error)

    def baseline(self, case: registry.Case, index: RtlIndex) -> Run:
        """The unmutated run of a case. Raises MutationError if it does not pass: then nothing could
        be concluded."""
        try:
            model = cases.build_case(case, index=index, jobs=self.jobs)
        except runner.RunnerError as error:
            raise MutationError(
                f"{case.key} does not build without a mutant: {error} ({error.log})"
            ) from error
        key = f"{model.build_dir.name} {case.key} {self.seed} {bench_hash(case)}"
        if key not in self.results.baselines:
            usual = self._simulate(case, model, case.test.timeout)
            self.say(
                f"          without a mutant {case.key} {'fails' if usual.error else 'passes'}: "
                f"{usual.seconds:.0f} s"
            )
            if usual.error:
                raise MutationError(f"{case.key} fails without a mutant: {usual.error}")
            self.results.baselines[key] = usual
            self.results.save()
        return self.results.baselines[key]

    def _simulate(self, case: registry.Case, model: runner.Model, limit: float) -> Run:
        run_dir = _run_dir(case)
        watch = _Watch(run_dir / "sim.log")
        with watch:
            result = runner.simulate(
                model,
                case.test.module,
                seed=cases.seed_of(case, self.seed),
                env=_environment(case),
                filter=case.test.filter,
                run_dir=run_dir,
                timeout=min(limit, case.test.timeout),
            )
        return Run("" if result.passed else watch.failure or result.error, result.seconds)

    def _simulate_many(
        self, case: registry.Case, model: runner.Model, variants: dict[int, str]
    ) -> dict[int, Run]:
        """{number: Run} of those mutants, {number: variant}, that occur in the model. Raises
        MutationError if the unmutated run fails."""
        folder, log = _run_dir(case) / "mutants", _run_dir(case) / "sim.log"
        job = json.dumps(
            {
                "folder": str(folder),
                "variants": variants,
                "marker": MARKER,
                "limit": case.test.timeout,
            }
        )
        result = runner.simulate(
            model,
            f"{case.test.module},ci.mutation.forked",
            seed=cases.seed_of(case, self.seed),
            filter=case.test.filter,
            env={**_environment(case), "CLIPQ_MUTANTS": job},
            run_dir=_run_dir(case),
            timeout=case.test.timeout * (1 + len(variants)),
        )
        verdicts = folder / "verdicts.jsonl"
        found = (
            [json.loads(line) for line in verdicts.read_text().splitlines()]
            if verdicts.exists()
            else []
        )
        if not found:
            raise MutationError(f"{case.key} did not start: {result.error} ({log})")
        if found[0]["error"]:
            raise MutationError(
                f"{case.key} fails without a mutant: {found[0]['error']} "
                f"({folder / '0' / 'sim.log'})"
            )
        present = set(_VARIANT.findall((folder / "0" / "sim.log").read_text(errors="replace")))
        if {item["number"] for item in found} != {
            0,
            *(n for n, v in variants.items() if v in present),
        }:
            raise MutationError(
                f"{case.key} ended before all its mutants were tried: {result.error} ({log})"
            )
        self.say(
            f"          {case.key}: {len(found) - 1} mutants, without one it passes in "
            f"{found[0]['seconds']:.0f} s"
        )
        return {item["number"]: Run(item["error"], item["seconds"]) for item in found[1:]}


def _undecided(finding: Finding) -> str:
    return "survived" if finding.passed else "not tried"


def _run_dir(case: registry.Case) -> Path:
    return runner.BUILD / "run" / re.sub(r"[^\w=.-]", "_", case.key)


def _environment(case: registry.Case) -> dict[str, str]:
    return {**{k: str(v) for k, v in case.parameters.items()}, **case.test.env}


class _Watch:
    """Ends the running simulation as soon as its log tells of a failed test function."""

    def __init__(self, log: Path):
        self.log, self.failure, self._done = log, "", threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self.log.unlink(missing_ok=True)
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(POLL):
            match = (
                FAILED.search(self.log.read_text(errors="replace")) if self.log.exists() else None
            )
            if match:
                self.failure = f"{match[1]} failed" if match[1] else match[0].strip()
                time.sleep(POLL)  # for what the log says next
                process.kill_all()
                return
