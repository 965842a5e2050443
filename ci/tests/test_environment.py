"""No variable of the caller decides what is built and tested; no test function is left out."""

import os
import subprocess
import sys

import pytest

from ci import cases, registry, results
from host.simulation import environment, process, runner
from host.simulation.rtl_index import ROOT

# What cocotb, its runner, simulators, compilers, make, git and pytest read.
COCOTB = dict.fromkeys(
    [
        "COCOTB_TEST_FILTER",
        "COCOTB_TESTCASE",
        "COCOTB_LIST_TESTS",
        "COCOTB_TEST_MODULES",
        "COCOTB_USER_COVERAGE",
        "COCOTB_LOG_LEVEL",
        "COCOTB_RANDOM_SEED",
        "COCOTB_PLUSARGS",
        "COCOTB_SCHEDULER_DEBUG",
        "COCOTB_RESOLVE_X",
        "COCOTB_ENABLE_PROFILING",
        "COCOTB_TRUST_INERTIAL_WRITES",
        "COCOTB_TOPLEVEL",
        "COCOTB_RESULTS_FILE",
        "COCOTB_RANDOM_TEST_ORDER",
        "COCOTB_MAX_FAILURES",
        "COCOTB_PREVIEW",
        "COVERAGE",
        "RANDOM_SEED",
        "TOPLEVEL",
        "TOPLEVEL_LANG",
        "MODULE",
        "TESTCASE",
        "GPI_EXTRA",
        "GPI_USERS",
        "GPI_LOG_LEVEL",
        "PYGPI_USERS",
        "PYGPI_PYTHON_BIN",
        "LIBPYTHON_LOC",
        "GUI",
        "SIM_CMD_PREFIX",
        "SIM_CMD_SUFFIX",
        "SIM_BUILD",
    ],
    "nonsense",
)
TOOLS = dict.fromkeys(
    [
        "OBJCACHE",
        "CXX",
        "CC",
        "LINK",
        "AR",
        "CXXFLAGS",
        "CFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "LDLIBS",
        "CPATH",
        "LIBRARY_PATH",
        "GCC_EXEC_PREFIX",
        "VERILATOR_ROOT",
        "VERILATOR_BIN",
        "VERILATOR_FLAGS",
        "VM_COVERAGE",
        "VM_PARALLEL_BUILDS",
        "IVERILOG_DUMPER",
        "IVERILOG_VPI_MODULE_PATH",
        "YOSYS",
        "GIT_DIR",
        "LC_ALL",
        "PYTEST_ADDOPTS",
        "PYTEST_PLUGINS",
        "NETWORKS",
        "FAULTS",
    ],
    "nonsense",
)
# What make, perl, Python and the shell stumble over when they start: not for commands of a test.
STARTS = dict.fromkeys(
    [
        "MAKEFLAGS",
        "MAKEFILES",
        "PERL5OPT",
        "PERL5LIB",
        "LD_PRELOAD",
        "PYTHONHOME",
        "PYTHONSAFEPATH",
        "PYTHONWARNINGS",
        "PYTHONSTARTUP",
        "PYTHONPATH",
        "PYTHONINSPECT",
        "ENV",
        "BASH_ENV",
    ],
    "nonsense",
)
# Valid values that change a run.
TRUE = {"WAVES": "1", "GUI": "1", "COCOTB_LIST_TESTS": "1", "COCOTB_USER_COVERAGE": "1"}
FILTER = {"COCOTB_TEST_FILTER": "grows"}

COUNTED = """
import cocotb
from cocotb.triggers import Timer

@cocotb.test()
@cocotb.parametrize(step=[1, 2])
async def grows(dut, step):
    await Timer(step, unit="ns")

@cocotb.test()
async def stays(dut):
    await Timer(1, unit="ns")
"""
NAMES = ["counted.grows/step=1", "counted.grows/step=2", "counted.stays"]


@pytest.fixture
def counted(toy, own_build_folder):
    """The toy module with a cocotb module of three tests."""
    (toy.folder / "counted.py").write_text(COUNTED)
    return toy


@pytest.mark.parametrize("variables", [{**COCOTB, **TOOLS, **STARTS}, TRUE, FILTER])
def test_builds_and_runs_ignore_the_callers_variables(counted, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = counted.run(None, module="counted")
    assert result.passed, f"{result.error}: {result.log.read_text()}"
    assert [t.name for t in result.tests] == NAMES and result.waves is None
    failed = counted.run("test_adds_one|test_fails")
    assert not failed.passed and len(failed.tests) == 2 and "planted failure" in failed.error


def test_commands_get_what_is_listed_and_nothing_else(tmp_path, monkeypatch):
    passed = ("CIFAR_ROOT", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "HOME")
    for name in (*COCOTB, *TOOLS, *STARTS, *TRUE, *passed):
        monkeypatch.setenv(name, f"my {name}")
    with open(tmp_path / "log", "wb") as log:
        assert process.run(["env", "-0"], log, cwd=tmp_path, timeout=60, env={"KERNEL": "3"}) == 0
    lines = (tmp_path / "log").read_text().split("\0")
    found = dict(line.split("=", 1) for line in lines if line)
    assert found["LC_ALL"] == "C.UTF-8" and found["KERNEL"] == "3"
    assert all(found[name] == f"my {name}" for name in passed)
    others = {name for name in found if not name.startswith(environment.PASSED_PREFIXES)}
    made = {"PATH", "LC_ALL", "YOWASP_CACHE_DIR", "TMPDIR", "KERNEL"}
    assert others - {"PWD"} <= {*environment.PASSED, *made}  # PWD: of the shell that starts it


def test_make_sim_runs_every_function(tmp_path):
    if reason := runner.missing("icarus"):
        pytest.skip(reason)
    done = subprocess.run(
        ["make", "sim", "TEST=skid_buffer", "SIM=icarus"],
        cwd=ROOT,
        env={**os.environ, **COCOTB, **TOOLS},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("2 passed, 0 failed\n"), done.stdout + done.stderr
    assert done.stdout.count("  passed  tb.blocks.common.test_skid_buffer.") == 2 * 4
    for case in registry.load().named("skid_buffer").cases("icarus"):
        assert (cases.run_dir(case) / runner.SOURCES).read_text() == results.sources()


def test_commands_start_whatever_cocotb_reads_at_import():
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", *command, "--help"],
            cwd=ROOT,
            env={**os.environ, **COCOTB, **TOOLS},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for command in (("ci", "sim"), ("host", "run"), ("ci", "testplan"), ("ci", "mutate"))
    ]
    assert [(*c.communicate()[1:], c.returncode) for c in commands] == [("", 0)] * len(commands)


@pytest.mark.parametrize(
    "pattern, env, error",
    [
        (None, {"COCOTB_TEST_FILTER": "step=1|stays"}, f"not executed: {NAMES[1]}"),
        (None, {"COCOTB_LIST_TESTS": "1"}, "no test was executed"),
        ("stays", {"COCOTB_TEST_FILTER": "step=1|stays"}, f"executed, but not defined: {NAMES[0]}"),
        (
            "grows",
            {"COCOTB_TEST_FILTER": "stays"},
            f"not executed: {NAMES[0]}, {NAMES[1]}; executed, but not defined: {NAMES[2]}",
        ),
    ],
)
def test_function_that_is_not_executed_is_named(counted, pattern, env, error):
    result = counted.run(pattern, module="counted", env=env)
    assert not result.passed and result.error == error


def test_skipped_function_is_not_executed(counted):
    code = COUNTED.replace("@cocotb.test()\nasync", "@cocotb.test(skip=True)\nasync")
    (counted.folder / "one_skipped.py").write_text(code)
    result = counted.run(None, module="one_skipped")
    assert not result.passed and result.error == "not executed: one_skipped.stays"


def test_only_make_sim_hands_on_the_settings_of_benches(monkeypatch):
    monkeypatch.setenv("NETWORKS", "5")
    assert environment.bench_settings() == {"NETWORKS": "5"}
    assert "NETWORKS" not in environment.child()
