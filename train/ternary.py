"""Ternary weights -1, 0, 1.

F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016 (arXiv 1605.04711): a weight is zero if its
magnitude is at most
0.7 times the layer's mean magnitude, which approximates the least squared error for normal and for
uniform weights. Their scale alpha per layer is left out because the batch norm that follows divides
by it. Activations have 8 bits, and the first and the last layer are ternary as well.
"""

from dataclasses import dataclass

import torch

from train.clipq import mean_in_order

CODEBOOK = (0, -1, 1, 0)  # the fourth entry is not used


@dataclass(frozen=True)
class Ternary:
    """factor: threshold over mean magnitude."""

    factor: float = 0.7

    def __post_init__(self):
        if self.factor < 0:
            raise ValueError(f"ternary: factor {self.factor} is negative")

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4])."""
        w = weights.detach()
        threshold = self.factor * mean_in_order(w.abs())
        index = torch.where(w.double() < -threshold, 1, 0) + torch.where(
            w.double() > threshold, 2, 0
        )
        return index, torch.tensor(CODEBOOK, device=w.device)

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """-1, 0 or 1 in place of each weight, as floats of its type."""
        index, codebook = self.quantize(weights)
        return codebook.to(weights.dtype)[index]
