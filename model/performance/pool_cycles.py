"""Reads and cycles of the pooling unit (rtl/pooling/pooling_unit.sv), exactly, while the output
stage takes every sum."""

from __future__ import annotations

from model.compiler.conv_plan import ceil_div
from model.network.contract import Pair, Shape

READ_LATENCY = 7  # feature buffer, request to data
MAX_GROUP_QUADS = 8  # quads (four channels) that a read of max pooling takes


def pool_reads(
    op: str, in_shape: Shape, kernel: Pair, stride: Pair, pad: Pair, num_modules: int
) -> int:
    """Feature-buffer reads of one pooling layer.

    op: "maxpool" or "avgpool". in_shape: (C, H, W). kernel, stride, pad: (vertical, horizontal), a
    legal layer. num_modules: 4, 8 or 16. Each group of channels reads the pixels of every window
    that lie inside the feature map. Raises ValueError for another op.
    """
    if op not in ("maxpool", "avgpool"):
        raise ValueError(f"{op!r} is not a pooling operation")
    channels, *size = in_shape
    group_quads = MAX_GROUP_QUADS if op == "maxpool" else num_modules // 4
    groups = ceil_div(ceil_div(channels, 4), group_quads)
    rows, cols = (_covered(*axis) for axis in zip(size, kernel, stride, pad))
    return groups * rows * cols


def add_reads(shape: Shape, num_modules: int) -> int:
    """Feature-buffer reads of a sum of two tensors [C, H, W], which are read in turn."""
    return 2 * pool_reads("avgpool", shape, (1, 1), (1, 1), (0, 0), num_modules)


def add_cycles(shape: Shape, num_modules: int, read_latency: int = READ_LATENCY) -> int:
    """Cycles from the pooling unit's start_i to its done_o of a sum of two tensors [C, H, W]: those
    of its reads, and one more for the products."""
    return add_reads(shape, num_modules) + read_latency + 8


def pool_cycles(
    op: str,
    in_shape: Shape,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    num_modules: int,
    read_latency: int = READ_LATENCY,
) -> int:
    """Cycles from the pooling unit's start_i to its done_o; arguments as in pool_reads.

    The address steps are multiplied bit by bit first, then there is a read in every cycle.
    """
    bits = (stride[0] | stride[1] | pad[0] | pad[1]).bit_length()
    return bits + pool_reads(op, in_shape, kernel, stride, pad, num_modules) + read_latency + 6


def _covered(size: int, kernel: int, stride: int, pad: int) -> int:
    """Sum over all windows of one axis of their positions inside the feature map."""
    starts = range(-pad, size + pad - kernel + 1, stride)
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)
