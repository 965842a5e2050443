"""The name of a run after everything that decides its result, so that the same command goes on from
there and another one does not."""

import hashlib
from pathlib import Path

from model.common.files import open_input


def digest(*settings) -> str:
    """Twelve hex digits of `settings`: of the bytes of the file where one is a Path, else of its
    repr."""
    parts = [_hash(s) if isinstance(s, Path) else s for s in settings]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _hash(path):
    with open_input(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
