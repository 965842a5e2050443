"""Codebook of segment means between fixed boundaries: CLIP-Q whose clipping and partition were
chosen beforehand, by `train.reconstruct`.

CLIP-Q (`train.clipq`) derives clipping points and partition from the weights in every forward pass,
so a weight's index depends on all the others. Where the indices were chosen one by one to make up
for each other's errors, that would undo the choice; here the boundaries stay where they are, in
units of the layer's root mean square, and only the means follow the weights.
"""

import math
from dataclasses import dataclass, replace

import torch

from train import clipq

LEVELS = 4


@dataclass(frozen=True)
class Segments:
    """edges: three ascending boundaries, in root mean squares of the layer. zero: which of the four
    segments is zero, 0..3 from below."""

    edges: tuple[float, float, float]
    zero: int

    def __post_init__(self):
        if len(self.edges) != LEVELS - 1 or not all(
            a < b for a, b in zip(self.edges, self.edges[1:])
        ):
            raise ValueError(
                f"segments: the boundaries {self.edges} are not {LEVELS - 1} ascending numbers"
            )
        if not 0 <= self.zero < LEVELS:
            raise ValueError(f"segments: no segment {self.zero} that could be zero")

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4] with entry 0 zero and the others
        ascending)."""
        edges = torch.tensor(
            self.edges, dtype=torch.float64, device=weights.device
        ) * root_mean_square(weights)
        place = torch.bucketize(weights.detach().double(), edges, right=True)
        order = [self.zero] + [k for k in range(LEVELS) if k != self.zero]
        index = torch.tensor([order.index(k) for k in range(LEVELS)], device=weights.device)[place]
        return index, clipq.scaled(clipq.segment_means(weights, index, LEVELS))

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """Codebook entries in place of the weights, as floats of their type."""
        index, codebook = self.quantize(weights)
        return codebook.to(weights.dtype)[index]

    def with_zeros(self, weights: torch.Tensor, share: float) -> "Segments":
        """The same with at least this share, 0..1, of zeros among `weights`: both boundaries of the
        zero segment move out by one factor.

        Raises ValueError if 0 is not inside that segment, or if it would swallow the next one.
        """
        ends = (-math.inf, *self.edges, math.inf)
        low, high = ends[self.zero : self.zero + 2]
        if not low < 0 < high:
            raise ValueError(f"segments: the zero segment {low}..{high} does not contain 0")
        place = weights.detach().flatten().double() / root_mean_square(weights)
        place = torch.where(place < 0, place / low, place / high)  # 1 on the boundaries
        nearest = float(place.kthvalue(max(1, round(share * place.numel()))).values)
        factor = max(1.0, nearest * (1 + 1e-9))  # so that the weight it is taken from lies inside
        return replace(
            self, edges=tuple(edge * factor if edge in (low, high) else edge for edge in self.edges)
        )


def root_mean_square(weights: torch.Tensor) -> float:
    """Of all weights; every machine gets the same number."""
    return math.sqrt(clipq.mean_in_order(weights.detach().double().square()))
