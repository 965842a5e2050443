"""Random convolution layers, planned by the compiler, and their descriptor fields."""

from dataclasses import dataclass, replace

from model.compiler import memory_plan, program
from model.compiler.conv_plan import ConvPlan
from model.compiler.program_format import MAX_CHANNELS, QUAD_ADDR_W, TILE_PIXELS

MAX_QUADS = 1 << QUAD_ADDR_W


@dataclass(frozen=True)
class Layer:
    """A planned layer with its input and output tensors (compiler ConvPlan and Tensors)."""

    plan: ConvPlan
    source: memory_plan.Tensor
    target: memory_plan.Tensor

    @property
    def values(self):
        """{field: value} of the descriptor: what the plan and the places of the tensors say."""
        (_, in_h, in_w), (_, out_h, out_w) = self.plan.in_shape, self.plan.out_shape
        return program.conv_values(self.plan, self.source, self.target) | {
            "in_base": self.source.base,
            "in_row_stride": self.source.row_stride,
            "in_quads": self.source.quads,
            "in_h": in_h,
            "in_w": in_w,
            "fused": 0,
            "out_base": self.target.base,
            "out_row_stride": self.target.row_stride,
            "out_quads": self.target.quads,
            "out_h": out_h,
            "out_w": out_w,
        }

    def __str__(self):
        p = self.plan
        return (
            f"mode {p.mode}{' vertical' if p.vertical else ''}, {p.in_shape} -> {p.out_shape}, "
            f"kernel {p.kernel}, pad {p.pad}, stride {p.stride}, "
            f"tile {p.tile}, {self.source}"
        )


def out_size(in_size, kernel, pad, stride):
    """[height, width] of a convolution's output."""
    return [(n + 2 * p - k) // s + 1 for n, k, p, s in zip(in_size, kernel, pad, stride)]


def make_layer(
    rng, mode, vertical, modules, in_shape, out_channels, kernel, pad, tile=None, stride=(1, 1)
):
    """A layer with both tensors at random places; tile (rows, columns): another one than the
    compiler's."""
    height, width = out_size(in_shape[1:], kernel, pad, stride)
    plan = ConvPlan(
        mode,
        vertical,
        modules,
        tuple(in_shape),
        (out_channels, height, width),
        tuple(kernel),
        tuple(pad),
        tuple(stride),
    )
    if tile:
        vars(plan)["tile"] = tile  # where the plan keeps the one that it would choose
    tensors = [
        memory_plan.layout(shape, False, vertical and i == 0)
        for i, shape in enumerate((plan.in_shape, plan.out_shape))
    ]
    return Layer(
        plan, *(replace(t, base=int(rng.integers(0, MAX_QUADS - t.size + 1))) for t in tensors)
    )


def random_tile(rng, height, width):
    """(rows, columns) of any tile that the hardware accepts, not only the compiler's choice: whole
    rows, or a part of one."""
    if rng.random() < 0.5 or width > TILE_PIXELS:
        return 1, int(rng.integers(1, min(width, TILE_PIXELS) + 1))
    return int(rng.integers(1, min(height, TILE_PIXELS // width) + 1)), width


def random_layer(rng, modules, max_slots):
    """Any mode, kernels 1..11, any padding, 1 x 1 feature maps and ones wider than a tile, tiles of
    any legal shape; at most `max_slots` reads in all."""
    while True:
        mode = int(rng.integers(3))
        vertical = bool(rng.random() < 0.3)
        kernel = [int(rng.choice([1, 1, 2, 3, 3, 4, 5, 7, 11])) for _ in range(2)]
        if mode == 0 and rng.random() < 0.7:
            kernel[1] = 1
        pad = [int(rng.integers(k)) if rng.random() < 0.7 else (k - 1) // 2 for k in kernel]
        size = [
            int(rng.choice([1, 2, 5, 8, 14, 20])) + int(rng.integers(3)) - 1 or 1 for _ in range(2)
        ]
        if rng.random() < 0.15:
            size = [int(rng.integers(1, 4)), int(rng.integers(240, 530))]
        if any(s + 2 * p < k for s, p, k in zip(size, pad, kernel)):
            continue
        channels = (
            int(rng.integers(1, 5 if mode == 2 or rng.random() < 0.5 else 17))
            if vertical
            else int(rng.choice([1, 3, 8, 24, 40, 64, 100]))
        )
        out_channels = min(MAX_CHANNELS, modules * int(rng.integers(1, 6)))
        stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)) if mode == 0 else 1)
        tile = (
            random_tile(rng, *out_size(size, kernel, pad, stride)) if rng.random() < 0.25 else None
        )
        layer = make_layer(
            rng, mode, vertical, modules, (channels, *size), out_channels, kernel, pad, tile, stride
        )
        passes = layer.plan.passes * layer.plan.tiles * layer.plan.output_groups
        if layer.plan.slots + 16 * passes <= max_slots:
            return layer
