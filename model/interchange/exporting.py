"""`python -m model export`: a network file becomes an ONNX model of integer operators, in which
onnxruntime computes the same integers.

Sums are ConvInteger's (int32); the output stage is integer arithmetic in 64 bits. ONNX has no
arithmetic shift of signed integers, and its division rounds towards zero: so an offset, a multiple
of the divisor, is added before the division and its quotient subtracted after.
"""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.common.command import Command, OutputFile
from model.common.errors import printable
from model.common.files import output
from model.network import Layer, Network, load_network

OPSET, IR_VERSION = 21, 10
ABOVE = 1 << 50  # beyond any product of the output stage, and a multiple of 2^31


def to_onnx(net: Network) -> onnx.ModelProto:
    """A checked ONNX model of `net`: "input" int8 or uint8 [N, C, H, W]; the result, named like the
    last layer, int32 [N, C, H, W]."""
    graph = _Graph([layer.name for layer in net.layers])
    for layer in net.layers:
        {"conv": graph.conv, "maxpool": graph.maxpool, "avgpool": graph.avgpool, "add": graph.add}[
            layer.op
        ](layer, layer is net.output)
    result = helper.make_tensor_value_info(
        net.output.name, TensorProto.INT32, ["N", *net.output.out_shape]
    )
    source = helper.make_tensor_value_info(
        "input", _kind(net.input_signed), ["N", *net.input_shape]
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, net.name, [source], [result], graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="clipq",
    )
    facts = {"scale": net.scale, "offset": net.offset, "classes": net.classes}
    helper.set_model_props(model, {k: json.dumps(v) for k, v in facts.items() if v})
    onnx.checker.check_model(model, full_check=True)
    return model


def _kind(signed: bool) -> int:
    return TensorProto.INT8 if signed else TensorProto.UINT8


class _Graph:
    """Nodes and constants; each layer's result is a tensor of the layer's name."""

    def __init__(self, names: list[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.dot = "."  # no layer may have the name of a tensor inside another one
        while any(one.startswith(name + self.dot) for name in names for one in names):
            self.dot += "."

    def own(self, layer: Layer) -> str:
        """How the names of the tensors inside a layer begin."""
        return layer.name + self.dot

    def node(self, op: str, inputs: list[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [result], name=result, **attributes))
        return result

    def tensor(self, name: str, array: Any) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def conv(self, layer: Layer, last: bool) -> None:
        own = self.own(layer)
        weight = self.tensor(f"{own}weight", layer.weights)
        sums = self.node(
            "ConvInteger",
            [layer.inputs[0], weight],
            f"{own}sums",
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.pad, *layer.pad],
        )
        bias = self.tensor(f"{own}bias", layer.bias.reshape(1, -1, 1, 1))
        if layer.out == "int32":
            self.node("Add", [sums, bias], layer.name)
            return
        total = self.node("Add", [sums, bias], f"{own}total")
        wide = self.node("Cast", [total], f"{own}wide", to=TensorProto.INT64)
        self._scaled(layer, last, wide, layer.mult, layer.shift)

    def avgpool(self, layer: Layer, last: bool) -> None:
        own = self.own(layer)
        channels = layer.in_shape[0]
        ones = self.tensor(f"{own}ones", np.ones((channels, 1, *layer.kernel), np.uint8))
        raw = layer.out == "int32"
        sums = self.node(
            "ConvInteger",
            [layer.inputs[0], ones],
            layer.name if raw else f"{own}sums",
            group=channels,
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.pad, *layer.pad],
        )
        if not raw:
            wide = self.node("Cast", [sums], f"{own}wide", to=TensorProto.INT64)
            self._scaled(layer, last, wide, layer.mult, layer.shift)

    def maxpool(self, layer: Layer, last: bool) -> None:
        own = self.own(layer)
        result = f"{own}narrow" if last else layer.name
        self.node(
            "MaxPool",
            [layer.inputs[0]],
            result,
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.pad, *layer.pad],
        )
        if last:
            self.node("Cast", [result], layer.name, to=TensorProto.INT32)

    def add(self, layer: Layer, last: bool) -> None:
        own = self.own(layer)
        terms = []
        for side, name, mult in zip("ab", layer.inputs, layer.mult):
            wide = self.node("Cast", [name], f"{own}{side}", to=TensorProto.INT64)
            factor = self.tensor(f"{own}mult_{side}", np.array(mult, np.int64))
            terms.append(self.node("Mul", [wide, factor], f"{own}{side}_scaled"))
        total = self.node("Add", terms, f"{own}total")
        self._shifted(layer, last, total, np.array([layer.shift]))

    def _scaled(self, layer: Layer, last: bool, wide: str, mult: Any, shift: Any) -> None:
        own = self.own(layer)
        mult, shift = (np.atleast_1d(v).astype(np.int64) for v in (mult, shift))
        factor = self.tensor(f"{own}mult", mult.reshape(1, -1, 1, 1))
        product = self.node("Mul", [wide, factor], f"{own}product")
        self._shifted(layer, last, product, shift)

    def _shifted(self, layer: Layer, last: bool, product: str, shift: Any) -> None:
        """clamp((product + round) >> shift) in the type of the layer's result."""
        shift = shift.astype(np.int64).reshape(1, -1, 1, 1)
        divisor = np.int64(1) << shift
        own = self.own(layer)
        above = self.tensor(f"{own}above", np.int64(ABOVE) + (divisor >> 1))
        by = self.tensor(f"{own}divisor", divisor)
        back = self.tensor(f"{own}back", np.int64(ABOVE) // divisor)
        raised = self.node("Add", [product, above], f"{own}raised")
        quotient = self.node("Div", [raised, by], f"{own}quotient")
        shifted = self.node("Sub", [quotient, back], f"{own}shifted")
        limits = [
            self.tensor(f"{own}{key}", np.array(getattr(layer, key), np.int64))
            for key in ("out_min", "out_max")
        ]
        clamped = self.node("Clip", [shifted, *limits], f"{own}clamped")
        kind = TensorProto.INT32 if last else _kind(layer.out_signed)
        self.node("Cast", [clamped], layer.name, to=kind)


@click.command(cls=Command, name="export")
@click.option("--net", "path", required=True, help="Network file, .clipq.npz.")
@click.option("--out", required=True, type=OutputFile(), help="ONNX model.")
def main(path: str, out: str) -> None:
    """A network file becomes an ONNX model of integer operators."""
    net = load_network(path)
    data = to_onnx(net).SerializeToString(deterministic=True)
    with output(out) as handle:
        handle.write(data)
    click.echo(f"{printable(path)} -> {printable(out)}: {len(data):,} bytes")
