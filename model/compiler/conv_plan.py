"""How a convolution is mapped to passes: conv mode, channel groups, kernel-row steps, row pieces
and tiles.

A pass is one weight set of the conv unit over the pixels of one tile. The loops, from the outside:
output-channel group, tile row, tile column, input-channel group, kernel-row step, row piece
(rtl/conv_unit/pass_planner.sv walks the same ones).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from model.compiler.hardware import Hardware
from model.compiler.program_format import TILE_PIXELS
from model.network.contract import Pair, Shape
from model.network.layer import Layer

WINDOW = (1, 3, 5)  # kernel columns that an array holds in conv mode 0, 1, 2
CHANNEL_QUADS = (8, 8, 5)  # quads (four input channels) of a pass
DRAIN_DELAY = 45  # cycles from a tile's last slot to its drain, about
DRAIN_GAP = 2  # cycles between the drains of two tiles
SUM_DELAY = 7  # cycles in which a pixel must not return: its sum is not written yet


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class Pass:
    """Geometry of one pass: rows and slots it reads, and the delay from a slot to the output whose
    window it completes."""

    rows: int  # output rows whose input row is in the feature map; 0: nothing to do
    length: int  # slots (pixels read) per row
    delay: int  # 0..4 slots
    cols: int  # output columns
    above: int  # output rows above the first one

    def wait(self, before: Pass) -> int:
        """Idle slots behind the pass `before` of the same tile, so that no pixel returns too
        early."""
        pixels = (before.above + before.rows - self.above) * self.cols
        return SUM_DELAY if 0 < pixels <= SUM_DELAY else 0


@dataclass(frozen=True)
class ConvPlan:
    """Mapping of one conv layer in one conv mode."""

    mode: int
    vertical: bool  # a pass has vertical taps: eight of one quad, or two of four quads
    num_modules: int
    in_shape: Shape
    out_shape: Shape
    kernel: Pair
    pad: Pair
    stride: Pair = (1, 1)
    fused: bool = False  # a sum in the write-back: results are drained at half the pace
    tile_rows: int = TILE_PIXELS  # at most

    @property
    def window(self) -> int:
        """Kernel columns that a pass computes."""
        return WINDOW[self.mode]

    @property
    def quads(self) -> int:
        """Quads read for a position."""
        return CHANNEL_QUADS[self.mode]

    @property
    def steps(self) -> int:
        """Output channels of a conv module."""
        return 3 if self.mode == 0 else 1

    @property
    def pair(self) -> bool:
        """Whether the vertical taps are two rows of up to four quads (5 to 16 input channels)."""
        return self.vertical and self.in_shape[0] > 4

    @property
    def kr_step(self) -> int:
        """Kernel rows that a pass computes."""
        return 2 if self.pair else self.quads if self.vertical else 1

    @property
    def kr_count(self) -> int:
        """Kernel-row steps of the kernel."""
        return ceil_div(self.kernel[0], self.kr_step)

    @property
    def pieces(self) -> int:
        """Row pieces of the kernel."""
        return ceil_div(self.kernel[1], self.window)

    @property
    def channel_groups(self) -> int:
        """Input-channel groups."""
        return 1 if self.vertical else ceil_div(ceil_div(self.in_shape[0], 4), self.quads)

    @property
    def group_channels(self) -> int:
        """Output channels of a group."""
        return self.num_modules * self.steps

    @property
    def output_groups(self) -> int:
        """Output-channel groups."""
        return ceil_div(self.out_shape[0], self.group_channels)

    @property
    def passes(self) -> int:
        """Passes of an output-channel group and tile, empty ones included."""
        return self.channel_groups * self.kr_count * self.pieces

    @cached_property
    def tile(self) -> Pair:
        """(rows, columns) of a tile: whole rows where they fit, of even size."""
        _, height, width = self.out_shape
        if width > TILE_PIXELS:
            return 1, TILE_PIXELS
        rows = min(height, TILE_PIXELS // width, self.tile_rows)
        return ceil_div(height, ceil_div(height, rows)), width

    @property
    def tiles(self) -> int:
        """Tiles of the output."""
        (rows, cols), (_, height, width) = self.tile, self.out_shape
        return ceil_div(height, rows) * ceil_div(width, cols)

    def tile_origins(self) -> list[Pair]:
        """(y0, x0) of each tile in order."""
        (rows, cols), (_, height, width) = self.tile, self.out_shape
        return [(y, x) for y in range(0, height, rows) for x in range(0, width, cols)]

    def tile_size(self, y0: int, x0: int) -> Pair:
        """(rows, columns) of the tile at (y0, x0), smaller at the edge of the feature map."""
        (rows, cols), (_, height, width) = self.tile, self.out_shape
        return min(rows, height - y0), min(cols, width - x0)

    def tile_passes(self, y0: int, x0: int) -> list[Pass]:
        """The passes of a tile in order (one input-channel group: all are alike)."""
        return [
            self._pass(y0, x0, kr, piece)
            for kr in range(self.kr_count)
            for piece in range(self.pieces)
        ]

    def _pass(self, y0: int, x0: int, kr: int, piece: int) -> Pass:
        height, width = self.in_shape[1:]
        tile_rows, cols = self.tile_size(y0, x0)
        stride_h, stride_w = self.stride
        row = y0 * stride_h - self.pad[0] + kr * self.kr_step
        above = 0 if self.vertical else ceil_div(max(0, -row), stride_h)
        below = min(tile_rows, ceil_div(height - row, stride_h))
        rows = tile_rows if self.vertical else max(0, below - above)
        if stride_w == 2:  # nothing slides through a window of one column
            return Pass(rows, cols, 0, cols, above)
        left = x0 - self.pad[1] + piece * self.window
        right = left + self.window - 1
        start = left if left >= 0 else min(0, right)
        end = min(width - 1, right + cols - 1)
        return Pass(rows, max(cols, end - start + 1), right - start, cols, above)

    @cached_property
    def slots(self) -> int:
        """Cycles of all positions: the layer's compute time without stalls."""
        per_group = sum(
            p.rows * p.length for origin in self.tile_origins() for p in self.tile_passes(*origin)
        )
        return per_group * self.channel_groups * self.output_groups

    @property
    def frees_early(self) -> bool:
        """Whether a partial-sum buffer is free for another tile when its drain begins, not when it
        ends; while results are never held up."""
        return self.mode != 0 and not self.fused and (self.vertical or self.kr_count == 1)

    def busy_cycles(self, shortest_pass: int) -> int:
        """As slots, with every pass at least as long as its weights take to load."""
        return sum(self.tile_cycles(shortest_pass)) * self.output_groups

    def tile_cycles(self, shortest_pass: int) -> list[int]:
        """The same of each tile, in one group of output channels."""
        return [
            self.channel_groups
            * sum(max(p.rows * p.length, shortest_pass) for p in self.tile_passes(*origin))
            for origin in self.tile_origins()
        ]

    def drain_cycles(self) -> list[int]:
        """Cycles in which the results of each tile are read, in one group of output channels."""
        pace = self.steps * (2 if self.fused else 1)
        return [pace * math.prod(self.tile_size(*origin)) for origin in self.tile_origins()]

    def end(self, shortest_pass: int) -> int:
        """Cycles from the first slot to the last result's read, about: two partial-sum buffers in
        turn, one adds up while the other is drained."""
        busy, drains = self.tile_cycles(shortest_pass), self.drain_cycles()
        computed = drained = 0
        freed = [0, 0]
        for cycles, drain in list(zip(busy, drains)) * self.output_groups:
            computed = max(computed, freed[0]) + cycles
            begin = max(computed + DRAIN_DELAY, drained + DRAIN_GAP)
            drained = begin + drain
            freed = [freed[1], begin if self.frees_early else drained]
        return drained


def plan_conv(
    layer: Layer, hardware: Hardware, vertical_allowed: bool, fused: bool = False
) -> ConvPlan:
    """The fastest mapping of a conv layer; the widest window, which reads least, among equals.

    vertical_allowed: the input's layout lets vertical taps be read at once (at most 16 channels).
    fused: a sum is computed in the layer's write-back.
    """
    shortest = hardware.pass_words + (10 if hardware.num_modules == 4 else 4)
    plans = [
        ConvPlan(
            mode,
            vertical,
            hardware.num_modules,
            layer.in_shape,
            layer.out_shape,
            layer.kernel,
            layer.pad,
            layer.stride,
            fused,
        )
        for mode in ((2, 1, 0) if layer.stride[1] == 1 else (0,))
        for vertical in ((True, False) if vertical_allowed else (False,))
        if not (mode == 2 and vertical and layer.in_shape[0] > 4)  # its reads have five quads
    ]
    plan = min(plans, key=lambda plan: plan.busy_cycles(shortest))
    return plan if layer.out == "int32" else _with_best_tile(plan, hardware, shortest)


def _with_best_tile(plan: ConvPlan, hardware: Hardware, shortest: int) -> ConvPlan:
    """The plan with the tiles for which the layer ends first: less is drained behind a small last
    one, but tiles wait for each other's buffers, and passes last as long as their weights take.
    The weights of a group are not sent again for more tiles."""
    if plan.passes * hardware.pass_words > hardware.weight_words:
        return plan
    rows = range(plan.tile[0], 0, -1)
    tiles = {other.tile: other for row in rows for other in [replace(plan, tile_rows=row)]}
    return min(tiles.values(), key=lambda other: other.end(shortest))
