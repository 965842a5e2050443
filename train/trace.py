"""From any PyTorch module to the network that is trained here: traced with torch.fx and described
layer by layer.

Convolution, linear layer, batch norm, ReLU, max and average pooling, residual addition, flatten and
dropout, as modules, functions or methods. What cannot run on the accelerator is refused by name.
"""

import copy
import operator

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from model.common.errors import UserError, printable
from model.network.contract import MAX_KERNEL
from train.net import Net
from train.spec import output_shape

FUNCTIONS = {
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    torch.relu: "relu",
    F.relu: "relu",
    F.max_pool2d: "maxpool",
    F.avg_pool2d: "avgpool",
    F.adaptive_avg_pool2d: "global",
    torch.flatten: "flatten",
    torch.mean: "mean",
    F.dropout: "dropout",
}
METHODS = {
    "add": "add",
    "add_": "add",
    "relu": "relu",
    "relu_": "relu",
    "flatten": "flatten",
    "view": "flatten",
    "reshape": "flatten",
    "mean": "mean",
    "contiguous": "same",
}
MODULES = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm2d: "norm",
    nn.BatchNorm1d: "norm",
    nn.ReLU: "relu",
    nn.MaxPool2d: "maxpool",
    nn.AvgPool2d: "avgpool",
    nn.AdaptiveAvgPool2d: "global",
    nn.Flatten: "flatten",
    nn.Dropout: "dropout",
    nn.Dropout2d: "dropout",
    nn.Identity: "same",
}
POOL_OPTIONS = ("kernel_size", "stride", "padding")


class TraceError(UserError, ValueError):
    """A module that cannot be trained for the accelerator; the message names the layer."""


def pair(value) -> list[int]:
    """[vertical, horizontal] of a number or a pair."""
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


class Tracer:
    """Makes the description of one module. layers: {name: entry}; sources: a convolution's own
    module by name; norms: batch norm's by the name of the convolution."""

    def __init__(self, module: nn.Module, shape: tuple[int, int, int]):
        try:
            self.traced = fx.symbolic_trace(copy.deepcopy(module).eval())
            ShapeProp(self.traced).propagate(torch.zeros(1, *shape))
        except Exception as error:  # the module's own code, which raises anything
            reason = printable(" ".join(str(error).split()))[:300]
            name = type(module).__name__
            raise TraceError(
                f"network {name}: it cannot be traced with an image of {list(shape)}: {reason}"
            ) from error
        self.layers, self.sources, self.norms = {}, {}, {}
        self.shapes = {"input": shape}  # of the layers' outputs before any flattening
        self.names = {}  # of the layer whose output a traced node is
        for node in self.traced.graph.nodes:
            self._take(node)

    def _take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if "input" in self.names.values():
                raise TraceError(f"network: it has a second input, {node.name}")
            self.names[node] = "input"
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node) or node.args[0] not in self.names:
                raise TraceError("network: its output must be one tensor")
            self.output = self.names[node.args[0]]
        elif isinstance(node.meta.get("tensor_meta"), tuple) and hasattr(
            node.meta["tensor_meta"], "shape"
        ):
            getattr(self, f"_{self._kind(node)}")(node)

    def _kind(self, node: fx.Node) -> str:
        found, target = None, node.target
        if node.op == "call_module":
            found = MODULES.get(type(self.traced.get_submodule(target)))
            target = f"{target} ({type(self.traced.get_submodule(target)).__name__})"
        elif node.op == "call_function":
            found = FUNCTIONS.get(target)
        elif node.op == "call_method":
            found = METHODS.get(target)
        if found is None:
            raise self._refuse(node, f"there is no layer for {printable(target)}")
        return found

    def _refuse(self, node: fx.Node, why: str) -> TraceError:
        return TraceError(f"network, layer {self._name(node)}: {why}")

    def _name(self, node: fx.Node) -> str:
        name = node.target if node.op == "call_module" else node.name
        name = name.replace(".", "_")
        while name in self.layers or name == "input" or hasattr(nn.ModuleDict, name):
            name += "_"
        return name

    def _module(self, node: fx.Node) -> nn.Module:
        return self.traced.get_submodule(node.target)

    def _signed(self, name: str) -> bool:
        return True if name == "input" else self.layers[name]["signed"]

    def _add_layer(self, node: fx.Node, op: str, inputs: list[str], **fields) -> str:
        name = self.names[node] = self._name(node)
        self.layers[name] = {"name": name, "op": op, "inputs": inputs, **fields}
        try:
            self.shapes[name] = output_shape(self.layers[name], self.shapes)
        except ValueError as error:
            raise self._refuse(node, str(error)) from error
        return name

    # ------------------------------------------------------------------------- one kind of layer

    def _same(self, node):
        self.names[node] = self.names[node.args[0]]

    def _flatten(self, node):
        if node.meta["tensor_meta"].shape[1:].numel() != node.meta["tensor_meta"].shape[-1]:
            raise self._refuse(node, "only flattening to [N, features] is supported")
        self._same(node)

    def _conv(self, node):
        conv = self._module(node)
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
            raise self._refuse(node, "groups, dilation and other padding than zeros do not run")
        pad = conv.padding
        if pad == "same" and conv.stride == (1, 1) and all(k % 2 for k in conv.kernel_size):
            pad = tuple(k // 2 for k in conv.kernel_size)
        pad = (0, 0) if pad == "valid" else pad
        if isinstance(pad, str):
            raise self._refuse(node, f"padding {pad!r} of an even kernel is not symmetric")
        self._weights(node, conv, conv.kernel_size, conv.stride, pad, conv.in_channels)

    def _linear(self, node):
        linear, source = self._module(node), self.names[node.args[0]]
        shape = self.shapes[source]
        if linear.in_features != shape[0] * shape[1] * shape[2]:
            raise self._refuse(node, "its input is not a whole flattened map")
        self._weights(node, linear, shape[1:], (1, 1), (0, 0), shape[0])

    def _weights(self, node, module, kernel, stride, pad, inputs):
        if max(kernel) > MAX_KERNEL:
            what = f"kernel {list(kernel)} is larger than {MAX_KERNEL} x {MAX_KERNEL}"
            raise self._refuse(node, what)
        name = self._add_layer(
            node,
            "conv",
            [self.names[node.args[0]]],
            channels=[inputs, module.weight.shape[0]],
            kernel=list(kernel),
            stride=pair(stride),
            pad=pair(pad),
            norm="bias",
            relu=False,
            signed=True,
        )
        self.sources[name] = module

    def _norm(self, node):
        before, norm = node.args[0], self._module(node)
        name = self.names[before]
        alone = name in self.sources and name not in self.norms and len(before.users) == 1
        if not alone or self.layers[name]["relu"] or not norm.affine or norm.running_mean is None:
            raise self._refuse(
                node, "batch norm must directly follow a convolution, with scale and statistics"
            )
        self.layers[name].update(norm="batch", eps=norm.eps)
        self.norms[name], self.names[node] = norm, name

    def _relu(self, node):
        """A ReLU after pooling is moved before it, to the layer that can have one."""
        at, name = node.args[0], self.names[node.args[0]]
        self.names[node] = name
        if not self._signed(name):
            return
        while len(at.users) == 1:
            layer = self.layers.get(self.names[at], {"op": "input"})
            if layer["op"] in ("conv", "add"):
                self._become_unsigned(self.names[at], name)
                layer["relu"] = True
                return
            if layer["op"] not in ("maxpool", "dropout"):
                break
            at = at.args[0]
        raise self._refuse(node, "ReLU must follow a convolution or an addition")

    def _become_unsigned(self, name, last):
        while last != name:
            self.layers[last]["signed"] = False
            last = self.layers[last]["inputs"][0]
        self.layers[name]["signed"] = False

    def _options(self, node, names):
        if node.op == "call_module":
            module = self._module(node)
            return [getattr(module, name) for name in names], module.__dict__
        given = dict(zip(names, node.args[1:]))
        given |= node.kwargs
        return [given.get(name) for name in names], given

    def _pool(self, node, op):
        (kernel, stride, pad), options = self._options(node, POOL_OPTIONS)
        if options.get("ceil_mode") or options.get("dilation", 1) not in (1, (1, 1)):
            raise self._refuse(node, "ceil_mode and dilation do not run")
        if pad and not options.get("count_include_pad", True):
            raise self._refuse(node, "padding that does not count does not run")
        source = self.names[node.args[0]]
        name = self._add_layer(
            node,
            op,
            [source],
            kernel=pair(kernel),
            stride=pair(stride or kernel),
            pad=pair(pad or 0),
            signed=self._signed(source),
        )
        if op == "avgpool":
            self.layers[name].update({"global": False, "last": False})

    def _maxpool(self, node):
        self._pool(node, "maxpool")

    def _avgpool(self, node):
        self._pool(node, "avgpool")

    def _global(self, node):
        source = self.names[node.args[0]]
        kernel = list(node.args[0].meta["tensor_meta"].shape[2:])
        name = self._add_layer(
            node,
            "avgpool",
            [source],
            kernel=kernel,
            stride=kernel,
            pad=[0, 0],
            signed=self._signed(source),
        )
        self.layers[name].update({"global": True, "last": False})
        if (
            node.meta["tensor_meta"].shape[2:].numel() > 1
            and len(node.meta["tensor_meta"].shape) == 4
        ):
            raise self._refuse(node, "adaptive pooling to more than 1 x 1 does not run")

    def _mean(self, node):
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
        if sorted(d % 4 for d in ([dims] if isinstance(dims, int) else dims)) != [2, 3]:
            raise self._refuse(node, "only means over height and width run")
        self._global(node)

    def _add(self, node):
        operands = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if len(operands) != 2 or len({a.meta["tensor_meta"].shape for a in operands}) != 1:
            raise self._refuse(node, "an addition needs two tensors of one shape")
        inputs = [self.names[operand] for operand in operands]
        self._add_layer(node, "add", inputs, relu=False, signed=any(map(self._signed, inputs)))

    def _dropout(self, node):
        share = (
            self._module(node).p if node.op == "call_module" else self._options(node, ["p"])[0][0]
        )
        source = self.names[node.args[0]]
        share = 0.5 if share is None else share
        self._add_layer(node, "dropout", [source], share=share, signed=self._signed(source))


@torch.no_grad()
def trace(module: nn.Module, source: dict) -> Net:
    """The network of `module`, with its weights, in mode "float".

    source: the description's "input" (`train.net.Net`). Raises TraceError that names what cannot
    run.
    """
    tracer = Tracer(module, tuple(source["shape"]))
    layers = list(tracer.layers.values())
    if not tracer.sources:
        raise TraceError(f"network {type(module).__name__}: it has no convolution")
    if tracer.output != layers[-1]["name"]:
        raise TraceError(f"network: layer {layers[-1]['name']} is not used by the output")
    if layers[-1]["op"] == "avgpool":
        layers[-1]["last"] = True
    net = Net({"input": source, "layers": layers})
    for name, block in net.blocks():
        own = tracer.sources[name]
        block.conv.weight.copy_(own.weight.view_as(block.conv.weight))
        if name in tracer.norms:
            norm = tracer.norms[name]
            for key in ("weight", "bias", "running_mean", "running_var"):
                getattr(block.bn, key).copy_(getattr(norm, key))
            if own.bias is not None:
                block.bn.running_mean.sub_(own.bias)
        elif own.bias is not None:
            block.bn.bias.copy_(own.bias)
    return net
