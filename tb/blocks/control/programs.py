"""Random programs for the main controller: headers and descriptors that are legal, and every way in
which a field is not."""

from dataclasses import dataclass, field

from model.compiler.conv_plan import CHANNEL_QUADS, WINDOW
from model.compiler.program_format import (
    DESCRIPTOR,
    DIM_W,
    HEADER,
    MAX_CHANNELS,
    MAX_LAYERS,
    OP_ADD,
    OP_AVGPOOL,
    OP_CONV,
    OP_MAXPOOL,
    PROGRAM_VERSION,
    QUAD_ADDR_W,
    QUADS_W,
    TILE_PIXELS,
)
from model.compiler.records import Layout, encode
from tb.lib.descriptors import random_words

MOST_QUADS = MAX_CHANNELS // 4  # of an output with parameters
POOL = ("pool_kernel_h", "pool_kernel_w", "pool_stride_h", "pool_stride_w")


@dataclass
class Record:
    """Sixteen random words in which the named fields have the given values."""

    layout: Layout
    values: dict
    words: list = field(default_factory=list)

    def __getitem__(self, name):
        return self.values[name]

    def changed(self, **values):
        """The same words with other values in some fields."""
        return Record(self.layout, {**self.values, **values}, self.words)

    def encoded(self):
        """Integers of 64 bits."""
        return [int(word) for word in encode(self.layout, self.values, self.words)]


def header(rng, n_layers, modules, capacity):
    end = int(rng.choice([capacity, int(rng.integers(0, capacity + 1))]))
    values = {
        "n_layers": n_layers,
        "num_modules": modules,
        "version": PROGRAM_VERSION,
        "image_row_quads": _some(rng, QUAD_ADDR_W),
        "image_rows": _some(rng, DIM_W),
        "image_end_addr": end,
    }
    return Record(HEADER, values, random_words(rng))


def _some(rng, bits):
    return int(rng.integers(1, 1 << bits))


def descriptor(rng, capacity, op=None, raw=None):
    """A legal descriptor, with 32-bit results only of the last layer; what the controller does not
    look at is random."""
    op = int(rng.integers(1, 5)) if op is None else op
    raw = bool(op in (OP_CONV, OP_AVGPOOL) and rng.random() < 0.3) if raw is None else raw
    end = int(rng.choice([capacity, int(rng.integers(1, capacity + 1))]))
    values = {
        "op": op,
        "raw": int(raw),
        "emit": int(raw or rng.random() < 0.4),
        "has_params": int(op != OP_MAXPOOL),
        "fused": int(op == OP_CONV and not raw and rng.random() < 0.4),
        "out_end": end,
        "out_base": int(rng.integers(min(end, 1 << QUAD_ADDR_W))),
    }
    values |= {name: _some(rng, DIM_W) for name in ("in_w", "in_h", "out_w", "out_h")}
    values["in_quads"] = values["out_quads"] = _some(rng, QUADS_W)
    if op != OP_MAXPOOL:
        values["out_quads"] = int(rng.integers(1, MOST_QUADS + 1))
    if op == OP_CONV:
        values |= {
            name: int(rng.integers(1, TILE_PIXELS + 1))
            for name in ("tile_rows", "tile_cols", "tile_pixels")
        }
        values |= {
            name: _some(rng, DESCRIPTOR.fields[name].width)
            for name in ("kr_count", "pieces", "channel_groups", "output_groups")
        }
        mode = int(rng.integers(3))
        values |= {"mode": mode, "window": WINDOW[mode]}
        vertical, pair = (int(bit) for bit in rng.integers(2, size=2))
        quads = int(rng.integers(CHANNEL_QUADS[mode] + 1))
        step = (2 if pair else quads) if vertical else 1
        values |= {"vertical": vertical, "pair": pair, "kr_step": step, "read_quads": quads}
    else:
        values |= {name: _some(rng, DIM_W) for name in POOL}
    return Record(DESCRIPTOR, values, random_words(rng))


def around_powers(width):
    """2^k - 1, 2^k and 2^k + 1 of a field of `width` bits, as far as they fit."""
    values = {(1 << bit) + step for bit in range(width + 1) for step in (-1, 0, 1)}
    return sorted(value for value in values if 0 <= value < 1 << width)


def with_higher_bits(values, width):
    """Each of the values with each one of the bits above its highest set."""
    return {v | 1 << bit for v in values for bit in range(v.bit_length(), width)}


def _illegal(name, layout, least, most):
    """Values of a field outside least..most: those around the powers of two, and legal ones that a
    comparison of fewer bits would take them for."""
    width = layout.fields[name].width
    values = {*around_powers(width), *with_higher_bits({least, (least + most) // 2, most}, width)}
    return tuple(sorted(v for v in values if not least <= v <= most))


def bad_headers(good, capacity):
    """(what, header) of every rule of a header."""
    limits = {
        "version": (PROGRAM_VERSION, PROGRAM_VERSION),
        "n_layers": (1, MAX_LAYERS),
        "image_rows": (1, (1 << DIM_W) - 1),
        "image_row_quads": (1, (1 << QUAD_ADDR_W) - 1),
        "image_end_addr": (0, capacity),
    }
    cases = {name: _illegal(name, HEADER, *limit) for name, limit in limits.items()}
    cases["image_end_addr"] = (capacity + 1, *cases["image_end_addr"])
    return [
        (f"{name} = {v}", good.changed(**{name: v}))
        for name, values in cases.items()
        for v in values
    ]


def bad_descriptors(rng, capacity):
    """(what, descriptor) of every rule of a descriptor."""
    common = dict.fromkeys(("in_w", "in_h", "in_quads", "out_quads", "out_w", "out_h"), (0,))
    tile = {
        name: _illegal(name, DESCRIPTOR, 1, TILE_PIXELS)
        for name in ("tile_rows", "tile_cols", "tile_pixels")
    }
    conv = {**tile, "kr_count": (0,), "pieces": (0,), "channel_groups": (0,), "output_groups": (0,)}
    cases = []
    for op, raw in (
        (OP_CONV, False),
        (OP_CONV, True),
        (OP_MAXPOOL, False),
        (OP_AVGPOOL, False),
        (OP_AVGPOOL, True),
        (OP_ADD, False),
    ):
        rules = {**common, **(conv if op == OP_CONV else dict.fromkeys(POOL, (0,)))}
        if op != OP_MAXPOOL:
            rules["out_quads"] = (0, *_illegal("out_quads", DESCRIPTOR, 1, MOST_QUADS))
        if not raw:
            rules["out_end"] = (capacity + 1, *_illegal("out_end", DESCRIPTOR, 1, capacity))
        for name, values in rules.items():
            cases += [
                (
                    f"op {op}, raw {raw}: {name} = {v}",
                    descriptor(rng, capacity, op, raw).changed(**{name: v}),
                )
                for v in values
            ]
        if not raw:
            cases.append(
                (
                    f"op {op}: empty region",
                    descriptor(rng, capacity, op, raw).changed(out_base=100, out_end=100),
                )
            )
    for rows, vertical, pair in ((1, 0, 0), (1, 0, 1), (2, 1, 1), (5, 1, 0), (8, 1, 0)):
        bits = {"mode": 1, "window": WINDOW[1], "vertical": vertical, "pair": pair}
        bits["read_quads"] = rows if rows > 2 else 7
        conv = descriptor(rng, capacity, OP_CONV, False).changed(**bits)
        cases += [
            (f"{step} kernel rows, vertical {vertical}, pair {pair}", conv.changed(kr_step=step))
            for step in range(16)
            if step != rows
        ]
    conv = descriptor(rng, capacity, OP_CONV, False).changed(vertical=0, kr_step=1)
    for mode, window in enumerate((*WINDOW, WINDOW[0])):
        wrong = [w for w in range(8) if mode == 3 or w != window]
        cases += [
            (f"mode {mode}, window {w}", conv.changed(mode=mode, window=w, read_quads=4))
            for w in wrong
        ]
    for mode, most in enumerate(CHANNEL_QUADS):
        chosen = conv.changed(mode=mode, window=WINDOW[mode])
        cases += [
            (f"mode {mode}, {quads} quads a read", chosen.changed(read_quads=quads))
            for quads in range(most + 1, 16)
        ]
    for op in (OP_CONV, OP_MAXPOOL, OP_AVGPOOL, OP_ADD):
        other = descriptor(rng, capacity, op, False).changed(has_params=int(op == OP_MAXPOOL))
        cases.append((f"op {op}: has_params {other['has_params']}", other))
    for op in (OP_CONV, OP_AVGPOOL):
        silent = descriptor(rng, capacity, op, True).changed(emit=0)
        cases.append((f"op {op}: 32-bit results that are not sent", silent))
    for op in (OP_ADD, OP_MAXPOOL):
        wide = descriptor(rng, capacity, op).changed(raw=1, emit=1)
        cases.append((f"op {op}: 32-bit results", wide))
    for op, raw in ((OP_CONV, True), *((op, False) for op in (OP_MAXPOOL, OP_AVGPOOL, OP_ADD))):
        fused = descriptor(rng, capacity, op, raw).changed(fused=1)
        cases.append((f"op {op}, raw {raw}: a fused sum", fused))
    cases += [
        (f"op = {op}", descriptor(rng, capacity, OP_MAXPOOL).changed(op=op))
        for op in (0, *range(5, 16))
    ]
    return cases


def one_bit(rng, modules, capacity, op, bit):
    """(header, descriptor) in which every number that must not be zero is a power of two: all its
    bits but one are zero, bit `bit` modulo those that the field may have."""

    def power(layout, name, most):
        top = min(layout.fields[name].width, most.bit_length())
        return 1 << bit % top

    names = {"image_rows": 1 << DIM_W, "image_row_quads": 1 << QUAD_ADDR_W}
    names |= {"image_base": 1 << QUAD_ADDR_W, "image_row_stride": 1 << QUAD_ADDR_W}
    top = header(rng, 1, modules, capacity).changed(
        **{name: power(HEADER, name, most) for name, most in names.items()}
    )
    names = dict.fromkeys(("in_w", "in_h", "out_w", "out_h", *POOL), 1 << DIM_W)
    names |= dict.fromkeys(("in_quads", "out_quads"), 1 << QUADS_W)
    if op == OP_CONV:
        names = {name: most for name, most in names.items() if name not in POOL}
        names |= dict.fromkeys(("tile_rows", "tile_cols", "tile_pixels"), TILE_PIXELS)
        names |= dict.fromkeys(("kr_count", "pieces"), 1 << 4)
        names |= dict.fromkeys(("channel_groups", "output_groups"), 1 << QUADS_W)
    values = {name: power(DESCRIPTOR, name, most) for name, most in names.items()}
    end = 1 << bit % capacity.bit_length()
    region = {"out_base": 0, "out_end": min(end, capacity)}
    return top, descriptor(rng, capacity, op, False).changed(**values, **region)
