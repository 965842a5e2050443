"""Builds networks of given shapes layer by layer; their random weights keep the tensors varied."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from model.network import Layer, Network
from model.network.random_networks import random_codebook, random_scaling
from model.reference.integer import run_integer

EXTREME_CODEBOOKS = ((-128, 127, -128), (127, 127, 127), (-128, -128, -128), (1, -1, 127))
CLAMPS = ((0, 255), (-128, 127), (0, 255), (-100, 90), (7, 200))
ATTEMPTS = 50  # draws of a convolution until its output is alive


def alive(tensor: np.ndarray) -> bool:
    """Whether a tensor [N, C, H, W] varies enough for a comparison to mean something: within a
    channel of an image, or over all channels of a few pixels. Tensors of fewer than 64 values
    always pass."""
    if tensor.size < 64:
        return True
    parts = tensor.swapaxes(0, 1) if tensor.shape[2] * tensor.shape[3] >= 16 else [tensor]
    return any(len(np.unique(part)) > 2 for part in parts)


class Chain:
    """A network under construction: each call appends a layer that reads the one before. All calls
    return self.

    rng: numpy Generator; shape: (C, H, W) of the input; signed: its range is -128..127 instead of
    0..255. `images` are two inputs, int32 [2, C, H, W], one uniform and one of extremes only;
    scaling factors are chosen on them, so that no layer's output is constant.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple, signed: bool, name: str = "chain"):
        self.rng, self.name = rng, name
        self.input_shape, self.input_signed = tuple(shape), bool(signed)
        low, high = (-128, 127) if signed else (0, 255)
        self.images = rng.integers(low, high + 1, (2, *shape)).astype(np.int32)
        self.images[1] = rng.choice([low, high], shape)
        self.layers: list[Layer] = []
        self._made = {"input": (self.images, self.input_signed)}  # values and sign of each tensor
        self.branch("input")

    @property
    def shape(self) -> tuple:
        """(C, H, W) of the last layer's output."""
        return self._tensor.shape[1:]

    def branch(self, name: str) -> Chain:
        """The next layer reads the tensor of this name."""
        self._source, (self._tensor, self._signed) = name, self._made[name]
        return self

    def conv(
        self,
        channels: int,
        kernel: tuple,
        pad: tuple = (0, 0),
        *,
        stride: tuple = (1, 1),
        codebook=None,
        index: int | None = None,
        raw: bool = False,
    ) -> Chain:
        """A convolution. codebook: its entries 1..3, random if None; index: the same
        one for all weights; raw: int32 output."""
        for _ in range(ATTEMPTS):
            fields = self._draw_conv(channels, kernel, pad, stride, codebook, index, raw)
            if alive(
                self._run(
                    Layer(name="drawn", inputs=("input",), out="int32" if raw else "int8", **fields)
                )[:1]
            ):
                break
        return self._append(kernel, raw, **fields)

    def centred_conv(
        self,
        channels: int,
        kernel: tuple,
        pad: tuple,
        centre: int,
        clamp: tuple,
        *,
        codebook=(-90, 50, 77),
    ) -> Chain:
        """A convolution whose outputs lie within `centre` +- 60, more than 15 from it on some
        positions, before `clamp` cuts them."""
        size = (channels, self.shape[0], *kernel)
        fields = dict(
            op="conv",
            stride=(1, 1),
            pad=tuple(pad),
            index=self.rng.integers(0, 4, size).astype(np.uint8),
            codebook=np.array([0, *codebook], np.int8),
        )
        sums = self._run(
            Layer(
                name="sums",
                inputs=("input",),
                out="int32",
                bias=np.zeros(channels, np.int32),
                **fields,
            )
        )
        mean = np.rint(sums.mean(axis=(0, 2, 3))).astype(np.int64)
        largest = np.abs(sums - mean[:, None, None]).max(axis=(0, 2, 3))
        shift = np.ceil(np.log2(np.maximum(largest, 60) / 60)).astype(np.int64)
        return self._append(
            kernel,
            False,
            bias=((centre << shift) - mean).astype(np.int32),
            mult=np.ones(channels, np.int32),
            shift=shift.astype(np.uint8),
            out_min=clamp[0],
            out_max=clamp[1],
            **fields,
        )

    def plain_conv(self, channels: int, *, codebook=(-3, 2, 5), **scaling) -> Chain:
        """A 1x1 convolution of random weights with the given bias and, unless it emits sums, mult,
        shift, out_min and out_max."""
        index = self.rng.integers(0, 4, (channels, self.shape[0], 1, 1)).astype(np.uint8)
        return self._append(
            (1, 1),
            "mult" not in scaling,
            op="conv",
            stride=(1, 1),
            pad=(0, 0),
            index=index,
            codebook=np.array([0, *codebook], np.int8),
            **scaling,
        )

    def _draw_conv(
        self, channels: int, kernel: tuple, pad: tuple, stride: tuple, codebook, index, raw: bool
    ) -> dict:
        """Fields of a random convolution, scaled for what it reads."""
        rng = self.rng
        entries = random_codebook(rng) if codebook is None else np.array([0, *codebook], np.int8)
        if not entries.any():
            entries = np.array(
                [0, -77, 50, 3], np.int8
            )  # an all-zero layer would leave nothing to check behind it
        size = (channels, self.shape[0], *kernel)
        chosen = (
            rng.choice(4, size, p=rng.dirichlet(np.full(4, 2.0)))
            if index is None
            else np.full(size, index)
        )
        fields = dict(
            op="conv",
            stride=tuple(stride),
            pad=tuple(pad),
            index=chosen.astype(np.uint8),
            codebook=entries,
        )
        sums = self._run(
            Layer(
                name="sums",
                inputs=("input",),
                out="int32",
                bias=np.zeros(channels, np.int32),
                **fields,
            )
        )
        bias, mult, shift, clamp = self._scaling(sums)
        scaling = {} if raw else dict(mult=mult, shift=shift, out_min=clamp[0], out_max=clamp[1])
        return dict(bias=bias, **fields, **scaling)

    def _scaling(self, sums):
        """Per channel (bias, mult, shift) that spreads these sums [N, C, H, W] over most of a clamp
        range; some channels at random."""
        rng = self.rng
        low, high = CLAMPS[int(rng.integers(len(CLAMPS)))]
        mean, spread = sums.mean(axis=(0, 2, 3)), np.maximum(sums.std(axis=(0, 2, 3)), 1)
        mult = rng.integers(1 << 6, 1 << 15, len(mean))
        shift = np.clip(np.rint(np.log2(spread * mult / 50)), 0, 31).astype(np.int64)
        bias = np.rint((low + high) / 2 * 2.0**shift / mult - mean)
        wild = rng.random(len(mean)) < 0.1
        pairs = np.array([random_scaling(rng, s) for s in spread])
        mult[wild], shift[wild] = pairs[wild].T
        return bias.astype(np.int32), mult.astype(np.int32), shift.astype(np.uint8), (low, high)

    def maxpool(self, kernel: tuple, stride: tuple, pad: tuple = (0, 0)) -> Chain:
        """A max pool; padding at most half the kernel."""
        return self._append(
            kernel, False, op="maxpool", stride=tuple(stride), pad=tuple(pad), kernel=tuple(kernel)
        )

    def avgpool(
        self,
        kernel: tuple,
        stride: tuple,
        pad: tuple = (0, 0),
        *,
        clamp: tuple = (-128, 127),
        raw: bool = False,
        shift: int | None = None,
    ) -> Chain:
        """An average pool that divides by about its window, or by 2^shift; raw: the int32 sums."""
        scaling = {}
        if shift is not None:
            scaling = dict(mult=1, shift=shift, out_min=clamp[0], out_max=clamp[1])
        elif not raw:
            mult = int(self.rng.integers(1 << 8, 1 << 15))
            shift = min(31, max(0, round(math.log2(mult * math.prod(kernel)))))
            scaling = dict(mult=mult, shift=shift, out_min=clamp[0], out_max=clamp[1])
        return self._append(
            kernel,
            raw,
            op="avgpool",
            stride=tuple(stride),
            pad=tuple(pad),
            kernel=tuple(kernel),
            **scaling,
        )

    def add(
        self, *inputs: str, mult: tuple = (1, 1), shift: int = 1, clamp: tuple | None = None
    ) -> Chain:
        """The sum of two tensors by name, of the last one and itself if there is no name. clamp:
        None keeps the sign of the first."""
        layer = Layer(
            name=f"add{len(self.layers) + 1}",
            op="add",
            inputs=inputs or 2 * (self._source,),
            mult=mult,
            shift=shift,
            out_min=clamp[0] if clamp else -128 if self._signed else 0,
            out_max=clamp[1] if clamp else 127 if self._signed else 255,
        )
        self.layers.append(layer)
        (a, _), (b, _) = (self._made[name] for name in layer.inputs)
        total = a.astype(np.int64) * mult[0] + b.astype(np.int64) * mult[1]
        values = np.clip((total + (1 << shift >> 1)) >> shift, layer.out_min, layer.out_max).astype(
            np.int32
        )
        self._made[layer.name] = (values, layer.out_min < 0)
        return self.branch(layer.name)

    def network(self) -> Network:
        """The finished network, checked."""
        return Network(
            name=self.name,
            input_shape=self.input_shape,
            input_signed=self.input_signed,
            layers=self.layers,
        )

    def _run(self, layer: Layer) -> np.ndarray:
        """Output of a layer on what the chain has computed so far."""
        return run_integer(self._single(layer), self._tensor)

    def _single(self, layer: Layer) -> Network:
        return Network(
            name=self.name,
            input_shape=self.shape,
            input_signed=self._signed,
            layers=[replace(layer, inputs=("input",))],
        )

    def _append(self, window, raw, **fields) -> Chain:
        name = f"{fields['op']}{len(self.layers) + 1}_{window[0]}x{window[1]}"
        layer = Layer(name=name, inputs=(self._source,), out="int32" if raw else "int8", **fields)
        self._made[name] = (self._run(layer), self._single(layer).output.out_signed)
        self.layers.append(layer)
        return self.branch(name)
