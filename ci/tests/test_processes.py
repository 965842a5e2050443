"""In whatever way a command of the project ends, no process and no folder of it is left."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from host import rtl_backend
from host.simulation import process, runner
from host.simulation.locks import locked
from host.simulation.rtl_index import ROOT
from model.compiler.hardware import Hardware
from model.network import save_network
from model.network.random_networks import random_input, random_network

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
PATIENCE = 20  # seconds from the signal to the end of everything; less than CHILD sleeps

# Stands in for a simulator: two children, one of them in a process group of its own.
CHILD = f"""
{sys.executable} -c 'import os, time; os.setpgid(0, 0); time.sleep(60)' &
sleep 60 &
wait
"""
PARENT = """
import sys, tempfile
from pathlib import Path
from host.simulation import process

def run(*command):
    with process.folder(), tempfile.TemporaryFile() as log:
        process.run(command, log, cwd=Path.cwd(), timeout=60, env={"PYTHONPATH": str(Path.cwd())})
"""
PYTHON = [sys.executable, "-c"]
SIMPLE = [*PYTHON, f"{PARENT}\nrun('sh', '-c', sys.argv[1])", CHILD]


class Family:
    """A command with all that it starts: TMPDIR of each is the command's or lies below it."""

    def __init__(self, temporary, parent):
        self.temporary, self.parent = temporary, parent

    def members(self):
        """{process: its environment as text}, without those that have ended."""
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as handle:
                text = os.fsdecode(handle.read())
                if str(self.temporary) in text:
                    found[int(name)] = text
        return found

    def wait_for(self, *words):
        """The environment of the first process whose command line holds all `words`."""
        for _ in range(3000):
            for pid, text in self.members().items():
                with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as handle:
                    line = os.fsdecode(handle.read())
                    if all(word in line for word in words) and CHILD not in line:
                        return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
            assert self.parent.poll() is None, "the command has ended by itself"
            time.sleep(0.1)
        raise AssertionError(f"no process with {words}")

    def check_end(self, folder=None):
        """Nothing is left within seconds."""
        deadline = time.monotonic() + PATIENCE
        while self.members() or os.listdir(self.temporary) or (folder and folder.exists()):
            assert time.monotonic() < deadline, (self.members(), os.listdir(self.temporary), folder)
            time.sleep(0.05)


@contextlib.contextmanager
def family(tmp_path, *command):
    """Start a command in a session, process group and folder of temporary files of its own.

    It heeds all signals, even if this process was started to ignore some (nohup, a background job).
    """
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with process.started(
        ["env", "--default-signal", f"TMPDIR={temporary}", *command], cwd=ROOT
    ) as parent:
        yield Family(temporary, parent)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_to_python_ends_all(tmp_path, number):
    with family(tmp_path, *SIMPLE) as found:
        found.wait_for("sleep", "60")
        found.wait_for("setpgid")
        assert len(os.listdir(found.temporary)) == 2
        os.kill(found.parent.pid, number)
        found.check_end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_timeout_ends_all(tmp_path, number):
    """Its alarm rings as soon as the command is up, however long that takes on a busy machine."""
    with family(tmp_path, "timeout", "-s", str(number.value), "600", *SIMPLE) as found:
        found.wait_for("sleep", "60")
        os.kill(found.parent.pid, signal.SIGALRM)
        found.parent.wait(30)
        found.check_end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_command_that_itself_runs_commands_leaves_nothing(tmp_path, number):
    """As a regression runs a test suite that runs simulators."""
    with family(tmp_path, *PYTHON, f"{PARENT}\nrun(*sys.argv[1:])", *SIMPLE) as found:
        found.wait_for("sleep", "60")
        os.kill(found.parent.pid, number)
        found.check_end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_a_regression_ends_pytest_and_what_it_runs(tmp_path, number):
    test = f"{PARENT}\ndef test_it():\n    run('sh', '-c', {CHILD!r})"
    (tmp_path / "test_long.py").write_text(test)
    code = """
import sys
from ci import results
results.run_pytest([sys.argv[1], "-n2"], {})
"""
    with family(tmp_path, *PYTHON, code, str(tmp_path / "test_long.py")) as found:
        found.wait_for("sleep", "60")
        os.kill(found.parent.pid, number)
        found.check_end()


def test_killed_before_the_watchdog_knows_the_child(tmp_path):
    code = f"""{PARENT}
import os, signal
begin = process._watchdog.begin

def die(item):
    if isinstance(item, int):
        os.kill(os.getpid(), signal.SIGKILL)
    begin(item)

process._watchdog.begin = die
run("touch", sys.argv[1])
"""
    with family(tmp_path, *PYTHON, code, str(tmp_path / "ran")) as found:
        found.parent.wait(30)
        found.check_end()
    assert not (tmp_path / "ran").exists()


def test_watchdog_that_is_killed_is_replaced(tmp_path):
    code = f"""{PARENT}
run("true")
process._watchdog._program.kill()
process._watchdog._program.wait()
run("sh", "-c", sys.argv[1])
"""
    with family(tmp_path, *PYTHON, code, CHILD) as found:
        found.wait_for("sleep", "60")
        found.parent.kill()
        found.check_end()


def test_exception_in_a_pool_stops_its_commands(tmp_path):
    """And none of another pool."""
    codes, start, go = [], time.monotonic(), tmp_path / "go"

    def work(*command):
        with tempfile.TemporaryFile() as log:
            codes.append(process.run(command, log, cwd=tmp_path, timeout=60))

    def sessions():
        return [item for item in list(process._watchdog._left) if item.isdigit()]

    with process.pool(1) as other:
        kept = other.submit(work, "sh", "-c", "until test -e go; do sleep 0.01; done")
        with pytest.raises(KeyboardInterrupt), process.pool(2) as pool:
            jobs = [pool.submit(work, "sleep", "60") for _ in range(4)]
            while len(sessions()) < 3:
                time.sleep(0.01)
            raise KeyboardInterrupt
        assert time.monotonic() - start < PATIENCE and not codes and len(sessions()) == 1
        assert all(job.cancelled() or isinstance(job.exception(), process.Stopped) for job in jobs)
        go.touch()
        kept.result()
        other.submit(work, "true").result()
    assert codes == [0, 0] and not sessions()


def test_a_pool_that_ends_waits_for_no_lock(tmp_path):
    def wait():
        began.set()
        with locked(tmp_path / "lock"):
            pass

    began = threading.Event()
    with locked(tmp_path / "lock"):
        with pytest.raises(KeyboardInterrupt), process.pool(1) as pool:
            job = pool.submit(wait)
            began.wait()
            raise KeyboardInterrupt
        assert isinstance(job.exception(), process.Stopped)


def test_forked_process_announces_for_itself(tmp_path):
    """Its commands end without those of its parent, and it does not hide the parent's end."""
    code = f"""{PARENT}
import os, threading, time
threading.Thread(target=run, args=("sh", "-c", sys.argv[1])).start()
while not any(map(str.isdigit, list(process._watchdog._left))):
    time.sleep(0.01)
if not os.fork():
    run("touch", sys.argv[2])
time.sleep(60)
"""
    with family(tmp_path, *PYTHON, code, CHILD, str(tmp_path / "ran")) as found:
        found.wait_for("sleep", "60")
        while not (tmp_path / "ran").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        assert found.wait_for("sleep", "60")
        found.parent.kill()
        deadline = time.monotonic() + PATIENCE
        while len(found.members()) > 2:  # the forked process and its watchdog
            assert time.monotonic() < deadline, found.members()
            time.sleep(0.05)


def test_missing_program_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="nonsense-program"),
        process.started(["nonsense-program"], cwd=tmp_path),
    ):
        pass


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Variables of `make run` for a small network and so many images that they take minutes."""
    if reason := runner.missing("verilator"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(5)
    net = random_network(
        rng,
        stride=(1,),
        ops=("conv",),
        sizes=((6, 5),),
        channels=(3, 5),
        kernels=(1, 2, 3),
        max_layers=3,
        max_macs=20_000,
    )
    rtl_backend.build_harness(Hardware())
    save_network(net, folder / "net.clipq.npz")
    np.save(folder / "images.npy", np.repeat(random_input(rng, net, 1), 20_000, axis=0))
    files = {"NET": "net.clipq.npz", "IMAGES": "images.npy", "OUT": "out.npz"}
    return [f"{variable}={folder / name}" for variable, name in files.items()]


@pytest.mark.parametrize(
    "number, send", [*((number, os.killpg) for number in SIGNALS), (signal.SIGTERM, os.kill)]
)
def test_signal_to_make_run_ends_the_simulator(job, tmp_path, number, send):
    """To the process group, as a terminal and `timeout` send it, and to make alone, which hands
    SIGTERM on."""
    with family(tmp_path, "make", "run", *job, "BACKEND=rtl") as found:
        variables = found.wait_for("accel_harness", "+verilator+seed")
        folder = runner.BUILD / "run" / os.path.basename(os.path.dirname(variables["CLIPQ_JOB"]))
        while "@image 2 " not in (folder / "run" / "sim.log").read_text():
            time.sleep(0.05)
        send(found.parent.pid, number)
        found.check_end(folder)
