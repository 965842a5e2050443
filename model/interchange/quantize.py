"""Real numbers -> a network of 8-bit integers, layer by layer, from calibration images.

Each layer reads the integers of those quantized before it and is fitted to the sums of the network
in real numbers, so later layers correct earlier ones. The result depends on the model and the
images only, not on the processor (model/interchange/exact.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from model.interchange import exact
from model.interchange.codebook import PEAK, Fit, best_codebook, find_levels, keeps_sums
from model.interchange.float_net import FloatLayer, FloatNet, Grid
from model.interchange.onnx_file import ModelError
from model.interchange.scales import ScaleError, multiplier, multipliers
from model.network import ACC_MAX, Layer, Network
from model.reference.integer import BLAS, run_layer

MAX_IMAGES = 256  # of the calibration set
MAX_VALUES = 1 << 26  # of a tensor of all images
ROWS = 12_288  # input patches that a layer's moments are measured on
SAMPLES = 1 << 18  # values that an activation scale is chosen on
SHRINK, STEPS = 0.88, 14  # scales tried: each a constant factor below the one before
CHUNK = 16  # images unfolded at a time


@dataclass(frozen=True)
class Quality:
    """How one layer came out. weights: "exact", "fitted" or ""; sqnr: of its integers against the
    real numbers, in dB, NaN without calibration images; clamped: share of its integers at a
    limit."""

    name: str
    weights: str
    sqnr: float
    clamped: float


@dataclass(frozen=True)
class Quantized:
    """A network, how its layers came out, and the share of calibration images whose largest score
    is that of the real numbers (None where there are no scores)."""

    net: Network
    layers: list[Quality]
    agreement: float | None


@dataclass(eq=False)
class _Tensor:
    """A tensor in both forms. real: float64 or None; integers: int32 or None; real is about
    scale * integers, whose range is signed or not."""

    real: Any
    integers: Any
    scale: float
    signed: bool


_Made = tuple[Layer, _Tensor, str]


def quantize(
    net: FloatNet, images: np.ndarray | None, pixels: tuple[np.ndarray, np.ndarray] | None
) -> Quantized:
    """Quantize `net`.

    images: raw input [N, C, H, W] in float64; None for a model that prescribes all quantization.
    pixels: (gain, offset) [C] of the raw input in pixels 0..255, None where it has none.
    Raises ModelError that names the layer.
    """
    if images is not None:
        largest = max(math.prod(net.shape(name)) for name in ["input", *_names(net)])
        images = images[: max(1, min(MAX_IMAGES, MAX_VALUES // largest))]
    with BLAS.limit(limits=1, user_api="blas"):  # its threads wait for each other: most are small
        try:
            with np.errstate(over="raise", invalid="raise"):
                return _Quantizer(net, images, pixels).run()
        except FloatingPointError:
            raise ModelError(
                "the numbers of model and calibration images exceed floating point; check both"
            ) from None


def _names(net: FloatNet) -> list[str]:
    return [layer.name for layer in net.layers]


class _Quantizer:
    def __init__(
        self, net: FloatNet, images: np.ndarray | None, pixels: tuple[np.ndarray, np.ndarray] | None
    ) -> None:
        self.net, self.pixels = net, pixels
        self.layers: list[Layer] = []
        self.quality: list[Quality] = []
        self.tensors = {"input": self._input(images)}

    def run(self) -> Quantized:
        net, source = self.net, self.tensors["input"]
        last_use = {name: i for i, layer in enumerate(net.layers) for name in layer.inputs}
        for number, layer in enumerate(net.layers):
            self._layer(layer, last=number + 1 == len(net.layers))
            for name in [n for n in self.tensors if last_use.get(n, number + 1) <= number]:
                del self.tensors[name]
        scale = offset = None
        if self.pixels is not None:
            gain, shift = self.pixels
            scale = tuple(float(v) for v in gain * net.gain / source.scale)
            offset = tuple(float(v) for v in (shift * net.gain + net.offset) / source.scale)
        made = Network(
            name=net.name,
            input_shape=net.input_shape,
            input_signed=source.signed,
            layers=self.layers,
            scale=scale,
            offset=offset,
        )
        return Quantized(made, self.quality, self._agreement())

    def _input(self, images: np.ndarray | None) -> _Tensor:
        net = self.net
        real: Any = None
        if images is not None:
            real = _normalized(net, images)
        if net.grid is None and real is None:
            raise ModelError("the model does not quantize its input; give calibration images")
        signed = net.grid.low < 0 if net.grid else bool((real < 0).any())
        scale = net.grid.scale if net.grid else _scale(real, signed)
        if real is None:
            return _Tensor(None, None, scale, signed)
        low, high = (-128, 127) if signed else (0, 255)
        return _Tensor(real, np.rint(real / scale).clip(low, high).astype(np.int32), scale, signed)

    def _agreement(self) -> float | None:
        result = self.tensors[self.net.layers[-1].name]
        if result.real is None or result.real.shape[2:] != (1, 1) or result.real.shape[1] < 2:
            return None
        best, ours = (t.reshape(len(t), -1).argmax(axis=1) for t in (result.real, result.integers))
        return float((best == ours).mean())

    def _layer(self, layer: FloatLayer, last: bool) -> None:
        inputs = [self.tensors[name] for name in layer.inputs]
        try:
            made, result, how = getattr(self, f"_{layer.op}")(layer, last, *inputs)
        except FloatingPointError:
            raise ModelError(
                f"layer '{layer.name}': its values exceed floating point; train or export again"
            ) from None
        except ScaleError as error:
            raise ModelError(
                f"layer '{layer.name}': {error}; check the scales of its quantizers, or the "
                "calibration images"
            ) from None
        except ModelError as error:
            raise ModelError(f"layer '{layer.name}': {error}") from None
        checked = _checked(made, layer, [self.net.shape(n) for n in layer.inputs], inputs)
        if result.real is not None:
            result.integers = run_layer(checked, *(t.integers for t in inputs))
        self.layers.append(made)
        self.tensors[layer.name] = result
        self.quality.append(_quality(layer, made, result, how))

    # -- operators: each gives the integer layer, its result so far, and how its weights were found

    def _conv(self, layer: FloatLayer, last: bool, source: _Tensor) -> _Made:
        sums = None if source.real is None else _sums(layer, source.real)
        fit, bias = self._weights(layer, source, sums, shared=last and keeps_sums(layer, None))
        real = None if sums is None else _clamp(layer, sums + layer.bias[:, None, None])
        raw = last and keeps_sums(layer, fit)
        signed = layer.grid.low < 0 if layer.grid else layer.low < 0
        scale = source.scale * fit.scale[0] if raw else self._out_scale(layer, real, signed)
        dead = ~fit.index.any(axis=1)  # their bias needs a unit finer than an output step
        units = np.where(dead & (not raw), scale / 256, source.scale * fit.scale)
        weights = dict(
            index=fit.index.reshape(layer.weight.shape),
            codebook=fit.codebook.astype(np.int8),
            bias=_bias(bias / units, layer, fit, source.signed),
        )
        if raw:
            made = self._made(layer, out="int32", **weights)
            return made, _Tensor(real, None, scale, True), _how(fit)
        mult, shift = multiplier(units / scale)
        low, high = _limits(layer, scale, signed)
        made = self._made(
            layer,
            mult=mult.astype(np.int32),
            shift=shift.astype(np.uint8),
            out_min=low,
            out_max=high,
            **weights,
        )
        return made, _Tensor(real, None, scale, low < 0), _how(fit)

    def _maxpool(self, layer: FloatLayer, last: bool, source: _Tensor) -> _Made:
        real = None if source.real is None else _max_pool(layer, source.real)
        return self._made(layer), _Tensor(real, None, source.scale, source.signed), ""

    def _avgpool(self, layer: FloatLayer, last: bool, source: _Tensor) -> _Made:
        window = math.prod(layer.kernel)
        real = (
            None
            if source.real is None
            else _clamp(layer, _window_sums(layer, source.real) / window)
        )
        if last and keeps_sums(layer, None):
            made = self._made(layer, out="int32")
            return made, _Tensor(real, None, source.scale / window, True), ""
        signed = layer.grid.low < 0 if layer.grid else source.signed and layer.low < 0
        scale = self._out_scale(layer, real, signed)
        mult, shift = multiplier(np.array([source.scale / window / scale]))
        low, high = _limits(layer, scale, signed)
        made = self._made(layer, mult=int(mult[0]), shift=int(shift[0]), out_min=low, out_max=high)
        return made, _Tensor(real, None, scale, low < 0), ""

    def _add(self, layer: FloatLayer, last: bool, a: _Tensor, b: _Tensor) -> _Made:
        real = None if a.real is None else _clamp(layer, a.real + b.real)
        natural = (a.signed or b.signed) and layer.low < 0
        signed = layer.grid.low < 0 if layer.grid else natural
        scale = self._out_scale(layer, real, signed)
        mult, shift = multipliers((a.scale / scale, b.scale / scale))
        low, high = _limits(layer, scale, signed)
        made = self._made(layer, mult=mult, shift=shift, out_min=low, out_max=high)
        return made, _Tensor(real, None, scale, low < 0), ""

    # -- parts

    def _made(self, layer: FloatLayer, **fields: Any) -> Layer:
        geometry: dict[str, Any] = (
            {} if layer.op == "add" else dict(stride=layer.stride, pad=layer.pad)
        )
        if layer.op in ("maxpool", "avgpool"):
            geometry["kernel"] = layer.kernel
        return Layer(name=layer.name, op=layer.op, inputs=layer.inputs, **geometry, **fields)

    def _out_scale(self, layer: FloatLayer, real: Any, signed: bool) -> float:
        if layer.grid is not None:
            return layer.grid.scale
        if real is None:
            raise ModelError("the model does not quantize its result; give calibration images")
        return _scale(real, signed)

    def _weights(
        self, layer: FloatLayer, source: _Tensor, sums: Any, shared: bool
    ) -> tuple[Fit, np.ndarray]:
        """(Fit of a convolution's weights, bias in real numbers that goes with it)."""
        flat = layer.weight.reshape(len(layer.weight), -1)
        fit = find_levels(flat)
        if fit is not None:
            return _finer(fit, layer.bias, source.scale), layer.bias
        if sums is None:
            raise ModelError(
                "its weights are no multiples of three values and zero; give calibration images"
            )
        rows, wanted = _samples(layer, source.integers, sums)
        mean, middle, covariance, crossed = exact.joint_moments(rows, wanted / source.scale)
        fit = best_codebook(flat, covariance, crossed, _mask(layer), shared)
        moved = middle - exact.matmul(fit.weights, exact.operand(mean[:, None], len(mean)))[:, 0]
        return fit, layer.bias + source.scale * moved


def _how(fit: Fit) -> str:
    return "exact" if fit.exact else "fitted"


def _mask(layer: FloatLayer) -> np.ndarray:
    """bool [O, K]: weights that are not the zeros between groups."""
    outputs, inputs = layer.weight.shape[:2]
    group = np.arange(outputs)[:, None] * layer.groups // outputs
    allowed = np.arange(inputs) * layer.groups // inputs == group
    return np.repeat(allowed, math.prod(layer.weight.shape[2:]), axis=1)


def _finer(fit: Fit, bias: np.ndarray, unit: float) -> Fit:
    """The same weights in larger integers, where the bias is no multiple of the present unit."""
    peak = int(np.abs(fit.codebook).max())
    steps = bias / (unit * fit.scale)
    if peak == 0 or np.abs(steps - np.rint(steps)).max() < 1e-3:
        return fit
    factor = max(1, PEAK // peak)
    return Fit(fit.scale / factor, fit.codebook * factor, fit.index, fit.exact)


def _bias(steps: np.ndarray, layer: FloatLayer, fit: Fit, signed: bool) -> np.ndarray:
    """int32 [O] of a bias in units of the sums. Raises ModelError where the sum would overflow."""
    reach = (128 if signed else 255) * np.abs(fit.codebook)[fit.index].sum(axis=1)
    if (bad := reach + np.abs(np.rint(steps)) > ACC_MAX).any():
        channel = int(np.argmax(bad))
        raise ModelError(
            f"output channel {channel}: its bias of {layer.bias[channel]:.3g} does not fit the "
            "32-bit sum beside such small weights; remove the channel or train with weight decay"
        )
    return np.rint(steps).astype(np.int32)


def _limits(layer: FloatLayer, scale: float, signed: bool) -> tuple[int, int]:
    grid = layer.grid or Grid(scale, *((-128, 127) if signed else (0, 255)))
    low = max(grid.low, min(grid.high, _steps(layer.low, scale)))
    return low, max(low, min(grid.high, _steps(layer.high, scale)))


def _steps(limit: float, scale: float) -> int:
    return int(np.rint(np.clip(limit / scale, -1000, 1000)))


def _scale(real: np.ndarray, signed: bool) -> float:
    """The scale of least squared error for 8-bit integers."""
    values = real.ravel()
    if values.size > SAMPLES:
        values = values[np.random.default_rng(0).integers(0, values.size, SAMPLES)]
    low, high = (-128, 127) if signed else (0, 255)
    top = max(float(real.max()) / high, float(real.min()) / low if signed else 0.0)
    if top == 0:
        return 1.0
    least, best = math.inf, top
    for _ in range(STEPS):
        off = np.rint(values / top).clip(low, high) * top - values
        error = float(exact.total(off * off))
        if error < least:
            least, best = error, top
        top *= SHRINK
    return best


def _checked(made: Layer, layer: FloatLayer, shapes: list, inputs: list) -> Layer:
    """The layer with its derived fields, from a network of its own."""
    if layer.op == "add":
        return made
    net = Network(
        name=layer.name,
        input_shape=shapes[0],
        input_signed=inputs[0].signed,
        layers=[replace(made, inputs=("input",))],
    )
    return net.layers[0]


def _quality(layer: FloatLayer, made: Layer, result: _Tensor, how: str) -> Quality:
    if result.real is None:
        return Quality(layer.name, how, math.nan, math.nan)
    off = result.integers * result.scale - result.real
    sqnr = exact.sqnr(result.real, off)
    clamped = 0.0
    if made.out_min is not None:
        at_limit: Any = result.integers == made.out_max
        if made.out_min < 0:
            at_limit |= result.integers == made.out_min
        clamped = float(at_limit.mean())
    return Quality(layer.name, how, sqnr, clamped)


# -- real numbers, rounded so that sums are exact


def run_net(net: FloatNet, images: np.ndarray) -> dict[str, np.ndarray]:
    """{layer: float64 [N, C, H, W]} of a network in real numbers, whose quantizers clamp but do not
    round; images: raw input [N, C, H, W]."""
    tensors = {"input": _normalized(net, np.asarray(images, np.float64))}
    for layer in net.layers:
        tensors[layer.name] = run_float(layer, *(tensors[name] for name in layer.inputs))
    del tensors["input"]
    return tensors


def _normalized(net: FloatNet, images: np.ndarray) -> np.ndarray:
    """What the first layers read, of raw input [N, C, H, W]."""
    real = images * net.gain[:, None, None] + net.offset[:, None, None]
    return real if net.grid is None else real.clip(*net.grid.limits)


def run_float(layer: FloatLayer, *inputs: np.ndarray) -> np.ndarray:
    """One layer in real numbers: float64 [N, C, H, W] each."""
    if layer.op == "maxpool":
        return _max_pool(layer, *inputs)
    if layer.op == "add":
        return _clamp(layer, inputs[0] + inputs[1])
    if layer.op == "avgpool":
        return _clamp(layer, _window_sums(layer, *inputs) / math.prod(layer.kernel))
    return _clamp(layer, _sums(layer, *inputs) + layer.bias[:, None, None])


def _clamp(layer: FloatLayer, x: np.ndarray) -> np.ndarray:
    return x.clip(*layer.limits)


def _sums(layer: FloatLayer, x: np.ndarray) -> np.ndarray:
    products = math.prod(layer.weight.shape[1:])
    a, b = (torch.from_numpy(exact.operand(v, products)) for v in (x, layer.weight))
    return F.conv2d(a, b, stride=layer.stride, padding=layer.pad).numpy()


def _max_pool(layer: FloatLayer, x: np.ndarray) -> np.ndarray:
    return F.max_pool2d(torch.from_numpy(x), layer.kernel, layer.stride, layer.pad).numpy()


def _window_sums(layer: FloatLayer, x: np.ndarray) -> np.ndarray:
    bits = exact.BITS - math.prod(layer.kernel).bit_length()
    vertical, horizontal = layer.pad
    padded = F.pad(
        torch.from_numpy(exact.rounded(x, bits)), (horizontal, horizontal, vertical, vertical)
    )
    return F.avg_pool2d(padded, layer.kernel, layer.stride, divisor_override=1).numpy()


def _samples(
    layer: FloatLayer, integers: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(int patches [S, K] of the input, wanted sums [S, O]) at random places of all images."""
    images, _, height, width = sums.shape
    places = images * height * width
    chosen = np.arange(places)
    if places > ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(places)[:ROWS])
    rows, wanted = [], []
    for start in range(0, images, CHUNK):
        part = torch.from_numpy(integers[start : start + CHUNK]).float()
        columns = F.unfold(part, layer.kernel, padding=layer.pad, stride=layer.stride)
        patches = columns.numpy().transpose(0, 2, 1).reshape(-1, columns.shape[1])
        outputs = sums[start : start + CHUNK].transpose(0, 2, 3, 1).reshape(len(patches), -1)
        first = start * height * width
        here = chosen[(chosen >= first) & (chosen < first + len(patches))] - first
        rows.append(patches[here])
        wanted.append(outputs[here])
    return np.concatenate(rows), np.concatenate(wanted)
