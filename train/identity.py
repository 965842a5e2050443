"""The name of a run after everything that decides its result, so that the same command goes on from there and another one does not."""

import hashlib
from pathlib import Path


def digest(*settings) -> str:
    """Twelve hex digits of `settings`: of the bytes of the file where one is a Path, else of its repr."""
    parts = [hashlib.sha256(s.read_bytes()).hexdigest() if isinstance(s, Path) else s for s in settings]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
