"""`make coverage`: line, branch and toggle coverage of rtl/ from Verilator, held against the gates.

Builds the models of the tests in ci/code_coverage.yaml with coverage counters, runs them, adds up
what they leave, takes out what rtl/coverage_exclusions.yaml excludes, and writes
build/coverage/index.html and build/coverage/coverage.json. It fails if a test failed, a gate is
missed, or an exclusion matches nothing or only what was covered.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import jinja2
from pydantic import Field

from ci import cases, registry, results
from ci.coverage_points import (
    KINDS,
    Counts,
    CoverageError,
    FileCoverage,
    Item,
    Kind,
    by_file,
    check_exclusions,
    load_exclusions,
    total,
)
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.cores import cores
from model.common.files import write_text

log = logging.getLogger(__name__)

PLAN = ROOT / "ci" / "code_coverage.yaml"
EXCLUSIONS = ROOT / "rtl" / "coverage_exclusions.yaml"
OUT = ROOT / "build" / "coverage"
SHOWN = 10  # missed items that are printed for each kind and file


class Plan(registry.Strict):
    """ci/code_coverage.yaml: gates in per cent by kind, the tests to run and their NUM_MODULES."""

    gates: Annotated[dict[Kind, float], Field(min_length=len(KINDS))]
    modules: int
    tests: list[str]

    def cases(self) -> list[registry.Case]:
        """Raises CoverageError if a test has none on Verilator."""
        tests, found = registry.load(), list[registry.Case]()
        for name in self.tests:
            found += (own := tests.named(name).cases("verilator", self.modules))
            if not own:
                raise CoverageError(f"{PLAN.name}: test {name!r} does not run on verilator")
        return found


def measure(plan: Plan, seed: int, jobs: int) -> Counts:
    """Run the cases; the sum of what they left. Raises CoverageError if one failed: what it covered
    was not checked."""
    runner.require("verilator")
    arguments = [results.BENCHES, *(f"--bench={name}" for name in plan.tests), "--counters"]
    arguments += ["--sim=verilator", f"--modules={plan.modules}", f"--case-seed={seed}"]
    if code := results.run_pytest([*arguments, f"-n{jobs}"], {}):
        raise CoverageError(f"a case failed: pytest ended with status {code}")
    counts = Counts(ROOT)
    for case in plan.cases():
        counts.read(cases.run_dir(case, coverage=True) / "coverage.dat")
    return counts


def percent(tally: tuple[int, int]) -> float:
    """Covered share of (covered, relevant) in per cent; 100 where nothing is to be covered."""
    return 100.0 * tally[0] / tally[1] if tally[1] else 100.0


def missed_gates(files: list[FileCoverage], gates: Mapping[Kind, float]) -> list[str]:
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


def annotate(coverage: FileCoverage) -> list[dict[str, Any]]:
    """One row a source line: number, text, count of its statements (None: it has none), class, and
    what is missed or excluded on it."""
    items: defaultdict[int, list[Item]] = defaultdict(list)
    for item in sorted(coverage.counts):
        items[item.line].append(item)
    rows = []
    for number, text in enumerate(coverage.source, 1):
        own = items[number]
        reasons = {coverage.excluded[item].reason for item in own if item in coverage.excluded}
        missed = {
            kind: [
                item.name
                for item in own
                if item.kind == kind and not coverage.counts[item] and item not in coverage.excluded
            ]
            for kind in KINDS
        }
        styles = {
            "missed": missed["line"],
            "part": missed["branch"] + missed["toggle"],
            "excluded": reasons,
            "hit": own,
        }
        notes = [f"excluded: {reason}" for reason in sorted(reasons)]
        for kind in ("branch", "toggle"):
            shown, more = missed[kind][:12], len(missed[kind]) - 12
            if shown:
                rest = f" and {more} more" if more > 0 else ""
                notes.append(f"{kind} not seen: {', '.join(shown)}{rest}")
        rows.append(
            {
                "number": number,
                "text": text,
                "count": next((coverage.counts[i] for i in own if i.kind == "line"), None),
                "style": next((style for style, why in styles.items() if why), ""),
                "notes": notes,
            }
        )
    return rows


@click.command(cls=Command, help=__doc__)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=cores(),
    help="builds and simulations at a time (default: all cores)",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=1, help="of every case (default 1)"
)
@click.option(
    "--test",
    "only",
    multiple=True,
    help="only this test of ci/tests.yaml (may be repeated); nothing is judged",
)
@click.option(
    "--missed", is_flag=True, help=f"list the first {SHOWN} missed items of each file and kind"
)
def main(jobs: int, seed: int, only: tuple[str, ...], missed: bool) -> None:
    start, sources = time.monotonic(), results.sources()
    plan, exclusions = registry.read(PLAN, Plan, CoverageError), load_exclusions(EXCLUSIONS)
    plan = plan.model_copy(update={"tests": [*only] or plan.tests})
    names = [case.key for case in plan.cases()]
    log.info("coverage: %d cases, %d at a time, seed %d", len(names), jobs, seed)
    files = by_file(measure(plan, seed, jobs).items(), exclusions, ROOT)
    errors, notes = check_exclusions(files, exclusions)
    problems = [] if only else errors + missed_gates(files, plan.gates)
    seconds = time.monotonic() - start
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    facts = {
        "gates": plan.gates,
        "seed": seed,
        "seconds": round(seconds, 1),
        "cases": names,
        "problems": problems,
        "judged": not only,
        "sources": sources,
        "errors": errors,
        "notes": notes,
    }
    write_json(files, OUT / "coverage.json", **facts)
    write_html(files, OUT, **facts)
    print_report(files, missed)
    pages = f"{OUT.relative_to(ROOT)}/index.html, coverage.json"
    good = "coverage: not judged, only some tests ran" if only else "coverage: all gates reached"
    verdict = [f"FAILED: {problem}" for problem in problems] or [good]
    print(*notes, f"reports: {pages}; {seconds:.0f} s", *verdict, sep="\n")
    sys.exit(bool(problems))
