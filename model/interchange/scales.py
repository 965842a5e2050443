"""Multipliers and shifts of the network file that come nearest to real factors."""

import numpy as np

from model.common.errors import UserError
from model.network.contract import MAX_MULT, MAX_SHIFT


class ScaleError(UserError, ValueError):
    """A factor that no multiplier and shift express; the message names the channel."""


def multiplier(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mult, shift) int64 [O] with mult / 2^shift nearest to each factor, float64 [O], and mult as
    large as it may be. Raises ScaleError for factors that are not positive or too large."""
    good = (factor > 0) & (factor <= MAX_MULT)
    if not good.all():
        channel = int(np.argmin(good))
        raise ScaleError(
            f"channel {channel}: an output would be {factor[channel]:.3g} steps for a step of the "
            f"sum, which must be positive and at most {MAX_MULT}"
        )
    shift = np.minimum(15 - np.frexp(factor)[1].astype(np.int64), MAX_SHIFT)
    shift -= (np.rint(np.ldexp(factor, shift)) > MAX_MULT) & (shift > 0)
    return np.rint(np.ldexp(factor, shift)).clip(1, MAX_MULT).astype(np.int64), shift


def multipliers(factors: tuple[float, float]) -> tuple[tuple[int, int], int]:
    """((mult of either input), shift) of an addition. Raises ScaleError."""
    shift = int(multiplier(np.array([max(factors)]))[1][0])
    first, second = (max(1, int(np.rint(np.ldexp(factor, shift)))) for factor in factors)
    return (first, second), shift
