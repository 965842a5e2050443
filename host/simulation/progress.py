"""A sign of life for work that takes longer than a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Heartbeat:
    """Context manager: prints `describe()` and the elapsed time every `interval` seconds until it
    is left."""

    def __init__(self, describe: Callable[[], str], interval: float = 10.0):
        self._describe, self._interval = describe, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._interval):
            print(f"  ... {time.monotonic() - self._start:4.0f} s: {self._describe()}", flush=True)
