"""Odd square convolutions as batched matrix products over tiles: a quarter of the multiplications
or fewer, for training on a processor.

A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Four outputs
of a filter of r taps are `A^T ((G g) * (B^T d))` with r + 3 products instead of 4 r; nested over
rows and columns. The matrices follow from the transposition of Toom-Cook multiplication: evaluate
both polynomials at r + 3 points, multiply, interpolate.

Float32 sums come out within 1e-4 of their standard deviation (measured: 3e-5 to 6e-5), so this
serves training; whatever must be exact uses `train.exact`.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

TILE = 4  # outputs of a tile per axis
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)  # and infinity


def _powers(points, count: int) -> np.ndarray:
    """Rows 1, p, p^2... for each point, then the row of infinity, which sees the highest power
    only."""
    return np.vstack([np.vander(points, count, increasing=True), np.eye(count)[-1:]])


@cache
def matrices(taps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(A^T [16, s^2], G [s^2, taps^2], B^T [s^2, s^2]), s = taps + 3, float32: the transforms of
    both axes at once."""
    size = TILE + taps - 1
    points = POINTS[: size - 1]
    one_axis = (
        _powers(points, TILE).T,
        _powers(points, taps),
        np.linalg.inv(_powers(points, size)).T,
    )
    return tuple(torch.from_numpy(np.kron(m, m)).float() for m in one_axis)


def _tiles(x: torch.Tensor, size: int) -> torch.Tensor:
    """[N, H, W, C] -> [size^2, N * tiles * C]: tiles of size x size pixels, TILE apart."""
    t = x.unfold(1, size, TILE).unfold(2, size, TILE)  # N, rows, columns, C, size, size
    return t.permute(4, 5, 0, 1, 2, 3).reshape(size * size, -1)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        outputs, channels, taps, _ = weight.shape
        to_output, to_weight, to_input = matrices(taps)
        size, pad = TILE + taps - 1, taps // 2
        n, _, height, width = x.shape
        down, across = -height % TILE, -width % TILE
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, pad, pad + across, pad, pad + down))
        inputs = (to_input @ _tiles(padded, size)).view(size * size, -1, channels)
        weights = (to_weight @ weight.permute(2, 3, 1, 0).reshape(taps * taps, -1)).view(
            size * size, channels, outputs
        )
        products = torch.bmm(inputs, weights)
        y = to_output @ products.view(size * size, -1)
        rows, cols = (height + down) // TILE, (width + across) // TILE
        y = (
            y.view(TILE, TILE, n, rows, cols, outputs)
            .permute(2, 3, 0, 4, 1, 5)
            .reshape(n, rows * TILE, cols * TILE, outputs)
        )
        ctx.save_for_backward(inputs, weights)
        ctx.shape, ctx.taps, ctx.grid = x.shape, taps, (rows, cols)
        return y[:, :height, :width].contiguous().permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad):
        inputs, weights = ctx.saved_tensors
        taps, (rows, cols), (n, channels, height, width) = ctx.taps, ctx.grid, ctx.shape
        to_output, to_weight, to_input = matrices(taps)
        size, outputs = TILE + taps - 1, weights.shape[2]
        g = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, -width % TILE, 0, -height % TILE))
        products = (to_output.T @ _tiles(g, TILE)).view(size * size, -1, outputs)
        weight = to_weight.T @ torch.bmm(inputs.transpose(1, 2), products).view(size * size, -1)
        weight = weight.view(taps, taps, channels, outputs).permute(3, 2, 0, 1)
        if not ctx.needs_input_grad[0]:
            return None, weight
        tiles = to_input.T @ torch.bmm(products, weights.transpose(1, 2)).view(size * size, -1)
        x = _overlap_add(tiles.view(size, size, n, rows, cols, channels))
        pad = taps // 2
        return x[:, pad : pad + height, pad : pad + width].permute(0, 3, 1, 2), weight


def _overlap_add(tiles: torch.Tensor) -> torch.Tensor:
    """The transpose of `_tiles`: [size, size, N, rows, columns, C] -> [N, 4 (rows + 1), 4 (columns
    + 1), C]."""
    size, _, n, rows, cols, channels = tiles.shape
    x = tiles.new_zeros(n, rows + 1, TILE, cols + 1, TILE, channels)
    for i, down in enumerate((slice(0, TILE), slice(TILE, size))):
        for j, across in enumerate((slice(0, TILE), slice(TILE, size))):
            part = tiles[down, across]
            x[:, i : rows + i, : part.shape[0], j : cols + j, : part.shape[1]] += part.permute(
                2, 3, 0, 4, 1, 5
            )
    return x.view(n, (rows + 1) * TILE, (cols + 1) * TILE, channels)


def conv2d(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-correlation with padding taps // 2 and stride 1. x: float32 [N, I, H, W] in
    channels_last; weight [O, I, r, r], r 3 or 5."""
    return _Winograd.apply(x, weight)
