"""Runs one command in its own process group, with a time limit, its output going to a log file."""
from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO, Mapping, Sequence

_running: set[subprocess.Popen] = set()
_lock = threading.Lock()


class CommandTimeout(Exception):
    """The command ran past its limit and its whole process group was killed."""


def run(command: Sequence[str], log: IO[bytes], *, cwd: Path, env: Mapping[str, str], timeout: float) -> int:
    """Run `command` with stdin closed and stdout and stderr in `log`; return its exit status (negative: signal).

    `timeout` is in seconds of wall time; past it the process group is killed and CommandTimeout raised.
    """
    process = subprocess.Popen(command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=log,
                               stderr=subprocess.STDOUT, start_new_session=True)
    with _lock:
        _running.add(process)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise CommandTimeout(f"no end after {timeout:g} s") from None
    finally:
        _kill_group(process)
        with _lock:
            _running.discard(process)


def kill_all() -> None:
    """Kill every command still running; for an interrupted regression."""
    with _lock:
        for process in _running:
            _kill_group(process)


def _kill_group(process: subprocess.Popen) -> None:
    """Kill what is left of the group, also children whose parent has ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
