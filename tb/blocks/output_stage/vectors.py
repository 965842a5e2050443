"""Sums and parameters for requantization: the edges of every rounding and clamp, and random ones"""

from __future__ import annotations

import numpy as np

from model.reference.requantize import requantize

INT32 = (-(2**31), 2**31 - 1)
CLAMPS = (
    (0, 255),
    (-128, 127),
    (-128, -128),
    (127, 127),
    (0, 0),
    (255, 255),
    (-1, 0),
    (0, 1),
    (-5, 100),
)


def expected(vectors: np.ndarray, clamp: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(y modulo 256, low 32 bits of acc + bias), int64 [N] each, of vectors int64 [N, 4] = acc,
    bias, mult, shift."""
    acc, bias, mult, shift = vectors.T
    return requantize(acc, bias, mult, shift, *clamp) & 0xFF, (acc + bias) & 0xFFFFFFFF


def edges(clamp: tuple[int, int]) -> np.ndarray:
    """int64 [N, 4]: halves of both signs, powers of two, extreme sums, multipliers and shifts, and
    sums around the clamps."""
    found = set()
    for shift in range(32):
        for mult in (1, 2, 3, 32767):
            half = (1 << shift) >> 1
            for y in (
                clamp[0],
                clamp[1],
                -1,
                0,
                1,
                2,
            ):  # sums whose result is just below, at and above a rounding edge
                target = (2 * y - 1) * half if shift else y
                for offset in (-1, 0, 1):
                    found.add((target // mult + offset, 0, mult, shift))
            for bit in range(31):
                found |= {
                    (sign * (1 << bit) + offset, 0, mult, shift)
                    for sign in (-1, 1)
                    for offset in (-1, 0)
                }
            found |= {(acc, bias, mult, shift) for acc in INT32 for bias in (*INT32, 0, 1, -1)}
            found |= {(0, bias, mult, shift) for bias in INT32}
    vectors = np.array(sorted(found), np.int64)
    legal = (vectors[:, 0] >= INT32[0]) & (vectors[:, 0] <= INT32[1])
    return vectors[legal]


def random(rng: np.random.Generator, count: int) -> np.ndarray:
    """int64 [count, 4]: mostly sums whose results lie in and around the 8-bit range, the rest
    anything."""
    mult = np.where(
        rng.random(count) < 0.3, rng.choice([1, 2, 3, 32767], count), rng.integers(1, 32768, count)
    )
    shift = rng.integers(0, 32, count)
    near = rng.uniform(-300, 400, count) * 2.0**shift / mult
    far = rng.integers(*INT32, count, endpoint=True) >> rng.integers(0, 32, count)
    total = np.where(rng.random(count) < 0.7, near, far).astype(np.int64)
    bias = rng.integers(*INT32, count, endpoint=True) >> rng.integers(0, 32, count)
    acc = np.clip(np.clip(total, *INT32) - bias, *INT32)
    return np.stack([acc, bias, mult, shift], axis=1)
