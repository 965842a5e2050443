"""Quantizers to compare CLIP-Q with. Activations have 8 bits with all of them, and batch norm has
the scale of a layer's weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.quantize.clipq import Codebook, half_away, mean_in_order

FINER = 4  # steps tried: from the coarsest that clips nothing to one eighth of it
TERNARY_FACTOR = 0.7


@dataclass(frozen=True)
class FixedPoint:
    """Plain fixed point, the baseline of Cheng, Lin and Shih, 2022: one step a layer, the power of
    two with the smallest sum of squared errors. bits: of a weight, sign included, 2..8."""

    bits: int

    def fraction_bits(self, weights: Tensor) -> int:
        """Position n of the binary point: weights are multiples of 2^-n. Negative for weights above
        the largest code."""
        peak = weights.detach().abs().max()
        if peak == 0:
            return 0
        # frexp: peak = m * 2^e with 0.5 <= m < 1, so 2^(bits - 1 - e) steps hold it; m near 1
        # saturates by one step.
        coarsest = self.bits - 1 - int(torch.frexp(peak).exponent)
        return min(range(coarsest, coarsest + FINER), key=lambda n: self._error(weights, n))

    def codes(self, weights: Tensor, fraction_bits: int) -> Tensor:
        """Integers -2^(bits-1)..2^(bits-1)-1, halves away from zero, as floats."""
        top = 2 ** (self.bits - 1)
        return half_away(weights.detach() * 2.0**fraction_bits).clamp(-top, top - 1)

    def _error(self, weights: Tensor, fraction_bits: int) -> float:
        difference = weights.detach() - self.codes(weights, fraction_bits) * 2.0**-fraction_bits
        return mean_in_order(difference.double().square())

    def integers(self, weights: Tensor) -> Tensor:
        """Codes in place of the weights."""
        return self.codes(weights, self.fraction_bits(weights))


@dataclass(frozen=True)
class Ternary(Codebook):
    """-1, 0, 1: F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016. A weight is zero up to
    0.7 times the layer's mean magnitude."""

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        w = weights.detach()
        threshold = TERNARY_FACTOR * mean_in_order(w.abs())
        index = (w.double() < -threshold).long() + 2 * (w.double() > threshold).long()
        return index, torch.tensor((0, -1, 1, 0), device=w.device)


@dataclass(frozen=True)
class Binary(Codebook):
    """The sign of each weight, of zero positive: M. Rastegari et al., ECCV 2016 (BWN)."""

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.where(weights.detach() < 0, 1, 2)
        return index, torch.tensor((0, -1, 1, 0), device=weights.device)
