"""Binary weights -1 and 1.

M. Rastegari, V. Ordonez, J. Redmon, A. Farhadi, "XNOR-Net", ECCV 2016, its Binary-Weight-Network:
the sign of each weight times the mean magnitude of its filter. That factor per output channel is
left out because the batch norm that follows divides by it. Unlike there, the first and the last
layer are binary as well and activations have 8 bits.
"""

from dataclasses import dataclass

import torch

CODEBOOK = (0, -1, 1, 0)  # the first and the fourth entry are not used


@dataclass(frozen=True)
class Binary:
    """Sign of each weight; zero counts as positive."""

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4])."""
        index = torch.where(weights.detach() < 0, 1, 2)
        return index, torch.tensor(CODEBOOK, device=weights.device)

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """-1 or 1 in place of each weight, as floats of its type."""
        index, codebook = self.quantize(weights)
        return codebook.to(weights.dtype)[index]
