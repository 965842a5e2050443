"""Codebook of segment means between fixed boundaries: CLIP-Q whose clipping and partition were
chosen beforehand, by `train.quantize.reconstruct`.

CLIP-Q derives both from the weights in every forward pass, so a weight's index depends on all the
others. Where indices were chosen to make up for each other's errors, that would undo the choice:
here the boundaries stay, in units of the layer's root mean square; the means follow the weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.quantize.clipq import LEVELS, Codebook, root_mean_square, scaled, segment_means


@dataclass(frozen=True)
class Segments(Codebook):
    """edges: three ascending boundaries, in root mean squares of the layer. zero: which of the four
    segments is zero, 0..3 from below. affine: the middle of the other three values is the sum of
    the two outer ones and has the last index, so that w3 = w1 + w2."""

    edges: tuple[float, ...]
    zero: int
    affine: bool = False

    @property
    def order(self) -> list[int]:
        """Segment of each index."""
        low, middle, high = (k for k in range(LEVELS) if k != self.zero)
        return [self.zero, low, *((high, middle) if self.affine else (middle, high))]

    def quantize(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        edges = torch.tensor(self.edges, dtype=torch.float64, device=weights.device)
        edges *= root_mean_square(weights)
        place = torch.bucketize(weights.detach().double(), edges, right=True)
        numbers = [self.order.index(k) for k in range(LEVELS)]
        index = torch.tensor(numbers, device=weights.device)[place]
        means = segment_means(weights, index)
        if not self.affine:
            return index, scaled(means)
        return index, affine_codebook(means, torch.bincount(index.flatten(), minlength=LEVELS))


def affine_codebook(means: Tensor, counts: Tensor) -> Tensor:
    """Codebook int64 [4] (0, a, b, a + b) of least squares for segment means, float64 [4], of so
    many weights each, int64 [4]; the largest magnitude is 127."""
    (_, n1, n2, n3), (_, m1, m2, m3) = counts.tolist(), means.tolist()
    determinant = (n1 + n3) * (n2 + n3) - n3 * n3
    if determinant == 0:  # of one segment at most
        return scaled(torch.tensor([0, m1, m2, m1 + m2], device=means.device))
    first, second = n1 * m1 + n3 * m3, n2 * m2 + n3 * m3
    a = ((n2 + n3) * first - n3 * second) / determinant
    b = ((n1 + n3) * second - n3 * first) / determinant
    codebook = scaled(torch.tensor([0, a, b, a + b], dtype=torch.float64, device=means.device))
    codebook[3] = (codebook[1] + codebook[2]).clamp(-127, 127)
    return codebook
