"""A network as a list of layers that training, quantization, export and evaluation walk.

It is built from a description (`train.trace` makes one of a PyTorch module, a checkpoint holds
one) and computes in one of three modes:
"float": the full-precision network;
"fake": convolutions of integer weights with integer activations, batch norm in floats, rounded to
8 bits;
"exact": every output the very integer that the exported layer computes; statistics of batch norm
are frozen, the gradient is that of "fake".
Inputs are the integers of the network file from the first step on.
"""

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from model.reference.requantize import requantize, shift_round
from train.quantize import clipq
from train.quantize.exact import ReplaceForward, exact_outputs
from train.quantize.fold import add_scales, fold_scales, mult_and_shift

CALIBRATION = 0.9999  # share of a layer's outputs inside the range when its scale is chosen
MODES = ("float", "fake", "exact")


class Bias(nn.Module):
    """A bias per channel in the place of batch norm; scale and statistics never change."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.eps = 0.1, 0.0

    def forward(self, x):
        return x + self.bias.view(-1, 1, 1)


class Node(nn.Module):
    """A layer. spec: its entry in the description; limits: range of the output integers."""

    def __init__(self, spec: dict):
        super().__init__()
        self.spec, self.mode, self.calibrating = spec, "float", False

    @property
    def limits(self) -> tuple[int, int]:
        return (-128, 127) if self.spec["signed"] else (0, 255)

    def finish(self, soft, exact):
        """The output integers as floats: of `exact` in mode "exact", else `soft` rounded."""
        if self.mode != "exact":
            exact = (soft.detach().float() + 0.5).floor_().clamp_(*self.limits)
        elif not self.training:
            return exact.float()
        return ReplaceForward.apply(soft, exact, *self.limits)

    def choose_steps(self, outputs) -> None:
        """Choose the integers per unit so that one of ten thousand outputs is clamped."""
        magnitude = (outputs.abs() if self.spec["signed"] else outputs).float().flatten()
        top = magnitude.kthvalue(max(1, int(len(magnitude) * CALIBRATION))).values
        self.steps.fill_(self.limits[1] / top if top > 0 else 1.0)


class Conv(Node):
    """Convolution, batch norm or a bias, and ReLU or nothing; a linear layer is one, too."""

    def __init__(self, spec: dict):
        super().__init__(spec)
        inputs, outputs = spec["channels"]
        self.conv = nn.Conv2d(
            inputs, outputs, spec["kernel"], spec["stride"], spec["pad"], bias=False
        )
        self.set_norm(spec["norm"])
        self.register_buffer("steps", torch.tensor(1.0))
        self.quantizer = clipq.Setting()
        # Of a copy whose weights are the integers themselves: the exported scales, or () in mode
        # "fake" (`train.workers`).
        self.ready = None

    def set_norm(self, kind: str) -> None:
        """Make `bn` new. kind: "batch", "bias", or "fixed", a bias whose integers have a binary
        point."""
        self.spec["norm"] = kind
        channels, eps = self.spec["channels"][1], self.spec.get("eps", 1e-5)
        self.bn = nn.BatchNorm2d(channels, eps) if kind == "batch" else Bias(channels)

    def frozen_scales(self) -> tuple[torch.Tensor, ...]:
        """(bias, mult, shift) of the exported layer, int64 [O] each."""
        return tuple(torch.from_numpy(v).to(self.conv.weight.device) for v in fold_scales(self))

    def exact_outputs(self, x, weights, scales):
        """What the hardware's layer puts out, int64 [N, O, H, W]."""
        conv = self.conv
        return exact_outputs(x, weights, conv.stride, conv.padding, scales, self.limits)

    @torch.no_grad()
    def integers(self, x: torch.Tensor) -> torch.Tensor:
        """Exactly what the exported layer computes: integers in, int64 out."""
        return self.exact_outputs(
            x, self.quantizer.integers(self.conv.weight), self.frozen_scales()
        )

    def sums(self, x, weight):
        """The convolution, in floats."""
        return F.conv2d(x, weight, None, self.conv.stride, self.conv.padding)

    def forward(self, x):
        if self.mode == "float":
            x = self.bn(self.sums(x, self.conv.weight))
            return F.relu_(x) if self.spec["relu"] else x
        weight, scales = self.conv.weight, self.ready
        if scales is None:
            weight, scales = clipq.fake_quantize(weight, self.quantizer), ()
        exact = None
        if self.mode == "exact":
            exact = self.exact_outputs(x, weight, scales or self.frozen_scales())
        sums, bn = self.sums(x, weight), self.bn
        if self.calibrating:
            self.choose_steps(F.batch_norm(sums, None, None, bn.weight, bn.bias, True, 0.0, bn.eps))
        learning = bn.training and self.mode == "fake" and self.spec["norm"] == "batch"
        soft = F.batch_norm(
            sums,
            bn.running_mean,
            bn.running_var,
            bn.weight * self.steps,
            bn.bias * self.steps,
            learning,
            bn.momentum,
            bn.eps,
        )
        return self.finish(soft, exact)


class MaxPool(Node):
    """Max pooling."""

    def forward(self, x):
        return F.max_pool2d(x, self.spec["kernel"], self.spec["stride"], self.spec["pad"])

    def integers(self, x):
        return self(x.double()).long()


class AvgPool(Node):
    """Average pooling; the whole map where `global`, whatever its size. Padding counts as zero."""

    def forward(self, x):
        spec = self.spec
        if spec["global"]:
            soft = x.float().mean((2, 3), keepdim=True)
        else:
            soft = F.avg_pool2d(x, spec["kernel"], spec["stride"], spec["pad"])
        if self.mode == "float" or spec["last"]:
            return soft
        return self.finish(soft, self.integers(x.detach()) if self.mode == "exact" else None)

    def integers(self, x):
        """int64; the sum of the windows where it is the last layer."""
        kernel, stride, pad = (self.spec[key] for key in ("kernel", "stride", "pad"))
        kernel = x.shape[2:] if self.spec["global"] else kernel
        sums = F.avg_pool2d(x.double(), kernel, stride, pad, divisor_override=1).round().long()
        if self.spec["last"]:
            return sums
        return requantize(sums, 0, *self.scales(), *self.limits)

    def scales(self) -> tuple[int, int]:
        """(mult, shift) that make an average of a sum."""
        mult, shift = mult_and_shift(torch.tensor([1 / math.prod(self.spec["kernel"])]).numpy())
        return int(mult[0]), int(shift[0])


class Add(Node):
    """Sum of two tensors, and ReLU or nothing."""

    def __init__(self, spec: dict):
        super().__init__(spec)
        self.register_buffer("steps", torch.tensor(1.0))
        # output integers per integer of either input
        self.register_buffer("ratio", torch.ones(2, dtype=torch.float64))

    def forward(self, a, b):
        if self.mode == "float":
            return F.relu(a + b) if self.spec["relu"] else a + b
        if self.calibrating:
            units = [1 / steps for steps in self.sources()]
            soft = a * units[0] + b * units[1]
            self.choose_steps(F.relu(soft) if self.spec["relu"] else soft)
            self.ratio.copy_(torch.tensor([float(self.steps) * unit for unit in units]))
        soft = a * float(self.ratio[0]) + b * float(self.ratio[1])
        return self.finish(soft, self.integers(a, b) if self.mode == "exact" else None)

    @torch.no_grad()
    def integers(self, a, b):
        (first, second), shift = self.scales()
        return shift_round(a.long() * first + b.long() * second, shift).clamp(*self.limits)

    def scales(self) -> tuple[tuple[int, int], int]:
        """((mult of either input), shift) of the exported layer."""
        return add_scales(self.ratio.cpu().numpy())


class Dropout(Node):
    """Dropout of the full-precision network. generator: where its masks come from."""

    generator = None

    def forward(self, x):
        if not self.training or self.mode != "float":
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.spec["share"]
        return x * kept.to(x.device) / (1 - self.spec["share"])

    def integers(self, x):
        return x


NODES = {"conv": Conv, "maxpool": MaxPool, "avgpool": AvgPool, "add": Add, "dropout": Dropout}


class Net(nn.Module):
    """forward: float32 [N, C, H, W] in input integers -> float32 logits [N, classes].

    spec: {"input": {"shape", "scale", "offset", "unit"}, "layers": [...]}. Pixels become input
    integers by scale and offset; `unit` of them are one of the full-precision network.
    """

    def __init__(self, spec: dict):
        super().__init__()
        self.spec = spec
        self.nodes = nn.ModuleDict({one["name"]: NODES[one["op"]](one) for one in spec["layers"]})
        for node in self.nodes.values():
            if isinstance(node, Add):
                node.sources = lambda inputs=node.spec["inputs"]: map(self.steps_of, inputs)

    def blocks(self) -> list[tuple[str, Conv]]:
        """(name, Conv) in order."""
        return [(name, node) for name, node in self.nodes.items() if isinstance(node, Conv)]

    @property
    def mode(self) -> str:
        """One of MODES."""
        return self.blocks()[0][1].mode

    @mode.setter
    def mode(self, mode: str) -> None:
        for node in self.nodes.values():
            node.mode = mode

    def steps_of(self, name: str) -> float:
        """Integers per unit of a layer's output, or of "input"."""
        while name != "input" and not hasattr(self.nodes[name], "steps"):
            name = self.nodes[name].spec["inputs"][0]
        return self.spec["input"]["unit"] if name == "input" else float(self.nodes[name].steps)

    def walk(self, x: torch.Tensor, call) -> dict:
        """{name: `call(name, node, *inputs)`} of all layers, from x."""
        values = {"input": x}
        for name, node in self.nodes.items():
            values[name] = call(name, node, *(values[source] for source in node.spec["inputs"]))
        del values["input"]
        return values

    @property
    def last(self) -> str:
        """Name of the last layer."""
        return self.spec["layers"][-1]["name"]

    def forward(self, x):
        if self.mode == "float":
            x = x / self.spec["input"]["unit"]
        x = x.contiguous(memory_format=torch.channels_last)
        logits = self.walk(x, lambda _, node, *inputs: node(*inputs))[self.last]
        logits = logits.float().flatten(1)
        return logits if self.mode == "float" else logits / self.steps_of(self.last)

    @torch.no_grad()
    def integer_forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """All layers of the exported network, int64, from input integers."""
        values = self.walk(x, lambda _, node, *inputs: node.integers(*inputs))
        return {name: v for name, v in values.items() if self.nodes[name].spec["op"] != "dropout"}

    @contextmanager
    def _calibration(self):
        for node in self.nodes.values():
            node.calibrating = True
        for _, block in self.blocks():
            block.bn.momentum = 1.0
        yield
        for node in self.nodes.values():
            node.calibrating = False
        for _, block in self.blocks():
            block.bn.momentum = 0.1

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Start to compute in integers: choose the activation scales and take batch norm's
        statistics from input integers [N, C, H, W]."""
        add_batch_norm(self, x)
        self.mode = "fake"
        self.train()
        with self._calibration():
            self(x)


@torch.no_grad()
def add_batch_norm(net: Net, x: torch.Tensor) -> None:
    """Give the layers of the full-precision `net` that have a bias batch norm instead, which
    learning in integers needs; the function stays. x: input integers [N, C, H, W]."""

    def change(_, node, *inputs):
        if isinstance(node, Conv) and node.spec["norm"] == "bias":
            sums, bias = node.sums(inputs[0], node.conv.weight), node.bn.bias.clone()
            node.set_norm("batch")
            node.bn.to(x.device)
            variance, mean = torch.var_mean(sums.float(), (0, 2, 3), correction=0)
            node.bn.running_mean.copy_(mean)
            node.bn.running_var.copy_(variance)
            node.bn.weight.copy_((variance + node.bn.eps).sqrt())
            node.bn.bias.copy_(bias + mean)
        return node(*inputs)

    net.eval()
    net.walk(x / net.spec["input"]["unit"], change)


@torch.no_grad()
def to_input(pixels: torch.Tensor, spec: dict) -> torch.Tensor:
    """Pixels 0..255 (any real dtype) [N, C, H, W] -> float32 in integer units; rounded where the
    pixels are uint8. spec: the description's "input"."""
    scale, offset = (
        torch.tensor(spec[key], dtype=torch.float64, device=pixels.device).view(1, -1, 1, 1)
        for key in ("scale", "offset")
    )
    x = pixels.double() * scale + offset
    return (x.round().clamp(-128, 127) if pixels.dtype == torch.uint8 else x).float()
