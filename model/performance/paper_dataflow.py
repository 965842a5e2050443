"""Cycles of the paper's dataflow, in the units of model/performance/cycle_model.py, for comparison.

W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022. A conv module of four arrays computes one
output channel; an array holds twenty-five 1x1 kernels, two 3x3 kernels or one 5x5 kernel (of as
many input channels), larger ones are split over ceil(K*K / 25) passes. A K-row kernel yields an
output every K cycles. This is the best case: loading, draining and pooling take no cycle.
"""

from __future__ import annotations

from model.compiler.conv_plan import ceil_div
from model.network.contract import Pair, Shape
from model.network.network import Network

ARRAYS = 4


def _mapping(kernel: Pair) -> tuple[int, int, int]:
    """(input channels of an array, cycles of an output, passes over a kernel); kernels that are
    not square count as the square around them."""
    size = max(kernel)
    if size == 1:
        return 25, 1, 1
    if size <= 3:
        return 2, 3, 1
    return 1, min(size, 5), ceil_div(size * size, 25) if size > 5 else 1


def conv_passes(in_channels: int, kernel: Pair) -> int:
    """Passes of a conv module over an output pixel: groups of input channels, parts of a kernel."""
    channels, _, passes = _mapping(kernel)
    return ceil_div(in_channels, ARRAYS * channels) * passes


def conv_cycles(out_shape: Shape, in_channels: int, kernel: Pair, num_modules: int = 4) -> int:
    """Cycles of a convolution to out_shape (O, H, W) with a kernel (Kh, Kw)."""
    outputs, height, width = out_shape
    pixels = ceil_div(outputs, num_modules) * height * width
    return pixels * conv_passes(in_channels, kernel) * _mapping(kernel)[1]


def conv_reads(out_shape: Shape, in_shape: Shape, kernel: Pair, num_modules: int = 4) -> int:
    """32-bit words (four channels) of input read: every pixel once per output-channel group and
    pass."""
    channels, height, width = in_shape
    pixels = ceil_div(out_shape[0], num_modules) * height * width
    return pixels * ceil_div(channels, 4) * _mapping(kernel)[2]


def network_cycles(net: Network, num_modules: int = 4) -> dict[str, int]:
    """{layer name: cycles} of the convolutions."""
    return {
        layer.name: conv_cycles(layer.out_shape, layer.in_shape[0], layer.kernel, num_modules)
        for layer in net.layers
        if layer.op == "conv"
    }
