"""CLIP-Q: in-parallel pruning and quantization of convolution weights.

F. Tung, G. Mori, CVPR 2018, in the form for hardware of W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE
TCAS-I 69(10), 2022: B = 2 bits. Every forward pass starts from the full-precision shadow weights:
1. clip: the fraction P of either sign that is nearest to zero becomes zero;
2. partition: the rest is cut into segments between the clipping points and the extremes, two of
   equal width for the negative weights, one for the positive ones;
3. quantize: every weight takes the mean of its segment.
The backward pass hands the gradient to the shadow weights unchanged, so a clipped weight can come
back.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVELS = 4


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
    """clip: fraction P of either sign that becomes zero, 0 <= clip < 1. fraction_bits: None for a
    codebook whose scale is free, else its fixed-point format (5: Q3.5)."""

    clip: float
    fraction_bits: int | None = None

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        index = partition(weights, self.clip)
        means = segment_means(weights, index)
        if self.fraction_bits is None:
            return index, scaled(means)
        return index, fixed_point(means, self.fraction_bits)


@dataclass(frozen=True)
class FixedGain(Codebook):
    """CLIP-Q with a fixed-point codebook for shadow weights of any length: they are brought to the
    root mean square `rms` first. Without batch norm the size of the weights matters, but the
    optimizer (train.muon) keeps their direction only."""

    clip: float
    fraction_bits: int
    rms: float

    def segments(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(index as of `quantize`, means float64 [4] of the weights at a root mean square of
        one)."""
        index = partition(weights, self.clip)
        return index, segment_means(weights, index) / root_mean_square(weights)

    def codebook(self, means: Tensor) -> Tensor:
        """int64 [4] in units of 2^-fraction_bits, from the means that `segments` gives."""
        return fixed_point(means * self.rms, self.fraction_bits)

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        index, means = self.segments(weights)
        return index, self.codebook(means)


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
    """Mean weight of each index, float64 [4]; entry 0 and those of empty segments are 0.

    Sums run in float64 in the order of memory, so every machine gets the same to the bit.
    """
    flat, where = weights.detach().flatten().double().cpu().numpy(), index.flatten().cpu().numpy()
    sums = np.bincount(where, weights=flat, minlength=LEVELS)
    means = sums / np.maximum(np.bincount(where, minlength=LEVELS), 1)
    means[0] = 0
    return torch.from_numpy(means).to(weights.device)


def mean_in_order(values: Tensor) -> float:
    """The mean in float64, summed as in `segment_means`."""
    flat = values.detach().flatten().double().cpu().numpy()
    return float(np.bincount(np.zeros(len(flat), np.int64), weights=flat)[0] / len(flat))


def root_mean_square(weights: Tensor) -> float:
    """Of all weights; every machine gets the same number."""
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
    return torch.round(means.double() * (127 / peak)).long()
