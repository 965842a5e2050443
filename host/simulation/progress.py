"""Progress messages of work that takes more than a few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Heartbeat:
    """Context manager: hands the elapsed time and `describe()` to `say` every `interval` seconds
    until it is left."""

    def __init__(
        self,
        describe: Callable[[], str],
        interval: float = 10.0,
        say: Callable[[str], None] = log.info,
    ):
        self._describe, self._interval, self._say = describe, interval, say
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
            self._say(f"  ... {time.monotonic() - self._start:4.0f} s: {self._describe()}")
