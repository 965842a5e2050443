"""Random stall patterns for valid and ready signals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PATTERNS = ("none", "light", "heavy", "bursts")


def stalls(rng: np.random.Generator, pattern: str) -> Iterator[bool]:
    """Endless stream of "stall in this cycle?".

    none: never; light: 1 cycle in 10; heavy: 2 in 3; bursts: runs of 1..40 cycles of either kind.
    Raises ValueError for another name. Also fits cocotbext-axi's `set_pause_generator`.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"unknown stall pattern {pattern!r} (there are: {', '.join(PATTERNS)})")
    if pattern == "bursts":
        return _bursts(rng)
    return _coin(rng, {"none": 0.0, "light": 0.1, "heavy": 2 / 3}[pattern])


def random_pattern(rng: np.random.Generator) -> str:
    """One of PATTERNS."""
    return PATTERNS[rng.integers(len(PATTERNS))]


def _coin(rng: np.random.Generator, probability: float) -> Iterator[bool]:
    while True:
        yield bool(rng.random() < probability)


def _bursts(rng: np.random.Generator) -> Iterator[bool]:
    while True:
        for stalled in (False, True):
            for _ in range(rng.integers(1, 41)):
                yield stalled
