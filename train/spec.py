"""The description of a network (`train.net.Net`) as it stands in a checkpoint, read without
trust."""

import math
import re

from torch import nn

from model.common.errors import UserError
from model.network.contract import MAX_KERNEL, show

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
MAX_SIZE = 1 << 16  # channels, height, width
MAX_LAYERS = 1000
MAX_WEIGHTS = 1 << 28
MAX_VALUES = 1 << 26  # of one tensor of an image


class SpecError(UserError, ValueError):
    """A description that describes no network; the message names the layer and the field."""


def _whole(low, high):
    return lambda value: type(value) is int and low <= value <= high


def _two(check):
    return lambda value: isinstance(value, list) and len(value) == 2 and all(map(check, value))


def _number(low, high):
    return lambda value: type(value) in (int, float) and low <= value <= high


def _flag(value):
    return type(value) is bool


SIGNED = {"signed": _flag}
WINDOW = {
    "kernel": _two(_whole(1, MAX_SIZE)),
    "stride": _two(_whole(1, MAX_SIZE)),
    "pad": _two(_whole(0, MAX_SIZE)),
}
CONV = {
    "channels": _two(_whole(1, MAX_SIZE)),
    "kernel": _two(_whole(1, MAX_KERNEL)),
    "norm": lambda value: value in ("batch", "bias", "fixed"),
    "relu": _flag,
}
FIELDS = {
    "conv": {**SIGNED, **WINDOW, **CONV},
    "maxpool": {**SIGNED, **WINDOW},
    "avgpool": {**SIGNED, **WINDOW, "global": _flag, "last": _flag},
    "add": {**SIGNED, "relu": _flag},
    "dropout": {**SIGNED, "share": _number(0, 1 - 1e-9)},
}


def output_shape(layer: dict, shapes: dict[str, tuple]) -> tuple[int, int, int]:
    """(C, H, W) of a layer's output; shapes: those of "input" and the layers before. Raises
    ValueError."""
    inputs = [shapes[name] for name in layer["inputs"]]
    if len(set(inputs)) != 1:
        raise ValueError(f"inputs of the shapes {[list(shape) for shape in inputs]} differ")
    channels, *size = inputs[0]
    if layer["op"] in ("add", "dropout"):
        return inputs[0]
    if layer["op"] == "conv" and layer["channels"][0] != channels:
        raise ValueError(f"channels: {layer['channels'][0]} do not fit an input of {channels}")
    windows = zip(size, layer["kernel"], layer["stride"], layer["pad"])
    size = [(n + 2 * pad - kernel) // stride + 1 for n, kernel, stride, pad in windows]
    if min(size) < 1:
        raise ValueError(f"kernel {layer['kernel']} is larger than its input")
    if any(2 * pad > k for pad, k in zip(layer["pad"], layer["kernel"]) if layer["op"] != "conv"):
        raise ValueError(f"pad {layer['pad']} is more than half of the kernel")
    return (layer["channels"][1] if layer["op"] == "conv" else channels, *size)


def check(spec) -> dict[str, tuple[int, int, int]]:
    """{name: (C, H, W)} of the layers of a legal description. Raises SpecError."""
    if not isinstance(spec, dict) or set(spec) != {"input", "layers"}:
        raise SpecError("net must be a table of input and layers")
    shapes = {"input": _check_input(spec["input"])}
    layers = spec["layers"]
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise SpecError(f"net.layers must be a list of 1..{MAX_LAYERS} layers")
    weights = 0
    for number, layer in enumerate(layers):
        where = f"net.layers[{number}]"
        _check_layer(layer, where, shapes)
        if layer["op"] == "conv":
            weights += math.prod(layer["channels"]) * math.prod(layer["kernel"])
        try:
            shape = shapes[layer["name"]] = output_shape(layer, shapes)
        except ValueError as error:
            raise SpecError(f"{where} {layer['name']}: {error}") from error
        if weights > MAX_WEIGHTS or math.prod(shape) > MAX_VALUES:
            raise SpecError(f"{where} {layer['name']}: the network is too large")
    if not weights:
        raise SpecError("net.layers has no convolution")
    del shapes["input"]
    return shapes


def _check_input(source) -> tuple:
    if not isinstance(source, dict) or set(source) != {"shape", "scale", "offset", "unit"}:
        raise SpecError("net.input must be a table of shape, scale, offset and unit")
    shape = source["shape"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(map(_whole(1, MAX_SIZE), shape))):
        raise SpecError(f"net.input.shape must be three whole numbers, not {show(shape)}")
    for key in ("scale", "offset"):
        values = source[key]
        if not (isinstance(values, list) and len(values) == shape[0]) or not all(
            map(_number(-1e6, 1e6), values)
        ):
            raise SpecError(f"net.input.{key} must be {shape[0]} numbers, not {show(values)}")
    if not _number(1e-6, 1e6)(source["unit"]) or math.prod(shape) > MAX_VALUES:
        raise SpecError(f"net.input.unit must be a positive number, not {show(source['unit'])}")
    return tuple(shape)


def _check_layer(layer, where, before) -> None:
    if not isinstance(layer, dict) or layer.get("op") not in list(FIELDS):
        raise SpecError(f"{where}.op must be one of {', '.join(FIELDS)}")
    fields, op = FIELDS[layer["op"]], layer["op"]
    name, inputs = layer.get("name"), layer.get("inputs")
    if not isinstance(name, str) or not NAME.fullmatch(name) or hasattr(nn.ModuleDict, name):
        raise SpecError(f"{where}.name is not a layer's name: {show(name)}")
    if name in before:
        raise SpecError(f"{where}.name: there are two layers {name}")
    known = isinstance(inputs, list) and all(isinstance(one, str) for one in inputs)
    if not known or len(inputs) != 1 + (op == "add") or not set(inputs) <= set(before):
        raise SpecError(f"{where}.inputs must name layers before {name}, not {show(inputs)}")
    optional = {"eps": _number(0, 1)} if op == "conv" else {}
    for key in {**fields, **layer}:
        if key in ("name", "op", "inputs"):
            continue
        allowed = {**fields, **optional}.get(key)
        if allowed is None or key not in layer or not allowed(layer[key]):
            value = show(layer[key]) if key in layer else "missing"
            raise SpecError(f"{where}.{show(key)} of {name} cannot be {value}")
