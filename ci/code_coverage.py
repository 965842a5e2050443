"""`make coverage`: line, branch and toggle coverage of rtl/ from Verilator, held against the gates.

Builds the models of the tests in ci/code_coverage.yaml with coverage counters, runs them, adds up
what they leave, takes out what rtl/coverage_exclusions.yaml excludes, and writes
build/coverage/index.html and build/coverage/coverage.json. It fails if a test failed, a gate is
missed, or an exclusion matches nothing or only what was covered.
"""

from __future__ import annotations

import concurrent.futures as futures
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jinja2
import yaml

from ci import cases, registry
from ci.coverage_points import (
    KINDS,
    Counts,
    CoverageError,
    FileCoverage,
    by_file,
    check_exclusions,
    load_exclusions,
    total,
)
from host.simulation import process, runner
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from model.common.command import Command
from model.common.files import write_text

log = logging.getLogger(__name__)

PLAN = ROOT / "ci" / "code_coverage.yaml"
EXCLUSIONS = ROOT / "rtl" / "coverage_exclusions.yaml"
OUT = ROOT / "build" / "coverage"
SHOWN = 10  # missed items that are printed for each kind and file


@dataclass(frozen=True)
class Plan:
    """Gates in per cent by kind, and the cases to run."""

    gates: dict[str, float]
    cases: tuple[registry.Case, ...]


def load_plan(path: Path = PLAN, only: tuple[str, ...] = ()) -> Plan:
    """Read the plan; `only` replaces its tests. Raises CoverageError naming what is wrong."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    tests = registry.load().tests
    names = only or data["tests"]
    if unknown := [
        name for name in names if name not in tests or not tests[name].cases("verilator")
    ]:
        raise CoverageError(f"{path.name}: no test {unknown[0]!r} on verilator in ci/tests.yaml")
    if set(data["gates"]) != set(KINDS):
        raise CoverageError(f"{path.name}: gates must name {', '.join(KINDS)}")
    return Plan(
        data["gates"],
        tuple(case for name in names for case in tests[name].cases("verilator", data["modules"])),
    )


class Campaign:
    """Builds each model once and runs the cases on `jobs` threads, each of which waits for a
    compiler or a simulator."""

    def __init__(self, cases: tuple[registry.Case, ...], seed: int, jobs: int):
        self.cases, self.seed, self.jobs = cases, seed, jobs
        self.index = RtlIndex()
        self.running: set[str] = set()

    def run(self) -> list[tuple[registry.Case, runner.Result]]:
        """All results, in the order in which they came."""
        models: dict[tuple, list[registry.Case]] = {}
        for case in self.cases:
            models.setdefault(
                (
                    case.test.toplevel,
                    str(case.parameters),
                    case.test.public,
                    str(case.test.defines),
                ),
                [],
            ).append(case)
        groups = sorted(
            models.values(), key=lambda cases: -sum(case.test.seconds for case in cases)
        )
        results: list[tuple[registry.Case, runner.Result]] = []
        todo: dict[futures.Future[Any], list[registry.Case] | None]  # None: a simulation
        with (
            process.pool(self.jobs) as pool,
            Heartbeat(lambda: "running " + ", ".join(sorted(self.running)), 20.0),
        ):
            todo = {pool.submit(self._build, group): group for group in groups}
            while todo:
                for job in futures.wait(todo, return_when=futures.FIRST_COMPLETED).done:
                    group = todo.pop(job)
                    if group is None:
                        results.append(job.result())
                        _print_result(*results[-1])
                    else:
                        todo.update(
                            {
                                pool.submit(self._simulate, case, job.result()): None
                                for case in group
                            }
                        )
        return results

    def _build(self, group: list[registry.Case]) -> runner.Model:
        name = f"build of {group[0].test.toplevel}"
        self.running.add(name)
        try:
            return cases.build_case(group[0], coverage=True, jobs=2, index=self.index)
        finally:
            self.running.discard(name)

    def _simulate(
        self, case: registry.Case, model: runner.Model
    ) -> tuple[registry.Case, runner.Result]:
        self.running.add(case.key)
        try:
            return case, cases.run_case(case, self.seed, model=model)
        finally:
            self.running.discard(case.key)


def _print_result(case: registry.Case, result: runner.Result) -> None:
    print(
        f"{'pass' if result.passed else 'FAIL'} {case.key:64} {result.seconds:7.1f} s "
        f"{result.error}",
        flush=True,
    )


def collect(results: list[tuple[registry.Case, runner.Result]]) -> Counts:
    """Add up the data that the passed cases left. Raises CoverageError if a case failed: what it
    covered was not checked."""
    if failed := [case.key for case, result in results if not result.passed]:
        raise CoverageError(f"{len(failed)} of {len(results)} cases failed: {', '.join(failed)}")
    counts = Counts(ROOT)
    for _, result in results:
        assert result.log, "what has passed has a log"
        counts.read(result.log.parent / "coverage.dat")
    return counts


def percent(tally: tuple[int, int]) -> float:
    """Covered share of (covered, relevant) in per cent; 100 where nothing is to be covered."""
    return 100.0 * tally[0] / tally[1] if tally[1] else 100.0


def missed_gates(files: list[FileCoverage], gates: dict[str, float]) -> list[str]:
    """One line for each gate that is not reached, or that has nothing to measure."""
    problems = []
    for kind in KINDS:
        covered, relevant = total(files, kind)
        if not relevant:
            problems.append(f"{kind}: nothing to cover was found")
        elif percent((covered, relevant)) < gates[kind]:
            problems.append(
                f"{kind}: {percent((covered, relevant)):.2f} % is below the gate of {gates[kind]} %"
            )
    return problems


def print_report(files: list[FileCoverage], detailed: bool) -> None:
    """The table of all files, and the first missed items of each where `detailed`."""
    print(f"{'file':44}" + "".join(f"{kind:>24}" for kind in KINDS))
    for coverage in files:
        print(f"{coverage.path:44}" + "".join(_cell(coverage.tally(kind)) for kind in KINDS))
        for kind in KINDS if detailed else ():
            missed = coverage.missed(kind)
            for item in missed[:SHOWN]:
                print(f"    {item}: {coverage.source[item.line - 1].strip()[:80]}")
            if len(missed) > SHOWN:
                print(f"    ... and {len(missed) - SHOWN} more ({kind})")
    print(f"{'total':44}" + "".join(_cell(total(files, kind)) for kind in KINDS))


def _cell(tally: tuple[int, int]) -> str:
    return f"{f'{tally[0]}/{tally[1]}':>14} {percent(tally):7.2f} %"


def write_json(files: list[FileCoverage], path: Path, **facts: Any) -> None:
    """Totals, files, missed items and exclusions for other programs."""

    def record(tallies: dict[str, tuple[int, int]]) -> dict:
        return {
            kind: {"covered": t[0], "relevant": t[1], "percent": round(percent(t), 2)}
            for kind, t in tallies.items()
        }

    data = {
        **facts,
        "total": record({kind: total(files, kind) for kind in KINDS}),
        "files": {
            c.path: {
                **record({kind: c.tally(kind) for kind in KINDS}),
                "excluded": len(c.excluded),
                "missed": [str(item) for kind in KINDS for item in c.missed(kind)],
            }
            for c in files
        },
    }
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_html(files: list[FileCoverage], folder: Path, **facts: Any) -> None:
    """index.html with a table of the files, and a page with the annotated source of each."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        KINDS=KINDS, percent=percent, page=lambda path: path.replace("/", "_") + ".html"
    )
    template = environment.get_template("code_coverage.html.j2")
    totals = {kind: total(files, kind) for kind in KINDS}
    write_text(folder / "index.html", template.render(files=files, totals=totals, **facts))
    for coverage in files:
        rows = annotate(coverage)
        write_text(
            folder / (coverage.path.replace("/", "_") + ".html"),
            template.render(file=coverage, rows=rows, **facts),
        )


def annotate(coverage: FileCoverage) -> list[dict]:
    """One row a source line: number, text, count of its statements (None: it has none), class, and
    what is missed or excluded on it."""
    items: dict[int, list] = {}
    for item in coverage.counts:
        items.setdefault(item.line, []).append(item)
    rows = []
    for number, text in enumerate(coverage.source, 1):
        own = sorted(items.get(number, []))
        missed = [
            item for item in own if not coverage.counts[item] and item not in coverage.excluded
        ]
        reasons = sorted(
            {coverage.excluded[item].reason for item in own if item in coverage.excluded}
        )
        count = next((coverage.counts[item] for item in own if item.kind == "line"), None)
        style = (
            "missed"
            if any(i.kind == "line" for i in missed)
            else "part"
            if missed
            else "excluded"
            if reasons
            else "hit"
            if own
            else ""
        )
        notes = [f"excluded: {reason}" for reason in reasons]
        for kind in ("branch", "toggle"):
            names = [item.name for item in missed if item.kind == kind]
            if names:
                more = f" and {len(names) - 12} more" if len(names) > 12 else ""
                notes.append(f"{kind} not seen: {', '.join(names[:12])}{more}")
        rows.append(
            {"number": number, "text": text, "count": count, "style": style, "notes": notes}
        )
    return rows


@click.command(cls=Command, help=__doc__)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count(),
    help="builds and simulations at a time (default: all cores)",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=1, help="of every case (default 1)"
)
@click.option(
    "--test",
    "only",
    multiple=True,
    help="only this test of ci/tests.yaml (may be repeated); the gates stay",
)
@click.option(
    "--missed", is_flag=True, help=f"list the first {SHOWN} missed items of each file and kind"
)
def main(jobs: int, seed: int, only: tuple[str, ...], missed: bool) -> None:
    start = time.monotonic()
    try:
        plan, exclusions = load_plan(only=only), load_exclusions(EXCLUSIONS)
        log.info("coverage: %d cases, %d at a time, seed %d", len(plan.cases), jobs, seed)
        counts = collect(Campaign(plan.cases, seed, jobs).run())
    except (CoverageError, registry.RegistryError, runner.RunnerError, SourceError) as error:
        raise SystemExit(f"error: {error}") from None
    files = by_file(counts.items(), exclusions, ROOT)
    errors, notes = check_exclusions(files, exclusions)
    problems = errors + missed_gates(files, plan.gates)
    seconds = time.monotonic() - start
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    facts = {
        "gates": plan.gates,
        "seed": seed,
        "seconds": round(seconds, 1),
        "cases": [case.key for case in plan.cases],
        "problems": problems,
        "notes": notes,
    }
    write_json(files, OUT / "coverage.json", **facts)
    write_html(files, OUT, **facts)
    print_report(files, missed)
    print(*notes, sep="\n") if notes else None
    print(
        f"reports: {(OUT / 'index.html').relative_to(ROOT)}, "
        f"{(OUT / 'coverage.json').relative_to(ROOT)}; {seconds:.0f} s"
    )
    print(
        *(f"FAILED: {problem}" for problem in problems)
        if problems
        else ("coverage: all gates reached",),
        sep="\n",
    )
    sys.exit(bool(problems))
