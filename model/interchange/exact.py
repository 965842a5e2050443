"""Sums of products in float64 that are the same on every processor.

Matrix products add in an order that differs between processors and libraries. Operands rounded to
so few bits that all sums are exact in float64 make the order irrelevant. Everything else is
elementwise or sequential, which IEEE 754 fixes.
"""

import math

import numpy as np

BITS = 53
STEP = 1 << 14  # rows at a time


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """x as multiples of one power of two, at most 2^bits of it in magnitude; float64."""
    x = np.asarray(x, np.float64)
    peak = float(np.abs(x).max(initial=0.0))
    if peak == 0:
        return x
    step = math.ldexp(1.0, math.frexp(peak)[1] - bits)
    return np.rint(x / step) * step


def operand(x: np.ndarray, products: int) -> np.ndarray:
    """x rounded to half of the bits that sums of so many products leave: 20 for 4,096."""
    return rounded(x, (BITS - max(1, products - 1).bit_length()) // 2)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of matrices; b is an `operand` already, a becomes one."""
    return operand(a, len(b)) @ b


def total(x: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Sum over axes, of x rounded to the bits that leave it exact."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis)
    count = math.prod(x.shape[a] for a in axes)
    return rounded(x, BITS - 1 - max(1, count).bit_length()).sum(axis=axis)


def sqnr(signal: np.ndarray, noise: np.ndarray) -> float:
    """dB of the signal's power over that of the noise, real numbers of any shape: infinite without
    noise, minus infinite without a signal."""
    power, lost = (float(total(np.square(x))) for x in (signal, noise))
    if not lost:
        return math.inf
    return 10 * math.log10(power / lost) if power else -math.inf


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [K], covariance [K, K]) of 8-bit integers [S, K], float64. Products in float32: 256 of
    them stay below 2^24."""
    rows = x.astype(np.float32)
    square = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        square += part.T @ part
    mean = rows.sum(axis=0, dtype=np.float64) / len(rows)
    return mean, square / len(rows) - mean[:, None] * mean


def joint_moments(
    x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(mean [K] of 8-bit integers x [S, K], mean [O] of real y [S, O], covariance [K, K] of x, [O,
    K] of y with x), float64."""
    mean, covariance = moments(x)
    middle, crossed = total(y, 0) / len(y), np.zeros((y.shape[1], x.shape[1]))
    for start in range(0, len(x), STEP):
        part = slice(start, start + STEP)
        crossed += matmul((y[part] - middle).T, operand(x[part] - mean, len(x[part])))
    return mean, middle, covariance, crossed / len(x)
