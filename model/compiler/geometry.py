"""Whether the sizes in a layer's descriptor fit together: the rules that rtl/control/descriptor_check.sv applies."""
from dataclasses import dataclass

from model.compiler.hardware import QUAD_ADDR_BITS, Hardware

CONV, MAX_POOL, AVERAGE_POOL = 1, 2, 3
WINDOWS = (1, 3, 5)

# name: (word, lowest bit, bits); docs/architecture.md, "Program"
FIELDS = {
    "op": (0, 0, 4), "mode": (0, 4, 2), "vertical": (0, 6, 1), "raw": (0, 8, 1), "pool_kernel_h": (0, 16, 16), "pool_kernel_w": (0, 32, 16),
    "in_base": (1, 0, 17), "in_row_stride": (1, 32, 17), "in_w": (2, 0, 16), "in_h": (2, 16, 16), "in_quads": (2, 32, 8), "out_quads": (2, 40, 8),
    "out_base": (3, 0, 17), "out_w": (4, 0, 16), "out_h": (4, 16, 16), "out_end": (4, 32, 18),
    "tile_rows": (10, 0, 9), "tile_cols": (10, 16, 9), "tile_pixels": (10, 32, 9),
    "kr_count": (11, 0, 4), "kr_step": (11, 4, 4), "pad_h": (11, 8, 4), "pad_w": (11, 12, 4), "pieces": (11, 16, 4), "window": (11, 24, 3),
    "channel_groups": (11, 32, 8), "output_groups": (11, 40, 8), "quads": (11, 48, 4),
    "stride_h": (13, 0, 16), "stride_w": (13, 16, 16), "pool_pad_h": (13, 32, 16), "pool_pad_w": (13, 48, 16),
}
# Of the fields, those that pools and convolutions do not look at.
ONLY_CONV = ("mode", "vertical", "tile_rows", "tile_cols", "tile_pixels", "kr_count", "kr_step", "pad_h", "pad_w", "pieces", "window",
             "channel_groups", "output_groups", "quads")
ONLY_POOL = ("pool_kernel_h", "pool_kernel_w", "stride_h", "stride_w", "pool_pad_h", "pool_pad_w")


@dataclass(frozen=True)
class Descriptor:
    """The fields of a descriptor that the rules look at, as attributes of the names in FIELDS."""
    values: dict

    @classmethod
    def decode(cls, words) -> "Descriptor":
        """From the sixteen words of a descriptor."""
        return cls({name: int(words[word]) >> low & (1 << bits) - 1 for name, (word, low, bits) in FIELDS.items()})

    def __getattr__(self, name):
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


def problems(d: Descriptor, hardware: Hardware) -> list[str]:
    """Every rule that the sizes of a layer break; empty for what the compiler writes. Sizes of zero are another check's."""
    broken = _input_problems(d, hardware)
    if d.op == CONV:
        return broken + _conv_problems(d, hardware)
    return broken + _pool_problems(d)


def _input_problems(d, hardware):
    row = d.in_w * d.in_quads
    end = d.in_base + (d.in_h - 1) * d.in_row_stride + row
    broken = []
    if row > d.in_row_stride:
        broken.append("input rows overlap")
    if end > min(hardware.quads, 1 << QUAD_ADDR_BITS + 1):
        broken.append("input beyond the feature buffer")
    writes = not d.raw or d.op == MAX_POOL
    if writes and d.in_base < d.out_end and d.out_base < end:
        broken.append("input and output overlap")
    return broken


def _covers(count: int, step: int, size: int) -> bool:
    """Whether `count` steps are just as many as `size` needs."""
    return (count - 1) * step < size <= count * step


def _conv_problems(d, hardware):
    kernel_h = d.in_h + 2 * d.pad_h + 1 - d.out_h
    kernel_w = d.in_w + 2 * d.pad_w + 1 - d.out_w
    group_quads = hardware.num_modules // 4 * (3 if d.mode == 0 else 1)
    broken = []
    if not (_covers(d.kr_count, d.kr_step, kernel_h) and d.pad_h < kernel_h):
        broken.append("kernel height")
    if not (_covers(d.pieces, d.window, kernel_w) and d.pad_w < kernel_w):
        broken.append("kernel width")
    if d.tile_rows * d.tile_cols != d.tile_pixels:
        broken.append("tile")
    if d.tile_rows > 1 and d.tile_cols < d.out_w:  # pixels of a tile are numbered by its columns: several rows must be whole ones
        broken.append("tile of several parts of rows")
    if not _covers(d.channel_groups, d.quads, d.quads if d.vertical and d.in_quads == 1 else 0 if d.vertical else d.in_quads):
        broken.append("input channels")
    if not _covers(d.output_groups, group_quads, d.out_quads):
        broken.append("output channels")
    return broken


def _pool_problems(d):
    broken = []
    for axis in "hw":
        size, out, kernel, stride, pad = (d.values[name + axis] for name in ("in_", "out_", "pool_kernel_", "stride_", "pool_pad_"))
        if (out - 1) * stride + kernel > size + 2 * pad:
            broken.append(f"last window beyond picture and padding, {axis}")
        if pad >= kernel:
            broken.append(f"padding as large as the window, {axis}")
    if d.in_quads != d.out_quads:
        broken.append("channels")
    return broken
