"""Weight quantizers: CLIP-Q, its form with boundaries chosen beforehand, and what it is compared
with. Each makes integers of a layer's full-precision shadow weights in every forward pass; batch
norm has the scale. The gradient goes to the shadow weights unchanged, so a clipped one can come
back. Sums run in float64 in the order of memory: every machine gets the same to the bit.
"""

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from model.interchange.codebook import PEAK

LEVELS = 4
ROUNDINGS = 8  # tries, as a boundary follows the weights
FINER = 4  # steps of fixed point tried: from the coarsest that clips nothing to one eighth of it


class Codebook:
    """A quantizer of at most four values, zero among them."""

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4], -128..127, entry 0 zero)."""
        raise NotImplementedError

    def integers(self, weights: Tensor) -> Tensor:
        """Codebook entries in place of the weights, as floats of their type, without gradient."""
        index, codebook = self.quantize(weights)
        return codebook.to(weights.dtype)[index]


@dataclass(frozen=True)
class ClipQ(Codebook):
    """F. Tung, G. Mori, CVPR 2018, in the form for hardware of W. Cheng, I.-C. Lin, Y.-Y. Shih,
    IEEE TCAS-I 69(10), 2022, with B = 2 bits: the fraction `clip` of either sign that is nearest to
    zero becomes zero, the rest is cut into segments of equal width, two of the negative weights and
    one of the positive ones, and every weight takes the mean of its segment.

    fraction_bits: None for a codebook whose scale is free, else its fixed-point format (5: Q3.5).
    Without batch norm the size of the weights matters, but the optimizer (train.muon) keeps their
    direction only: they are brought to the root mean square `rms` first.
    """

    clip: Annotated[float, Field(ge=0, lt=1)]
    fraction_bits: Annotated[int, Field(ge=1, le=7)] | None = None
    rms: Annotated[float, Field(gt=1e-30, lt=1e30)] = 1.0

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        index = partition(weights, self.clip)
        means = segment_means(weights, index)
        if self.fraction_bits is None:
            return index, scaled(means)
        return index, fixed_point(means / root_mean_square(weights) * self.rms, self.fraction_bits)


@dataclass(frozen=True)
class Segments(Codebook):
    """CLIP-Q whose clipping and partition were chosen beforehand. Where indices were chosen to make
    up for each other's errors, a partition that follows the weights would undo the choice.

    edges: three ascending boundaries, in root mean squares of the layer. zero: which of the four
    segments is zero, 0..3 from below. affine: the middle of the other three values is the sum of
    the two outer ones and has the last index, so that w3 = w1 + w2.
    """

    edges: tuple[float, float, float]
    zero: Annotated[int, Field(ge=0, lt=LEVELS)]
    affine: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.edges[0] < self.edges[1] < self.edges[2] < math.inf:
            raise ValueError(f"edges must ascend, not {self.edges}")

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        low, middle, high = (k for k in range(LEVELS) if k != self.zero)
        order = [self.zero, low, *((high, middle) if self.affine else (middle, high))]
        edges = torch.tensor(self.edges, dtype=torch.float64, device=weights.device)
        edges *= root_mean_square(weights)
        place = torch.bucketize(weights.detach().double(), edges, right=True)
        index = torch.tensor(order, device=weights.device).argsort()[place]
        means = segment_means(weights, index)
        if not self.affine:
            return index, scaled(means)
        return index, affine_codebook(means, torch.bincount(index.flatten(), minlength=LEVELS))


@dataclass(frozen=True)
class Signs(Codebook):
    """-1, 0, 1 with zero below `factor` times the layer's mean magnitude, 0.7 as in F. Li, B.
    Zhang, B. Liu, "Ternary Weight Networks", 2016. 0: -1, 1 (M. Rastegari et al., ECCV 2016)."""

    factor: Annotated[float, Field(ge=0, le=10)]

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        w = weights.detach().double()
        threshold = self.factor * mean_in_order(w.abs())
        index = (w <= -threshold).long()
        index[w >= threshold] = 2
        return index, torch.tensor((0, -1, 1, 0), device=w.device)


@dataclass(frozen=True)
class FixedPoint:
    """Plain fixed point, the baseline of Cheng, Lin and Shih, 2022: one step a layer, the power of
    two with the smallest sum of squared errors. bits: of a weight, sign included."""

    bits: Annotated[int, Field(ge=2, le=8)]

    def integers(self, weights: Tensor) -> Tensor:
        """Integers -2^(bits-1)..2^(bits-1)-1, halves away from zero, as floats: the weights are
        multiples of 2^-n, n negative for weights above the largest integer."""
        w, top = weights.detach(), 2 ** (self.bits - 1)
        # frexp: the peak is m * 2^e with 0.5 <= m < 1, so 2^(bits - 1 - e) steps hold it; m near 1
        # saturates by one step.
        coarsest = self.bits - 1 - int(torch.frexp(w.abs().max()).exponent)

        def rounded(n: int) -> Tensor:
            return half_away(w * 2.0**n).clamp(-top, top - 1)

        def error(n: int) -> float:
            return mean_in_order((w - rounded(n) * 2.0**-n).double().square())

        return rounded(min(range(coarsest, coarsest + FINER), key=error))


Quantizer = ClipQ | Segments | Signs | FixedPoint


def _smallest(magnitudes: Tensor, fraction: float) -> Tensor:
    """The largest magnitude among the `fraction` smallest, 0 if there are none."""
    count = int(round(fraction * magnitudes.numel()))
    return magnitudes.kthvalue(count).values if count else magnitudes.new_zeros(())


def partition(weights: Tensor, clip: float) -> Tensor:
    """Index of each weight, int64 of the weights' shape: 0 clipped, 1 and 2 the outer and the
    inner negative segment, 3 the positive one. A weight between 1 and 2 belongs to 1."""
    w = weights.detach()
    negative, positive = _smallest(-w[w < 0], clip), _smallest(w[w > 0], clip)
    index = torch.zeros(w.shape, dtype=torch.long, device=w.device)
    index[w > positive] = 3
    kept = w < -negative
    if kept.any():
        low, high = (-w[kept]).aminmax()
        index[kept] = 2
        index[w <= -(low + (high - low) * 0.5)] = 1
    return index


def segment_means(weights: Tensor, index: Tensor) -> Tensor:
    """Mean weight of each index, float64 [4]; entry 0 and those of empty segments are 0."""
    flat, where = weights.detach().flatten().double().cpu().numpy(), index.flatten().cpu().numpy()
    sums = np.bincount(where, weights=flat, minlength=LEVELS)
    means = sums / np.maximum(np.bincount(where, minlength=LEVELS), 1)
    means[0] = 0
    return torch.from_numpy(means).to(weights.device)


def mean_in_order(values: Tensor) -> float:
    """The mean, summed as in `segment_means`."""
    return float(segment_means(values, torch.ones(values.shape, dtype=torch.long))[1])


def root_mean_square(weights: Tensor) -> float:
    """Of all weights."""
    return math.sqrt(mean_in_order(weights.detach().double().square()))


def half_away(values: Tensor) -> Tensor:
    """Rounded, halves away from zero."""
    return values.sign() * (values.abs() + 0.5).floor()


def fixed_point(means: Tensor, fraction_bits: int) -> Tensor:
    """Codebook in 8-bit fixed point, as integers: int64, -128..127."""
    return half_away(means.double() * 2**fraction_bits).clamp(-128, 127).long()


def scaled(means: Tensor) -> Tensor:
    """Codebook whose largest magnitude is 127: the layer's scale is free, batch norm absorbs it.
    int64, -127..127."""
    peak = means.abs().max()
    if peak == 0:
        return torch.zeros_like(means, dtype=torch.long)
    return torch.round(means.double() * (PEAK / peak)).long()


def affine_codebook(means: Tensor, counts: Tensor) -> Tensor:
    """Codebook int64 [4] (0, a, b, a + b) of least squares for segment means, float64 [4], of so
    many weights each, int64 [4]; the largest magnitude is 127."""
    (_, n1, n2, n3), (_, m1, m2, m3) = counts.tolist(), means.tolist()
    excess = (m1 + m2 - m3) / max(1, n1 * n2 + n1 * n3 + n2 * n3)
    a, b = m1 - excess * n2 * n3, m2 - excess * n1 * n3
    codebook = scaled(torch.tensor([0, a, b, a + b], dtype=torch.float64, device=means.device))
    codebook[3] = (codebook[1] + codebook[2]).clamp(-PEAK, PEAK)
    return codebook


def halves(weights: Tensor) -> Tensor:
    """Float16 weights whose largest magnitude is 1: the smallest normal float16 is 6e-5."""
    peak = weights.abs().max()
    return (weights / torch.where(peak > 0, peak, 1.0)).half()


def halves_of_index(weights: Tensor, quantizer: "Quantizer") -> Tensor:
    """Float16 weights, as `halves`, with the indices that the float32 weights have. Fine-tuning
    leaves many weights near a boundary. Where the nearest half is on the other side of it, the next
    one on the weight's side is taken. A boundary moves a little with the weights, so that a few
    indices may still change (more with ClipQ): of ROUNDINGS tries the one with the fewest counts.
    """
    best = halves(weights)
    if not isinstance(quantizer, Codebook):
        return best
    wanted, exact = quantizer.quantize(weights)[0], weights / weights.abs().max()
    away = torch.where(exact > best, torch.inf, -torch.inf).numpy(force=True).astype(np.float16)
    found, least = best, math.inf
    for _ in range(ROUNDINGS):
        wrong = quantizer.quantize(found.float())[0] != wanted
        count = int(wrong.sum())
        if count < least:
            best, least = found, count
        if not count:
            break
        moved = torch.from_numpy(np.nextafter(found.numpy(force=True), away)).to(found.device)
        found = torch.where(wrong & (exact.abs() < 1), moved, found)
    return best
