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
    graph = _Graph()
    kinds = {"input": _kind(net.input_signed)}
    for layer in net.layers:
        {"conv": graph.conv, "maxpool": graph.maxpool, "avgpool": graph.avgpool, "add": graph.add}[
            layer.op
        ](layer, layer is net.output)
        kinds[layer.name] = _kind(layer.out_signed)
    result = helper.make_tensor_value_info(
        net.output.name, TensorProto.INT32, ["N", *net.output.out_shape]
    )
    source = helper.make_tensor_value_info("input", kinds["input"], ["N", *net.input_shape])
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

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [result], name=result, **attributes))
        return result

    def tensor(self, name: str, array: Any) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def conv(self, layer: Layer, last: bool) -> None:
        weight = self.tensor(f"{layer.name}.weight", layer.weights)
        sums = self.node(
            "ConvInteger",
            [layer.inputs[0], weight],
            f"{layer.name}.sums",
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.pad, *layer.pad],
        )
        bias = self.tensor(f"{layer.name}.bias", layer.bias.reshape(1, -1, 1, 1))
        if layer.out == "int32":
            self.node("Add", [sums, bias], layer.name)
            return
        total = self.node("Add", [sums, bias], f"{layer.name}.total")
        wide = self.node("Cast", [total], f"{layer.name}.wide", to=TensorProto.INT64)
        self._scaled(layer, last, wide, layer.mult, layer.shift)

    def avgpool(self, layer: Layer, last: bool) -> None:
        channels = layer.in_shape[0]
        ones = self.tensor(f"{layer.name}.ones", np.ones((channels, 1, *layer.kernel), np.uint8))
        raw = layer.out == "int32"
        sums = self.node(
            "ConvInteger",
            [layer.inputs[0], ones],
            layer.name if raw else f"{layer.name}.sums",
            group=channels,
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.pad, *layer.pad],
        )
        if not raw:
            wide = self.node("Cast", [sums], f"{layer.name}.wide", to=TensorProto.INT64)
            self._scaled(layer, last, wide, layer.mult, layer.shift)

    def maxpool(self, layer: Layer, last: bool) -> None:
        result = f"{layer.name}.narrow" if last else layer.name
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
        terms = []
        for side, name, mult in zip("ab", layer.inputs, layer.mult):
            wide = self.node("Cast", [name], f"{layer.name}.{side}", to=TensorProto.INT64)
            factor = self.tensor(f"{layer.name}.mult_{side}", np.array(mult, np.int64))
            terms.append(self.node("Mul", [wide, factor], f"{layer.name}.{side}_scaled"))
        total = self.node("Add", terms, f"{layer.name}.total")
        self._shifted(layer, last, total, np.array([layer.shift]))

    def _scaled(self, layer: Layer, last: bool, wide: str, mult: Any, shift: Any) -> None:
        mult, shift = (np.atleast_1d(v).astype(np.int64) for v in (mult, shift))
        factor = self.tensor(f"{layer.name}.mult", mult.reshape(1, -1, 1, 1))
        product = self.node("Mul", [wide, factor], f"{layer.name}.product")
        self._shifted(layer, last, product, shift)

    def _shifted(self, layer: Layer, last: bool, product: str, shift: Any) -> None:
        """clamp((product + round) >> shift) in the type of the layer's result."""
        shift = shift.astype(np.int64).reshape(1, -1, 1, 1)
        divisor = np.int64(1) << shift
        name = layer.name
        above = self.tensor(f"{name}.above", np.int64(ABOVE) + (divisor >> 1))
        by = self.tensor(f"{name}.divisor", divisor)
        back = self.tensor(f"{name}.back", np.int64(ABOVE) // divisor)
        raised = self.node("Add", [product, above], f"{name}.raised")
        quotient = self.node("Div", [raised, by], f"{name}.quotient")
        shifted = self.node("Sub", [quotient, back], f"{name}.shifted")
        limits = [
            self.tensor(f"{name}.{key}", np.array(getattr(layer, key), np.int64))
            for key in ("out_min", "out_max")
        ]
        clamped = self.node("Clip", [shifted, *limits], f"{name}.clamped")
        kind = TensorProto.INT32 if last else _kind(layer.out_signed)
        self.node("Cast", [clamped], name, to=kind)


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
