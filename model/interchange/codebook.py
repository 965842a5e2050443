"""Codebooks of four values with a zero: those that weights have already, or the best ones.

Layer by layer, what matters is how far the layer's sums move, not its weights (E. Frantar et al.,
"GPTQ", ICLR 2023). Here by coordinate descent on the second moments of the layer's inputs, as in
K. Behdin et al., "QuantEase", 2023: each weight takes the value that is best given all others; a
scale per output channel and the values are refitted by least squares in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from model.interchange import exact
from model.interchange.float_net import FloatLayer

PEAK = 127  # largest codebook entry; of fitted ones the magnitude, too
TOLERANCE = 2e-6  # by which equal levels differ after scaling in float32
QUANTILES = ((0.08, 0.30, 0.80), (0.20, 0.70, 0.92))  # starts: two negative values, two positive
LLOYD = 40  # iterations of k-means
ROUNDS = 2  # of descent and refit
SWEEPS = 3  # of descent in each
BLOCK = 64  # columns whose changes are handed on together
SUMMAND = 0.9  # the smaller of two summands over the larger, at most, to begin with
RIDGE = 1e-3  # pull towards the given weights, in mean variances of an input


@dataclass(frozen=True)
class Fit:
    """weights are about scale[:, None] * codebook[index]. scale: float64 [O], positive; codebook:
    int64 [4], the first 0; index: uint8 [O, K]. exact: up to rounding they are just that."""

    scale: np.ndarray
    codebook: np.ndarray
    index: np.ndarray
    exact: bool = False

    @property
    def weights(self) -> np.ndarray:
        """float64 [O, K]"""
        return self.scale[:, None] * self.codebook[self.index]


def keeps_sums(layer: FloatLayer, fit: Fit | None) -> bool:
    """Whether a last layer gives its sums as they are. fit: of exact weights, None for no weights
    or those that get one scale."""
    if layer.grid is not None or (layer.low, layer.high) != (-np.inf, np.inf):
        return False
    return fit is None or bool((fit.scale == fit.scale[0]).all())


def find_levels(weights: np.ndarray) -> Fit | None:
    """The codebook of weights [O, K] whose rows are positive multiples of at most three integer
    values and zero; None where they are not."""
    levels = []
    for row in weights:
        if (found := _levels(row)) is None:
            return None
        levels.append(found)
    relative = [row / np.abs(row).max(initial=0.0) for row in levels]
    for row in (np.concatenate(levels), max(levels, key=len), np.concatenate(relative)):
        values = _levels(row)
        if values is not None and (fit := _match(weights, levels, values)) is not None:
            return fit
    return None


def _levels(row: np.ndarray) -> np.ndarray | None:
    """The distinct values of a row except 0, ascending, None for more than three."""
    peak = np.abs(row).max(initial=0.0)
    values = np.unique(row)
    values = values[np.abs(values) > TOLERANCE * peak]
    fresh = np.ones(len(values), bool)
    fresh[1:] = np.diff(values) > TOLERANCE * peak
    return values[fresh] if fresh.sum() <= 3 else None


def _integer_ratios(values: np.ndarray) -> np.ndarray | None:
    """int64 [4], 0 first: the smallest integers in the ratio of the values; None if none are within
    the tolerance."""
    if not len(values):
        return np.zeros(4, np.int64)
    ratios = values / np.abs(values).max()
    for peak in range(1, PEAK + 2):
        wanted = ratios * peak
        whole = np.rint(wanted)
        if np.abs(wanted - whole).max() <= TOLERANCE * peak * 4 and whole.max() <= PEAK:
            return _codebook(whole)
    return None


def _codebook(values: np.ndarray) -> np.ndarray:
    codebook = np.zeros(4, np.int64)
    codebook[1 : len(values) + 1] = np.sort(values)
    return codebook


def _match(weights: np.ndarray, levels: list, values: np.ndarray) -> Fit | None:
    """The fit with a codebook in the ratio of the values, in their own scale where a row allows."""
    codebook = _integer_ratios(values)
    if codebook is None:
        return None
    common = float(np.abs(values).max() / np.abs(codebook).max()) if len(values) else 1.0
    found = [_row_scale(row, codebook, common) for row in levels]
    known = [v for v in found if v is not None]
    if len(known) < len(found):
        return None
    scale = np.array(known)
    index = np.abs(
        (weights / scale[:, None])[:, :, None] - codebook
    ).argmin(axis=2)  # fmt: skip
    return Fit(scale, codebook, index.astype(np.uint8), exact=True)


def _row_scale(row: np.ndarray, codebook: np.ndarray, common: float) -> float | None:
    """The scale of a row's values: `common` if it fits, None where none does."""
    if not len(row):
        return common  # without weights any will do
    largest = row[np.abs(row).argmax()]
    entries = codebook[np.argsort(-np.abs(codebook))]
    for scale in (common, *(largest / entry for entry in entries if entry * largest > 0)):
        off = np.abs(row[:, None] - scale * codebook).min(axis=1)
        if off.max() <= TOLERANCE * abs(largest) * 4:
            return float(scale)
    return None


def best_codebook(
    weights: np.ndarray,
    covariance: np.ndarray,
    crossed: np.ndarray,
    mask: np.ndarray,
    shared: bool,
    affine: bool = False,
) -> Fit:
    """The fit whose sums come nearest to the wanted ones.

    weights: float64 [O, K], in units of the inputs that `covariance` [K, K] is of; crossed: [O, K],
    of the wanted sums with those inputs; mask: bool [O, K], weights that may differ from zero;
    shared: all rows have one scale; affine: codebook[3] is the sum of codebook[1] and [2].
    """
    ridge = RIDGE * max(float(exact.total(np.diag(covariance))) / len(covariance), 1e-12)
    covariance = exact.operand(covariance + ridge * np.eye(len(covariance)), len(covariance))
    crossed = crossed + ridge * weights
    # The real weights that come nearest to the wanted sums are what the values are to resemble.
    weights = _descend(
        crossed, covariance, weights, lambda k, wanted: np.where(mask[:, k], wanted, 0.0)
    )
    squares = exact.total(np.where(mask, weights * weights, 0.0), 1)
    scale = np.sqrt(squares / np.maximum(mask.sum(axis=1), 1))
    scale = np.where(scale > 0, scale, 1.0)
    if shared:
        scale[:] = np.sqrt(exact.total(squares) / max(int(mask.sum()), 1)) or 1.0
    values = _kmeans((weights / scale[:, None])[mask], np.broadcast_to(
        np.diag(covariance), weights.shape)[mask])  # fmt: skip
    if affine:
        values = _start_of_sum(values)
    place = _nearest(weights / scale[:, None], values)
    place[~mask] = 0
    for number in range(ROUNDS + 1):
        if number == ROUNDS:  # the last round has the final integers
            scale, values = _to_integers(scale, values)
            if affine:
                values[3] = np.clip(values[1] + values[2], -PEAK, PEAK)
        assign = partial(_assign, place, scale, values, mask)
        _descend(crossed, covariance, scale[:, None] * values[place], assign)
        scale = _refit_scale(crossed, covariance, place, scale, values, shared)
        if number < ROUNDS:
            values = _refit_values(crossed, covariance, place, scale, values, affine)
    return Fit(scale, values.astype(np.int64), place.astype(np.uint8))


def _start_of_sum(values: np.ndarray) -> np.ndarray:
    """Four values like these, 0 first, of which the last is the sum of the outer two."""
    low, high = float(values.min()), float(values.max())
    outer = max(-low, high)
    if high == outer:
        low = max(low, -SUMMAND * outer)
    else:
        high = min(high, SUMMAND * outer)
    return np.array([0.0, low, high, low + high])


def _to_integers(scale: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    peak = np.abs(values).max() / PEAK
    return (scale * peak, np.rint(values / peak)) if peak else (scale, values)


def _nearest(wanted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Number of the nearest of the four values, uint8 of the shape of `wanted`."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    place = np.searchsorted((ascending[1:] + ascending[:-1]) / 2, wanted.ravel(), side="right")
    return order[place].reshape(wanted.shape).astype(np.uint8)


def _kmeans(weights: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """float64 [4], 0 first: Lloyd's iterations with one centre at zero, better of two starts."""
    order = np.argsort(weights, kind="stable")
    w, importance = weights[order], importance[order]
    mass, moment = (
        np.concatenate([[0.0], np.cumsum(v)]) for v in (importance, importance * w)
    )  # fmt: skip
    square = np.concatenate([[0.0], np.cumsum(importance * w * w)])
    least, best = np.inf, np.zeros(4)
    for start in QUANTILES:
        centres = np.append(w[(np.array(start) * (len(w) - 1)).astype(int)], 0.0)
        for _ in range(LLOYD):
            ascending = np.sort(centres)
            ends = np.searchsorted(w, (ascending[1:] + ascending[:-1]) / 2)
            bounds = np.concatenate([[0], ends, [len(w)]])
            masses, moments = np.diff(mass[bounds]), np.diff(moment[bounds])
            moved = np.where(masses > 0, moments / np.where(masses > 0, masses, 1), ascending)
            zero = int(np.flatnonzero(ascending == 0)[0])
            moved[zero] = 0.0
            error = square[-1] - float(
                sum(2 * m * t - m * m * a for m, t, a in zip(moved, moments, masses))
            )
            centres = np.append(np.delete(moved, zero), 0.0)
        if error < least:
            least, best = error, np.roll(centres, 1)
    return best


def _descend(
    crossed: np.ndarray,
    covariance: np.ndarray,
    weights: np.ndarray,
    choose: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Weights [O, K] after coordinate descent: in each sweep each column takes what `choose` gives
    for its number and the values [O] that are best given all the others."""
    weights, variance = weights.copy(), np.diag(covariance)
    for _ in range(SWEEPS):
        gradient = crossed - exact.matmul(weights, covariance)
        before = weights.copy()
        for start in range(0, len(variance), BLOCK):
            columns = slice(start, min(start + BLOCK, len(variance)))
            left = gradient[:, columns].copy()
            for i, k in enumerate(range(columns.start, columns.stop)):
                weights[:, k] = choose(k, weights[:, k] + left[:, i] / variance[k])
                left -= (weights[:, k] - before[:, k])[:, None] * covariance[k, columns]
            gradient -= exact.matmul(weights[:, columns] - before[:, columns], covariance[columns])
        if np.array_equal(weights, before):
            break
    return weights


def _assign(
    place: np.ndarray,
    scale: np.ndarray,
    values: np.ndarray,
    mask: np.ndarray,
    k: int,
    wanted: np.ndarray,
) -> np.ndarray:
    """Put the nearest of the values into column k of `place`; what it stands for."""
    place[:, k] = np.where(mask[:, k], _nearest(wanted / scale, values), 0)
    return scale * values[place[:, k]]


def _refit_scale(
    crossed: np.ndarray,
    covariance: np.ndarray,
    place: np.ndarray,
    scale: np.ndarray,
    values: np.ndarray,
    shared: bool,
) -> np.ndarray:
    quantized = values[place]
    seen = exact.matmul(quantized, covariance)
    top, bottom = exact.total(crossed * quantized, 1), exact.total(seen * quantized, 1)
    if shared:
        top, bottom = (np.full(len(scale), exact.total(part)) for part in (top, bottom))
    good = (top > 0) & (bottom > 0)
    return np.where(good, top / np.where(good, bottom, 1), scale)


def _refit_values(
    crossed: np.ndarray,
    covariance: np.ndarray,
    place: np.ndarray,
    scale: np.ndarray,
    values: np.ndarray,
    affine: bool,
) -> np.ndarray:
    """Least squares for the free values at given places and scales."""
    free = [[1, 3], [2, 3]] if affine else [[k] for k in (1, 2, 3) if (place == k).any()]
    parts = [scale[:, None] * np.isin(place, places) for places in free]
    seen = [exact.matmul(part, covariance) for part in parts]
    normal = [[float(exact.total(a * b)) for b in parts] for a in seen]
    right = [float(exact.total(a * crossed)) for a in parts]
    solution = _solve(normal, right)
    if solution is None:
        return values
    better = values.copy()
    for places, value in zip(free, solution):
        better[places] = value
    if affine:
        better[3] = better[1] + better[2]
    return better


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Solution of a small positive definite system by elimination, None where it is singular."""
    rows = [list(row) + [value] for row, value in zip(matrix, right)]
    for i, pivot in enumerate(rows):
        if pivot[i] <= 0:
            return None
        for row in rows[i + 1 :]:
            factor = row[i] / pivot[i]
            row[:] = [a - factor * b for a, b in zip(row, pivot)]
    solution = [0.0] * len(rows)
    for i in reversed(range(len(rows))):
        known = sum(rows[i][j] * solution[j] for j in range(i + 1, len(rows)))
        solution[i] = (rows[i][-1] - known) / rows[i][i]
    return solution
