"""From any PyTorch module to the network that is trained here: traced with torch.fx and described
layer by layer.

Convolution, linear layer, batch norm, ReLU, max and average pooling, residual addition, flatten and
dropout, as modules, functions or methods. What cannot run on the accelerator is refused by name.
"""

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from model.common.errors import UserError, printable
from model.network.contract import MAX_KERNEL
from train.net import Net, Spec

KINDS: dict[Any, str] = {
    target: kind
    for kind, targets in {
        "conv": (nn.Conv2d,),
        "linear": (nn.Linear,),
        "norm": (nn.BatchNorm2d, nn.BatchNorm1d),
        "relu": (torch.relu, F.relu, nn.ReLU, "relu", "relu_"),
        "maxpool": (F.max_pool2d, nn.MaxPool2d),
        "avgpool": (F.avg_pool2d, nn.AvgPool2d),
        "global": (F.adaptive_avg_pool2d, nn.AdaptiveAvgPool2d),
        "mean": (torch.mean, "mean"),
        "add": (operator.add, operator.iadd, torch.add, "add", "add_"),
        "flatten": (torch.flatten, nn.Flatten, "flatten", "view", "reshape"),
        "dropout": (F.dropout, nn.Dropout, nn.Dropout2d),
        "same": (nn.Identity, "contiguous"),
    }.items()
    for target in targets
}


class TraceError(UserError, ValueError):
    """A module that cannot be trained for the accelerator; the message names the layer."""


def pair(value: Any) -> list[int]:
    """[vertical, horizontal] of a number or a pair."""
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


def shape_of(node: Any) -> Any:
    """Of a traced tensor."""
    return getattr(node.meta.get("tensor_meta"), "shape", None)


class Tracer:
    """Makes the description of one module. layers: {name: entry}; sources: a convolution's own
    module by name; norms: batch norm's by the name of the convolution; names: of the layer whose
    output a traced node is; shapes: of the layers' outputs before any flattening."""

    def __init__(self, module: nn.Module, shape: tuple[int, int, int]) -> None:
        try:
            self.traced = fx.symbolic_trace(copy.deepcopy(module).eval())
            ShapeProp(self.traced).propagate(torch.zeros(1, *shape))
        except Exception as error:  # the module's own code, which raises anything
            reason = printable(" ".join(str(error).split()))[:300]
            raise TraceError(
                f"network {type(module).__name__}: it cannot be traced with an image of "
                f"{list(shape)}: {reason}"
            ) from error
        self.layers: dict[str, Spec] = {}
        self.sources: dict[str, Any] = {}
        self.norms: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"input": shape}
        self.names: dict[Any, str] = {}
        for node in self.traced.graph.nodes:
            self._take(node)

    def _take(self, node: Any) -> None:
        if node.op == "placeholder":
            if "input" in self.names.values():
                raise TraceError(f"network: it has a second input, {node.name}")
            self.names[node] = "input"
        elif node.op == "output":
            if node.args[0] not in self.names:
                raise TraceError("network: its output must be one tensor")
            self.output = self.names[node.args[0]]
        elif shape_of(node) is not None:
            self.module = (
                self.traced.get_submodule(node.target) if node.op == "call_module" else None
            )
            target = type(self.module) if self.module else node.target
            if target not in KINDS:
                what = printable(getattr(target, "__name__", target))
                raise self._refuse(node, f"there is no layer for {what}")
            getattr(self, f"_{KINDS[target]}")(node)

    def _refuse(self, node: Any, why: str) -> TraceError:
        return TraceError(f"network, layer {self._name(node)}: {why}")

    def _name(self, node: Any) -> str:
        name = (node.target if node.op == "call_module" else node.name).replace(".", "_")
        while name in self.layers or name == "input" or hasattr(nn.ModuleDict, name):
            name += "_"
        return name

    def _options(self, node: Any) -> dict[str, Any]:
        """What a module or a function is told besides its inputs, by name."""
        if self.module:
            return self.module.__dict__
        found = node.normalized_arguments(self.traced, normalize_to_only_use_kwargs=True)
        return dict(found.kwargs) if found else {}

    def _signed(self, name: str) -> bool:
        return name == "input" or self.layers[name]["signed"]

    def _add_layer(self, node: Any, op: str, inputs: list[Any], **fields: Any) -> str:
        names = [self.names[one] for one in inputs]
        name = self.names[node] = self._name(node)
        self.layers[name] = {"name": name, "op": op, "inputs": names, **fields}
        self.layers[name].setdefault("signed", any(map(self._signed, names)))
        shape = shape_of(node)[1:]
        flat = self.shapes[names[0]] if op in ("add", "dropout") else (*shape, 1, 1)
        self.shapes[name] = tuple(shape) if len(shape) == 3 else flat
        return name

    # ------------------------------------------------------------------------- one kind of layer

    def _same(self, node: Any) -> None:
        self.names[node] = self.names[node.args[0]]

    def _flatten(self, node: Any) -> None:
        shape = shape_of(node)
        if shape is None or shape[1:].numel() != shape[-1]:
            raise self._refuse(node, "only flattening to [N, features] is supported")
        self._same(node)

    def _conv(self, node: Any) -> None:
        conv: Any = self.module
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
            raise self._refuse(node, "groups, dilation and other padding than zeros do not run")
        pad = {"same": [k // 2 for k in conv.kernel_size], "valid": 0}.get(
            conv.padding, conv.padding
        )
        if conv.padding == "same" and not all(k % 2 for k in conv.kernel_size):
            raise self._refuse(node, "padding 'same' of an even kernel is not symmetric")
        self._weights(node, conv.in_channels, conv.kernel_size, conv.stride, pad)

    def _linear(self, node: Any) -> None:
        linear: Any = self.module
        channels, *size = self.shapes[self.names[node.args[0]]]
        if linear.in_features != channels * size[0] * size[1]:
            raise self._refuse(node, "its input is not a whole flattened map")
        self._weights(node, channels, size)

    def _weights(self, node: Any, inputs: int, kernel: Any, stride: Any = 1, pad: Any = 0) -> None:
        if max(kernel) > MAX_KERNEL:
            what = f"kernel {list(kernel)} is larger than {MAX_KERNEL} x {MAX_KERNEL}"
            raise self._refuse(node, what)
        module: Any = self.module
        window = {"kernel": list(kernel), "stride": pair(stride), "pad": pair(pad)}
        kind = {"norm": "bias", "relu": False, "signed": True}
        channels = [inputs, module.weight.shape[0]]
        name = self._add_layer(node, "conv", [node.args[0]], channels=channels, **window, **kind)
        self.sources[name] = module

    def _norm(self, node: Any) -> None:
        before = node.args[0]
        norm: Any = self.module
        name = self.names[before]
        alone = name in self.sources and name not in self.norms and len(before.users) == 1
        plain = norm.affine and norm.running_mean is not None
        if not alone or self.layers[name]["relu"] or not plain:
            raise self._refuse(
                node, "batch norm must directly follow a convolution, with scale and statistics"
            )
        self.layers[name].update(norm="batch", eps=norm.eps)
        self.norms[name], self.names[node] = norm, name

    def _relu(self, node: Any) -> None:
        """A ReLU after pooling is moved before it, to the layer that can have one."""
        at, name = node.args[0], self.names[node.args[0]]
        self.names[node] = name
        if not self._signed(name):
            return
        passed = []
        while len(at.users) == 1 and self.names[at] != "input":
            layer = self.layers[self.names[at]]
            passed.append(layer)
            if layer["op"] in ("conv", "add"):
                layer["relu"] = True
                for one in passed:
                    one["signed"] = False
                return
            if layer["op"] == "avgpool":
                break
            at = at.args[0]
        raise self._refuse(node, "ReLU must follow a convolution or an addition")

    def _pool(self, node: Any, op: str, **fields: Any) -> None:
        options = self._options(node)
        if options.get("ceil_mode") or options.get("dilation", 1) not in (1, (1, 1)):
            raise self._refuse(node, "ceil_mode and dilation do not run")
        pad = options.get("padding") or 0
        if pad and not options.get("count_include_pad", True):
            raise self._refuse(node, "padding that does not count does not run")
        kernel = options["kernel_size"]
        window = {"kernel": pair(kernel), "stride": pair(options.get("stride") or kernel)}
        self._add_layer(node, op, [node.args[0]], **window, pad=pair(pad), **fields)

    def _maxpool(self, node: Any) -> None:
        self._pool(node, "maxpool")

    def _avgpool(self, node: Any) -> None:
        self._pool(node, "avgpool", **{"global": False, "last": False})

    def _global(self, node: Any) -> None:
        shape, source = shape_of(node), self.names[node.args[0]]
        if shape is None or (len(shape) == 4 and shape[2:].numel() > 1):
            raise self._refuse(node, "adaptive pooling to more than 1 x 1 does not run")
        kernel = list(self.shapes[source][1:])
        window = {"kernel": kernel, "stride": kernel, "pad": [0, 0]}
        flags = {"global": True, "last": False}
        self._add_layer(node, "avgpool", [node.args[0]], **window, **flags)

    def _mean(self, node: Any) -> None:
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
        if sorted(d % 4 for d in ([dims] if isinstance(dims, int) else dims)) != [2, 3]:
            raise self._refuse(node, "only means over height and width run")
        self._global(node)

    def _add(self, node: Any) -> None:
        operands = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if len(operands) != 2 or len({shape_of(one) for one in operands}) != 1:
            raise self._refuse(node, "an addition needs two tensors of one shape")
        self._add_layer(node, "add", operands, relu=False)

    def _dropout(self, node: Any) -> None:
        self._add_layer(node, "dropout", [node.args[0]], share=float(self._options(node)["p"]))


@torch.no_grad()
def trace(module: nn.Module, source: Spec) -> Net:
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
    if layers[-1]["op"] in ("avgpool", "conv") and not layers[-1].get("relu"):
        layers[-1]["last"] = True  # it ends in sums of 32 bits
    net = Net({"input": source, "layers": layers})
    for name, block in net.blocks():
        own, norm = tracer.sources[name], tracer.norms.get(name)
        block.conv.weight.copy_(own.weight.view_as(block.conv.weight))
        if norm is not None:
            block.bn.load_state_dict(norm.state_dict())
            if own.bias is not None:
                block.bn.running_mean.sub_(own.bias)
        elif own.bias is not None:
            block.bn.bias.copy_(own.bias)
    return net
