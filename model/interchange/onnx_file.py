"""ONNX models as checked graphs of nodes and constants: what is damaged is refused before anything
is interpreted."""

from __future__ import annotations

import graphlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError
from onnx import numpy_helper

from model.common.errors import UserError, printable
from model.common.files import open_input

OLDEST_OPSET = 11
MAX_BYTES = (1 << 31) - 1  # of a file: what protobuf can hold
STANDARD = ("", "ai.onnx")


class ModelError(UserError, ValueError):
    """A model that cannot become a network; the message names the node or tensor and a remedy."""


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a graph. number: its position in the file, from 1; domain: empty for ONNX's
    own operators."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict
    number: int
    proto: onnx.NodeProto = field(repr=False)

    @property
    def place(self) -> str:
        """Where the node stands: name, operator, position, tensors."""
        kind = self.op if self.domain in STANDARD else f"{self.domain}.{self.op}"
        return printable(
            f"node '{self.name[:120]}' ({kind}, number {self.number}, reads "
            f"{', '.join(repr(i[:80]) for i in self.inputs[:1] if i) or 'nothing'}, writes "
            f"{', '.join(repr(o[:80]) for o in self.outputs[:1])})"
        )


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order and the constants they read.

    input_name, input_shape: of the one input; a dimension that is not fixed is None or its name.
    output_name: of the one output. opset: of ONNX's own operators.
    """

    name: str
    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    input_name: str
    input_shape: tuple
    output_name: str
    opset: int


def load_graph(path: str | os.PathLike) -> Graph:
    """Read and check an ONNX file and its external data. Raises ModelError that starts with the
    path, OSError for a file that cannot be opened."""
    try:
        with open_input(path) as handle:
            data = handle.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ModelError("larger than 2 GB; keep the weights in external data")
        model = onnx.ModelProto()
        try:
            model.ParseFromString(data)
        except DecodeError:
            raise ModelError("not an ONNX model, or a damaged one; export it again") from None
        return graph_of(model, Path(path).resolve().parent)
    except ModelError as error:
        raise ModelError(f"{printable(path)}: {error}") from None


def graph_of(model: onnx.ModelProto, folder: Path | None = None) -> Graph:
    """A checked graph of a model in memory; `folder` holds its external data. Raises ModelError."""
    if not model.graph.node or not model.ir_version:
        raise ModelError("not an ONNX model, or one without nodes; export it again")
    _load_external(model, folder)
    opset = _check_opset(model)
    if model.functions:
        model = _guarded(onnx.inliner.inline_local_functions, model, what="its functions")
    graph = model.graph
    order = _ordered(graph)
    if graph.sparse_initializer:
        raise ModelError("sparse initializers are not read; export dense weights")
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    if len(inputs) != 1:
        raise ModelError(
            f"{len(inputs)} inputs ({_names(inputs)}); a network reads one image: cut the graph "
            "(onnx.utils.extract_model) or make the others initializers"
        )
    if len(graph.output) != 1:
        raise ModelError(
            f"{len(graph.output)} outputs ({_names(graph.output)}); a network has one: cut the "
            "graph with onnx.utils.extract_model"
        )
    shape = _shape(inputs[0])
    _guarded(onnx.checker.check_model, _for_checker(model, order), what="the model")
    return Graph(
        graph.name or "network",
        tuple(_node(graph.node[number], number) for number in order),
        {tensor.name: _array(tensor) for tensor in graph.initializer},
        inputs[0].name,
        shape,
        graph.output[0].name,
        opset,
    )


def _names(values: Iterable) -> str:
    return printable(", ".join(repr(value.name[:80]) for value in list(values)[:8])) or "none"


def _load_external(model: onnx.ModelProto, folder: Path | None) -> None:
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if not onnx.external_data_helper.uses_external_data(tensor):
            continue
        where = f"external data of tensor '{printable(tensor.name[:120])}'"
        if folder is None:
            raise ModelError(f"{where}: load the model with its external data first")
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # the library's checks raise several kinds
            raise ModelError(
                f"{where}: cannot be read ({_first_line(error)}); keep the file beside the model"
            ) from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_opset(model: onnx.ModelProto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in STANDARD]
    newest = onnx.defs.onnx_opset_version()
    if not versions:
        raise ModelError("opset_import: no version of ONNX's operators; export the model again")
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise ModelError(
            f"opset {versions[0]} is outside {OLDEST_OPSET}..{newest}; export with another opset "
            "or use onnx.version_converter.convert_version"
        )
    return versions[0]


def _ordered(graph: onnx.GraphProto) -> list[int]:
    """Numbers of the nodes, each after those it reads: the file's order where that is one. Raises
    ModelError for a cycle."""
    producer = {o: number for number, node in enumerate(graph.node) for o in node.output if o}
    sources = [[producer[i] for i in n.input if i in producer] for n in graph.node]
    if all(max(reads, default=-1) < number for number, reads in enumerate(sources)):
        return list(range(len(sources)))
    sorter: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for number, reads in enumerate(sources):
        sorter.add(number, *reads)
    try:
        return list(sorter.static_order())
    except graphlib.CycleError as error:
        ring = " -> ".join(_label(graph.node[number], number) for number in error.args[1][:8])
        raise ModelError(f"the graph has a cycle: {ring}; export the model again") from None


def _for_checker(model: onnx.ModelProto, order: list[int]) -> onnx.ModelProto:
    """A copy of the model with what the checker insists on: nodes in order, a shape of the output
    (which nobody needs)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(model.graph.node[number] for number in order)
    copy.graph.output[0].type.tensor_type.shape.SetInParent()
    return copy


def _guarded(function: Callable, model: onnx.ModelProto, what: str) -> Any:
    try:
        return function(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError, EncodeError) as error:
        raise ModelError(f"{what}: not valid ONNX: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().split("\n")[0][:300])


def _label(node: onnx.NodeProto, number: int) -> str:
    return printable((node.name or f"{node.op_type}_{number + 1}")[:120])


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # contradictory sizes and types make the decoder raise many kinds
        name = printable(tensor.name[:120])
        raise ModelError(f"tensor '{name}': cannot be read ({_first_line(error)})") from None


def _node(proto: onnx.NodeProto, number: int) -> Node:
    attributes = {}
    for attribute in proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, onnx.TensorProto):
            value = _array(value)
        attributes[attribute.name] = value
    return Node(
        proto.name or f"{proto.op_type.lower()}_{number + 1}",
        proto.op_type,
        "" if proto.domain in STANDARD else proto.domain,
        tuple(proto.input),
        tuple(proto.output),
        attributes,
        number + 1,
        proto,
    )


def _shape(value: onnx.ValueInfoProto) -> tuple:
    name = printable(value.name[:120])
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise ModelError(
            f"input '{name}' has no shape; export with a fixed one, or set it with "
            "onnx.tools.update_model_dims.update_inputs_outputs_dims"
        )
    dims = []
    for dim in value.type.tensor_type.shape.dim:
        dims.append(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None)
    return tuple(dims)
