"""From any PyTorch module to the network that is trained here: recorded with torch.export and
described layer by layer.

Convolution, linear layer, batch norm, ReLU, max and average pooling, residual addition, flatten and
dropout. What cannot run on the accelerator is refused by name.
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from model.common.errors import UserError, printable
from train.net import Net, Spec, to_network

SAME = ("contiguous", "clone", "alias")  # operations that change nothing
FLATTENING = ("flatten", "view", "reshape")
# What arguments of any operation must be.
FIXED = {"groups": 1, "dilation": 1, "ceil_mode": False, "divisor_override": None, "alpha": 1}
BN = ("weight", "bias", "running_mean", "running_var")


class TraceError(UserError, ValueError):
    """A module that cannot be trained for the accelerator; the message names the layer."""


def pair(value: Any) -> list[int]:
    """[vertical, horizontal] of a number or a list of one or two."""
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _kind(node: Any) -> str:
    """The operation of a traced tensor, "" of an input."""
    return node.target.__name__.split(".")[0].removesuffix("_") if callable(node.target) else ""


class Tracer:
    """Makes the description of one module.

    layers: {name: entry}; weights, norms: tensors of a convolution and of its batch norm by its
    name; values: what a traced tensor is, the output of the layer of a name or a tensor of the
    module; shapes: of the layers' outputs before any flattening. Methods that are called as an
    operation of PyTorch describe it; `given` are its arguments by name.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        self.layers: dict[str, Spec] = {}
        self.weights: dict[str, list[Any]] = {}
        self.norms: dict[str, Any] = {}
        self.values: dict[Any, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"input": shape}
        try:
            self.module = copy.deepcopy(module).eval()
            exported = torch.export.export(self.module, (torch.zeros(1, *shape),))
        except Exception as error:  # the module's own code, which raises anything
            reason = printable(" ".join(str(error).split()))[:300]
            raise TraceError(
                f"network: it cannot be traced with an image of {list(shape)}: {reason}"
            ) from error
        signature = exported.graph_signature
        held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                tensor = exported.state_dict.get(held.get(node.name, ""))
                self.values[node] = "input" if node.name in signature.user_inputs else tensor
            elif node.op == "call_function":
                self._take(node)
            else:
                self.outputs = [self.values.get(one) for one in node.args[0]]

    def _take(self, node: Any) -> None:
        kind = _kind(node)
        known = getattr(getattr(node.target, "_schema", None), "arguments", ())
        given = {one.name: one.default_value for one in known}
        given.update(zip(given, node.args), **node.kwargs)
        try:
            for key, value in FIXED.items():
                if given.get(key, value) not in (value, [value], [value, value]):
                    raise TraceError(f"{key} {given[key]} does not run")
            if kind in (*SAME, *FLATTENING):
                shape = node.meta["val"].shape
                if kind in FLATTENING and shape[1:].numel() != shape[-1]:
                    raise TraceError("only flattening to [N, features] is supported")
                self.values[node] = self._name_of(node.args[0])
            elif method := getattr(type(self), kind, None):
                method(self, node, given)
            else:
                raise TraceError(f"there is no layer for {kind}")
        except TraceError as refusal:
            raise TraceError(f"network, layer {self._new_name(node)}: {refusal}") from None

    def _new_name(self, node: Any) -> str:
        """That of a module without parts, else the operation's."""
        path = list((node.meta.get("nn_module_stack") or {"": [""]}).values())[-1][0]
        whole = path and not list(self.module.get_submodule(path).children())
        name = path.replace(".", "_") if whole else node.name
        while name in self.layers or name == "input" or hasattr(nn.ModuleDict, name):
            name += "_"
        return name

    def _name_of(self, value: Any) -> str:
        """The layer whose output a value is."""
        name = self.values.get(value) if isinstance(value, fx.Node) else None
        if not isinstance(name, str):
            raise TraceError("it needs two tensors that layers compute")
        return name

    def _alone(self, value: Any) -> bool:
        """Whether a traced tensor has one reader, and no other reads it before SAME or
        FLATTENING."""
        while len(value.users) == 1 and _kind(value) in (*SAME, *FLATTENING):
            value = value.args[0]
        return len(value.users) == 1

    def _layer(self, node: Any, op: str, *inputs: Any, **fields: Any) -> str:
        names = [self._name_of(one) for one in inputs]
        name = self.values[node] = self._new_name(node)
        signed = any(one == "input" or self.layers[one]["signed"] for one in names)
        self.layers[name] = {"name": name, "op": op, "inputs": names, "signed": signed, **fields}
        shape = tuple(node.meta["val"].shape[1:])
        flat = self.shapes[names[0]] if op in ("add", "dropout") else (*shape, 1, 1)
        self.shapes[name] = shape if len(shape) == 3 else flat
        return name

    def _weigh(self, node: Any, given: Spec, shape: list[int], stride: Any, pad: Any) -> None:
        tensors = [self.values.get(given[key]) for key in ("weight", "bias")]
        taken = any(tensors[0] is weight for weight, _ in self.weights.values())
        if taken or not isinstance(tensors[0], Tensor):
            raise TraceError("its weights are computed, or those of another layer")
        kind = {"norm": "bias", "relu": False, "signed": True}
        window = {"shape": shape, "stride": pair(stride), "pad": pair(pad)}
        name = self._layer(node, "conv", given["input"], **window, **kind)
        self.weights[name] = tensors

    # -------------------------------------------------------------------- operations of PyTorch

    def conv2d(self, node: Any, given: Spec) -> None:
        shape, pad = list(given["weight"].meta["val"].shape), given["padding"]
        if pad == "same" and not all(k % 2 for k in shape[2:]):
            raise TraceError("padding 'same' of an even kernel is not symmetric")
        pad = {"same": [k // 2 for k in shape[2:]], "valid": 0}.get(str(pad), pad)
        self._weigh(node, given, shape, given["stride"], pad)

    def linear(self, node: Any, given: Spec) -> None:
        (outputs, inputs), shape = given["weight"].meta["val"].shape, self._shape(given["input"])
        if inputs != torch.Size(shape).numel():
            raise TraceError("its input is not a whole flattened map")
        self._weigh(node, given, [outputs, *shape], 1, 0)

    def batch_norm(self, node: Any, given: Spec) -> None:
        name = self._name_of(given["input"])
        held = {key: self.values.get(given[key]) for key in BN}
        alone = self._alone(given["input"]) and name not in self.norms
        if (
            not alone
            or name not in self.weights
            or self.layers[name]["relu"]
            or None in held.values()
        ):
            raise TraceError(
                "batch norm must directly follow a convolution, with scale and statistics"
            )
        self.layers[name].update(norm="batch", eps=given["eps"])
        self.norms[name], self.values[node] = held, name

    def relu(self, node: Any, given: Spec) -> None:
        """After pooling it is moved before it, to the layer that can have one."""
        at = given["self"]
        name = self.values[node] = self._name_of(at)
        if name != "input" and not self.layers[name]["signed"]:
            return
        while (layer := self.layers.get(name)) and layer["op"] != "avgpool" and self._alone(at):
            layer["signed"] = False
            if layer["op"] in ("conv", "add"):
                layer["relu"] = True
                return
            at = at.args[0]
            name = self.values[at]
        raise TraceError("ReLU must follow a convolution or an addition")

    def _pool(self, node: Any, op: str, given: Spec, **fields: Any) -> None:
        kernel, pad = pair(given["kernel_size"]), pair(given["padding"])
        if any(pad) and not given.get("count_include_pad", True):
            raise TraceError("padding that does not count does not run")
        window = {"kernel": kernel, "stride": pair(given["stride"] or kernel), "pad": pad}
        self._layer(node, op, given["self"], **window, **fields)

    def max_pool2d(self, node: Any, given: Spec) -> None:
        self._pool(node, "maxpool", given)

    def avg_pool2d(self, node: Any, given: Spec) -> None:
        self._pool(node, "avgpool", given, whole=False)

    def adaptive_avg_pool2d(self, node: Any, given: Spec) -> None:
        if pair(given["output_size"]) != [1, 1]:
            raise TraceError("adaptive pooling to more than 1 x 1 does not run")
        window = {"kernel_size": self._shape(given["self"])[1:], "stride": None, "padding": 0}
        self._pool(node, "avgpool", {**given, **window}, whole=True)

    def mean(self, node: Any, given: Spec) -> None:
        if sorted(d % 4 for d in given.get("dim") or ()) != [2, 3]:
            raise TraceError("only means over height and width run")
        self.adaptive_avg_pool2d(node, {**given, "output_size": 1})

    def add(self, node: Any, given: Spec) -> None:
        if self._shape(given["self"]) != self._shape(given["other"]):
            raise TraceError("an addition needs two tensors of one shape")
        self._layer(node, "add", given["self"], given["other"], relu=False)

    def dropout(self, node: Any, given: Spec) -> None:
        self._layer(node, "dropout", given["input"], share=given["p"])

    def _shape(self, value: Any) -> list[int]:
        return list(self.shapes[self._name_of(value)])


@torch.no_grad()
def trace(module: nn.Module, source: Spec) -> Net:
    """The network of `module`, with its weights, in mode "float".

    source: the description's "input" (`train.net.Net`). Raises TraceError that names what cannot
    run.
    """
    tracer = Tracer(module, tuple(source["shape"]))
    layers = list(tracer.layers.values())
    if not tracer.weights:
        raise TraceError("network: it has no convolution")
    if tracer.outputs != [layers[-1]["name"]]:
        raise TraceError(f"network: layer {layers[-1]['name']} is not used by the output")
    if layers[-1]["op"] in ("avgpool", "conv") and not layers[-1].get("relu"):
        layers[-1]["last"] = True  # it ends in sums of 32 bits
    net = Net({"input": source, "layers": layers})
    try:
        to_network(net)  # the accelerator's limits, before anything is trained
    except UserError as error:
        raise TraceError(f"network, {error}") from error
    for name, block in net.blocks():
        weight, bias = tracer.weights[name]
        block.weight.copy_(weight.view_as(block.weight))
        block.bn.load_state_dict(tracer.norms.get(name, block.bn.state_dict()))
        if bias is not None and name in tracer.norms:
            block.bn.running_mean.sub_(bias)
        elif bias is not None:
            block.bn.bias.copy_(bias)
    return net
