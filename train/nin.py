"""The nine-convolution Network-in-Network for CIFAR, in full precision or with CLIP-Q weights and
8-bit activations.

Both modes take the integer picture of the network file (`to_input`) and share all parameters. In
quantized mode each
convolution works on integers held in floats: weights are codebook entries, activations 0..255
(conv9: -128..127), and batch norm's affine part, in steps of the output integer, is what export
turns into bias, mult and shift.

Modes: "float"; "fake" (integers times integers, batch norm in floats, rounded to 8 bits); "exact"
(batch norm's statistics frozen, every output the very integer that the exported layer computes, the
gradient that of "fake").
"""

import torch
import torch.nn.functional as F
from torch import nn

from train import clipq, winograd
from train.exact import ReplaceForward, exact_outputs
from train.fold import fold_scales
from train.precision import has_bfloat16

# name, input channels, output channels (None: classes), kernel
LAYERS = (
    ("conv1", 3, 192, 5),
    ("conv2", 192, 160, 1),
    ("conv3", 160, 96, 1),
    ("conv4", 96, 192, 5),
    ("conv5", 192, 192, 1),
    ("conv6", 192, 192, 1),
    ("conv7", 192, 192, 3),
    ("conv8", 192, 192, 1),
    ("conv9", 192, None, 1),
)
POOL_NAME = {"conv3": "pool1", "conv6": "pool2"}
POOL_AFTER = tuple(POOL_NAME)
LAST = "conv9"
FEW_INPUTS = 32  # below, the transforms of `train.winograd` cost more than they save

# Mean colour (0..255) of the training set is the input's zero, so that padding is the mean colour;
# the step of 0.9 keeps every pixel inside -128..127 (0.9 * 141.4 = 127.3 for the set with the
# darkest blue).
MEAN = {"cifar10": (125.307, 122.950, 113.865), "cifar100": (129.304, 124.070, 112.434)}
STEP = {"cifar10": 0.9, "cifar100": 0.885}
CALIBRATION = 0.9999  # share of a layer's outputs inside the range when the scale is chosen
INPUT_UNIT = (
    57.0  # input integers per unit of the full-precision network, about one standard deviation
)


def round_input(x: torch.Tensor) -> torch.Tensor:
    """The integers -128..127 that the hardware gets for inputs x of any shape, in x's dtype."""
    return x.round().clamp(-128, 127)


def to_input(pixels: torch.Tensor, dataset: str) -> torch.Tensor:
    """Pixels 0..255 (any real dtype) [N, 3, H, W] -> float32 in integer units; rounded where the
    pixels are uint8."""
    mean = torch.tensor(MEAN[dataset], dtype=torch.float64, device=pixels.device).view(1, 3, 1, 1)
    x = pixels.double() * STEP[dataset] - mean * STEP[dataset]
    if pixels.dtype == torch.uint8:
        x = round_input(x)
    return x.float()


class _Round8(torch.autograd.Function):
    """Round and clamp; the gradient passes where the clamp did not act."""

    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high).round_()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, x, ctx.low, ctx.high), None, None


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, and ReLU (or, in the quantized modes, rounding to 8
    bits)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, last: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.last = last
        self.quantizer = clipq.Setting()
        self.mode = "float"
        self.calibrating = False
        self.ready = (
            False  # the weight tensor already holds integers, `scales` what `frozen_scales` gives
        )
        self.scales = None
        # Integer steps per unit of the batch norm's output: fixed by `calibrate` when quantization
        # starts.
        self.register_buffer("steps", torch.tensor(1.0))

    @property
    def limits(self) -> tuple[int, int]:
        """Range of the output integers."""
        return (-128, 127) if self.last else (0, 255)

    def frozen_scales(self) -> tuple[torch.Tensor, ...]:
        """(bias, mult, shift) of the exported layer, int64 [O] each."""
        return tuple(torch.from_numpy(v).to(self.conv.weight.device) for v in fold_scales(self))

    @torch.no_grad()
    def integer_forward(self, x: torch.Tensor) -> torch.Tensor:
        """Exactly what the exported layer computes: integers 0..255 or -128..127 in, int64 out."""
        weights = self.quantizer.integers(self.conv.weight)
        return exact_outputs(x, weights, self.conv.padding, self.frozen_scales(), self.limits)

    def sums(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The convolution, in floats; by tiles where that is faster: wide layers on a processor
        that has no bfloat16."""
        _, inputs, taps, _ = weight.shape
        if taps > 1 and inputs >= FEW_INPUTS and x.device.type == "cpu" and not has_bfloat16():
            return winograd.conv2d(x, weight)
        return F.conv2d(x, weight, padding=self.conv.padding)

    def forward(self, x):
        if self.mode == "float":
            x = self.bn(self.sums(x, self.conv.weight))
            return x if self.last else F.relu_(x)
        weight = (
            self.conv.weight
            if self.ready
            else clipq.fake_quantize(self.conv.weight, self.quantizer)
        )
        bn, exact = self.bn, self.mode == "exact"
        if exact:
            scales = self.scales if self.ready else self.frozen_scales()
            integers = exact_outputs(x, weight, self.conv.padding, scales, self.limits)
            if not self.training:
                return integers.float()
        sums = self.sums(x, weight)
        if self.calibrating:
            self._calibrate(F.batch_norm(sums, None, None, bn.weight, bn.bias, True, 0.0, bn.eps))
        soft = F.batch_norm(
            sums,
            bn.running_mean,
            bn.running_var,
            bn.weight * self.steps,
            bn.bias * self.steps,
            bn.training and not exact,
            bn.momentum,
            bn.eps,
        )
        return (
            ReplaceForward.apply(soft, integers, *self.limits)
            if exact
            else _Round8.apply(soft, *self.limits)
        )

    def _calibrate(self, y):
        """Choose the steps so that one output in ten thousand is clamped."""
        magnitude = (y.abs() if self.last else y).float().flatten()
        top = magnitude.kthvalue(int(len(magnitude) * CALIBRATION)).values
        self.steps = self.limits[1] / top


class NIN(nn.Module):
    """forward: float32 [N, 3, H, W] in input integers -> float32 logits [N, classes]; H and W
    multiples of four."""

    def __init__(self, classes: int = 10):
        super().__init__()
        for name, inputs, outputs, kernel in LAYERS:
            self.add_module(name, ConvBlock(inputs, outputs or classes, kernel, name == LAST))

    def blocks(self):
        """(name, ConvBlock) in order; those there are, in a `train.tail.Tail`."""
        return [(name, getattr(self, name)) for name, *_ in LAYERS if hasattr(self, name)]

    @property
    def mode(self) -> str:
        """ "float", "fake" or "exact"."""
        return self.conv9.mode

    @mode.setter
    def mode(self, mode: str) -> None:
        for _, block in self.blocks():
            block.mode = mode

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Set activation scales and running statistics of the quantized network from input integers
        [N, 3, H, W]."""
        self.mode = "fake"
        self.train()
        for _, block in self.blocks():
            block.calibrating, block.bn.momentum = True, 1.0
        self(x)
        for _, block in self.blocks():
            block.calibrating, block.bn.momentum = False, 0.1

    @torch.no_grad()
    def integer_forward(self, x: torch.Tensor) -> dict:
        """All layers of the exported network, {name: int64 tensor}, from input integers; "gap"
        holds the logits' sums."""
        tensors = {}
        for name, block in self.blocks():
            x = tensors[name] = block.integer_forward(x)
            if name in POOL_AFTER:
                x = tensors[POOL_NAME[name]] = F.max_pool2d(x.double(), 2).long()
        tensors["gap"] = x.sum((2, 3), keepdim=True)
        return tensors

    def forward(self, x):
        if self.mode == "float":
            x = x / INPUT_UNIT
        x = x.contiguous(memory_format=torch.channels_last)
        for name, block in self.blocks():
            x = block(x)
            if name in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        logits = x.float().mean((2, 3))
        return logits if self.mode == "float" else logits / self.conv9.steps
