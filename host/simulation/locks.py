"""File locks, for what several processes may make at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from host.simulation import process

_NAP = 0.1


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a file lock: two runs that need the same folder come one after the other.

    Without `wait` raises BlockingIOError for one that somebody holds. A pool's thread stops waiting
    when its pool is to end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    raise
            process.check()
            time.sleep(_NAP)
        yield
