"""A sum of two tensors in a feature buffer: the pooling unit's configuration, the buffer's contents
and the sums that must come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.compiler.program_format import OP_ADD
from model.performance.pool_cycles import add_cycles, add_reads
from tb.blocks.pooling.pool_layer import BUFFER_QUADS, PoolLayer, placed


@dataclass(frozen=True)
class AddLayer:
    """first: shape, sign and place of the first tensor and place of the output, as an average pool
    of single pixels. other_base: quad address of the second; mult: both multipliers."""

    first: PoolLayer
    other_signed: bool
    other_base: int
    mult: tuple[int, int]
    op = "add"

    def reads(self, modules: int) -> int:
        return add_reads(self.first.shape, modules)

    def cycles(self, modules: int, read_latency: int) -> int:
        return add_cycles(self.first.shape, modules, read_latency)

    @property
    def values(self) -> dict[str, int]:
        """{field: value} of the descriptor."""
        mult, other_mult = self.mult
        return self.first.values | {
            "op": OP_ADD,
            "other_signed": self.other_signed,
            "other_base": self.other_base,
            "mult": mult,
            "other_mult": other_mult,
        }

    def buffer(self, rng: np.random.Generator) -> np.ndarray:
        """uint8 [BUFFER_QUADS, 4] of random contents, extremes in every fourth channel."""
        buffer = rng.integers(0, 256, (BUFFER_QUADS, 4), dtype=np.uint8)
        buffer[:, 0] = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), BUFFER_QUADS)
        return buffer

    def expected_sums(self, buffer: np.ndarray, modules: int) -> list[tuple]:
        """(sums, word, address, mask, last) in order; sums of quads outside the mask are 0."""
        layer, step = self.first, modules // 4
        total = sum(
            mult * self._values(buffer, base, signed)
            for mult, base, signed in zip(
                self.mult, (layer.in_base, self.other_base), (layer.signed, self.other_signed)
            )
        )
        result = []
        for y, x in np.ndindex(*layer.out_size):
            for word in range(-(-layer.quads // step)):
                quads = total[y, x, word * step : (word + 1) * step]
                sums = np.zeros((step, 4), np.int64)
                sums[: len(quads)] = quads
                address = layer.out_base + y * layer.out_row_stride + x * layer.quads + word * step
                mask = (1 << len(quads)) - 1
                result.append((sums.reshape(-1).tolist(), word, address, mask, False))
        result[-1] = (*result[-1][:-1], True)
        return result

    def _values(self, buffer: np.ndarray, base: int, signed: bool) -> np.ndarray:
        """int64 [H, W, Q, 4] of the tensor at this base."""
        places = self.first.pixel_quads(base, self.first.in_row_stride, self.first.shape[1:])
        return buffer[places].view(np.int8 if signed else np.uint8).astype(np.int64)


def random_add(rng: np.random.Generator, shape: tuple | None = None) -> AddLayer:
    """A sum of tensors of this shape (None: a random one) anywhere in the buffer, now and then of
    one tensor and itself."""
    if shape is None:
        channels = int(rng.choice([1, 4, 5, 16, 20, 33, 64, 100]))
        shape = (channels, *(int(n) for n in rng.choice([1, 1, 2, 3, 5, 8], 2)))
    first = placed(rng, "avgpool", bool(rng.integers(2)), shape, (1, 1), (1, 1), (0, 0))
    size = (shape[1] - 1) * first.in_row_stride + shape[2] * first.quads
    itself = rng.random() < 0.2
    base = first.in_base if itself else int(rng.integers(BUFFER_QUADS - size + 1))
    return AddLayer(
        first,
        first.signed if itself else bool(rng.integers(2)),
        base,
        tuple(int(m) for m in rng.choice([1, 2, 32766, 32767, int(rng.integers(1, 32768))], 2)),
    )
