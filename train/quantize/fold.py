"""A trained network folded into the integers of the network file, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from model.common.errors import UserError
from model.network import Layer, Network
from model.network.contract import MAX_SHIFT
from train.quantize import Codebook

if TYPE_CHECKING:
    from train.net import Conv, Net

MULT_BITS = 15  # mult is 1..32767


class FoldError(UserError, ValueError):
    """Numbers that the integers of a layer cannot express; the message names the channel."""


def _float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


def mult_and_shift(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mult, shift) int64 with mult / 2^shift nearest to each positive `factor` and mult as large
    as it may be. Raises FoldError."""
    good = (factor > 0) & np.isfinite(factor)
    if not good.all():
        channel = np.argmin(good)
        raise FoldError(
            f"channel {channel}: scale {factor[channel]} is not positive, no mult can express it"
        )
    _, exponent = np.frexp(factor)  # factor = m * 2^exponent, 0.5 <= m < 1
    shift = MULT_BITS - exponent
    mult = np.rint(np.ldexp(factor, shift)).astype(np.int64)
    halve = mult > 2**MULT_BITS - 1  # rounded up to a power of two
    shift, mult = shift - halve, np.where(halve, 2 ** (MULT_BITS - 1), mult)
    if shift.min() < 0 or shift.max() > MAX_SHIFT:
        worst = np.argmax(np.abs(shift - MAX_SHIFT / 2))
        raise FoldError(
            f"channel {worst}: scale {factor[worst]} needs shift {shift[worst]}, "
            f"outside 0..{MAX_SHIFT}"
        )
    return mult, shift


def add_scales(ratio: np.ndarray) -> tuple[tuple[int, int], int]:
    """((mult of either input), shift) of an addition, from output integers per integer of either
    input, float64 [2]. Raises FoldError for a ratio that is not positive or too large."""
    _, shift = mult_and_shift(ratio.max(keepdims=True))
    mult = np.rint(np.ldexp(ratio, shift)).astype(np.int64)
    if mult.min() < 1:
        raise FoldError(f"inputs whose scales differ by {ratio.max() / ratio.min():.0f} times")
    return (int(mult[0]), int(mult[1])), int(shift[0])


def factors(block: Conv) -> np.ndarray:
    """Output integers per integer of the sums, float64 [O]; a power of two without batch norm."""
    bn = block.bn
    found = float(block.steps) * _float64(bn.weight) / np.sqrt(_float64(bn.running_var) + bn.eps)
    return np.exp2(np.rint(np.log2(found))) if block.spec["norm"] == "fixed" else found


def fold_scales(block: Conv) -> dict[str, np.ndarray]:
    """bias int32, mult int32 and shift uint8, [O] each, of a convolution; in float64. In a "fixed"
    layer mult is 1. Raises FoldError that names the channel if a scale cannot be expressed."""
    factor = factors(block)
    if block.spec["norm"] == "fixed":
        mult, shift = np.ones(len(factor), np.int64), -np.log2(factor).astype(np.int64)
    else:
        mult, shift = mult_and_shift(factor)
    bias = float(block.steps) * _float64(block.bn.bias) / factor - _float64(block.bn.running_mean)
    bias = np.rint(bias)
    fits = (bias >= -(2.0**31)) & (bias < 2.0**31)
    if not fits.all():
        channel = np.argmin(fits)
        raise FoldError(f"channel {channel}: bias {bias[channel]} does not fit 32 bits")
    scales = {"mult": mult.astype(np.int32), "shift": shift.astype(np.uint8)}
    return {"bias": bias.astype(np.int32), **({} if block.raw else scales)}


def fold(block: Conv) -> dict[str, Any]:
    """What the file's layer has of a convolution whose quantizer has a codebook.

    Raises FoldError for what the file cannot express.
    """
    if not block.conv.weight.isfinite().all():  # a quantizer would make zeros of them
        raise FoldError("weights that are not finite")
    if not isinstance(block.quantizer, Codebook):
        raise FoldError(f"{block.quantizer} has no codebook of four values")
    index, codebook = block.quantizer.quantize(block.conv.weight)
    return {
        "index": index.cpu().numpy().astype(np.uint8),
        "codebook": codebook.cpu().numpy().astype(np.int8),
        **fold_scales(block),
    }


def _fields(node: Any) -> dict[str, Any]:
    """What the layer of the file has besides name, op and inputs."""
    spec, (low, high) = node.spec, node.limits
    clamp = {"out": "int32"} if node.raw else {"out_min": low, "out_max": high}
    window = {key: tuple(spec[key]) for key in ("stride", "pad", "kernel") if key in spec}
    if spec["op"] == "conv":
        del window["kernel"]
        return {**window, **clamp, **fold(node)}
    if spec["op"] == "maxpool":
        return window
    mult, shift = (None, None) if node.raw else node.scales()
    return {**window, **clamp, "mult": mult, "shift": shift}


def to_network(net: Net, name: str = "network", classes: tuple[str, ...] = ()) -> Network:
    """The integer network of a quantized one. Raises FoldError or NetworkError (with the layer)."""
    layers, renamed = [], {"input": "input"}
    for own, node in net.nodes.items():
        inputs = tuple(renamed[source] for source in node.spec["inputs"])
        renamed[own] = inputs[0] if node.spec["op"] == "dropout" else own
        if node.spec["op"] == "dropout":
            continue
        try:
            layers.append(Layer(name=own, op=node.spec["op"], inputs=inputs, **_fields(node)))
        except FoldError as error:
            raise FoldError(f"layer {own}: {error}") from None
    source = net.spec["input"]
    return Network(
        name=name,
        input_shape=tuple(source["shape"]),
        input_signed=True,
        layers=tuple(layers),
        scale=tuple(source["scale"]),
        offset=tuple(source["offset"]),
        classes=tuple(classes),
    )
