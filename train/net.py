"""A network as a list of layers that training, quantization, export and evaluation walk.

It is built from a description (`train.trace` makes one of a PyTorch module, a checkpoint holds
one) and computes in one of two modes:
"float": the full-precision network;
"fake": convolutions of integer weights with integer activations, batch norm in floats, rounded to
8 bits.
Inputs are the integers of the network file from the first step on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.common.errors import UserError
from model.interchange.scales import multiplier, multipliers
from model.network import Layer, Network
from train.quantize.codebooks import ClipQ, Codebook, Quantizer

CALIBRATION = 0.9999  # share of a layer's outputs inside the range when its scale is chosen
Spec = dict[str, Any]


class FoldError(UserError, ValueError):
    """Numbers that the integers of the file cannot express; the message names layer and channel."""


class ReplaceForward(torch.autograd.Function):
    """Forward: `hard`; backward: the gradient of `soft`, blocked outside the limits."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(soft)
        ctx.low, ctx.high = low, high
        return hard.to(soft.dtype)  # integers up to 256 are exact in bfloat16 too

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (soft,) = ctx.saved_tensors
        blocked = torch.ops.aten.hardtanh_backward(grads[0], soft, ctx.low, ctx.high)
        return blocked, None, None, None


def replaced(soft: Tensor, hard: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """`hard` with the gradient of `soft`."""
    return cast(Tensor, ReplaceForward.apply(soft, hard, low, high))


@dataclass(eq=False)
class Piece:
    """Part of a batch that training normalizes by itself. rng: where dropout's masks come from;
    integers: of each convolution's weights; statistics: (mean, variance) of each batch norm, which
    the forward pass adds."""

    rng: torch.Generator | None = None
    integers: Mapping["Conv", Tensor] = field(default_factory=dict)
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Node(nn.Module):
    """A layer. spec: its entry in the description. Its forward pass gets a piece where it
    trains."""

    steps: Tensor  # output integers per unit of full precision, of a convolution and an addition

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.mode = spec, "float"

    @property
    def raw(self) -> bool:
        """Whether the output leaves the network as 32-bit sums."""
        return self.spec.get("last", False)

    @property
    def limits(self) -> tuple[int, int]:
        """Range of the output integers."""
        return (-128, 127) if self.spec["signed"] else (0, 255)

    def folded(self) -> Spec:
        """What the layer of the file has besides name, op, inputs and window. Raises FoldError or
        ScaleError."""
        low, high = self.limits
        return {"out": "int32"} if self.raw else {"out_min": low, "out_max": high}

    def finish(self, soft: Tensor) -> Tensor:
        """The output integers as floats: `soft` rounded and clamped, with its gradient."""
        with torch.no_grad():
            integers = (soft.float() + 0.5).floor_().clamp_(*self.limits)
        return replaced(soft, integers, *self.limits)

    def choose_steps(self, outputs: Tensor) -> None:
        """Choose the integers per unit so that one of ten thousand outputs is clamped."""
        top = self.top(outputs)
        self.steps.fill_(self.limits[1] / top if top > 0 else 1.0)

    def top(self, outputs: Tensor) -> float:
        """The value that one of ten thousand outputs exceeds."""
        magnitude = (outputs.abs() if self.spec["signed"] else outputs).float().flatten()
        return magnitude.kthvalue(max(1, int(len(magnitude) * CALIBRATION))).values.item()


class Conv(Node):
    """Convolution, batch norm, and ReLU or nothing; a linear layer is one, too.

    quantizer: of its weights. Where the description's "norm" is "bias", batch norm adds a bias and
    nothing else; where it is "fixed", the integers have a binary point, too.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.weight = nn.Parameter(torch.zeros(spec["shape"]))
        self.set_norm(spec["norm"])
        self.register_buffer("steps", torch.tensor(1.0))
        self.quantizer: Quantizer = ClipQ(0.2)

    def set_norm(self, kind: str) -> None:
        """Make batch norm new."""
        self.spec["norm"] = kind
        eps = self.spec.get("eps", 1e-5) if kind == "batch" else 0.0
        self.bn: Any = nn.BatchNorm2d(len(self.weight), eps)
        self.bn.weight.requires_grad_(kind == "batch")

    def integers(self) -> Tensor:
        """Its weights as integers, in floats."""
        return self.quantizer.integers(self.weight.detach())

    def forward(self, x: Tensor, piece: Piece | None = None) -> Tensor:
        spec, bn, full = self.spec, self.bn, self.mode == "float"
        weight: Tensor = self.weight
        mean, variance = bn.running_mean, bn.running_var
        if not full:
            weight = replaced(weight, piece.integers[self] if piece else self.integers())
        steps = 1.0 if full else self.steps
        fresh = piece is not None and spec["norm"] == "batch"
        if piece and fresh:
            mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
            piece.statistics.append((mean, variance))
        soft = F.batch_norm(
            F.conv2d(x, weight, None, spec["stride"], spec["pad"]),
            mean,
            variance,
            bn.weight * steps,
            bn.bias * steps,
            fresh,
            1.0,
            bn.eps,
        )
        if full:
            return F.relu_(soft) if spec["relu"] else soft
        return soft.float() if self.raw else self.finish(soft)

    def folded(self) -> Spec:
        if not self.weight.isfinite().all():  # a quantizer would make zeros of them
            raise FoldError("weights that are not finite")
        if not isinstance(self.quantizer, Codebook):
            raise FoldError(f"{self.quantizer} has no codebook of four values")
        index, codebook = self.quantizer.quantize(self.weight)
        bn, steps = self.bn, float(self.steps)
        # Output integers per integer of the sums, [O].
        factor = steps * _float64(bn.weight) / np.sqrt(_float64(bn.running_var) + bn.eps)
        if self.spec["norm"] == "fixed":
            factor = np.exp2(np.rint(np.log2(factor)))
        mult, shift = multiplier(factor)
        if self.spec["norm"] == "fixed":
            mult, shift = np.ones_like(mult), -np.log2(factor)
        bias = steps * _float64(bn.bias) / factor - _float64(bn.running_mean)
        if not (fits := np.abs(np.rint(bias)) < 2.0**31).all():
            channel = np.argmin(fits)
            raise FoldError(f"channel {channel}: bias {bias[channel]} does not fit 32 bits")
        scales = {"mult": mult.astype(np.int32), "shift": shift.astype(np.uint8)}
        return {
            "index": index.cpu().numpy().astype(np.uint8),
            "codebook": codebook.cpu().numpy().astype(np.int8),
            "bias": np.rint(bias).astype(np.int32),
            **({} if self.raw else scales),
            **super().folded(),
        }


def _float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)


class MaxPool(Node):
    """Max pooling."""

    def forward(self, x: Tensor, piece: Piece | None = None) -> Tensor:
        return F.max_pool2d(x, self.spec["kernel"], self.spec["stride"], self.spec["pad"])

    def folded(self) -> Spec:
        return {}


class AvgPool(Node):
    """Average pooling; the whole map where `whole`, whatever its size. Padding counts as zero."""

    def forward(self, x: Tensor, piece: Piece | None = None) -> Tensor:
        spec = self.spec
        if spec["whole"]:
            soft = x.float().mean((2, 3), keepdim=True)
        else:
            soft = F.avg_pool2d(x, spec["kernel"], spec["stride"], spec["pad"])
        return soft if self.mode == "float" or self.raw else self.finish(soft)

    def folded(self) -> Spec:
        mult, shift = multiplier(np.array([1 / math.prod(self.spec["kernel"])]))
        scales = {} if self.raw else {"mult": int(mult[0]), "shift": int(shift[0])}
        return {**scales, **super().folded()}


class Add(Node):
    """Sum of two tensors, and ReLU or nothing."""

    ratio: Tensor  # output integers per integer of either input

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.register_buffer("steps", torch.tensor(1.0))
        self.register_buffer("ratio", torch.ones(2, dtype=torch.float64))

    def forward(self, a: Tensor, b: Tensor, piece: Piece | None = None) -> Tensor:
        if self.mode == "float":
            return F.relu(a + b) if self.spec["relu"] else a + b
        return self.finish(a * float(self.ratio[0]) + b * float(self.ratio[1]))

    def choose_ratio(self, a: Tensor, b: Tensor, units: tuple[float, float]) -> None:
        """From inputs of so many integers per unit."""
        soft = a / units[0] + b / units[1]
        self.choose_steps(F.relu(soft) if self.spec["relu"] else soft)
        self.ratio.copy_(torch.tensor([float(self.steps) / unit for unit in units]))

    def folded(self) -> Spec:
        mult, shift = multipliers(tuple(self.ratio.tolist()))
        return {"mult": mult, "shift": shift, **super().folded()}


class Dropout(Node):
    """Dropout of the full-precision network."""

    def forward(self, x: Tensor, piece: Piece | None = None) -> Tensor:
        if piece is None or self.mode != "float":
            return x
        kept = torch.rand(x.shape, generator=piece.rng) >= self.spec["share"]
        return x * kept.to(x.device) / (1 - self.spec["share"])


NODES = {"conv": Conv, "maxpool": MaxPool, "avgpool": AvgPool, "add": Add, "dropout": Dropout}


class Net(nn.Module):
    """forward: float32 [N, C, H, W] in input integers -> float32 logits [N, classes].

    spec: {"input": {"shape", "scale", "offset", "unit"}, "layers": [...]}. Pixels become input
    integers by scale and offset; `unit` of them are one of the full-precision network. piece: where
    it trains.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        made = nn.ModuleDict({one["name"]: NODES[one["op"]](one) for one in spec["layers"]})
        self.nodes: Any = made

    def blocks(self) -> list[tuple[str, Conv]]:
        """(name, convolution) in order."""
        return [(name, node) for name, node in self.nodes.items() if isinstance(node, Conv)]

    @property
    def mode(self) -> str:
        """ "float" or "fake"."""
        return self.blocks()[0][1].mode

    @mode.setter
    def mode(self, mode: str) -> None:
        for node in self.nodes.values():
            node.mode = mode

    @property
    def classes(self) -> int:
        """Number of logits."""
        return len(self.blocks()[-1][1].weight)

    def steps_of(self, name: str) -> float:
        """Integers per unit of a layer's output, or of "input"."""
        while name != "input" and not hasattr(self.nodes[name], "steps"):
            name = self.nodes[name].spec["inputs"][0]
        return self.spec["input"]["unit"] if name == "input" else float(self.nodes[name].steps)

    @property
    def last(self) -> str:
        """Name of the last layer."""
        return self.spec["layers"][-1]["name"]

    def forward(self, x: Tensor, piece: Piece | None = None) -> Tensor:
        if self.mode == "float":
            x = x / self.spec["input"]["unit"]
        values = {"input": x.contiguous(memory_format=torch.channels_last)}
        for name, node in self.nodes.items():
            values[name] = node(*(values[source] for source in node.spec["inputs"]), piece=piece)
        logits = values[self.last].float().flatten(1)
        return logits if self.mode == "float" else logits / self.steps_of(self.last)


def to_network(net: Net, name: str = "network", classes: tuple[str, ...] = ()) -> Network:
    """The integer network of a quantized one, the same on every machine. Raises FoldError or
    NetworkError with the layer."""
    layers, renamed = [], {"input": "input"}
    for own, node in net.nodes.items():
        spec = node.spec
        inputs = tuple(renamed[source] for source in spec["inputs"])
        renamed[own] = inputs[0] if isinstance(node, Dropout) else own
        if isinstance(node, Dropout):
            continue
        window: Spec = {k: tuple(spec[k]) for k in ("kernel", "stride", "pad") if k in spec}
        try:
            layers.append(Layer(name=own, op=spec["op"], inputs=inputs, **window, **node.folded()))
        except UserError as error:
            raise FoldError(f"layer {own}: {error}") from None
    source = net.spec["input"]
    return Network(
        name=name,
        input_shape=tuple(source["shape"]),
        input_signed=True,
        layers=tuple(layers),
        scale=tuple(source["scale"]),
        offset=tuple(source["offset"]),
        classes=classes,
    )


@torch.no_grad()
def to_input(pixels: Tensor, spec: Spec) -> Tensor:
    """Pixels 0..255 (any real dtype) [N, C, H, W] -> float32 in integer units; rounded where the
    pixels are uint8. spec: the description's "input"."""
    scale, offset = (
        torch.tensor(spec[key], dtype=torch.float64, device=pixels.device).view(1, -1, 1, 1)
        for key in ("scale", "offset")
    )
    x = pixels.double() * scale + offset
    return (x.round().clamp(-128, 127) if pixels.dtype == torch.uint8 else x).float()
