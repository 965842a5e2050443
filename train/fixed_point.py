"""Plain fixed-point weights: every weight rounded to the same few bits, no codebook.

The baseline of Cheng, Lin and Shih, IEEE TCAS-I 69(10), 2022 ("bit width of plain fixed-point
weights"); trained with the straight-through gradient of M. Courbariaux, Y. Bengio, J.-P. David,
"BinaryConnect", NeurIPS 2015. A layer has one step, a power of two as in any fixed-point format:
the one whose rounding error has the smallest sum of squares. Activations are 8 bits, as with every
quantizer here.
"""

from dataclasses import dataclass

import torch

from train.clipq import mean_in_order

FINER = 4  # steps tried: from the coarsest that clips nothing to one eighth of it


def round_half_away(x: torch.Tensor) -> torch.Tensor:
    """Nearest integer, halves away from zero, as a float."""
    return x.sign() * (x.abs() + 0.5).floor()


@dataclass(frozen=True)
class FixedPoint:
    """bits: width of a weight, sign included, 2..8."""

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
        """Integers -2^(bits-1)..2^(bits-1)-1, as floats of the weights' type."""
        top = 2 ** (self.bits - 1)
        return round_half_away(weights.detach() * 2.0**fraction_bits).clamp(-top, top - 1)

    def _error(self, weights, fraction_bits):
        difference = weights.detach() - self.codes(weights, fraction_bits) * 2.0**-fraction_bits
        return mean_in_order(difference.double().square())

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """Codes in place of the weights, as floats; their step is a power of two that batch norm
        absorbs."""
        return self.codes(weights, self.fraction_bits(weights))
