"""Codebook of segment means between fixed boundaries: CLIP-Q whose clipping and partition were
chosen beforehand, by `train.quantize.reconstruct`.

CLIP-Q (`train.quantize.clipq`) derives clipping points and partition from the weights in every
forward pass, so a weight's index depends on all the others. Where the indices were chosen one by
one to make up for each other's errors, that would undo the choice; here the boundaries stay where
they are, in units of the layer's root mean square, and only the means follow the weights.
"""

import math
from dataclasses import dataclass

import torch

from train.quantize import clipq

LEVELS = 4
# Index of the low, the middle and the high of the three values beside zero, as `order` has them.
PLAIN, AFFINE = (0, 1, 2), (0, 2, 1)


@dataclass(frozen=True)
class Segments:
    """edges: three ascending boundaries, in root mean squares of the layer. zero: which of the four
    segments is zero, 0..3 from below. affine: the middle of the other three values is the sum of
    the two outer ones and has the last index, so that w3 = w1 + w2."""

    edges: tuple[float, float, float]
    zero: int
    affine: bool = False

    def __post_init__(self):
        if len(self.edges) != LEVELS - 1 or not all(
            a < b for a, b in zip(self.edges, self.edges[1:])
        ):
            raise ValueError(
                f"segments: the boundaries {self.edges} are not {LEVELS - 1} ascending numbers"
            )
        if not 0 <= self.zero < LEVELS:
            raise ValueError(f"segments: no segment {self.zero} that could be zero")

    @property
    def order(self) -> list[int]:
        """Segment of each index."""
        others = [k for k in range(LEVELS) if k != self.zero]
        return [self.zero] + [others[k] for k in (AFFINE if self.affine else PLAIN)]

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4] with entry 0 zero; the others
        ascend, or the last is the sum of the first two)."""
        edges = torch.tensor(
            self.edges, dtype=torch.float64, device=weights.device
        ) * root_mean_square(weights)
        place = torch.bucketize(weights.detach().double(), edges, right=True)
        order = self.order
        index = torch.tensor([order.index(k) for k in range(LEVELS)], device=weights.device)[place]
        means = clipq.segment_means(weights, index, LEVELS)
        if not self.affine:
            return index, clipq.scaled(means)
        return index, affine_codebook(means, torch.bincount(index.flatten(), minlength=LEVELS))

    integers = clipq.looked_up


def affine_codebook(means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Codebook int64 [4] (0, a, b, a + b) of least squares for segment means, float64 [4], of so
    many weights each, int64 [4]; the largest magnitude is 127."""
    (_, n1, n2, n3), (_, m1, m2, m3) = counts.tolist(), means.tolist()
    determinant = (n1 + n3) * (n2 + n3) - n3 * n3
    if determinant == 0:  # of one segment at most
        return clipq.scaled(torch.tensor([0, m1, m2, m1 + m2], device=means.device))
    first, second = n1 * m1 + n3 * m3, n2 * m2 + n3 * m3
    a = ((n2 + n3) * first - n3 * second) / determinant
    b = ((n1 + n3) * second - n3 * first) / determinant
    values = torch.tensor([0, a, b, a + b], dtype=torch.float64, device=means.device)
    codebook = clipq.scaled(values)
    codebook[3] = (codebook[1] + codebook[2]).clamp(-127, 127)
    return codebook


def root_mean_square(weights: torch.Tensor) -> float:
    """Of all weights; every machine gets the same number."""
    return math.sqrt(clipq.mean_in_order(weights.detach().double().square()))
