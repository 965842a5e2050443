"""The checks of every network, built in code or read from a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model.network.contract import (
    ACC_MAX,
    MAX_KERNEL,
    MAX_MULT,
    MAX_SHIFT,
    MAX_TENSOR,
    NAMES,
    OPS,
    NetworkError,
    Pair,
    Shape,
    bad_name,
    dims,
    is_name,
    show,
)
from model.network.layer import Layer

if TYPE_CHECKING:  # it imports this module
    from model.network.network import Network


def check_header(net: Network) -> None:
    """Check and normalize name, input and classes of a Network in place. Raises NetworkError."""
    if not is_name(net.name):
        raise NetworkError(f"name: must be a string of {NAMES}, not {show(net.name)}")
    if not isinstance(net.input_signed, (bool, np.bool_)):
        raise NetworkError(f"input: signed: must be true or false, not {show(net.input_signed)}")
    object.__setattr__(net, "input_signed", bool(net.input_signed))
    object.__setattr__(
        net, "input_shape", _ints("input", "shape", net.input_shape, 3, 1, 2**31 - 1)
    )
    _check_size("input: shape", net.input_shape)
    if (net.scale is None) != (net.offset is None):
        raise NetworkError("input: scale and offset: give both or neither")
    if net.scale is not None:
        object.__setattr__(net, "scale", _floats(net, "scale"))
        object.__setattr__(net, "offset", _floats(net, "offset"))
    classes = net.classes if net.classes is not None else ()
    if not isinstance(classes, (list, tuple)) or not all(map(is_name, classes)):
        raise NetworkError(f"classes: must be a list of strings of {NAMES}, not {show(classes)}")
    object.__setattr__(net, "classes", tuple(classes))


def _floats(net: Network, key: str) -> tuple[float, ...]:
    values, channels = getattr(net, key), net.input_shape[0]
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if (
        not isinstance(values, (list, tuple))
        or len(values) != channels
        or not all(map(_is_finite, values))
    ):
        raise NetworkError(
            f"input: {key}: must be {channels} finite numbers, one per input channel, not "
            f"{show(values)}"
        )
    return tuple(float(v) for v in values)


def _is_finite(value: object) -> bool:
    try:
        return (
            isinstance(value, (int, float, np.number))
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
    except OverflowError:  # an integer beyond float64
        return False


def checked_layers(net: Network) -> tuple[Layer, ...]:
    """The layers of a Network in plain types, with the derived fields filled in. Raises
    NetworkError."""
    layers = net.layers
    if not isinstance(layers, (list, tuple)) or not layers:
        raise NetworkError("layers: there must be at least one")
    done: dict[str, Layer] = {}
    given = [getattr(layer, "name", None) for layer in layers]
    names = {name for name in given if isinstance(name, str)}
    for number, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise NetworkError(f"layers[{number}]: must be a Layer, not {type(layer).__name__}")
        where = _check_name(layer, number, done)
        inputs = _check_inputs(net, layer, where, done, names)
        last = number == len(layers) - 1
        done[layer.name] = _checked(layer, where, inputs, last)
    used = {name for layer in done.values() for name in layer.inputs}
    for layer in list(done.values())[:-1]:
        if layer.name not in used:
            raise NetworkError(
                f"layer '{layer.name}': inputs: no layer reads this one, and only the last layer "
                "is an output"
            )
    return tuple(done.values())


def _check_name(layer: Layer, number: int, done: dict[str, Layer]) -> str:
    name = layer.name
    if not is_name(name):
        raise bad_name(number, name)
    if name == "input":
        raise NetworkError(f"layers[{number}]: name: 'input' is reserved for the network's input")
    if name in done:
        raise NetworkError(f"layer '{name}': name: used twice")
    return f"layer '{name}'"


def _check_inputs(
    net: Network, layer: Layer, where: str, done: dict[str, Layer], names: set[str]
) -> list[tuple[Shape, bool]]:
    """Returns [(shape, signed)] of the tensors that the layer reads."""
    if layer.op not in OPS:
        raise NetworkError(f"{where}: op: {show(layer.op)} is unknown; there are {', '.join(OPS)}")
    count = 2 if layer.op == "add" else 1
    if (
        not isinstance(layer.inputs, (list, tuple))
        or len(layer.inputs) != count
        or not all(isinstance(i, str) for i in layer.inputs)
    ):
        raise NetworkError(
            f"{where}: inputs: {layer.op} takes a list of {count} name{'s' * (count > 1)}, not "
            f"{show(layer.inputs)}"
        )
    tensors = []
    for name in layer.inputs:
        if name == "input":
            tensors.append((net.input_shape, net.input_signed))
        elif name in done:
            tensors.append((done[name].out_shape, done[name].out_signed))
        elif name in names:
            raise NetworkError(
                f"{where}: inputs: '{name}' comes after it or is the layer itself; layers stand "
                "after those they read"
            )
        else:
            raise NetworkError(f"{where}: inputs: there is no layer {show(name)}")
    return tensors


def _checked(layer: Layer, where: str, inputs: list[tuple[Shape, bool]], last: bool) -> Layer:
    """A copy of the layer with its fields checked, in plain types, and the derived ones filled
    in."""
    shape, signed = inputs[0]
    clean: dict[str, Any] = {"inputs": tuple(layer.inputs)}
    _check_out(layer, where, last)
    scaled = layer.op != "maxpool" and layer.out == "int8"
    out_shape, out_signed = shape, signed
    if layer.op == "conv":
        clean.update(_check_weights(layer, where, shape, scaled))
    if layer.op in ("maxpool", "avgpool"):
        clean["kernel"] = _ints(where, "kernel", layer.kernel, 2, 1, 2**31 - 1)
    if layer.op != "add":
        clean.update(_check_geometry(layer, where, clean["kernel"]))
        channels = len(clean["bias"]) if layer.op == "conv" else shape[0]
        out_shape = (
            channels,
            *_output_size(where, shape, **{key: clean[key] for key in ("kernel", "stride", "pad")}),
        )
        _check_size(f"{where}: output", out_shape)
    if layer.op == "avgpool" and scaled:
        clean["mult"] = _int(where, "mult", layer.mult, 1, MAX_MULT)
        clean["shift"] = _int(where, "shift", layer.shift, 0, MAX_SHIFT)
    if layer.op == "add":
        if inputs[1][0] != shape:
            raise NetworkError(
                f"{where}: inputs: '{layer.inputs[0]}' is {dims(shape)} but '{layer.inputs[1]}' is "
                f"{dims(inputs[1][0])}"
            )
        clean["mult"] = _ints(where, "mult", layer.mult, 2, 1, MAX_MULT)
        clean["shift"] = _int(where, "shift", layer.shift, 0, MAX_SHIFT)
    clean["out_min"], clean["out_max"] = _check_clamp(layer, where) if scaled else (None, None)
    if scaled:
        out_signed = clean["out_min"] < 0
    if layer.out == "int32":
        clean.update(mult=None, shift=None)
        out_signed = True
    derived = {
        "in_shape": shape,
        "out_shape": out_shape,
        "in_signed": signed,
        "in_signed_all": tuple(s for _, s in inputs),
        "out_signed": out_signed,
    }
    result = replace(layer, **clean)
    for key, value in derived.items():
        object.__setattr__(result, key, value)
    _check_sums(result, where)
    return result


def _check_out(layer: Layer, where: str, last: bool) -> None:
    if layer.out not in ("int8", "int32"):
        raise NetworkError(f"{where}: out: must be 'int8' or 'int32', not {show(layer.out)}")
    if layer.out == "int32" and not last:
        raise NetworkError(f"{where}: out: only the last layer may be 'int32'")
    if layer.out == "int32" and layer.op not in ("conv", "avgpool"):
        raise NetworkError(f"{where}: out: only conv and avgpool may be 'int32', not {layer.op}")


def _check_weights(layer: Layer, where: str, shape: Shape, scaled: bool) -> dict[str, Any]:
    index = _array(where, "index", layer.index, np.uint8, (None, shape[0], None, None))
    if index.max() > 3:
        at = [int(i) for i in np.argwhere(index > 3)[0]]
        raise NetworkError(f"{where}: index: {index[tuple(at)]} at {at} is outside 0..3")
    for axis, size in zip(("height", "width"), index.shape[2:]):
        if size > MAX_KERNEL:
            raise NetworkError(f"{where}: index: kernel {axis} {size} is outside 1..{MAX_KERNEL}")
    codebook = _array(where, "codebook", layer.codebook, np.int8, (4,))
    if codebook[0] != 0:
        raise NetworkError(f"{where}: codebook: entry 0 must be 0, not {codebook[0]}")
    channels = (len(index),)
    clean = {
        "index": index,
        "codebook": codebook,
        "kernel": index.shape[2:],
        "bias": _array(where, "bias", layer.bias, np.int32, channels),
    }
    if scaled:
        clean["mult"] = _array(where, "mult", layer.mult, np.int32, channels, 1, MAX_MULT)
        clean["shift"] = _array(where, "shift", layer.shift, np.uint8, channels, 0, MAX_SHIFT)
    return clean


def _check_geometry(layer: Layer, where: str, kernel: Pair) -> dict[str, Any]:
    stride = _ints(where, "stride", layer.stride, 2, 1, 2 if layer.op == "conv" else 2**31 - 1)
    pad = _ints(where, "pad", layer.pad, 2, 0, 2**31 - 1)
    for axis, p, k in zip(("vertical", "horizontal"), pad, kernel):
        limit = k // 2 if layer.op == "maxpool" else k - 1
        if p > limit:
            rule = "at most half the kernel" if layer.op == "maxpool" else "smaller than the kernel"
            raise NetworkError(f"{where}: pad: {axis} padding {p} must be {rule} ({k})")
    return {"stride": stride, "pad": pad}


def _output_size(where: str, shape: Shape, kernel: Pair, stride: Pair, pad: Pair) -> Pair:
    height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, pad))
    if min(height, width) < 1:
        raise NetworkError(
            f"{where}: kernel: {dims(kernel)} is larger than its padded input "
            f"{dims(n + 2 * p for n, p in zip(shape[1:], pad))}"
        )
    return height, width


def _check_size(where: str, shape: Sequence[int]) -> None:
    if math.prod(shape) > MAX_TENSOR:
        raise NetworkError(
            f"{where}: {dims(shape)} has {math.prod(shape):,} values, at most {MAX_TENSOR:,} are "
            "allowed"
        )


def _check_clamp(layer: Layer, where: str) -> Pair:
    low, high = (_int(where, key, getattr(layer, key), -128, 255) for key in ("out_min", "out_max"))
    if low > high:
        raise NetworkError(f"{where}: out_min: {low} is larger than out_max {high}")
    if low < 0 and high > 127:
        raise NetworkError(
            f"{where}: out_max: {low}..{high} lies neither inside -128..127 nor inside 0..255"
        )
    return low, high


def _check_sums(layer: Layer, where: str) -> None:
    if layer.op not in ("conv", "avgpool"):
        return
    total = layer.sum_bound + (np.abs(layer.bias.astype(np.int64)) if layer.op == "conv" else 0)
    channel = int(total.argmax())
    if total[channel] > ACC_MAX:
        cause = (
            "bias: max|a| * sum|w| + |bias|" if layer.op == "conv" else "kernel: max|a| * window"
        )
        raise NetworkError(
            f"{where}: {cause} of output channel {channel} is {total[channel]}, more than the "
            f"32-bit sum holds ({ACC_MAX})"
        )


def _int(where: str, key: str, value: Any, low: int, high: int) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or not low <= value <= high
    ):
        raise NetworkError(
            f"{where}: {key}: must be an integer in {low}..{high}, not {show(value)}"
        )
    return int(value)


def _ints(where: str, key: str, values: Any, count: int, low: int, high: int) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise NetworkError(
            f"{where}: {key}: must be a list of {count} integers, not {show(values)}"
        )
    return tuple(_int(where, key, value, low, high) for value in values)


def _array(
    where: str,
    key: str,
    array: Any,
    kind: type[np.generic],
    shape: tuple[int | None, ...],
    low: int | None = None,
    high: int | None = None,
) -> np.ndarray:
    """A read-only native copy of ``array``; None in ``shape`` allows any size of at least 1."""
    dtype = np.dtype(kind)
    if not isinstance(array, np.ndarray):
        raise NetworkError(f"{where}: {key}: must be an array, not {show(array)}")
    if array.dtype.newbyteorder("=") != dtype:
        raise NetworkError(f"{where}: {key}: must be {dtype}, not {array.dtype}")
    if array.ndim != len(shape) or any(
        n < 1 or want not in (None, n) for n, want in zip(array.shape, shape)
    ):
        raise NetworkError(
            f"{where}: {key}: must have shape {dims('any' if n is None else n for n in shape)}, "
            f"not {dims(array.shape)}"
        )
    if low is not None and not (low <= array.min() and array.max() <= high):
        channel = int(np.flatnonzero((array < low) | (array > high))[0])
        raise NetworkError(
            f"{where}: {key}: {array[channel]} of output channel {channel} is outside {low}..{high}"
        )
    array = np.array(array, dtype, order="C", copy=True if array.flags.writeable else None)
    array.setflags(write=False)
    return array
