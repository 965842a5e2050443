"""Runs commands so that no process or folder of theirs remains, however they or this process end.

A command gets a session of its own and the environment of host/simulation/environment.py, with a
folder of its own for temporary files. At its end every process of the session is killed and the
folder removed. If this process ends before, host/simulation/watchdog.py does it.
"""

from __future__ import annotations

import atexit
import concurrent.futures as futures
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from host.simulation import environment, watchdog

# The command waits until the watchdog knows of it, and does not run if this process ends before.
_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
_LONGEST_NAP = 0.05  # seconds between two looks at a command that runs


class CommandTimeout(Exception):
    """The command ran past its limit and all its processes were killed."""


class Stopped(BaseException):
    """The command was not run to its end: the pool of its thread ends with an exception."""


class _Watchdog:
    """Announces sessions and folders to host/simulation/watchdog.py, which is started with the
    first one."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._left: set[str] = set()
        self._pipe: IO[bytes] | None = None
        self._program: subprocess.Popen | None = None

    def begin(self, item: int | Path) -> None:
        """From now on `item`, a session or a folder, does not outlive this process."""
        with self._lock:
            self._left.add(str(item))
            self._write("+", str(item))

    def end(self, item: int | Path) -> None:
        """`item` is gone."""
        with self._lock:
            self._left.discard(str(item))
            self._write("-", str(item))

    def close(self) -> None:
        """Let the watchdog end."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a forked process: what the parent has announced is the parent's."""
        if self._pipe and self._program:
            self._pipe.close()
            self._program.returncode = 0  # not this process's child
        self._clear()

    def _write(self, sign: str, item: str) -> None:
        try:
            if self._pipe:
                self._pipe.write(os.fsencode(f"{sign}{item}\0"))
                return
        except BrokenPipeError:  # somebody has killed it
            self._stop()
        pipe = self._start()
        for item in self._left:
            pipe.write(os.fsencode(f"+{item}\0"))

    def _stop(self) -> None:
        if self._pipe and self._program:
            self._pipe.close()
            self._program.wait()
            self._pipe = self._program = None

    def _start(self) -> IO[bytes]:
        command = [sys.executable, "-I", "-S", str(Path(watchdog.__file__).resolve())]
        self._program = subprocess.Popen(
            command,
            bufsize=0,
            cwd="/",
            env=environment.child(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pipe = self._program.stdin
        assert self._pipe, "stdin=PIPE makes one"
        return self._pipe


class _Pool:
    """The sessions of a pool's threads, and whether they are to end."""

    def __init__(self) -> None:
        self.sessions: set[int] = set()
        self.stopping = False

    def check(self) -> None:
        """Raises Stopped in a pool that is to end."""
        if self.stopping:
            raise Stopped

    def stop(self) -> None:
        """Kill every command that runs; none begins any more."""
        self.stopping = True
        for session in list(self.sessions):
            watchdog.kill_session(session)


class _Thread(threading.local):
    pool = _Pool()  # of the threads outside of pools, which nobody stops


_watchdog = _Watchdog()
_thread = _Thread()
atexit.register(_watchdog.close)
os.register_at_fork(after_in_child=_watchdog.forget)


@contextlib.contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder clipq-*, removed at the end of the block.

    It lies below `parent`, by default where temporary files lie.
    """
    path = Path(parent or tempfile.gettempdir()).absolute() / f"clipq-{secrets.token_hex(8)}"
    _watchdog.begin(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        yield path
    finally:
        watchdog.remove(str(path))
        _watchdog.end(path)


@contextlib.contextmanager
def started(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen]:
    """Start `command`; at the end of the block every process of its session is killed.

    env     variables beside those of host/simulation/environment.py
    output  where stdout and stderr go
    Raises FileNotFoundError if there is no such program.
    """
    pool = _thread.pool
    with folder() as temporary:
        env = environment.child({**(env or {}), "TMPDIR": str(temporary)})
        if not shutil.which(command[0], path=env["PATH"]):
            raise FileNotFoundError(2, "no such program", command[0])
        reader, writer = os.pipe()
        with open(reader, "rb") as closed, open(writer, "wb", buffering=0) as gate:
            process = subprocess.Popen(
                [*_GATE, *command],
                cwd=cwd,
                env=env,
                stdin=closed,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                _watchdog.begin(process.pid)
                pool.sessions.add(process.pid)
                pool.check()
                gate.write(b"\n")
                yield process
            finally:
                watchdog.kill_session(process.pid)
                pool.sessions.discard(process.pid)
                _watchdog.end(process.pid)
                process.wait()


def run(
    command: Sequence[str],
    log: IO[bytes],
    *,
    cwd: Path,
    timeout: float,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run `command` with nothing on stdin, and stdout and stderr in `log`; return its exit status.

    A negative status is the number of the signal that ended it. `timeout` is in seconds of wall
    time; past it the command is killed and CommandTimeout raised. For `env` and a missing program
    see `started`.
    """
    with started(command, cwd=cwd, env=env, output=log) as process:
        _wait(process.pid, timeout)
    check()
    return process.returncode


def _wait(pid: int, timeout: float) -> None:
    """Wait for a child, but do not reap it: its number stays taken until its session has ended."""
    nap, deadline = 0.0005, time.monotonic() + timeout
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > deadline:
            raise CommandTimeout(f"no end after {timeout:g} s")
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)


def check() -> None:
    """Raises Stopped in a thread of a pool that is to end."""
    _thread.pool.check()


@contextlib.contextmanager
def pool(jobs: int) -> Iterator[futures.ThreadPoolExecutor]:
    """Threads that run commands.

    An exception in the block, an interrupt for example, kills them and drops what has not begun.
    """
    own = _Pool()
    with futures.ThreadPoolExecutor(jobs, "", setattr, (_thread, "pool", own)) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            own.stop()
            raise
