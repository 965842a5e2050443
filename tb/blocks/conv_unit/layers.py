"""Random convolution layers, planned by the compiler, and their descriptor fields on the ports of the sequencers."""
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from model.compiler import memory_plan, program
from model.compiler.conv_plan import ConvPlan
from model.compiler.hardware import MAX_CHANNELS, TILE_PIXELS

MAX_QUADS = 1 << 17
# Port: (descriptor word, lowest bit, bits), as rtl/clipq_accel.sv takes the descriptor apart.
PASS_FIELDS = {
    "row_base0_i": (6, 0, 17), "tile_row_step_i": (6, 32, 17), "col_base0_i": (7, 0, 17), "tile_col_step_i": (7, 32, 17),
    "kr_addr_step_i": (8, 0, 17), "piece_addr_step_i": (8, 32, 17), "window_addr_i": (9, 0, 17), "psum_base0_i": (9, 32, 20),
    "tile_rows_i": (10, 0, 9), "tile_cols_i": (10, 16, 9), "tile_pixels_i": (10, 32, 9), "kr_count_i": (11, 0, 4), "kr_step_i": (11, 4, 4),
    "pad_h_i": (11, 8, 4), "pad_w_i": (11, 12, 4), "piece_count_i": (11, 16, 4), "window_i": (11, 24, 3), "cg_count_i": (11, 32, 8),
    "og_count_i": (11, 40, 8), "cg_step_i": (11, 48, 4)}
DRAIN_FIELDS = {"tile_rows_i": (10, 0, 9), "tile_cols_i": (10, 16, 9), "tile_row_step_i": (12, 0, 17), "tile_col_step_i": (12, 32, 17)}


@dataclass(frozen=True)
class Layer:
    """A planned layer with its input and output tensors (compiler ConvPlan and Tensors) and its descriptor words."""

    plan: ConvPlan
    source: memory_plan.Tensor
    target: memory_plan.Tensor

    @property
    def words(self):
        fields = {0: [], 5: []}
        layer = SimpleNamespace(pad=self.plan.pad, codebook=np.zeros(4, np.int64))
        program._conv_fields(fields, layer, self.plan, self.source, self.target)
        return program._words(fields)

    def ports(self, fields):
        """{port: value} of the given descriptor fields."""
        words = self.words
        return {port: int(words[word]) >> low & (1 << bits) - 1 for port, (word, low, bits) in fields.items()}

    def __str__(self):
        p = self.plan
        return (f"mode {p.mode}{' vertical' if p.vertical else ''}, {p.in_shape} -> {p.out_shape}, kernel {p.kernel}, pad {p.pad}, "
                f"tile {p.tile}, {self.source}")


def make_layer(rng, mode, vertical, modules, in_shape, out_channels, kernel, pad, tile=None):
    """A layer with both tensors at random places; tile (rows, columns): another one than the compiler's."""
    height, width = (size + 2 * p - k + 1 for size, p, k in zip(in_shape[1:], pad, kernel))
    plan = ConvPlan(mode, vertical, modules, tuple(in_shape), (out_channels, height, width), tuple(kernel), tuple(pad))
    if tile:
        vars(plan)["tile"] = tile  # where the plan keeps the one that it would choose
    tensors = [memory_plan.layout(shape, False, vertical and i == 0) for i, shape in enumerate((plan.in_shape, plan.out_shape))]
    return Layer(plan, *(replace(t, base=int(rng.integers(0, MAX_QUADS - t.size + 1))) for t in tensors))


def random_tile(rng, height, width):
    """(rows, columns) of any tile that the hardware takes, whatever the compiler would choose: whole rows, or a part of one."""
    if rng.random() < 0.5 or width > TILE_PIXELS:
        return 1, int(rng.integers(1, min(width, TILE_PIXELS) + 1))
    return int(rng.integers(1, min(height, TILE_PIXELS // width) + 1)), width


def random_layer(rng, modules, max_slots):
    """Any mode, kernels 1..11, pads, 1 x 1 pictures and pictures wider than a tile, tiles of any legal shape; at most `max_slots` reads in all."""
    while True:
        mode = int(rng.integers(3))
        vertical = bool(rng.random() < 0.3)
        kernel = [int(rng.choice([1, 1, 2, 3, 3, 4, 5, 7, 11])) for _ in range(2)]
        if mode == 0 and rng.random() < 0.7:
            kernel[1] = 1
        pad = [int(rng.integers(k)) if rng.random() < 0.7 else (k - 1) // 2 for k in kernel]
        size = [int(rng.choice([1, 2, 5, 8, 14, 20])) + int(rng.integers(3)) - 1 or 1 for _ in range(2)]
        if rng.random() < 0.15:
            size = [int(rng.integers(1, 4)), int(rng.integers(240, 530))]
        if any(s + 2 * p < k for s, p, k in zip(size, pad, kernel)):
            continue
        channels = int(rng.integers(1, 5)) if vertical else int(rng.choice([1, 3, 8, 24, 40, 64, 100]))
        out_channels = min(MAX_CHANNELS, modules * int(rng.integers(1, 6)))
        tile = random_tile(rng, *(s + 2 * p - k + 1 for s, p, k in zip(size, pad, kernel))) if rng.random() < 0.25 else None
        layer = make_layer(rng, mode, vertical, modules, (channels, *size), out_channels, kernel, pad, tile)
        passes = layer.plan.passes * layer.plan.tiles * layer.plan.output_groups
        if layer.plan.slots + 16 * passes <= max_slots:
            return layer
