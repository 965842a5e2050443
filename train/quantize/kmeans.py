"""Codebook of least squared error with one entry pinned to zero, by Lloyd's iterations.

S. P. Lloyd, "Least squares quantization in PCM", IEEE Trans. Information Theory 28(2), 1982; shared
weights by k-means as in S. Han, H. Mao, W. J. Dally, "Deep Compression", ICLR 2016. Ours: one
centre stays at zero, so that the file's zero entry is used, and the codebook is computed anew in
every forward pass, as CLIP-Q does. Activations have 8 bits.

Every forward pass starts from the same quantiles and makes the same number of iterations, so equal
weights give equal codebooks on every machine. In one dimension a cluster is an interval: the
weights are sorted once, and an iteration is a few look-ups in their prefix sums.
"""

from dataclasses import dataclass

import numpy as np
import torch

from train.quantize import clipq

START = (0.08, 0.30, 0.80)


@dataclass(frozen=True)
class KMeans:
    """iterations: of Lloyd in each forward pass; the three free centres of a normal distribution
    settle in about 20.

    start: quantiles at which the free centres start; which side of zero has two of them follows
    from it.
    """

    iterations: int = 20
    start: tuple[float, float, float] = START

    def __post_init__(self):
        if self.iterations < 0:
            raise ValueError(f"k-means: {self.iterations} iterations; at least 0 are needed")

    def centres(self, weights: torch.Tensor) -> np.ndarray:
        """The four centres, zero among them, float64 [4], ascending."""
        ordered = np.sort(weights.detach().cpu().numpy().ravel())
        sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
        free = ordered[(np.array(self.start) * (len(ordered) - 1)).astype(int)].astype(np.float64)
        for _ in range(self.iterations):
            free = _iterate(ordered, sums, free)
        return np.sort(np.append(free, 0.0))

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4] with entry 0 zero and the others
        ascending)."""
        centres = self.centres(weights)
        zero = int(np.flatnonzero(centres == 0)[0])
        edges = torch.from_numpy(_edges(centres)).to(weights.device)
        place = torch.bucketize(weights.detach().double(), edges, right=True)
        order = [zero] + [i for i in range(4) if i != zero]
        number = torch.tensor([order.index(i) for i in range(4)], device=weights.device)
        means = torch.from_numpy(centres[order]).to(weights.device)
        return number[place], clipq.scaled(means)

    integers = clipq.looked_up


def _edges(centres):
    """Where the nearest of the ascending centres changes; a weight half-way belongs to the larger
    one."""
    return (centres[1:] + centres[:-1]) / 2


def _iterate(ordered, sums, free):
    """One Lloyd iteration: each free centre moves to the mean of the weights nearest to it, if
    there are any."""
    centres = np.sort(np.append(free, 0.0))
    ends = np.searchsorted(ordered, _edges(centres), side="left")
    bounds = np.concatenate([[0], ends, [len(ordered)]])
    counts, totals = np.diff(bounds), np.diff(sums[bounds])
    moved = np.where(counts > 0, totals / np.maximum(counts, 1), centres)
    return np.delete(moved, np.flatnonzero(centres == 0)[0])
