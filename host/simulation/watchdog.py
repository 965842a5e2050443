"""Ends what a Python process leaves behind, in whatever way it ends, SIGKILL included.

host/simulation/process.py runs this file as a program and holds the only writing end of the pipe on
its standard input. `+ITEM` announces a session (its number) or a folder (its path), `-ITEM` says
that it is gone; a zero byte ends each record. At the end of the pipe the sessions that are left are
killed and the folders that are left are removed. It needs nothing but Python's standard library.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

PATIENCE = 5.0  # seconds for a process that hangs in the kernel, or for a folder that still fills
POLL = 0.02  # seconds


def kill_session(session: int) -> None:
    """Kill every process of a session, in whatever process group, and wait for their end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        members = _members(session)
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:  # it has ended
                pass
        if set(members.values()) <= {"Z", "X"} or time.monotonic() > deadline:
            return
        time.sleep(POLL)


def _members(session: int) -> dict[int, str]:
    """{process: its state} of a session."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                state, _, _, number = stat.read().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has ended
            continue
        if int(number) == session:
            found[int(name)] = state
    return found


def remove(folder: str) -> None:
    """Delete a folder with all that lies in it, also in folders without write permission."""
    deadline = time.monotonic() + PATIENCE
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder) or time.monotonic() > deadline:
            return
        for parent, names, _ in os.walk(folder):
            for path in (os.path.join(parent, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        time.sleep(POLL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left: dict[str, None] = {}
    for record in os.fsdecode(sys.stdin.buffer.read()).split("\0"):
        if record[:1] == "+":
            left[record[1:]] = None
        else:
            left.pop(record[1:], None)
    for session in filter(str.isdigit, left):
        kill_session(int(session))
    for folder in filter(os.path.isabs, left):
        remove(folder)


if __name__ == "__main__":
    main()
