"""The ONNX operators that become layers: each takes the builder and a node and returns the value of
its result, or a constant. `Refused` says why one cannot, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from model.interchange.builder import Builder, Refused
from model.interchange.float_net import Grid
from model.interchange.onnx_file import Node
from model.interchange.value import NO_PAD, Value

ACTIVATION = "train with Relu or Clip(0, n) instead"
REMEDIES = {
    **dict.fromkeys(
        ["LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Swish", "HardSwish", "HardSigmoid"]
        + ["Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Sign", "Erf"],
        ACTIVATION,
    ),
    **dict.fromkeys(
        ["QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "QLinearAdd"],
        "export in QDQ form (QuantizeLinear/DequantizeLinear around float operators)",
    ),
    **dict.fromkeys(
        ["LSTM", "GRU", "RNN", "If", "Loop", "Scan"],
        "only feed-forward networks without control flow run",
    ),
    "BipolarQuant": "activations of -1 and 1 are not possible; quantize them to 2 bits or more",
    "Trunc": "replace it by Quant, which rounds",
    "Concat": "add the branches (Add) instead of concatenating them",
    "ConvTranspose": "there is no transposed convolution; end the network before it",
    "Upsample": "there is no upsampling; end the network before it",
    "Resize": "there is no resampling; give images of the final size",
    "LRN": "train with BatchNormalization instead, which is folded into the convolution",
    "InstanceNormalization": "train with BatchNormalization instead",
    "GroupNormalization": "train with BatchNormalization instead",
    "LayerNormalization": "train with BatchNormalization instead",
    "LpPool": "use AveragePool or MaxPool",
    "Slice": "there is no slicing; keep the whole tensor",
    "Split": "use separate convolutions instead of splitting channels",
    "Gather": "there is no gathering of values",
}


def _images(value: Value) -> Value:
    """The value as [N, C, H, W], which one-pixel [N, C] is, too."""
    if value.axes not in ("NCHW", "NC"):
        raise Refused(
            f"it reads a tensor laid out as {value.axes}", "transpose it to [N, C, H, W] before"
        )
    return value


def _spatial(node: Node, value: Value, kernel: Sequence[int]) -> None:
    if len(kernel) != 2:
        raise Refused(
            f"it has {len(kernel)} spatial dimensions", "only two are possible: [N, C, H, W]"
        )
    if any(d != 1 for d in node.attributes.get("dilations", [1])):
        raise Refused(
            f"dilations {node.attributes['dilations']}", "train with a dilation of 1 instead"
        )
    _images(value)


def _strides(node: Node) -> tuple[int, int]:
    return tuple(node.attributes.get("strides", [1, 1]))


def _pads(
    node: Node, value: Value, kernel: Sequence[int], strides: Sequence[int], own: bool = True
) -> tuple[int, ...]:
    """(top, left, bottom, right) of the operator, with what a Pad before it adds."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0, 0, 0, 0]
        for axis, (size, k, s) in enumerate(zip(value.shape[1:], kernel, strides)):
            size += value.pad[axis] + value.pad[axis + 2]
            total = max((-(-size // s) - 1) * s + k - size, 0)
            less, more = total // 2, total - total // 2
            pads[axis], pads[axis + 2] = (less, more) if mode == "SAME_UPPER" else (more, less)
    elif mode == "VALID":
        pads = [0, 0, 0, 0]
    if min(pads) < 0:
        raise Refused(f"pads {pads}", "padding cannot be negative")
    return tuple(a + b for a, b in zip(pads, value.pad)) if own else tuple(pads)


def _size(
    value: Value, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> tuple[int, int]:
    top, left, bottom, right = pads
    total = (value.shape[1] + top + bottom, value.shape[2] + left + right)
    if min(strides) < 1 or min(kernel) < 1:
        raise Refused(f"kernel {list(kernel)}, strides {list(strides)}", "both are at least 1")
    height, width = ((n - k) // s + 1 for n, k, s in zip(total, kernel, strides))
    if min(height, width) < 1:
        raise Refused(
            f"kernel {list(kernel)} is larger than its padded input {list(total)}",
            "give larger images or a smaller kernel",
        )
    return height, width


def _zero_extension(before: int, after: int, kernel: int) -> tuple[int, int]:
    """Zeros to add to a kernel (before, after) so that one padding, smaller than the new kernel,
    serves both sides."""
    first = max(0, after - before, after - kernel + 1)
    last = before + first - after
    more = max(0, before - kernel + 1 - last)
    return first + more, last + more


def _convolution(
    b: Builder,
    node: Node,
    value: Value,
    weight: np.ndarray,
    bias: np.ndarray,
    strides: Sequence[int],
    pads: Sequence[int],
    groups: int = 1,
) -> Value:
    """A layer of a dense weight [O, I, Kh, Kw]. Unequal padding extends the kernel by zeros."""
    size = _size(value, weight.shape[2:], strides, pads)
    top, left, bottom, right = pads
    rows = _zero_extension(top, bottom, weight.shape[2])
    cols = _zero_extension(left, right, weight.shape[3])
    if rows != (0, 0) or cols != (0, 0):
        weight = np.pad(weight, ((0, 0), (0, 0), rows, cols))
    return b.add(
        node,
        "conv",
        [value],
        (len(weight), *size),
        kernel=weight.shape[2:],
        stride=tuple(strides),
        pad=(top + rows[0], left + cols[0]),
        weight=weight,
        bias=bias,
        groups=groups,
    )


def conv(b: Builder, node: Node) -> Value:
    value = b.value(node)
    weight = b.numbers(node, 1)
    _spatial(node, value, list(weight.shape[2:]))
    groups = node.attributes.get("group", 1)
    channels = value.shape[0]
    if groups < 1 or channels != weight.shape[1] * groups or len(weight) % groups:
        raise Refused(
            f"its weight has the sizes {list(weight.shape)} with {groups} groups, its input "
            f"{channels} channels",
            "export the model again",
        )
    if groups > 1:
        weight = _dense(weight, groups)
        b.notes.append(
            f"{node.place}: {groups} groups become a dense convolution with zeros, "
            f"{groups} times the multiply-accumulates"
        )
    bias = b.numbers(node, 2, np.zeros(len(weight)))
    if bias.shape != (len(weight),):
        raise Refused(f"its bias has the sizes {list(bias.shape)}", "export the model again")
    strides = _strides(node)
    pads = _pads(node, value, weight.shape[2:], strides)
    return _convolution(b, node, value, weight, bias, strides, pads, groups)


def _dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """[O, I / groups, Kh, Kw] of a grouped convolution as [O, I, Kh, Kw] with zeros."""
    outputs, inputs = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), inputs * groups, *weight.shape[2:]))
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        dense[rows, g * inputs : (g + 1) * inputs] = weight[rows]
    return dense


def _linear(b: Builder, node: Node, weight: np.ndarray, bias: np.ndarray) -> Value:
    """A fully connected layer, weight [F, O]: a convolution whose kernel is the whole map."""
    value = b.value(node)
    if value.axes not in ("NC", "NF", "C") or value.pad != NO_PAD:
        raise Refused(f"it reads a tensor laid out as {value.axes}", "put a Flatten before it")
    if weight.ndim != 2 or len(weight) != math.prod(value.shape):
        raise Refused(
            f"its weight has the sizes {list(weight.shape)}, its input "
            f"{math.prod(value.shape)} features",
            "export the model again",
        )
    if bias.size not in (1, weight.shape[1]) or bias.shape[-1:] not in ((), (bias.size,)):
        raise Refused(f"its bias has the sizes {list(bias.shape)}", "one number an output is taken")
    order = value.flat or "CHW"
    sizes = dict(zip("CHW", value.shape))
    kernels = weight.T.reshape(-1, *(sizes[a] for a in order))
    kernels = kernels.transpose(0, *(1 + order.index(a) for a in "CHW"))
    bias = np.broadcast_to(bias.reshape(-1), weight.shape[1]).copy()
    made = _convolution(b, node, replace(value, axes="NCHW"), kernels, bias, (1, 1), NO_PAD)
    return made.with_axes("C" if value.axes == "C" else "NC")


def gemm(b: Builder, node: Node) -> Value:
    if node.attributes.get("transA", 0):
        raise Refused("transA = 1", "only the weight may be transposed")
    weight = b.numbers(node, 1)
    weight = weight.T if node.attributes.get("transB", 0) else weight
    bias = b.numbers(node, 2, np.zeros(1))
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    return _linear(b, node, weight * alpha, bias * beta)


def matmul(b: Builder, node: Node) -> Value:
    if node.inputs[0] in b.constants:
        raise Refused("the constant is its first factor", "the image's features come first")
    return _linear(b, node, b.numbers(node, 1), np.zeros(1))


def batch_normalization(b: Builder, node: Node) -> Value:
    scale, shift, mean, variance = (b.numbers(node, i) for i in range(1, 5))
    if node.attributes.get("training_mode", 0):
        raise Refused("training_mode = 1", "export the model in evaluation mode")
    if (variance < 0).any():
        raise Refused("a variance is negative", "export the model again")
    value = b.value(node)
    _images(value)
    gain = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return b.affine(node, value, gain, shift - mean * gain)


def _clamped(b: Builder, node: Node, low: float, high: float) -> Value:
    if math.isnan(low) or math.isnan(high) or low > high:
        raise Refused(f"it clamps to {low}..{high}", "the smaller limit comes first")
    return _limited(b, node, low, high, b.value(node))


def _limited(b: Builder, node: Node, low: float, high: float, owner: Value) -> Value:
    """The node's input clamped, in the layer before it where `owner` says that it may be."""
    value = b.value(node)
    if value.pad != NO_PAD and not low <= 0 <= high:
        raise Refused("it follows a Pad", "put the Pad directly before a convolution or pool")
    layer = b.ending(owner)
    if layer is None:
        return b.pointwise(node, value, low=low, high=high)
    layer.low, layer.high = (min(max(v, low), high) for v in (layer.low, layer.high))
    layer.origin.append(b.origin(node))
    return value


def relu(b: Builder, node: Node) -> Value:
    return _clamped(b, node, 0.0, math.inf)


def clip(b: Builder, node: Node) -> Value:
    limits = []
    for position, (key, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        given = b.constant(node, position, node.attributes.get(key, default))
        limits.append(float(np.asarray(given).astype(np.float64).reshape(-1)[0]))
    return _clamped(b, node, *limits)


def _pool_geometry(b: Builder, node: Node) -> tuple:
    value = b.value(node)
    kernel = tuple(node.attributes.get("kernel_shape", ()))
    _spatial(node, value, kernel)
    strides = _strides(node)
    pads = _pads(node, value, kernel, strides, own=False)
    if node.attributes.get("ceil_mode", 0):
        top, left, bottom, right = (a + c for a, c in zip(pads, value.pad))
        total = (value.shape[1] + top + bottom, value.shape[2] + left + right)
        if any((n - k) % s for n, k, s in zip(total, kernel, strides)):
            raise Refused(
                "ceil_mode = 1 makes windows beyond the padded image", "use ceil_mode = 0"
            )
    return value, kernel, strides, pads


def max_pool(b: Builder, node: Node) -> Value:
    if len(node.outputs) > 1 and node.outputs[1] in b.readers:
        raise Refused("its second output, the indices, is used", "only the maxima exist")
    value, kernel, strides, pads = _pool_geometry(b, node)
    if value.pad != NO_PAD:
        layer = b.layers.get(value.source)
        while layer is not None and layer.op == "maxpool":
            layer = b.layers.get(layer.inputs[0])
        if layer is None or layer.limits[0] < 0:
            raise Refused(
                "it follows a Pad, whose zeros may win", "use the pool's own padding, or Relu first"
            )
        pads = tuple(a + c for a, c in zip(pads, value.pad))
    if pads[:2] != pads[2:]:
        raise Refused(
            f"pads {list(pads)} differ from side to side",
            "pad a max pool by the same on both sides",
        )
    size = _size(value, kernel, strides, pads)
    made = b.add(
        node,
        "maxpool",
        [value],
        (value.shape[0], *size),
        kernel=kernel,
        stride=strides,
        pad=pads[:2],
    )
    return replace(made, steps=value.steps)


def average_pool(b: Builder, node: Node) -> Value:
    value, kernel, strides, pads = _pool_geometry(b, node)
    if any(pads) and not node.attributes.get("count_include_pad", 0):
        raise Refused(
            f"pads {list(pads)} that do not count", "use count_include_pad = 1 or no padding"
        )
    pads = tuple(a + c for a, c in zip(pads, value.pad))
    if pads[:2] != pads[2:] or any(p >= k for p, k in zip(pads, kernel)):
        weight = np.zeros((value.shape[0], value.shape[0], *kernel))
        each = np.arange(value.shape[0])
        weight[each, each] = 1 / math.prod(kernel)
        return _convolution(
            b, node, value, weight, np.zeros(value.shape[0]), strides, pads, value.shape[0]
        )
    size = _size(value, kernel, strides, pads)
    return b.add(
        node,
        "avgpool",
        [value],
        (value.shape[0], *size),
        kernel=kernel,
        stride=strides,
        pad=pads[:2],
    )


def _whole_pool(b: Builder, node: Node, value: Value, op: str, axes: str) -> Value:
    if value.pad != NO_PAD:
        raise Refused("it follows a Pad", "put the Pad directly before a convolution or pool")
    kernel = value.shape[1:]
    shape = (value.shape[0], 1, 1)
    made = b.add(node, op, [value], shape, kernel=kernel, stride=kernel, pad=(0, 0))
    return made.with_axes(axes)


def global_pool(b: Builder, node: Node) -> Value:
    value = _images(b.value(node))
    op = "avgpool" if node.op == "GlobalAveragePool" else "maxpool"
    return _whole_pool(b, node, value, op, value.axes)


def reduce_mean(b: Builder, node: Node) -> Value:
    value = b.value(node)
    rank = len(value.axes)
    axes = b.integers(node, "axes", 1, list(range(rank)))
    if not all(-rank <= a < rank for a in axes):
        raise Refused(f"axes {axes} of {rank} dimensions", "export the model again")
    reduced = {value.axes[a] for a in axes}
    if reduced != {"H", "W"}:
        raise Refused(
            f"it averages over {', '.join(sorted(reduced))}", "only averages over H and W exist"
        )
    kept = value.axes if node.attributes.get("keepdims", 1) else "NC"
    return _whole_pool(b, node, value, "avgpool", kept)


def pad(b: Builder, node: Node) -> Value:
    value = b.value(node)
    mode = node.attributes.get("mode", "constant")
    fill = float(np.asarray(b.constant(node, 2, 0.0)).astype(np.float64).reshape(-1)[0])
    if mode != "constant" or fill != 0:
        raise Refused(f"mode {mode!r} with {fill}", "only zeros can be padded")
    rank = len(value.axes)
    amounts = b.integers(node, "pads", 1)
    axes = b.integers(node, "axes", 3, list(range(rank)))
    if len(amounts) != 2 * len(axes) or not all(-rank <= a < rank for a in axes):
        raise Refused(f"pads {amounts} for axes {axes}", "export the model again")
    given = {}
    for i, axis in enumerate(axes):
        given[value.axes[axis]] = (amounts[i], amounts[i + len(axes)])
    if min(amounts) < 0 or any(given[a] != (0, 0) for a in given if a not in "HW"):
        raise Refused(f"pads {amounts}", "only H and W can be padded, and not negatively")
    (top, bottom), (left, right) = (given.get(a, (0, 0)) for a in "HW")
    return replace(value, pad=tuple(a + c for a, c in zip(value.pad, (top, left, bottom, right))))


def _per_channel(b: Builder, node: Node, value: Value, array: np.ndarray) -> np.ndarray:
    """[C] of a constant that is broadcast against the value."""
    sizes = (1,) * (len(value.axes) - array.ndim) + array.shape
    where = value.axes.find("C")
    if len(sizes) > len(value.axes) or any(n != 1 for i, n in enumerate(sizes) if i != where):
        raise Refused(
            f"its constant has the sizes {list(array.shape)}", "one number a channel is taken"
        )
    if array.size not in (1, value.shape[0]):
        raise Refused(
            f"its constant has {array.size} values for {value.shape[0]} channels",
            "export the model again",
        )
    return np.broadcast_to(array.reshape(-1), value.shape[0]).copy()


def arithmetic(b: Builder, node: Node) -> Value:
    fixed = [i for i in (0, 1) if node.inputs[i] in b.constants]
    if not fixed:
        return _sum(b, node)
    value = b.value(node, 1 - fixed[0])
    array = _per_channel(b, node, value, b.numbers(node, fixed[0]))
    ones, zeros = np.ones(value.shape[0]), np.zeros(value.shape[0])
    if node.op in ("Add", "Sum"):
        return b.affine(node, value, ones, array)
    if node.op == "Sub":
        first = fixed[0] == 0
        return b.affine(node, value, -ones if first else ones, array if first else -array)
    if node.op == "Mul":
        return b.affine(node, value, array, zeros)
    if fixed[0] == 0 or (array == 0).any():
        raise Refused("it divides by the image or by zero", "only division by constants is taken")
    return b.affine(node, value, 1 / array, zeros)


def sum_of(b: Builder, node: Node) -> Value:
    if len(node.inputs) != 2:
        raise Refused(f"it adds {len(node.inputs)} tensors", "add them two at a time")
    return arithmetic(b, node)


def _sum(b: Builder, node: Node) -> Value:
    one, two = b.value(node), b.value(node, 1)
    if node.op not in ("Add", "Sum"):
        raise Refused("both factors come from the image", "only Add takes two tensors")
    if one.shape != two.shape or one.axes != two.axes or one.flat != two.flat:
        raise Refused(
            f"it adds tensors of [C, H, W] = {list(one.shape)} ({one.axes}) and "
            f"{list(two.shape)} ({two.axes})",
            "both must have one shape and layout",
        )
    if one.pad != NO_PAD or two.pad != NO_PAD:
        raise Refused("it follows a Pad", "put the Pad directly before a convolution or pool")
    made = b.add(node, "add", [one, two], one.shape)
    return replace(made, axes=one.axes, flat=one.flat)


# -- layout


def flatten(b: Builder, node: Node) -> Value:
    value, axis = b.value(node), node.attributes.get("axis", 1)
    if "N" not in value.axes or axis not in (1, 1 - len(value.axes)):
        raise Refused(
            f"axis {axis} of a tensor {value.axes}", "only axis 1, which keeps the batch, is taken"
        )
    return value if value.axes == "NF" else value.flattened()


def reshape(b: Builder, node: Node) -> Value:
    value = b.value(node)
    target = b.integers(node, "shape", 1)
    now = value.dims(b.batch)
    keep_zero = not node.attributes.get("allowzero", 0)
    sizes = [now[i] if n == 0 and keep_zero and i < len(now) else n for i, n in enumerate(target)]
    total = math.prod(now)
    if sizes.count(-1) == 1:
        rest = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = total // rest if rest > 0 else -1
    if math.prod(sizes) != total or not sizes or min(sizes) < 1:
        raise Refused(f"it makes {target} of {now}", "the number of values must stay")
    made = value.reshaped(sizes[1:]) if sizes[0] == b.batch else None
    if made is None:
        raise Refused(
            f"it makes {target} of {now}", "only [N, C * H * W] and [N, C, 1, 1] can be made"
        )
    return made


def squeeze(b: Builder, node: Node) -> Value:
    value = b.value(node)
    now = value.dims(b.batch)
    axes = b.integers(node, "axes", 1, [i for i, n in enumerate(now) if n == 1 and i > 0])
    dropped = {a % len(now) for a in axes if -len(now) <= a < len(now)}
    left = "".join(a for i, a in enumerate(value.axes) if i not in dropped)
    if left == value.axes:
        return value
    one_pixel = value.shape[1:] == (1, 1) and "C" in left
    if any(now[i] != 1 for i in dropped) or not (one_pixel and _without(b, left)):
        raise Refused(f"axes {axes} of {now}", "only H and W of size 1 can be dropped")
    return value.with_axes(left)


def _without(b: Builder, axes: str) -> bool:
    """Whether a pixel may be laid out so: with N, or as [C] of the only image."""
    return "N" in axes or (axes == "C" and b.graph.input_shape[0] == 1)


def unsqueeze(b: Builder, node: Node) -> Value:
    value = b.value(node)
    axes = b.integers(node, "axes", 1, [])
    places = tuple(sorted(a % (len(value.axes) + len(axes)) for a in axes))
    layouts = {("NC", (2, 3)): "NCHW", ("NC", (1, 2)): "NHWC", ("C", (0,)): "NC"}
    if (value.axes, places) not in layouts:
        raise Refused(f"axes {axes} of a tensor {value.axes}", "only [N, C] to [N, C, 1, 1]")
    return value.with_axes(layouts[value.axes, places])


def transpose(b: Builder, node: Node) -> Value:
    value = b.value(node)
    perm = node.attributes.get("perm", list(range(len(value.axes)))[::-1])
    axes = "".join(value.axes[p] for p in perm)
    if axes not in ("NCHW", "NHWC", "NC", "NF"):
        raise Refused(
            f"perm {list(perm)} makes a layout {axes}", "only NCHW and NHWC tensors are possible"
        )
    return replace(value, axes=axes)


def shape(b: Builder, node: Node) -> np.ndarray:
    dims = b.value(node).dims(b.batch)
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(dims))
    return np.array(dims[start:end], np.int64)


def same(b: Builder, node: Node) -> Value:
    return b.value(node)


def dropout(b: Builder, node: Node) -> Value:
    if np.any(b.constant(node, 2, False)):
        raise Refused("training_mode = 1", "export the model in evaluation mode")
    return b.value(node)


def cast(b: Builder, node: Node) -> Value:
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    if node.attributes.get("to") not in kinds:
        raise Refused("it casts to integers", "quantize with QuantizeLinear instead")
    return b.value(node)


def softmax(b: Builder, node: Node) -> Value:
    if node.outputs[0] != b.graph.output_name:
        raise Refused("it is not the end of the network", "only a last Softmax can be dropped")
    value = b.value(node)
    classic = b.graph.opset < 13  # over all dimensions from its axis on
    axis = node.attributes.get("axis", 1 if classic else -1)
    over = value.axes[axis:] if classic else value.axes[axis]
    if not set("CF") & set(over):
        raise Refused(f"it goes over {over or 'nothing'}", "take it over the channels")
    b.notes.append(
        f"{node.place}: dropped; the network ends in the scores before it, in the same order"
    )
    return value


# -- quantization


def _quantized(b: Builder, node: Node, grid: Grid) -> Value:
    """Prescribes the grid for the value's producer, or adds a layer that quantizes."""
    value = b.value(node)
    shared = _seen_by_quantizers(b, node)
    if not _exists(grid):
        b.notes.append(
            f"{node.place}: its integers less the zero point are {grid.low}..{grid.high}, which "
            "the accelerator does not have; it clamps, and the scale is calibrated anew (quantize "
            "activations symmetrically to keep it)"
        )
        return _limited(b, node, grid.low * grid.scale, grid.high * grid.scale, shared)
    whole = _whole_range(grid)  # the image itself saturates only there
    if value.source == "input" and shared.exclusive and b.input_grid in (None, whole):
        b.input_grid = whole
        if grid.high - grid.low >= 254:
            return value
    layer = b.ending(shared)
    if layer is not None and layer.grid in (None, grid):
        layer.grid = grid
        layer.origin.append(b.origin(node))
        return value
    return b.pointwise(node, value, grid=grid)


def _whole_range(grid: Grid) -> Grid:
    """The grid of all 8-bit integers with the scale and sign of this one."""
    return replace(grid, low=-128, high=127) if grid.low < 0 else replace(grid, low=0, high=255)


def _seen_by_quantizers(b: Builder, node: Node) -> Value:
    """The node's input, exclusive also where all that read it quantize it in the same way: what
    they do may then be done once. Only they have it in common, not what reads their results."""
    value = b.value(node)
    if value.exclusive or not _readers_agree(b, node):
        return value
    return replace(value, exclusive=b.values[node.inputs[0]].exclusive)


def _readers_agree(b: Builder, node: Node) -> bool:
    """Whether all that read the node's input quantize it in the same way."""
    kinds = {
        (
            r.op,
            str(r.attributes),
            r.inputs[0],
            *(np.asarray(b.constants.get(i)).tobytes() for i in r.inputs[1:]),
        )
        for r in b.readers[node.inputs[0]]
    }
    return len(kinds) == 1 and node.inputs[0] != b.graph.output_name


def _exists(grid: Grid) -> bool:
    """Whether the accelerator has these integers."""
    high = 127 if grid.low < 0 else 255
    return -128 <= grid.low <= 0 <= grid.high <= high


def _grid(b: Builder, node: Node, low: int, high: int, zero: np.ndarray) -> Grid:
    """The grid of a quantizer whose integers are low..high."""
    scale = b.numbers(node, 1)
    if scale.size != 1 or zero.size != 1:
        raise Refused("one scale a channel", "activations have one scale a tensor")
    if not scale.reshape(-1)[0] > 0:
        raise Refused(f"scale {scale.reshape(-1)[0]}", "scales are positive")
    offset = int(zero.reshape(-1)[0])
    return Grid(float(scale.reshape(-1)[0]), low - offset, high - offset)


def quantize_linear(b: Builder, node: Node) -> Value | np.ndarray:
    kind = node.attributes.get("output_dtype", 0) or TensorProto.UINT8
    zero = b.constant(node, 2, np.zeros((), helper.tensor_dtype_to_np_dtype(kind)))
    limits = {"uint8": (0, 255), "int8": (-128, 127), "uint4": (0, 15), "int4": (-8, 7)}
    if zero.dtype.name not in limits:
        raise Refused(f"integers of the type {zero.dtype}", "at most 8 bits are possible")
    if node.inputs[0] in b.constants:
        x = b.numbers(node, 0)
        scale, offset = (_along(node, v, x) for v in (b.numbers(node, 1), zero.astype(float)))
        return (np.rint(x / scale) + offset).clip(*limits[zero.dtype.name])
    grid = _grid(b, node, *limits[zero.dtype.name], zero.astype(np.int64))
    value = _quantized(b, node, grid)
    return replace(value, steps=(float(b.numbers(node, 1).item()), int(zero.item())))


def _along(node: Node, array: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One number, or one for each place along the node's axis, to be broadcast against x."""
    if node.attributes.get("block_size", 0):
        raise Refused("scales for blocks of weights", "use one scale a tensor or a channel")
    if array.size == 1:
        return array.reshape(())
    sizes = [1] * x.ndim
    sizes[node.attributes.get("axis", 1)] = array.size
    return array.reshape(sizes)


def dequantize_linear(b: Builder, node: Node) -> Value | np.ndarray:
    scale, zero = b.numbers(node, 1), b.numbers(node, 2, np.zeros(()))
    if node.inputs[0] in b.constants:
        x = b.numbers(node, 0)
        return (x - _along(node, zero, x)) * _along(node, scale, x)
    value = b.value(node)
    if scale.size != 1 or zero.size != 1:
        raise Refused("one scale a channel", "activations have one scale a tensor")
    layer = b.layers.get(value.source)
    while layer is not None and layer.op == "maxpool":
        layer = b.layers.get(layer.inputs[0])
    if value.steps is None and layer is not None:
        raise Refused("what it reads is no QuantizeLinear's", "export in QDQ form")
    if value.steps is None:  # the image itself is integers
        ones = np.ones(value.shape[0])
        return b.affine(node, value, ones * scale.item(), -ones * scale.item() * zero.item())
    if value.steps != (scale.item(), zero.item()):
        raise Refused(
            "its scale and zero point are not those of its QuantizeLinear", "use the same in both"
        )
    return replace(value, steps=None)


def quant(b: Builder, node: Node) -> Value | np.ndarray:
    """QONNX Quant, of a weight (folded) or of an activation."""
    scale, zero, bits = (b.numbers(node, i) for i in (1, 2, 3))
    signed, narrow = node.attributes.get("signed", 1), node.attributes.get("narrow", 0)
    mode = node.attributes.get("rounding_mode", "ROUND")
    if bits.size != 1 or bits.reshape(-1)[0] != np.rint(bits.reshape(-1)[0]):
        raise Refused("its bit width is no single integer", "use one integer bit width")
    width = int(bits.reshape(-1)[0])
    if not 1 <= width <= 32:
        raise Refused(f"{width} bits", "1 to 8 bits are possible")
    low = -(1 << width - 1) + bool(narrow) if signed else 0
    high = (1 << width - 1) - 1 if signed else (1 << width) - 1 - bool(narrow)
    if mode not in ("ROUND", "HALF_EVEN"):
        raise Refused(f"rounding_mode {mode!r}", "use ROUND")
    if node.inputs[0] in b.constants:
        x = b.numbers(node, 0)
        return (np.rint(x / scale + zero).clip(low, high) - zero) * scale
    return _quantized(b, node, _grid(b, node, low, high, zero))


def bipolar_quant(b: Builder, node: Node) -> np.ndarray:
    if node.inputs[0] not in b.constants:
        raise Refused("activations of -1 and 1", REMEDIES["BipolarQuant"])
    return np.where(b.numbers(node, 0) >= 0, 1.0, -1.0) * b.numbers(node, 1)


OPERATORS: dict[str, Callable] = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_normalization,
    "Relu": relu,
    "Clip": clip,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "ReduceMean": reduce_mean,
    "Pad": pad,
    **dict.fromkeys(["Add", "Sub", "Mul", "Div"], arithmetic),
    "Sum": sum_of,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Shape": shape,
    "Identity": same,
    "Dropout": dropout,
    "Cast": cast,
    **dict.fromkeys(["Softmax", "LogSoftmax"], softmax),
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "Quant": quant,
    "BipolarQuant": bipolar_quant,
}
