"""Random legal networks and inputs, which compare the backends beyond the hand-written tests.

Everything comes from the given numpy Generator: a seed reproduces a network. Sizes, channel counts,
kernels, padding, codebooks and scaling are drawn so that corners (1x1 maps, whole-map kernels,
all-zero or extreme codebooks, saturation, the largest shift) are frequent, while most channels
still carry values that vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from model.network import ACC_MAX, Layer, Network
from model.network.contract import Pair, Shape
from model.network.layer import ABSENT

_T = TypeVar("_T")
_Tensor = tuple[str, Shape, bool]  # name, shape, whether it is signed

ALL_OPS = ("conv", "maxpool", "avgpool", "add")
SIZES = (
    (13, 9),
    (1, 1),
    (8, 8),
    (7, 5),
    (5, 17),
    (1, 12),
    (11, 1),
    (16, 16),
    (32, 32),
    (6, 10),
    (19, 3),
    (2, 2),
)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 32, 33, 64, 70, 101)
ATTEMPTS = 50


def random_network(
    rng: np.random.Generator,
    *,
    stride: Sequence[int] = (1, 2),
    ops: Sequence[str] = ALL_OPS,
    kernels: Sequence[int] = tuple(range(1, 12)),
    pool_kernels: Sequence[int] = (1, 2, 3, 4, 5),
    pool_strides: Sequence[int] = (1, 2, 3),
    sizes: Sequence[Pair] = SIZES,
    channels: Sequence[int] = CHANNELS,
    max_layers: int = 5,
    max_macs: int = 2_000_000,
    max_tensor_bytes: int = 200_000,
    int32: bool = True,
    name: str = "random",
) -> Network:
    """A random legal Network of 1 to max_layers layers.

    stride: those a convolution may have. ops: those it may contain. kernels: sides of convolution
    windows. max_macs: multiply-accumulates of all layers together, padding included.
    max_tensor_bytes: of any one tensor, channels rounded up to 4. int32: whether the last layer may
    emit unscaled sums. Raises ValueError where the constraints leave no network.
    """
    unknown = set(ops) - set(ALL_OPS)
    if unknown:
        raise ValueError(f"unknown ops: {', '.join(sorted(unknown))}")
    limits = _Limits(
        tuple(stride),
        tuple(kernels),
        tuple(pool_kernels),
        tuple(pool_strides),
        tuple(channels),
        max_tensor_bytes,
    )
    fitting = [
        (c, *size)
        for c in channels
        for size in sizes
        if tensor_bytes((c, *size)) <= max_tensor_bytes
    ]
    if not fitting:
        raise ValueError(
            f"no input of the given sizes and channels fits max_tensor_bytes = {max_tensor_bytes}"
        )
    for _ in range(ATTEMPTS):
        builder = _Builder(
            rng,
            limits,
            _pick(rng, fitting),
            bool(rng.integers(2)),
            max_macs,
            int(rng.integers(1, max_layers + 1)),
        )
        builder.grow(ops)
        if builder.layers:
            return builder.network(name, int32 and rng.random() < 0.4)
    raise ValueError(f"found no layer within the constraints in {ATTEMPTS} attempts")


def random_input(rng: np.random.Generator, net: Network, n: int = 1) -> np.ndarray:
    """int32 [n, C, H, W] in the range of the network's input: per image uniform, extremes only,
    sparse, or constant."""
    low, high = net.input_range
    images = np.empty((n, *net.input_shape), np.int32)
    for image in images:
        kind = rng.integers(4)
        if kind == 0:
            image[:] = rng.choice([low, high], image.shape)
        elif kind == 1:
            image[:] = rng.integers(low, high + 1, image.shape) * (rng.random(image.shape) < 0.2)
        elif kind == 2 and rng.random() < 0.5:
            image[:] = rng.choice([low, 0, high])
        else:
            image[:] = rng.integers(low, high + 1, image.shape)
    return images


def tensor_bytes(shape: Shape) -> int:
    """Bytes of a [C, H, W] tensor of 8-bit values whose channels are stored in fours."""
    return 4 * -(-shape[0] // 4) * shape[1] * shape[2]


def affine(net: Network, rng: np.random.Generator) -> Network:
    """The same network with codebooks that two index planes compute: in any order, one weight is
    the sum of the other two. Smaller weights and biases keep its sums within 32 bits."""
    layers = []
    for layer in net.layers:
        if layer.op == "conv":
            first, second = (int(weight) // 2 for weight in layer.codebook[1:3])
            weights = rng.permutation([first, second, first + second])
            codebook = np.array([0, *weights], np.int8)
            layer = replace(layer, codebook=codebook, bias=layer.bias // 2)
        layers.append(layer)
    return replace(net, layers=tuple(layers))


def random_codebook(rng: np.random.Generator) -> np.ndarray:
    """int8 [4], the first entry 0: random, extreme, repeated, small or all zero."""
    kind = rng.integers(8)
    if kind == 0:
        values = rng.permutation([-128, 127, -128])
    elif kind == 1:
        values = np.full(3, rng.integers(-128, 128))
    elif kind == 2:
        values = rng.choice([0, 1, -1, 127, -128], 3)
    elif kind == 3 and rng.random() < 0.3:
        values = np.zeros(3, np.int64)
    elif kind <= 5:
        values = rng.integers(-20, 21, 3)
    else:
        values = rng.integers(-128, 128, 3)
    return np.array([0, *values], np.int8)


def random_scaling(rng: np.random.Generator, spread: float) -> Pair:
    """(mult, shift) that maps sums of the given standard deviation to about 40 on most draws, and
    now and then an extreme pair."""
    kind = rng.integers(12)
    if kind == 0:
        return int(rng.choice([1, 32767])), int(rng.choice([0, 1, 30, 31]))
    if kind == 1:
        return 1, 5  # the paper's mode
    mult = int(rng.integers(1, 32768)) if kind < 9 else int(rng.integers(1, 4))
    shift = round(math.log2(max(spread, 1) * mult / 40)) + int(rng.integers(-1, 2))
    return mult, min(max(shift, 0), 31)


def random_clamp(rng: np.random.Generator) -> Pair:
    """(out_min, out_max): the usual full ranges most often, else any legal pair."""
    kind = rng.integers(6)
    if kind < 2:
        return 0, 255
    if kind < 4:
        return -128, 127
    low, high = (0, 255) if kind == 4 else (-128, 127)
    a, b = sorted(int(v) for v in rng.integers(low, high + 1, 2))
    return a, b


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


class _Limits:
    def __init__(
        self,
        strides: Sequence[int],
        kernels: Sequence[int],
        pool_kernels: Sequence[int],
        pool_strides: Sequence[int],
        channels: Sequence[int],
        max_bytes: int,
    ) -> None:
        self.strides, self.kernels, self.pool_kernels, self.pool_strides = (
            strides,
            kernels,
            pool_kernels,
            pool_strides,
        )
        self.channels, self.max_bytes = channels, max_bytes


class _Builder:
    """Grows a network at its end; a block that would break a limit is left out."""

    def __init__(
        self,
        rng: np.random.Generator,
        limits: _Limits,
        shape: Shape,
        signed: bool,
        macs_left: int,
        max_layers: int,
    ) -> None:
        self.rng, self.limits, self.macs_left, self.max_layers = rng, limits, macs_left, max_layers
        self.input_shape, self.input_signed = shape, signed
        self.layers: list[Layer] = []
        self.tensor: _Tensor = ("input", shape, signed)  # what the next layer reads

    def grow(self, ops: Sequence[str]) -> None:
        weight = {"conv": 5, "maxpool": 2, "avgpool": 1, "add": 2}
        chances = np.array([weight[op] for op in ops], float)
        for _ in range(3 * self.max_layers):
            op = ops[int(self.rng.choice(len(ops), p=chances / chances.sum()))]
            size = {"conv": 1, "maxpool": 1, "avgpool": 1, "add": 3}[op]
            if op == "add" and self.rng.random() < 0.3:
                size = 1  # a tensor added to itself
            if len(self.layers) + size <= self.max_layers:
                {
                    "conv": self._conv,
                    "maxpool": self._maxpool,
                    "avgpool": self._avgpool,
                    "add": lambda: self._residual(size),
                }[op]()

    def network(self, name: str, int32: bool) -> Network:
        layers = list(self.layers)
        last = layers[-1]
        if int32 and last.op in ("conv", "avgpool"):
            unscaled = dict.fromkeys(("mult", "shift", "out_min", "out_max"), ABSENT)
            layers[-1] = replace(last, out="int32", **unscaled)
        scale = tuple(float(s) for s in self.rng.uniform(0.2, 1.0, self.input_shape[0]))
        offset = tuple(float(o) for o in self.rng.uniform(-60, 60, self.input_shape[0]))
        return Network(
            name=name,
            input_shape=self.input_shape,
            input_signed=self.input_signed,
            layers=layers,
            scale=scale,
            offset=offset,
        )

    # -- blocks: each adds its layers, or nothing

    def _conv(self) -> None:
        geometry = self._conv_geometry(self.tensor[1])
        if geometry and self._affordable([geometry]):
            self._append_conv(self.tensor, geometry)

    def _residual(self, size: int) -> None:
        """Two convolutions of one tensor with the same geometry, sometimes with a max pool behind
        each, added; or (size 1) a tensor added to itself."""
        start = self.tensor
        a = b = start
        if size == 3:
            geometry = self._conv_geometry(start[1])
            if not geometry or not self._affordable([geometry, geometry]):
                return
            a = self._append_conv(start, geometry)
            b = self._append_conv(start, geometry)
            if len(self.layers) + 3 <= self.max_layers and self.rng.random() < 0.3:
                a, b = (self._same_maxpool(tensor) for tensor in (a, b))
        low, high = random_clamp(self.rng)
        mult = tuple(int(m) for m in self.rng.integers(1, _pick(self.rng, (3, 100, 32768)), 2))
        shift = min(31, max(0, round(math.log2(sum(mult))) + int(self.rng.integers(-1, 2))))
        self._append(
            Layer(
                name=self._name("add"),
                op="add",
                inputs=(a[0], b[0]),
                mult=mult,
                shift=shift,
                out_min=low,
                out_max=high,
            ),
            a[1],
            low < 0,
        )

    def _same_maxpool(self, tensor: _Tensor) -> _Tensor:
        """A max pool that keeps the shape."""
        name, shape, signed = tensor
        pool = Layer(
            name=self._name("max"),
            op="maxpool",
            inputs=(name,),
            kernel=(3, 3),
            stride=(1, 1),
            pad=(1, 1),
        )
        return self._append(pool, shape, signed)

    def _maxpool(self) -> None:
        shape = self.tensor[1]
        geometry = self._pool_geometry(shape, lambda kernel: kernel // 2)
        if geometry and self._fits(geometry["out_shape"]):
            out_shape = geometry.pop("out_shape")
            self._append(
                Layer(name=self._name("max"), op="maxpool", inputs=(self.tensor[0],), **geometry),
                out_shape,
                self.tensor[2],
            )

    def _avgpool(self) -> None:
        shape = self.tensor[1]
        geometry = self._pool_geometry(
            shape, lambda kernel: kernel - 1, whole=self.rng.random() < 0.4
        )
        if geometry and self._fits(geometry["out_shape"]):
            out_shape = geometry.pop("out_shape")
            low, high = random_clamp(self.rng)
            mult, shift = random_scaling(self.rng, 60 * math.prod(geometry["kernel"]))
            self._append(
                Layer(
                    name=self._name("avg"),
                    op="avgpool",
                    inputs=(self.tensor[0],),
                    mult=mult,
                    shift=shift,
                    out_min=low,
                    out_max=high,
                    **geometry,
                ),
                out_shape,
                low < 0,
            )

    # -- parts

    def _name(self, stem: str) -> str:
        return f"{stem}{len(self.layers) + 1}"

    def _append(self, layer: Layer, out_shape: Shape, signed: bool) -> _Tensor:
        self.layers.append(layer)
        self.tensor = (layer.name, out_shape, signed)
        return self.tensor

    def _fits(self, shape: Shape) -> bool:
        return tensor_bytes(shape) <= self.limits.max_bytes

    def _affordable(self, geometries: Sequence[dict[str, Any]]) -> bool:
        macs = sum(
            math.prod(g["out_shape"]) * g["in_channels"] * math.prod(g["kernel"])
            for g in geometries
        )
        if macs > self.macs_left or not all(self._fits(g["out_shape"]) for g in geometries):
            return False
        self.macs_left -= macs
        return True

    def _conv_geometry(self, shape: Shape) -> dict[str, Any]:
        rng, limits = self.rng, self.limits
        whole = rng.random() < 0.1 and set(shape[1:]) <= set(limits.kernels)
        square = rng.random() < 0.5
        sides = [_pick(rng, limits.kernels), _pick(rng, limits.kernels)]
        kernel = shape[1:] if whole else (sides[0], sides[0]) if square else tuple(sides)
        pad = []
        for size, k in zip(shape[1:], kernel):
            least = max(
                0, -(-(k - size) // 2)
            )  # fewer would leave the window larger than the padded map
            pad.append(
                0
                if whole
                else k // 2
                if least <= k // 2 and rng.random() < 0.5
                else int(rng.integers(least, k))
            )
        stride = (_pick(rng, limits.strides), _pick(rng, limits.strides))
        out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, pad))
        return {
            "kernel": kernel,
            "pad": tuple(pad),
            "stride": stride,
            "in_channels": shape[0],
            "out_shape": (_pick(rng, limits.channels), *out),
        }

    def _pool_geometry(
        self, shape: Shape, max_pad: Callable[[int], int], whole: bool = False
    ) -> dict[str, Any] | None:
        rng, limits = self.rng, self.limits
        kernel = (
            shape[1:]
            if whole
            else (_pick(rng, limits.pool_kernels), _pick(rng, limits.pool_kernels))
        )
        pad = tuple(0 if whole else int(rng.integers(max_pad(k) + 1)) for k in kernel)
        stride = (
            tuple(kernel)
            if rng.random() < 0.5 and not whole
            else (_pick(rng, limits.pool_strides), _pick(rng, limits.pool_strides))
        )
        out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, pad))
        if min(out) < 1:
            return None
        return {
            "kernel": tuple(kernel),
            "pad": pad,
            "stride": stride,
            "out_shape": (shape[0], *out),
        }

    def _append_conv(self, source: _Tensor, geometry: dict[str, Any]) -> _Tensor:
        rng = self.rng
        codebook = random_codebook(rng)
        channels = geometry["out_shape"][0]
        shares = rng.dirichlet(np.full(4, 0.7))
        index = rng.choice(
            4, (channels, geometry["in_channels"], *geometry["kernel"]), p=shares
        ).astype(np.uint8)
        if rng.random() < 0.05:
            index[:] = rng.integers(4)
        energy = float(index[0].size * (shares * codebook.astype(float) ** 2).sum())
        spread = 70 * math.sqrt(energy)
        scaling = np.array([random_scaling(rng, spread) for _ in range(channels)])
        low, high = random_clamp(rng)
        layer = Layer(
            name=self._name("conv"),
            op="conv",
            inputs=(source[0],),
            stride=geometry["stride"],
            pad=geometry["pad"],
            out_min=low,
            out_max=high,
            index=index,
            codebook=codebook,
            bias=self._bias(index, codebook, source[2], spread),
            mult=scaling[:, 0].astype(np.int32),
            shift=scaling[:, 1].astype(np.uint8),
        )
        return self._append(layer, geometry["out_shape"], low < 0)

    def _bias(
        self, index: np.ndarray, codebook: np.ndarray, signed: bool, spread: float
    ) -> np.ndarray:
        """int32 [O]: moderate, and in some channels as large as the 32-bit sum allows."""
        rng = self.rng
        room = ACC_MAX - (128 if signed else 255) * np.abs(codebook.astype(np.int64))[index].sum(
            axis=(1, 2, 3)
        )
        bias = np.rint(rng.normal(0, spread + 1, len(index))).astype(np.int64)
        extreme = rng.random(len(index)) < 0.03
        bias[extreme] = np.where(rng.random(extreme.sum()) < 0.5, room[extreme], -room[extreme])
        return np.clip(bias, -room, room).astype(np.int32)
