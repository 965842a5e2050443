"""Builds a top level for a simulator and runs one cocotb module against it.

Two calls: `build` compiles (or finds) a model, `simulate` runs a cocotb module on it. Models lie
under build/sim, named by a hash of everything that goes into them, so that any change rebuilds and
nothing else does. A run passes only if the simulator ended well, at least one test was executed,
none failed, all that the module defines were executed and the simulator reported no error of its
own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

from host.simulation import defined_tests, environment, process
from host.simulation.locks import locked
from host.simulation.rtl_index import ROOT, RtlIndex
from host.simulation.simulators import (
    VERILATOR_MAIN,
    VERILATOR_MAKE,
    Icarus,
    RunnerError,
    Verilator,
)

BUILD = ROOT / "build"
Simulator = Literal["verilator", "icarus"]
SIMULATORS: tuple[Simulator, ...] = get_args(Simulator)
VERDICT = "verdict.txt"  # why a run failed, empty if it passed; none until its end
SOURCES = "sources.txt"  # digest of the sources that a run stands for
BUILD_TIMEOUT = 1200.0
PACKAGES = sysconfig.get_path("purelib")  # models load cocotb's libraries from it
KEEP_OLD_MODELS = 3600.0  # seconds since last use before a model is deleted
_VERILATOR_FLAGS = (
    *("-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--assert", "--no-timing"),
    *("--x-assign", "unique", "--x-initial", "unique", "--quiet-stats"),
)
# Lines with their branches, and toggles of everything but memories: signals wider than the limit,
# in all their elements, have no toggle points.
_COVERAGE_FLAGS = ("--coverage-line", "--coverage-toggle", "--coverage-max-width", "1024")
_ICARUS_UNKNOWN_PARAMETER = re.compile(r"warning: parameter (\w+) not found")
# What a simulator prints itself: $error/$fatal of Icarus, failing assertions and $error of
# Verilator.
_SIMULATOR_ERROR = re.compile(r"^(?:(?:ERROR|FATAL|Assertion failed)|.*%(?:Error|Fatal))\b.*", re.M)


@dataclass(frozen=True)
class _Recipe:
    """What decides a model, beside the contents of its sources and the tools."""

    sim: str
    toplevel: str
    parameters: dict[str, object]
    defines: dict[str, object]
    public: list[str]
    waves: bool
    coverage: bool


@dataclass(frozen=True)
class Model(_Recipe):
    """A compiled top level. `cached` is True if it had been built before; `seconds` is the build
    time (0 if cached).

    With `coverage` a simulation leaves `coverage.dat` in its run folder (Verilator only).
    """

    build_dir: Path
    cached: bool
    seconds: float


@dataclass(frozen=True)
class TestOutcome:
    """One @cocotb.test function: status is passed, failed or skipped; message says why."""

    name: str
    status: str
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class Result:
    """One simulation. `error` is empty if it passed; `tests` are the executed and skipped test
    functions."""

    passed: bool
    error: str
    seconds: float
    build_seconds: float
    log: Path | None = None
    waves: Path | None = None
    tests: tuple[TestOutcome, ...] = ()


def missing(sim: str) -> str:
    """Empty if simulator `sim` can be used here, otherwise the reason in one line."""
    program = {"icarus": "iverilog", "verilator": "g++"}[sim]
    remedy = f"(Debian/Ubuntu: sudo apt-get install {program})"
    return "" if shutil.which(program) else f"{program} is not installed {remedy}"


def require(sim: str) -> None:
    """Raises RunnerError if simulator `sim` cannot be used here."""
    if reason := missing(sim):
        raise RunnerError(reason)


@functools.cache
def tools(sim: str) -> list[str]:
    """The versions of what builds and runs a model; simulator `sim` is there."""
    packages = {"icarus": ["cocotb"], "verilator": ["cocotb", "verilator"]}[sim]
    own = [_first_line("iverilog", "-V")] if sim == "icarus" else []
    return [*map(metadata.version, packages), *own]


def _compiler() -> str:
    return _first_line("g++", "--version")


@functools.cache
def _first_line(*command: str) -> str:
    done = subprocess.run(command, env=environment.child(), capture_output=True, text=True)
    return done.stdout.partition("\n")[0]


@functools.cache
def waves_format(sim: str) -> str:
    """fst or vcd. Verilator's FST needs the headers of lz4 and zlib."""
    headers = ["-include", "lz4.h", "-include", "zlib.h"]
    compiler = ["g++", "-fsyntax-only", *headers, "-x", "c++", os.devnull]
    if sim == "icarus":
        return "fst"
    with tempfile.TemporaryFile() as log:
        missing = process.run(compiler, log, cwd=ROOT, timeout=60)
    return "vcd" if missing else "fst"


def build(
    toplevel: str,
    sources: Sequence[Path | str] | None = None,
    parameters: Mapping[str, object] | None = None,
    sim: str = "verilator",
    *,
    defines: Mapping[str, object] | None = None,
    public: Sequence[str] = (),
    waves: bool = False,
    coverage: bool = False,
    jobs: int = 1,
    index: RtlIndex | None = None,
) -> Model:
    """Compile module `toplevel` and return the model; a model of the same content is reused.

    sources     files or globs where the modules are looked for; by default those of `index`, or of
                rtl/, syn/, tb/ and host/
    parameters  of the top level, {name: value}
    public      `module.signal` names ("*" matches) below the top level, to be read in Verilator
    waves       compile with tracing, see `waves_format`
    coverage    compile with line, branch and toggle counters (Verilator only)
    jobs        C++ compiler processes
    Raises RunnerError (with the log) if a tool is missing or the sources do not build, SourceError
    for missing modules.
    """
    require(sim)
    if coverage and sim != "verilator":
        raise RunnerError(f"code coverage is measured with verilator, not with {sim}")
    if sources:
        index = RtlIndex(*(path for source in sources for path in _matches(source)))
    files = (index or RtlIndex()).files(toplevel)
    recipe = _Recipe(
        sim, toplevel, dict(parameters or {}), dict(defines or {}), sorted(public), waves, coverage
    )
    folder = BUILD / "sim" / slug(toplevel, sim, recipe.parameters, waves, coverage)
    build_dir = folder / _digest(recipe, files)
    start = time.monotonic()
    with locked(build_dir.with_suffix(".lock")):
        stamp = build_dir / "built.json"
        cached = stamp.exists()
        if not cached:
            shutil.rmtree(build_dir, ignore_errors=True)
            build_dir.mkdir(parents=True)
            _compile(recipe, files, jobs, build_dir)
            facts = {**vars(recipe), "sources": [str(f) for f in files]}
            stamp.write_text(json.dumps(facts, indent=1, default=str))
        stamp.touch()
    _drop_old_models(folder, build_dir)
    seconds = 0.0 if cached else time.monotonic() - start
    return Model(**vars(recipe), build_dir=build_dir, cached=cached, seconds=seconds)


def _matches(source: Path | str) -> list[Path]:
    path = Path(source)
    found = [path] if path.is_absolute() else sorted(ROOT.glob(str(source)))
    if not any(map(Path.is_file, found)):
        raise RunnerError(f"source {str(source)!r} matches no file")
    return found


def _digest(recipe: _Recipe, files: Sequence[Path]) -> str:
    """Hash of everything that decides what the compiled model does, file contents included."""
    flags = [*(_COVERAGE_FLAGS if recipe.coverage else ())]
    if recipe.sim == "verilator":
        flags += [*_VERILATOR_FLAGS, *VERILATOR_MAKE, VERILATOR_MAIN.read_text(), _compiler()]
        flags += [waves_format(recipe.sim)] if recipe.waves else []
    facts = [sorted(vars(recipe).items()), tools(recipe.sim), flags, PACKAGES]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for path in files:
        digest.update(f"\0{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(recipe: _Recipe, files: Sequence[Path], jobs: int, build_dir: Path) -> None:
    sim, toplevel, coverage = recipe.sim, recipe.toplevel, recipe.coverage
    log = build_dir / "build.log"
    log.touch()
    tool: Verilator | Icarus = Icarus()
    sources, flags = [*files], list[str]()
    if sim == "verilator":
        tool = verilator = Verilator()
        verilator.jobs, verilator.runtime = jobs, _runtime_dir(recipe)
        verilator.trace = f"--trace-{waves_format(sim)}"
        control = build_dir / "public.vlt"
        control.write_text(_control_file(recipe))
        sources = [control, *files]
        flags = [*_VERILATOR_FLAGS, *(_COVERAGE_FLAGS if coverage else ())]
    tool.limit = BUILD_TIMEOUT
    try:
        tool.build(
            sources=sources,
            defines=recipe.defines,
            parameters=recipe.parameters,
            build_args=flags,
            hdl_toplevel=toplevel,
            build_dir=build_dir,
            waves=recipe.waves,
            timescale=("1ns", "1ps"),
            always=True,
            log_file=log,
        )
    except (RunnerError, process.CommandTimeout, RuntimeError, OSError) as error:
        raise RunnerError(f"{toplevel} does not build with {sim}: {error}", log) from error
    if sim == "verilator":
        for path in build_dir.glob("verilated*.o"):
            with contextlib.suppress(OSError):  # kept before, or in another file system
                os.link(path, _runtime_dir(recipe) / path.name)
        for path in [p for end in ("gch", "o", "a") for p in build_dir.glob(f"*.{end}")]:
            path.unlink()  # 150 MB for the whole accelerator
    elif unknown := _ICARUS_UNKNOWN_PARAMETER.search(log.read_text()):
        raise RunnerError(f"{toplevel} has no parameter {unknown.group(1)}", log)


def _control_file(recipe: _Recipe) -> str:
    """For Verilator: cocotb sees the top level's ports and parameters and the named signals."""
    seen = [(recipe.toplevel, "-port", "*"), (recipe.toplevel, "-param", "*")]
    seen += [
        (module, "-var", signal) for module, _, signal in (p.partition(".") for p in recipe.public)
    ]
    lines = [f'public_flat_rw -module "{module}" {what} "{name}"' for module, what, name in seen]
    if recipe.coverage:
        lines += [f'coverage_off -file "*/{folder}/*"' for folder in ("syn", "tb", "host")]
    return "\n".join(["`verilator_config", *lines, ""])


def _runtime_dir(recipe: _Recipe) -> Path:
    """Where the compiled objects of Verilator's own runtime are kept for other models."""
    waves = recipe.waves and waves_format("verilator")
    facts = [tools("verilator"), _compiler(), *VERILATOR_MAKE, PACKAGES, waves, recipe.coverage]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    path = BUILD / "sim" / "verilator-runtime" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _drop_old_models(folder: Path, current: Path) -> None:
    """Delete models of the same top level that nobody used for a while: superseded ones, and what
    interrupted builds have left."""
    for path in folder.iterdir():
        if path == current or not path.is_dir():
            continue
        # Another run builds it, or has just deleted it.
        with (
            contextlib.suppress(BlockingIOError, FileNotFoundError),
            locked(path.with_suffix(".lock"), wait=False),
        ):
            stamp = path / "built.json"
            used = (stamp if stamp.exists() else path).stat().st_mtime
            if time.time() - used > KEEP_OLD_MODELS:
                shutil.rmtree(path, ignore_errors=True)


def slug(
    toplevel: str, sim: str, parameters: Mapping[str, object], waves: bool, coverage: bool = False
) -> str:
    """Name of a folder for a model or a run."""
    words = [toplevel, sim, *(f"{k}={v}" for k, v in parameters.items())]
    words += ["waves"] * waves + ["coverage"] * coverage
    return re.sub(r"[^\w=.-]", "_", "-".join(words))[:150]


def simulate(
    model: Model,
    module: str,
    *,
    seed: int,
    env: Mapping[str, str] | None = None,
    filter: str | None = None,
    run_dir: Path,
    timeout: float = 600.0,
    sources: str = "",
) -> Result:
    """Run the @cocotb.test functions of Python module `module` on a model. A second run in the same
    folder waits for the end of the first.

    seed     for cocotb.RANDOM_SEED and Verilator's random reset values; 0 <= seed < 2^31
    env      environment variables of the simulation, beside those of
             host/simulation/environment.py; PYTHONPATH names further folders of modules
    filter   regular expression on test names (`module.function`)
    run_dir  where log, results and waves go
    timeout  seconds of wall time, then all its processes are killed
    sources  digest of what the run stands for, kept in its folder
    Returns a Result; failing is a result, not an exception.
    """
    with locked(run_dir.with_name(f".{run_dir.name}.lock")):
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.mkdir(parents=True)
        (run_dir / SOURCES).write_text(sources, encoding="utf-8")
        return _simulate(model, module, seed, env or {}, filter, run_dir, timeout)


def _simulate(
    model: Model,
    module: str,
    seed: int,
    env: Mapping[str, str],
    filter: str | None,
    run_dir: Path,
    timeout: float,
) -> Result:
    """In an empty folder that no other run uses."""
    log, results = run_dir / "sim.log", run_dir / "results.xml"
    log.touch()
    tool = Verilator() if model.sim == "verilator" else Icarus()
    tool.limit = timeout
    tool.own_env = {"COCOTB_ANSI_OUTPUT": "0", **env, "COCOTB_RANDOM_SEED": str(seed)}
    arguments = [f"+dumpfile_path={run_dir / 'dump.fst'}"] if model.waves else []
    if model.sim == "verilator":
        # With coverage all starts at zero: a random value that reset replaces would be a toggle.
        start_values = f"+verilator+rand+reset+{0 if model.coverage else 2}"
        arguments = [start_values, f"+verilator+seed+{seed % (2**31 - 1) + 1}"]
    start, error = time.monotonic(), ""
    try:
        tool.test(
            test_module=f"{defined_tests.__name__},{module}",
            hdl_toplevel=model.toplevel,
            hdl_toplevel_lang="verilog",
            parameters=model.parameters,
            build_dir=model.build_dir,
            test_dir=run_dir,
            results_xml=str(results),
            test_filter=filter,
            plusargs=arguments,
            waves=model.waves,
            log_file=log,
        )
    except (RunnerError, process.CommandTimeout, RuntimeError) as problem:
        error = str(problem)
    seconds = time.monotonic() - start
    tests = read_results(results)
    error = _verdict(tests, error, log) or _difference(tests, defined_tests.read(run_dir, filter))
    (run_dir / VERDICT).write_text(error, encoding="utf-8")
    waves = next((p for p in (run_dir / "dump.vcd", run_dir / "dump.fst") if p.exists()), None)
    return Result(not error, error, seconds, model.seconds, log, waves, tests)


def has_passed(run_dir: Path) -> bool:
    """Whether the simulation of this folder came to its end and passed."""
    verdict = run_dir / VERDICT
    return verdict.exists() and not verdict.read_text(encoding="utf-8")


def read_results(path: Path) -> tuple[TestOutcome, ...]:
    """Test functions in a JUnit file; empty if it is missing or cut short."""
    try:
        cases = list(ET.parse(path).iter("testcase"))
    except (OSError, ET.ParseError):
        return ()
    return tuple(map(_outcome, cases))


def _outcome(case: ET.Element) -> TestOutcome:
    name, status, message = f"{case.get('classname')}.{case.get('name')}", "passed", ""
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            status = "skipped" if child.tag == "skipped" else "failed"
            message = child.get("message") or (child.text or "").strip() or child.tag
    return TestOutcome(name, status, float(case.get("time") or 0), message)


def _verdict(tests: Sequence[TestOutcome], error: str, log: Path) -> str:
    """Why the run failed, or an empty string."""
    if complaint := _SIMULATOR_ERROR.search(log.read_text(errors="replace")):
        return f"the simulator reported: {complaint.group(0).strip()}"
    failed = [f"{t.name}: {t.message.splitlines()[0]}" for t in tests if t.status == "failed"]
    executed = any(t.status == "passed" for t in tests)
    return "; ".join(failed) or error or ("" if executed else "no test was executed")


def _difference(tests: Sequence[TestOutcome], defined: Sequence[str]) -> str:
    """Which test functions were not executed although they are defined, or the other way round."""
    executed = Counter(t.name for t in tests if t.status != "skipped")
    missing, unknown = Counter(defined) - executed, executed - Counter(defined)
    differences = {"not executed": missing, "executed, but not defined": unknown}
    lists = {what: ", ".join(sorted(names.elements())) for what, names in differences.items()}
    return "; ".join(f"{what}: {names}" for what, names in lists.items() if names)
