"""Quantizers to compare CLIP-Q with. Activations have 8 bits with all of them.

A quantizer is a frozen dataclass with `integers(weights)`: integer-valued floats of the weights'
shape, -128..127, no gradient. If a layer has at most four values with a zero among them it also has
`quantize(weights)` -> (index, codebook), and its networks can be exported.
"""

from dataclasses import dataclass

import torch

from train.quantize import clipq
from train.quantize.clipq import looked_up, mean_in_order
from train.quantize.segments import root_mean_square

FINER = 4  # steps tried: from the coarsest that clips nothing to one eighth of it


@dataclass(frozen=True)
class FixedPoint:
    """Plain fixed point, the baseline of Cheng, Lin and Shih, IEEE TCAS-I 69(10), 2022: one step a
    layer, the power of two with the smallest sum of squared errors.

    bits: width of a weight, sign included, 2..8.
    """

    bits: int

    def __post_init__(self):
        if not 2 <= self.bits <= 8:
            raise ValueError(f"fixed point: {self.bits} bits are outside 2..8")

    def fraction_bits(self, weights: torch.Tensor) -> int:
        """Position n of the binary point: weights are multiples of 2^-n. Negative for weights above
        the largest code."""
        peak = weights.detach().abs().max()
        if peak == 0:
            return 0
        # frexp: peak = m * 2^e with 0.5 <= m < 1, so 2^(bits - 1 - e) steps hold it; m near 1
        # saturates by one step.
        coarsest = self.bits - 1 - int(torch.frexp(peak).exponent)
        return min(range(coarsest, coarsest + FINER), key=lambda n: self._error(weights, n))

    def codes(self, weights: torch.Tensor, fraction_bits: int) -> torch.Tensor:
        """Integers -2^(bits-1)..2^(bits-1)-1, halves away from zero, as floats."""
        top, scaled = 2 ** (self.bits - 1), weights.detach() * 2.0**fraction_bits
        return (scaled.sign() * (scaled.abs() + 0.5).floor()).clamp(-top, top - 1)

    def _error(self, weights, fraction_bits):
        difference = weights.detach() - self.codes(weights, fraction_bits) * 2.0**-fraction_bits
        return mean_in_order(difference.double().square())

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """Codes in place of the weights; their step is absorbed by batch norm."""
        return self.codes(weights, self.fraction_bits(weights))


@dataclass(frozen=True)
class Ternary:
    """-1, 0, 1: F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016. A weight is zero up to
    `factor` times the layer's mean magnitude; batch norm has their scale."""

    factor: float = 0.7

    def __post_init__(self):
        if self.factor < 0:
            raise ValueError(f"ternary: factor {self.factor} is negative")

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4], the last not used)."""
        w = weights.detach()
        threshold = self.factor * mean_in_order(w.abs())
        index = (w.double() < -threshold).long() + 2 * (w.double() > threshold).long()
        return index, torch.tensor((0, -1, 1, 0), device=w.device)

    integers = looked_up


@dataclass(frozen=True)
class Binary:
    """The sign of each weight; zero counts as positive. M. Rastegari et al., "XNOR-Net", ECCV 2016
    (BWN); batch norm has their scale."""

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4], first and last not used)."""
        index = torch.where(weights.detach() < 0, 1, 2)
        return index, torch.tensor((0, -1, 1, 0), device=weights.device)

    integers = looked_up


@dataclass(frozen=True)
class FixedGain:
    """CLIP-Q with a fixed-point codebook for shadow weights of any length: they are brought to the
    root mean square `rms` first.

    Without batch norm the size of the weights matters, but the optimizer (train.muon) keeps their
    direction only. setting: with its fraction_bits.
    """

    setting: clipq.Setting
    rms: float

    def segments(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, segment means float64 [4] of the weights at a root
        mean square of one)."""
        weights = weights.detach()
        index = clipq.partition(weights, self.setting)
        return index, clipq.segment_means(weights, index, 4) / root_mean_square(weights)

    def codebook(self, means: torch.Tensor) -> torch.Tensor:
        """int64 [4] in units of 2^-fraction_bits, from the means that `segments` gives."""
        return clipq.fixed_point(means * self.rms, self.setting.fraction_bits)

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4] in units of 2^-fraction_bits)."""
        index, means = self.segments(weights)
        return index, self.codebook(means)

    integers = looked_up
