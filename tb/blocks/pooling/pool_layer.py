"""A pooling layer in a feature buffer: the unit's configuration, the buffer's contents and the
expected results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.compiler.program import OP_CODES
from model.compiler.program_format import QUAD_ADDR_W
from model.network import Layer, Network
from model.performance.pool_cycles import pool_cycles, pool_reads
from model.reference.integer import run_integer

OPS = ("maxpool", "avgpool")
BUFFER_QUADS = 1 << QUAD_ADDR_W


@dataclass(frozen=True)
class PoolLayer:
    """Shape and placement of a layer. in_base, out_base and the row strides are in quads."""

    op: str
    signed: bool
    shape: tuple  # (C, H, W)
    kernel: tuple
    stride: tuple
    pad: tuple
    in_base: int = 0
    in_row_stride: int = 0
    out_base: int = 0
    out_row_stride: int = 0

    @property
    def quads(self) -> int:
        return -(-self.shape[0] // 4)

    @property
    def out_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        return tuple(
            (n + 2 * p - k) // s + 1
            for n, k, s, p in zip(self.shape[1:], self.kernel, self.stride, self.pad)
        )

    def reads(self, modules: int) -> int:
        return pool_reads(self.op, self.shape, self.kernel, self.stride, self.pad, modules)

    def cycles(self, modules: int, read_latency: int) -> int:
        return pool_cycles(
            self.op, self.shape, self.kernel, self.stride, self.pad, modules, read_latency
        )

    def stalled_cycles(self, modules: int, read_latency: int, blocked: list[bool]) -> int:
        """Cycles from start_i to done_o when the output stage has no room in the cycles `blocked`,
        counted from start_i.

        A window waits for room in the cycle before its first read; once begun it is read to its
        end.
        """
        axes = []
        for size, kernel, stride, pad, count in zip(
            self.shape[1:], self.kernel, self.stride, self.pad, self.out_size
        ):
            starts = np.arange(count) * stride - pad
            axes.append(np.minimum(starts + kernel, size) - np.maximum(starts, 0))
        windows = np.outer(*axes).reshape(-1)
        now = (
            self.cycles(modules, read_latency) - self.reads(modules) - read_latency
        )  # cycle of the first read
        for reads in np.repeat(windows, self.reads(modules) // windows.sum()).tolist():
            while blocked[now - 1]:
                now += 1
            now += reads
        return now + read_latency

    @property
    def values(self) -> dict[str, int]:
        """{field: value} of the descriptor."""
        (height, width), (out_height, out_width) = self.shape[1:], self.out_size
        values = {
            "op": OP_CODES[self.op],
            "in_signed": self.signed,
            "in_quads": self.quads,
            "in_h": height,
            "in_w": width,
            "out_h": out_height,
            "out_w": out_width,
        }
        for name in ("in_base", "in_row_stride", "out_base", "out_row_stride"):
            values[name] = getattr(self, name)
        for name in ("kernel", "stride", "pad"):
            values[f"pool_{name}_h"], values[f"pool_{name}_w"] = getattr(self, name)
        return values

    def pixel_quads(self, base: int, row_stride: int, size: tuple[int, int]) -> np.ndarray:
        """Quad addresses int64 [H, W, Q] of a feature map."""
        y, x, q = np.ogrid[: size[0], : size[1], : self.quads]
        return base + y * row_stride + x * self.quads + q

    def random_input(self, rng: np.random.Generator) -> np.ndarray:
        """int32 [C, H, W] in the input's range; in some of them mostly extremes and neighbours of
        zero."""
        low, high = (-128, 127) if self.signed else (0, 255)
        x = rng.integers(low, high + 1, self.shape)
        if rng.random() < 0.5:
            x = np.where(
                rng.random(self.shape) < 0.8,
                rng.choice(
                    [low, low + 1, -1 if self.signed else 127, 0, 128 if not self.signed else 1],
                    self.shape,
                ),
                x,
            )
        if rng.random() < 0.2:
            x[:] = low  # padding must not win against it
        return x.astype(np.int32)

    def buffer(self, rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        """uint8 [BUFFER_QUADS, 4]: random contents, the feature map, zeros in the channels that it
        does not have."""
        buffer = rng.integers(0, 256, (BUFFER_QUADS, 4), dtype=np.uint8)
        buffer[self.pixel_quads(self.in_base, self.in_row_stride, self.shape[1:])] = self._as_quads(
            x
        )
        return buffer

    def _as_quads(self, x: np.ndarray) -> np.ndarray:
        channels = np.zeros((4 * self.quads, *x.shape[1:]), np.uint8)
        channels[: len(x)] = x & 0xFF
        return channels.transpose(1, 2, 0).reshape(*x.shape[1:], self.quads, 4)

    def golden(self, x: np.ndarray) -> np.ndarray:
        """int32 [C, Ho, Wo] from the integer model: maxima, or plain sums."""
        out = {"out": "int32"} if self.op == "avgpool" else {}
        layer = Layer(
            name="pool",
            op=self.op,
            inputs=("input",),
            kernel=self.kernel,
            stride=self.stride,
            pad=self.pad,
            **out,
        )
        net = Network(
            name="pool", input_shape=self.shape, input_signed=self.signed, layers=(layer,)
        )
        return run_integer(net, x[None])[0]

    def expected_buffer(self, buffer: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The buffer after max pooling."""
        after = buffer.copy()
        after[self.pixel_quads(self.out_base, self.out_row_stride, self.out_size)] = self._as_quads(
            self.golden(x)
        )
        return after

    def expected_sums(self, x: np.ndarray, modules: int) -> list[tuple]:
        """(sums, word, address, mask, last) of average pooling in order."""
        sums, step = self.golden(x), modules // 4
        words = -(-self.quads // step)
        lanes = np.zeros((words * modules, *sums.shape[1:]), np.int64)
        lanes[: len(sums)] = sums
        lanes = lanes.reshape(words, modules, *sums.shape[1:])
        result = []
        for y, x0 in np.ndindex(*self.out_size):
            for word in range(words):
                address = self.out_base + y * self.out_row_stride + x0 * self.quads + word * step
                mask = (1 << min(step, self.quads - word * step)) - 1
                result.append((lanes[word, :, y, x0].tolist(), word, address, mask, False))
        result[-1] = (*result[-1][:-1], True)
        return result


def placed(
    rng: np.random.Generator, op: str, signed: bool, shape, kernel, stride, pad
) -> PoolLayer:
    """A layer at random places of the buffer, with gaps between rows where there is room."""
    layer = PoolLayer(op, signed, tuple(shape), tuple(kernel), tuple(stride), tuple(pad))
    row_strides, sizes = [], []
    for height, width in (layer.shape[1:], layer.out_size):
        row = width * layer.quads
        gap = int(rng.integers(0, 20)) if rng.random() < 0.5 else 0
        row_strides.append(row + (gap if height * (row + gap) < BUFFER_QUADS // 4 else 0))
        sizes.append((height - 1) * row_strides[-1] + row)
    first, second = (0, 1) if rng.random() < 0.5 else (1, 0)
    spare = BUFFER_QUADS - sum(sizes)
    bases = [0, 0]
    bases[first] = int(rng.integers(spare // 2 + 1))
    bases[second] = bases[first] + sizes[first] + int(rng.integers(spare // 2 + 1))
    return PoolLayer(
        op,
        signed,
        layer.shape,
        layer.kernel,
        layer.stride,
        layer.pad,
        bases[0],
        row_strides[0],
        bases[1],
        row_strides[1],
    )


def random_layer(rng: np.random.Generator, modules: int, max_reads: int) -> PoolLayer:
    """A legal layer of at most max_reads reads."""
    while True:
        op = str(rng.choice(OPS))
        channels = int(rng.choice([1, 3, 4, 10, 20, 31, 32, 33, 61, 64, 96, 101, 192, 512]))
        size = tuple(int(n) for n in rng.choice([1, 1, 2, 3, 4, 5, 7, 8, 9, 13], 2))
        kernel = tuple(
            int(rng.integers(1, n + 5)) if rng.random() < 0.5 else int(rng.integers(1, 4))
            for n in size
        )
        stride = tuple(int(s) for s in rng.choice([1, 1, 2, 2, 3, 4, 7, 300], 2))
        limits = [k // 2 if op == "maxpool" else k - 1 for k in kernel]
        pad = tuple(int(rng.choice([0, limit, rng.integers(limit + 1)])) for limit in limits)
        if any(n + 2 * p < k for n, p, k in zip(size, pad, kernel)):
            continue
        layer = placed(rng, op, bool(rng.integers(2)), (channels, *size), kernel, stride, pad)
        if layer.reads(modules) <= max_reads:
            return layer
