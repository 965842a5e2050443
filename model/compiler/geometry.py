"""Whether the sizes in a layer's descriptor fit together: the rules that
rtl/control/descriptor_check.sv applies."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from model.compiler.hardware import Hardware
from model.compiler.program_format import (
    DESCRIPTOR,
    MODE_1,
    OP_ADD,
    OP_CONV,
    OP_MAXPOOL,
    QUAD_ADDR_W,
)
from model.compiler.records import decode

# Fields that only convolutions, only pools and sums, and only sums look at.
ONLY_CONV = (
    "mode",
    "vertical",
    "pair",
    "stride_h",
    "stride_w",
    "tile_rows",
    "tile_cols",
    "tile_pixels",
    "kr_count",
    "kr_step",
    "pad_h",
    "pad_w",
    "pieces",
    "window",
    "channel_groups",
    "output_groups",
    "read_quads",
    "fused",
    "other_base",
)
ONLY_POOL = (
    "pool_kernel_h",
    "pool_kernel_w",
    "pool_stride_h",
    "pool_stride_w",
    "pool_pad_h",
    "pool_pad_w",
)
ONLY_ADD = ("other_base",)
# Fields that all layers look at.
COMMON = (
    "raw",
    "in_base",
    "in_row_stride",
    "in_w",
    "in_h",
    "in_quads",
    "out_quads",
    "out_base",
    "out_w",
    "out_h",
    "out_end",
    "out_row_quads",
)


def sizes(words: Sequence[int]) -> SimpleNamespace:
    """The fields of a descriptor, of its sixteen words, as attributes."""
    return SimpleNamespace(**decode(DESCRIPTOR, words))


def problems(d: SimpleNamespace, hardware: Hardware) -> list[str]:
    """Every rule that the sizes of a layer break; empty for what the compiler writes. Sizes of zero
    are another check's."""
    broken = _input_problems(d, hardware)
    writes = not d.raw or d.op == OP_MAXPOOL
    if writes and d.out_row_quads != d.out_w * d.out_quads:
        broken.append("output rows")
    if d.op == OP_CONV:
        return broken + _conv_problems(d, hardware)
    return broken + _pool_problems(d)


def _input_problems(d: SimpleNamespace, hardware: Hardware) -> list[str]:
    row = d.in_w * d.in_quads
    span = (d.in_h - 1) * d.in_row_stride + row
    broken = []
    if row > d.in_row_stride:
        broken.append("input rows overlap")
    writes = not d.raw or d.op == OP_MAXPOOL
    inputs = [("input", d.in_base, span)]
    if d.op == OP_ADD:
        inputs.append(("second input", d.other_base, span))
    if d.op == OP_CONV and d.fused:  # is read as the output is written
        inputs.append(("second input", d.other_base, d.out_end - d.out_base))
    for name, base, span in inputs:
        if base + span > min(hardware.quads, 1 << QUAD_ADDR_W + 1):
            broken.append(f"{name} beyond the feature buffer")
        if writes and base < d.out_end and d.out_base < base + span:
            broken.append(f"{name} and output overlap")
    return broken


def _covers(count: int, step: int, size: int) -> bool:
    """Whether `count` steps are just as many as `size` needs."""
    return (count - 1) * step < size <= count * step


def _kernel_fits(size: int, out: int, pad: int, skipped: int, count: int, step: int) -> bool:
    """Whether `count` steps are as many as a kernel between input and output needs that is larger
    than the padding. skipped: pixels between two windows; the last window may end that many before
    the far edge."""
    kernel = size + 2 * pad - (out - 1) * (skipped + 1)  # the largest
    return any(_covers(count, step, k) and pad < k for k in range(kernel - skipped, kernel + 1))


def _input_channels_fit(d: SimpleNamespace) -> bool:
    if d.pair:  # two rows of up to four quads
        return bool(d.vertical and d.in_quads <= 4 and d.channel_groups == 1 and d.read_quads == 8)
    if d.vertical:
        return d.in_quads == 1 and d.channel_groups == 1 and d.read_quads > 0
    return _covers(d.channel_groups, d.read_quads, d.in_quads)


def _conv_problems(d: SimpleNamespace, hardware: Hardware) -> list[str]:
    group_quads = hardware.num_modules // 4 * (3 if d.mode == MODE_1 else 1)
    broken = []
    if not _kernel_fits(d.in_h, d.out_h, d.pad_h, d.stride_h, d.kr_count, d.kr_step):
        broken.append("kernel height")
    if not _kernel_fits(d.in_w, d.out_w, d.pad_w, d.stride_w, d.pieces, d.window):
        broken.append("kernel width")
    if d.stride_w and d.window != 1:
        broken.append("stride of a wide window")
    if d.tile_rows * d.tile_cols != d.tile_pixels:
        broken.append("tile")
    if (
        d.tile_rows > 1 and d.tile_cols < d.out_w
    ):  # pixels of a tile are numbered by its columns: several rows must be whole ones
        broken.append("tile of several parts of rows")
    if not _input_channels_fit(d):
        broken.append("input channels")
    if not _covers(d.output_groups, group_quads, d.out_quads):
        broken.append("output channels")
    return broken


def _pool_problems(d: SimpleNamespace) -> list[str]:
    broken = []
    for axis in "hw":
        names = ("in_", "out_", "pool_kernel_", "pool_stride_", "pool_pad_")
        size, out, kernel, stride, pad = (getattr(d, name + axis) for name in names)
        if (out - 1) * stride + kernel > size + 2 * pad:
            broken.append(f"last window beyond feature map and padding, {axis}")
        if pad >= kernel:
            broken.append(f"padding as large as the window, {axis}")
    if d.in_quads != d.out_quads:
        broken.append("channels")
    return broken
