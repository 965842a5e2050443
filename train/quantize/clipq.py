"""CLIP-Q: in-parallel pruning and quantization of convolution weights.

F. Tung and G. Mori, "CLIP-Q: Deep Network Compression Learning by In-Parallel
Pruning-Quantization", CVPR 2018, and its modification for hardware by Cheng, Lin and Shih, IEEE
TCAS-I 69(10), 2022 (B = 2 bits and P = 20 % in every layer).

Every forward pass starts from the full-precision shadow weights:
1. clip: the P % of the positive and the P % of the negative weights nearest to zero become zero;
2. partition: the rest is cut into 2^B - 1 segments, linearly between the clipping points and the
   extremes;
3. quantize: every weight takes the mean of its segment.
The backward pass hands the gradient to the shadow weights unchanged, so a clipped weight can come
back.
"""

from dataclasses import dataclass

import numpy as np
import torch


def looked_up(quantizer, weights: torch.Tensor) -> torch.Tensor:
    """A quantizer's codebook entries in place of the weights, as floats of their type."""
    index, codebook = quantizer.quantize(weights)
    return codebook.to(weights.dtype)[index]


@dataclass(frozen=True)
class Setting:
    """Pruning rate and width of one layer.

    clip: fraction of the weights that becomes zero, 0 <= clip < 1.
    bits: index width B; 2^B - 1 segments beside zero, the negative side has the odd one.
    by_sign: clip this fraction of either sign (CLIP-Q) or of all magnitudes together (the 2022
    paper's worked example).
    fraction_bits: None for a codebook whose scale is free, else its fixed-point format (5: the 2022
    paper's Q3.5).
    """

    clip: float = 0.2
    bits: int = 2
    by_sign: bool = True
    fraction_bits: int | None = None

    def __post_init__(self):
        if not 0 <= self.clip < 1:
            raise ValueError(f"CLIP-Q: clip {self.clip} is not in [0, 1)")
        if self.bits < 2:
            raise ValueError(
                f"CLIP-Q: {self.bits} bits; at least 2 are needed for zero and both signs"
            )

    @property
    def segments(self) -> tuple[int, int]:
        """(negative, positive) segments."""
        return 2 ** (self.bits - 1), 2 ** (self.bits - 1) - 1

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [2^bits], entry 0 zero)."""
        index = partition(weights, self)
        means = segment_means(weights, index, 2**self.bits)
        return index, scaled(means) if self.fraction_bits is None else fixed_point(
            means, self.fraction_bits
        )

    integers = looked_up


def _smallest(magnitudes: torch.Tensor, fraction: float) -> torch.Tensor:
    """The largest magnitude among the `fraction` smallest, 0 if there are none."""
    count = int(round(fraction * magnitudes.numel()))
    if count == 0:
        return magnitudes.new_zeros(())
    return magnitudes.kthvalue(count).values


def thresholds(weights: torch.Tensor, setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Clipping points (negative, positive) as magnitudes: -negative <= w <= positive becomes
    zero."""
    flat = weights.detach().flatten()
    if setting.by_sign:
        return _smallest(-flat[flat < 0], setting.clip), _smallest(flat[flat > 0], setting.clip)
    both = _smallest(flat.abs(), setting.clip)
    return both, both


def _inner_edges(magnitudes: torch.Tensor, segments: int) -> list[torch.Tensor]:
    """Magnitudes at which the 2nd, 3rd... segment of one sign begins: equal widths from the
    smallest to the largest."""
    if segments == 1 or magnitudes.numel() == 0:
        return []
    low, high = magnitudes.aminmax()
    return [low + (high - low) * (k / segments) for k in range(1, segments)]


def partition(weights: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Index of each weight: 0 clipped, then the negative segments from the largest magnitude on,
    then the positive ones.

    A weight on an edge between two segments belongs to the one of larger magnitude. int64 of the
    weights' shape, 0..2^B - 1.
    """
    w = weights.detach().flatten()
    negative, positive = thresholds(w, setting)
    n_neg, n_pos = setting.segments
    outer = _inner_edges(-w[w < -negative], n_neg)
    upper = _inner_edges(w[w > positive], n_pos)
    infinity = torch.full_like(positive, torch.inf)
    # `bucketize` puts a weight that equals an edge above it; where it belongs below, the edge moves
    # up by one step.
    edges = [torch.nextafter(-e, infinity) for e in reversed(outer)] + [-negative]
    edges += [torch.nextafter(positive, infinity)] + upper
    below = list(range(1, len(outer) + 1)) + [n_neg]
    above = list(range(n_neg + 1, n_neg + 2 + len(upper)))
    place = torch.bucketize(w, torch.stack(edges), right=True)
    return torch.tensor(below + [0] + above, device=w.device)[place].reshape(weights.shape)


def segment_means(weights: torch.Tensor, index: torch.Tensor, levels: int) -> torch.Tensor:
    """Mean weight of each index, float64 [levels]; entry 0 is 0 by definition, an empty segment is
    0.

    The sums run in float64 and in order of memory, so that every machine gets the same means to the
    bit.
    """
    flat, where = weights.detach().flatten().double().cpu().numpy(), index.flatten().cpu().numpy()
    sums = np.bincount(where, weights=flat, minlength=levels)
    means = sums / np.maximum(np.bincount(where, minlength=levels), 1)
    means[0] = 0
    return torch.from_numpy(means).to(weights.device)


def mean_in_order(values: torch.Tensor) -> float:
    """The mean in float64, summed in order of memory as in `segment_means`."""
    flat = values.detach().flatten().double().cpu().numpy()
    return float(np.bincount(np.zeros(len(flat), np.int64), weights=flat)[0] / len(flat))


def fixed_point(means: torch.Tensor, fraction_bits: int = 5) -> torch.Tensor:
    """Codebook in 8-bit fixed point (Q3.5 by default), as integers: int64, -128..127, halves away
    from zero."""
    scaled = means.double() * 2**fraction_bits
    return (scaled.sign() * (scaled.abs() + 0.5).floor()).clamp(-128, 127).long()


def scaled(means: torch.Tensor) -> torch.Tensor:
    """Codebook whose largest magnitude is 127: the layer's scale is free, batch norm absorbs it.
    int64, -127..127."""
    peak = means.abs().max()
    if peak == 0:
        return torch.zeros_like(means, dtype=torch.long)
    return torch.round(means.double() * (127 / peak)).long()


@torch.no_grad()
def bound(weights: torch.Tensor, sigmas: float) -> None:
    """Clamp shadow weights to +-`sigmas` standard deviations, in place.

    The partition is linear between the extremes: a single outlier would leave the outer segment all
    but empty.
    """
    limit = sigmas * weights.square().mean().sqrt()
    weights.clamp_(-limit, limit)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, quantized):
        return quantized

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def fake_quantize(weights: torch.Tensor, setting) -> torch.Tensor:
    """`setting.integers` with the straight-through gradient to the shadow `weights`, clipped ones
    included.

    setting: a Setting or another quantizer with `integers(weights)`.
    """
    return _StraightThrough.apply(weights, setting.integers(weights))
