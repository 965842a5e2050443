"""Random programs for the main controller: headers and descriptors that are legal, and every way in which a field is not."""
from dataclasses import dataclass, field

import numpy as np

OP_CONV, OP_MAXPOOL, OP_AVGPOOL = 1, 2, 3
DESC_WORDS = 16

# name: (word, lowest bit, bits)
HEADER = {"n_layers": (0, 0, 16), "modules": (0, 16, 8), "version": (0, 24, 8), "base": (1, 0, 17), "row_stride": (1, 32, 17),
          "row_quads": (2, 0, 17), "rows": (2, 32, 16), "end": (3, 0, 18)}
DESCRIPTOR = {"op": (0, 0, 4), "mode": (0, 4, 2), "raw": (0, 8, 1), "emit": (0, 9, 1), "has_params": (0, 10, 1),
              "in_w": (2, 0, 16), "in_h": (2, 16, 16), "in_quads": (2, 32, 8), "out_quads": (2, 40, 8), "out_base": (3, 0, 17),
              "out_w": (4, 0, 16), "out_h": (4, 16, 16), "out_end": (4, 32, 18)}
CONV = {"tile_rows": (10, 0, 9), "tile_cols": (10, 16, 9), "tile_pixels": (10, 32, 9), "kr_count": (11, 0, 4), "pieces": (11, 16, 4),
        "window": (11, 24, 3), "channel_groups": (11, 32, 8), "output_groups": (11, 40, 8)}
POOL = {"kernel_h": (0, 16, 16), "kernel_w": (0, 32, 16), "stride_h": (13, 0, 16), "stride_w": (13, 16, 16)}


@dataclass
class Record:
    """Sixteen random words in which the named fields have the given values."""

    layout: dict
    values: dict
    words: list = field(default_factory=list)

    def __getitem__(self, name):
        return self.values[name]

    def changed(self, **values):
        """The same words with other values in some fields."""
        return Record(self.layout, {**self.values, **values}, self.words)

    def encoded(self):
        """Integers of 64 bits."""
        words = list(self.words)
        for name, value in self.values.items():
            word, low, bits = self.layout[name]
            mask = (1 << bits) - 1
            assert 0 <= value <= mask, f"{name} = {value}"
            words[word] = words[word] & ~(mask << low) | value << low
        return words


def _random_words(rng):
    return [int(w) for w in rng.integers(0, 2**64, DESC_WORDS, dtype=np.uint64)]


def header(rng, n_layers, modules, capacity):
    values = {"n_layers": n_layers, "modules": modules, "version": 1, "row_quads": int(rng.integers(1, 1 << 17)),
              "rows": int(rng.integers(1, 1 << 16)), "end": int(rng.choice([capacity, int(rng.integers(0, capacity + 1))]))}
    return Record(HEADER, values, _random_words(rng))


def descriptor(rng, capacity, op=None, raw=None):
    """A legal descriptor; what the controller does not look at is random."""
    op = int(rng.integers(1, 4)) if op is None else op
    raw = bool(op != OP_MAXPOOL and rng.random() < 0.3) if raw is None else raw
    end = int(rng.choice([capacity, int(rng.integers(1, capacity + 1))]))
    some = lambda bits: int(rng.integers(1, 1 << bits))
    values = {"op": op, "raw": int(raw), "emit": int(raw or rng.random() < 0.4), "has_params": int(op != OP_MAXPOOL), "in_w": some(16),
              "in_h": some(16), "in_quads": some(8), "out_quads": some(8), "out_base": int(rng.integers(min(end, 1 << 17))), "out_w": some(16),
              "out_h": some(16), "out_end": end}
    if op == OP_CONV:
        values |= {"mode": int(rng.integers(3)), "tile_rows": int(rng.integers(1, 257)), "tile_cols": int(rng.integers(1, 257)),
                   "tile_pixels": int(rng.integers(1, 257)), "kr_count": some(4), "pieces": some(4), "window": int(rng.choice([1, 3, 5])),
                   "channel_groups": some(8), "output_groups": some(8)}
        return Record({**DESCRIPTOR, **CONV}, values, _random_words(rng))
    values |= {name: some(16) for name in POOL}
    return Record({**DESCRIPTOR, **POOL}, values, _random_words(rng))


def bad_headers(good, capacity):
    """(what, header) of every rule of a header."""
    cases = {"version": (0, 2, 255), "n_layers": (0, 65, 65535), "rows": (0,), "row_quads": (0,), "end": (capacity + 1, (1 << 18) - 1)}
    return [(f"{name} = {v}", good.changed(**{name: v})) for name, values in cases.items() for v in values]


def bad_descriptors(rng, capacity):
    """(what, descriptor) of every rule of a descriptor."""
    common = {name: (0,) for name in ("in_w", "in_h", "in_quads", "out_quads", "out_w", "out_h")}
    conv = {"mode": (3,), "tile_rows": (0, 257), "tile_cols": (0, 257), "tile_pixels": (0, 257), "kr_count": (0,), "pieces": (0,),
            "channel_groups": (0,), "output_groups": (0,), "window": (0, 2, 4, 6, 7)}
    cases = []
    for op, raw in ((OP_CONV, False), (OP_CONV, True), (OP_MAXPOOL, False), (OP_MAXPOOL, True), (OP_AVGPOOL, False), (OP_AVGPOOL, True)):
        rules = {**common, **(conv if op == OP_CONV else {name: (0,) for name in POOL})}
        writes = not raw or op == OP_MAXPOOL  # a max pool writes whatever the bit says
        if writes:
            rules["out_end"] = (capacity + 1, (1 << 18) - 1, 0)
        for name, values in rules.items():
            cases += [(f"op {op}, raw {raw}: {name} = {v}", descriptor(rng, capacity, op, raw).changed(**{name: v})) for v in values]
        if writes:
            cases.append((f"op {op}: empty region", descriptor(rng, capacity, op, raw).changed(out_base=100, out_end=100)))
    cases += [(f"op = {op}", descriptor(rng, capacity, OP_MAXPOOL).changed(op=op)) for op in (0, *range(4, 16))]
    return cases
