"""The walk over the nodes of an ONNX graph, and what operators share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from model.common.errors import printable
from model.interchange.float_net import FloatLayer, FloatNet, Grid
from model.interchange.onnx_file import Graph, ModelError, Node
from model.interchange.value import NO_PAD, Value

MAX_SIZE = 1 << 26  # values of a tensor, as in the network file
MAX_NAME = 80  # characters of a layer's name


class Refused(Exception):
    """A node that cannot become part of a network: why, and what to do instead."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")


class UnsupportedModel(ModelError):
    """Nodes that no network has. problems: a line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join([f"{len(problems)} unsupported nodes:", *problems]))


class Builder:
    """Walks the nodes in order. Operators (model/interchange/operators.py) take the values of
    tensors, add layers or change the last one, and return the value of their result."""

    def __init__(
        self, graph: Graph, operators: dict[str, Callable], remedies: dict[str, str]
    ) -> None:
        self.graph, self.operators, self.remedies = graph, operators, remedies
        self.constants = dict(graph.constants)
        self.values: dict[str, Value] = {}
        self.layers: dict[str, FloatLayer] = {}
        self.pooled: dict[str, Value] = {}  # what each max pool reads
        self.readers: dict[str, list[Node]] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.input_grid: Grid | None = None
        for node in graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.batch, value = self._input()
        self.values[graph.input_name] = value
        self.gain = np.ones(value.shape[0])
        self.offset = np.zeros(value.shape[0])

    def net(self) -> FloatNet:
        for node in self.graph.nodes:
            self._visit(node)
        if self.problems:
            raise UnsupportedModel(self.problems)
        output = self.values.get(self.graph.output_name)
        if output is None or output.source == "input":
            raise ModelError("the output does not depend on the input through any layer")
        if output.pad != NO_PAD:
            raise ModelError("the output ends in a Pad, which only a convolution or pool takes")
        layers = self._live(output.source)
        value = self.values[self.graph.input_name]
        name = re.sub(r"\s+", "-", printable(self.graph.name))[:MAX_NAME] or "network"
        return FloatNet(
            name, value.shape, layers, self.gain, self.offset, self.input_grid, self.notes
        )

    # -- for operators

    def value(self, node: Node, position: int = 0) -> Value:
        """What input `position` of the node stands for, as seen by this reader alone."""
        name = node.inputs[position]
        value = self.values[name]
        alone = len(self.readers[name]) == 1 and name != self.graph.output_name
        return replace(value, exclusive=value.exclusive and alone)

    def constant(self, node: Node, position: int, default: Any = None) -> Any:
        """Input `position` as an array, `default` where it is left out. Raises Refused where it is
        computed from the image."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if not name:
            return default
        if name not in self.constants:
            raise Refused(
                f"input {position + 1} ({name!r:.90}) is computed from the image",
                "only constants are taken there",
            )
        return self.constants[name]

    def numbers(self, node: Node, position: int, default: Any = None) -> Any:
        """`constant` in float64. Raises Refused where one is not finite."""
        array = self.constant(node, position, default)
        if array is None:
            raise Refused(f"input {position + 1} is missing", "export the model again")
        array = np.asarray(array).astype(np.float64)
        if not np.isfinite(array).all():
            at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            raise Refused(
                f"tensor {node.inputs[position]!r:.90} holds {array[tuple(at)]} at {at}",
                "train or export again",
            )
        return array

    def integers(
        self, node: Node, key: str, position: int | None = None, default: Any = None
    ) -> Any:
        """A list of integers: attribute `key`, or input `position` in newer opsets."""
        given = node.attributes.get(key)
        if given is None and position is not None:
            given = self.constant(node, position)
        if given is None:
            return default
        return [int(v) for v in np.asarray(given).ravel()]

    def add(
        self, node: Node, op: str, inputs: list[Value], shape: tuple[int, int, int], **fields: Any
    ) -> Value:
        """A new layer and the value of its result."""
        if math.prod(shape) > MAX_SIZE or min(shape) < 1:
            raise Refused(
                f"its result has the sizes {list(shape)}", f"1..{MAX_SIZE:,} values are possible"
            )
        name = self._name(node)
        self.layers[name] = FloatLayer(
            name, op, tuple(v.source for v in inputs), shape, [self.origin(node)], **fields
        )
        if op == "maxpool":
            self.pooled[name] = inputs[0]
        return Value(name, shape)

    def ending(self, value: Value) -> FloatLayer | None:
        """The layer whose end may take a clamp or a grid for this value: its own, or one before max
        pools, which commute with both. None where others read it."""
        while value.exclusive and value.source in self.pooled:
            value = self.pooled[value.source]
        return self.layers.get(value.source) if value.exclusive else None

    def affine(self, node: Node, value: Value, gain: np.ndarray, offset: np.ndarray) -> Value:
        """value * gain + offset, both [C]: into the input's normalization, the convolution before,
        or a convolution of its own."""
        if value.pad != NO_PAD:
            raise Refused("it follows a Pad", "put the Pad directly before a convolution or pool")
        layer = self.layers.get(value.source)
        if value.source == "input" and value.exclusive and self.input_grid is None:
            self.gain, self.offset = self.gain * gain, self.offset * gain + offset
            return value
        if (
            layer is not None
            and layer.op == "conv"
            and value.exclusive
            and (layer.low, layer.high, layer.grid) == (-math.inf, math.inf, None)
        ):
            layer.weight = layer.weight * gain[:, None, None, None]
            layer.bias = layer.bias * gain + offset
            layer.origin.append(self.origin(node))
            return value
        return self.pointwise(node, value, gain, offset)

    def pointwise(
        self,
        node: Node,
        value: Value,
        gain: np.ndarray | None = None,
        offset: np.ndarray | None = None,
        **fields: Any,
    ) -> Value:
        """A 1x1 convolution that scales each channel: what no other layer can take over."""
        channels = value.shape[0]
        if value.pad != NO_PAD or value.axes == "NF":
            raise Refused(
                "it stands between a Pad or Flatten and the layer that takes it", "put it before"
            )
        gain = np.ones(channels) if gain is None else gain
        weight = np.zeros((channels, channels, 1, 1))
        weight[np.arange(channels), np.arange(channels), 0, 0] = gain
        self.notes.append(
            f"{node.place}: becomes a convolution of its own, {channels}x{channels}, since no "
            "layer before it can take it over"
        )
        made = self.add(
            node,
            "conv",
            [value],
            value.shape,
            kernel=(1, 1),
            stride=(1, 1),
            pad=(0, 0),
            weight=weight,
            bias=np.zeros(channels) if offset is None else offset,
            groups=channels,
            **fields,
        )
        return made.with_axes(value.axes)

    def origin(self, node: Node) -> str:
        return node.op

    # -- the walk

    def _visit(self, node: Node) -> None:
        known = [name for name in node.inputs if name]
        if node.op == "Constant" and not node.domain:
            self.constants[node.outputs[0]] = _constant(node)
            return
        ours = not node.domain or node.op in QUANTIZERS
        operator = self.operators.get(node.op) if ours else None
        fixed = bool(known) and all(name in self.constants for name in known)
        try:
            if fixed and node.op not in (*QUANTIZERS, *NOT_FOLDED):
                self._fold(node)
                return
            if operator is None:
                remedy = self.remedies.get(
                    node.op, "replace it with supported layers (docs/import.md)"
                )
                raise Refused("the accelerator has no such layer", remedy)
            if not all(name in self.values or name in self.constants for name in known):
                return  # behind a refused node
            if node.op not in ON_INTEGERS and any(
                self.values[name].steps for name in known if name in self.values
            ):
                raise Refused("it reads quantized integers", "dequantize them before it")
            result = operator(self, node)
        except Refused as refusal:
            self.problems.append(f"{node.place}: {printable(refusal)}")
            return
        except ModelError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            self.problems.append(
                f"{node.place}: its attributes and tensors do not fit the operator "
                f"({printable(error)[:200]}); export the model again"
            )
            return
        if isinstance(result, Value):
            self.values[node.outputs[0]] = result
        else:
            self.constants[node.outputs[0]] = result

    def _fold(self, node: Node) -> None:
        if node.op in ("ConstantOfShape", "Expand"):
            sizes = [int(n) for n in np.ravel(self.constants[node.inputs[-1]])]
            if min(sizes, default=1) < 0 or math.prod(sizes) > MAX_SIZE:
                raise Refused(
                    f"it makes a constant of the sizes {sizes}", f"{MAX_SIZE:,} values are possible"
                )
        try:
            opset = [onnx.helper.make_opsetid("", self.graph.opset)]
            graph = onnx.helper.make_graph(
                [node.proto],
                "constant",
                [onnx.helper.make_empty_tensor_value_info(n) for n in node.inputs if n],
                [onnx.helper.make_empty_tensor_value_info(n) for n in node.outputs if n],
            )
            model = onnx.helper.make_model(graph, opset_imports=opset)
            feeds = {name: self.constants[name] for name in node.inputs if name}
            results = ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # the evaluator raises whatever the operator's code does
            reason = str(error).strip().split("\n")[0][:200]
            raise Refused(
                f"its constants cannot be computed ({reason})", "fold them when exporting"
            ) from None
        self.constants.update(zip([n for n in node.outputs if n], map(np.asarray, results)))

    def _input(self) -> tuple[int, Value]:
        """(batch, value) of the graph's input."""
        name, shape = printable(self.graph.input_name[:120]), self.graph.input_shape
        shown = ", ".join("?" if d is None else printable(d) for d in shape)
        if len(shape) != 4:
            raise ModelError(
                f"input '{name}' has {len(shape)} dimensions ([{shown}]); a network reads images "
                "[N, C, H, W]"
            )
        if not all(isinstance(d, int) and d > 0 for d in shape[1:]):
            raise ModelError(
                f"input '{name}' has the dynamic sizes [{shown}]; export with fixed ones (only the "
                "batch may vary), or fix them with onnxruntime.tools.make_dynamic_shape_fixed"
            )
        axes = "NHWC" if self._reads_channels_last() else "NCHW"
        sizes = dict(zip(axes, shape))
        value = Value("input", tuple(sizes[a] for a in "CHW"), axes)
        if math.prod(value.shape) > MAX_SIZE:
            raise ModelError(f"input '{name}': [{shown}] has more than {MAX_SIZE:,} values")
        batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 1
        return batch, value

    def _reads_channels_last(self) -> bool:
        """Whether the first thing that moves the input's dimensions makes channels first of
        channels last."""
        seen, names = set(), [self.graph.input_name]
        while names:
            name = names.pop()
            for node in self.readers.get(name, []):
                if node.op == "Transpose":
                    return list(node.attributes.get("perm", [])) == [0, 3, 1, 2]
                if node.op in ELEMENTWISE and node.outputs[0] not in seen:
                    seen.add(node.outputs[0])
                    names.append(node.outputs[0])
        return False

    def _name(self, node: Node) -> str:
        """A layer's name: the node's, made printable and unique."""
        stem = printable(node.name).strip("/ ")[:MAX_NAME] or node.op.lower()
        name, number = stem, 2
        while name in self.layers or name == "input":
            name, number = f"{stem}_{number}", number + 1
        return name

    def _live(self, output: str) -> list[FloatLayer]:
        """The layers that the output depends on, in order."""
        needed = {output}
        for name, layer in reversed(self.layers.items()):
            if name in needed:
                needed.update(layer.inputs)
        return [layer for name, layer in self.layers.items() if name in needed]


# They compute constants, too: the reference evaluator has not all of their versions, or none.
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear", "Quant", "BipolarQuant")
# What may stand between QuantizeLinear and DequantizeLinear.
ON_INTEGERS = (
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Shape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# Their results are random, or their time has no bound.
NOT_FOLDED = (
    "If",
    "Loop",
    "Scan",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
ELEMENTWISE = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Cast",
    "Identity",
    "QuantizeLinear",
    "DequantizeLinear",
    "Quant",
)


def _constant(node: Node) -> np.ndarray:
    for key, value in node.attributes.items():
        if key == "sparse_value":
            break
        if key.startswith("value"):
            kind = {"value_float": np.float32, "value_floats": np.float32}.get(key)
            return np.asarray(value, kind) if key != "value" else value
    raise ModelError(f"{node.place}: a constant of this kind is not read; export dense constants")
