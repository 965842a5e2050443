"""Builds a top level for a simulator and runs one cocotb module against it.

Two calls: `build` compiles (or finds) a model, `simulate` runs a cocotb module on it. Models lie
under build/sim, named by a hash of everything that goes into them, so that any change rebuilds and
nothing else does. A run passes only if the simulator ended well, at least one test was executed,
none failed, all that the module defines were executed and the simulator reported no error of its
own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from host.simulation import defined_tests, process
from host.simulation.rtl_index import ROOT, RtlIndex
from host.simulation.simulators import (
    VERILATOR_MAKE,
    Icarus,
    RunnerError,
    Verilator,
    verilator_root,
)

BUILD = ROOT / "build"
SIMULATORS = ("verilator", "icarus")
BUILD_TIMEOUT = 1200.0
KEEP_OLD_MODELS = 3600.0  # seconds since last use before a superseded model is deleted
_VERILATOR_FLAGS = (
    *("-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--assert", "--no-timing"),
    *("--x-assign", "unique", "--x-initial", "unique", "--quiet-stats"),
)
# Lines with their branches, and toggles of everything but memories: signals wider than the limit,
# in all their elements, have no toggle points.
_COVERAGE_FLAGS = ("--coverage-line", "--coverage-toggle", "--coverage-max-width", "1024")
_TIMESCALE = ("1ns", "1ps")
_ICARUS_UNKNOWN_PARAMETER = re.compile(r"warning: parameter (\w+) not found")
# What a simulator prints itself: $error/$fatal of Icarus, failing assertions and $error of
# Verilator.
_SIMULATOR_ERROR = re.compile(
    r"^(?:ERROR|FATAL|Assertion failed)\b.*|^.*%(?:Error|Fatal)\b.*", re.M
)


@dataclass(frozen=True)
class Model:
    """A compiled top level. `cached` is True if it had been built before; `seconds` is the build
    time (0 if cached).

    With `coverage` a simulation leaves `coverage.dat` in its run folder (Verilator only).
    """

    sim: str
    toplevel: str
    parameters: dict[str, object]
    build_dir: Path
    waves: bool
    cached: bool
    seconds: float
    coverage: bool = False


@dataclass(frozen=True)
class TestOutcome:
    """One @cocotb.test function (or pytest test): status is passed, failed or skipped; message says
    why."""

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
    seed: int
    log: Path | None
    waves: Path | None
    tests: tuple[TestOutcome, ...]

    @property
    def n_tests(self) -> int:
        """Number of executed test functions."""
        return sum(t.status != "skipped" for t in self.tests)


# --------------------------------------------------------------------------------------- simulators


def missing(sim: str) -> str:
    """Empty if simulator `sim` can be used here, otherwise the reason in one line."""
    if sim not in SIMULATORS:
        return f"unknown simulator {sim!r} (there are: {', '.join(SIMULATORS)})"
    if sim == "icarus" and shutil.which("iverilog") is None:
        return "Icarus Verilog is not installed (Debian/Ubuntu: sudo apt-get install iverilog)"
    if sim == "verilator" and shutil.which("g++") is None:
        return "g++ is not installed (Debian/Ubuntu: sudo apt-get install g++)"
    return ""


# -------------------------------------------------------------------------------------------- build


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
    timeout: float = BUILD_TIMEOUT,
    index: RtlIndex | None = None,
) -> Model:
    """Compile module `toplevel` and return the model; a model of the same content is reused.

    sources     files in order; None finds them by following what `toplevel` instantiates below rtl/
                and tb/
    parameters  of the top level, {name: value}
    public      `module.signal` names ("*" matches) that a test reads below the top level in
                Verilator
    waves       compile with tracing (VCD for Verilator, FST for Icarus)
    coverage    compile with line, branch and toggle counters (Verilator only)
    jobs        C++ compiler processes
    Raises RunnerError (with the log) if a tool is missing or the sources do not build, SourceError
    for missing modules.
    """
    if reason := missing(sim):
        raise RunnerError(reason)
    if coverage and sim != "verilator":
        raise RunnerError(f"code coverage is measured with verilator, not with {sim}")
    files = _expand(sources) if sources else (index or RtlIndex()).files(toplevel)
    recipe = _Recipe(
        sim, toplevel, dict(parameters or {}), dict(defines or {}), sorted(public), waves, coverage
    )
    folder = BUILD / "sim" / slug(toplevel, sim, recipe.parameters, waves, coverage)
    build_dir = folder / _digest(recipe, files)
    start = time.monotonic()
    with _locked(build_dir.with_suffix(".lock")):
        stamp = build_dir / "built.json"
        cached = stamp.exists()
        if not cached:
            shutil.rmtree(build_dir, ignore_errors=True)
            build_dir.mkdir(parents=True)
            _compile(recipe, files, jobs, timeout, build_dir)
            facts = {**vars(recipe), "sources": [str(f) for f in files]}
            stamp.write_text(json.dumps(facts, indent=1, default=str))
        os.utime(stamp)
    _drop_old_models(folder, build_dir)
    seconds = 0.0 if cached else time.monotonic() - start
    return Model(sim, toplevel, recipe.parameters, build_dir, waves, cached, seconds, coverage)


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


def _expand(sources: Sequence[Path | str]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        matches = [path] if path.is_absolute() else sorted(ROOT.glob(str(source)))
        matches = [m for m in matches if m.is_file()]
        if not matches:
            raise RunnerError(f"source {str(source)!r} matches no file")
        files += matches
    RtlIndex(*files)  # refuses files that define the same or include others
    packages = [f for f in files if f.stem.endswith("_pkg")]
    return list(dict.fromkeys([*packages, *files]))


def _digest(recipe: _Recipe, files: Sequence[Path]) -> str:
    """Hash of everything that decides what the compiled model does, file contents included."""
    flags = [*(_COVERAGE_FLAGS if recipe.coverage else ())]
    if recipe.sim == "verilator":
        tool = metadata.version("verilator")
        flags += [*_VERILATOR_FLAGS, *VERILATOR_MAKE]
    else:
        path = Path(shutil.which("iverilog") or "iverilog")
        tool = f"{path}:{path.stat().st_mtime_ns}"
    facts = [sorted(vars(recipe).items()), tool, metadata.version("cocotb"), flags, sys.prefix]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for path in files:
        digest.update(f"\0{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(
    recipe: _Recipe, files: Sequence[Path], jobs: int, timeout: float, build_dir: Path
) -> None:
    sim, toplevel, coverage = recipe.sim, recipe.toplevel, recipe.coverage
    log = build_dir / "build.log"
    log.touch()
    tool: Verilator | Icarus = Icarus()
    sources, flags = [*files], list[str]()
    if sim == "verilator":
        tool = verilator = Verilator()
        verilator.jobs, verilator.runtime = jobs, _runtime_dir(recipe.waves, coverage)
        control = build_dir / "public.vlt"
        control.write_text(
            _public_control(toplevel, recipe.public)
            + ('coverage_off -file "*/tb/*"\ncoverage_off -file "*/host/*"\n' if coverage else "")
        )
        sources = [control, *files]
        flags = [*_VERILATOR_FLAGS, *(_COVERAGE_FLAGS if coverage else ())]
    tool.limit = timeout
    try:
        tool.build(
            sources=sources,
            defines=recipe.defines,
            parameters=recipe.parameters,
            build_args=flags,
            hdl_toplevel=toplevel,
            build_dir=build_dir,
            waves=recipe.waves,
            timescale=_TIMESCALE,
            always=True,
            log_file=log,
        )
    except (RunnerError, process.CommandTimeout, RuntimeError, OSError) as error:
        raise RunnerError(f"{toplevel} does not build with {sim}: {error}", log) from error
    if sim == "verilator":
        _keep_runtime(build_dir, recipe.waves, coverage)
        _drop_intermediate(build_dir)
    elif unknown := _ICARUS_UNKNOWN_PARAMETER.search(log.read_text()):
        raise RunnerError(f"{toplevel} has no parameter {unknown.group(1)}", log)


def _public_control(toplevel: str, public: Sequence[str]) -> str:
    """Verilator control file: cocotb sees the top level's ports and parameters and the named
    signals."""
    lines = [
        "`verilator_config",
        f'public_flat_rw -module "{toplevel}" -port "*"',
        f'public_flat_rw -module "{toplevel}" -param "*"',
    ]
    for name in public:
        module, _, signal = name.partition(".")
        lines.append(f'public_flat_rw -module "{module}" -var "{signal}"')
    return "\n".join(lines) + "\n"


def _runtime_dir(waves: bool, coverage: bool) -> Path:
    facts = json.dumps([metadata.version("verilator"), str(verilator_root()), waves, coverage])
    return BUILD / "sim" / "verilator-runtime" / hashlib.sha256(facts.encode()).hexdigest()[:16]


def _keep_runtime(build_dir: Path, waves: bool, coverage: bool) -> None:
    runtime = _runtime_dir(waves, coverage)
    runtime.mkdir(parents=True, exist_ok=True)
    for path in build_dir.glob("verilated*.o"):
        if not (runtime / path.name).exists():
            part = runtime / f"{path.name}.{os.getpid()}.part"
            shutil.copy2(path, part)
            part.rename(runtime / path.name)


def _drop_intermediate(build_dir: Path) -> None:
    """Objects and precompiled headers: 150 MB for the whole accelerator."""
    for pattern in ("*.gch", "*.o", "*.a"):
        for path in build_dir.glob(pattern):
            path.unlink()


def _drop_old_models(folder: Path, current: Path) -> None:
    """Delete superseded models of the same top level that nobody used for a while."""
    for other in folder.iterdir():
        # Not a whole model, or another run has just deleted it.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            age = time.time() - (other / "built.json").stat().st_mtime
            if other != current and age > KEEP_OLD_MODELS:
                shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock: two runs that need the same model build it once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def slug(
    toplevel: str, sim: str, parameters: Mapping[str, object], waves: bool, coverage: bool = False
) -> str:
    """Name of a folder for a model or a run."""
    words = [toplevel, sim, *(f"{k}={v}" for k, v in parameters.items())]
    words += ["waves"] * waves + ["coverage"] * coverage
    return re.sub(r"[^\w=.-]", "_", "-".join(words))[:150]


# ----------------------------------------------------------------------------------------- simulate


def simulate(
    model: Model,
    module: str,
    *,
    seed: int,
    env: Mapping[str, str] | None = None,
    filter: str | None = None,
    run_dir: Path | None = None,
    timeout: float = 600.0,
) -> Result:
    """Run the @cocotb.test functions of Python module `module` on a model.

    seed     for cocotb.RANDOM_SEED and Verilator's random reset values; 0 <= seed < 2^31
    env      environment variables of the simulation, beside those of
             host/simulation/environment.py;
             PYTHONPATH names further folders of modules
    filter   regular expression on test names (`module.function`)
    run_dir  where log, results and waves go; a folder under build/run by default
    timeout  seconds of wall time, then all its processes are killed
    Returns a Result; failing is a result, not an exception.
    """
    run_dir = run_dir or BUILD / "run" / slug(
        module, model.sim, model.parameters, model.waves, model.coverage
    )
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir(parents=True)
    log, results = run_dir / "sim.log", run_dir / "results.xml"
    log.touch()
    tool = Verilator() if model.sim == "verilator" else Icarus()
    tool.limit = timeout
    tool.own_env = {"COCOTB_ANSI_OUTPUT": "0", **(env or {}), "COCOTB_RANDOM_SEED": str(seed)}
    arguments = []
    if model.sim == "verilator":
        # Coverage starts from zeros: random values that reset or constants replace would count as
        # toggles.
        start_values = 0 if model.coverage else 2
        arguments.append(f"+verilator+rand+reset+{start_values}")
        arguments.append(f"+verilator+seed+{seed % (2**31 - 1) + 1}")
    if model.sim == "icarus" and model.waves:
        arguments.append(f"+dumpfile_path={run_dir / 'dump.fst'}")
    start = time.monotonic()
    error = ""
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
    waves = next((p for p in (run_dir / "dump.vcd", run_dir / "dump.fst") if p.exists()), None)
    return Result(not error, error, seconds, model.seconds, seed, log, waves, tests)


def read_results(path: Path) -> tuple[TestOutcome, ...]:
    """Test functions in a JUnit file; empty if it is missing or cut short."""
    try:
        cases = list(ET.parse(path).iter("testcase"))
    except (OSError, ET.ParseError):
        return ()
    return tuple(outcome(case) for case in cases)


def outcome(case: ET.Element) -> TestOutcome:
    """A testcase of a JUnit file."""
    name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
    status, message = "passed", ""
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            status = "skipped" if child.tag == "skipped" else "failed"
            message = child.get("message") or (child.text or "").strip() or child.tag
    return TestOutcome(name, status, float(case.get("time") or 0), message)


def _verdict(tests: Sequence[TestOutcome], error: str, log: Path) -> str:
    """Why the run failed, or an empty string."""
    complaint = _SIMULATOR_ERROR.search(log.read_text(errors="replace"))
    if complaint:
        return f"the simulator reported: {complaint.group(0).strip()}"
    failed = [t for t in tests if t.status == "failed"]
    if failed:
        return "; ".join(f"{t.name}: {t.message.splitlines()[0]}" for t in failed)
    if error:
        return error
    if not any(t.status == "passed" for t in tests):
        return "no test was executed"
    return ""


def _difference(tests: Sequence[TestOutcome], defined: Sequence[str]) -> str:
    """Which test functions were not executed although they are defined, or the other way round."""
    executed = Counter(t.name for t in tests if t.status != "skipped")
    missing, unknown = Counter(defined) - executed, executed - Counter(defined)
    differences = {"not executed": missing, "executed, but not defined": unknown}
    return "; ".join(
        f"{what}: {', '.join(sorted(names.elements()))}"
        for what, names in differences.items()
        if names
    )
