"""The integer layer inside the training's forward pass: sums and requantization to the bit,
gradients of batch norm."""

import torch
import torch.nn.functional as F

from model.reference.requantize import requantize

FLOAT32_EXACT = 2**24  # float32 adds integers exactly below this
LARGEST_INPUT = 255


def exact_sums(x: torch.Tensor, weights: torch.Tensor, stride=1, padding=0) -> torch.Tensor:
    """Convolution of integers -128..255 with integer weights -128..127, both held in floats: exact,
    int64.

    On the CPU in float32, which is exact as long as no sum in any order of summation can reach
    2^24; layers of too many taps are split into the inputs' upper and lower four bits. GPUs
    transform their operands (Winograd, TF32): float64.
    """
    with torch.autocast(x.device.type, enabled=False), torch.backends.nnpack.flags(enabled=False):
        if x.device.type != "cpu":
            return (
                F.conv2d(x.double(), weights.double(), stride=stride, padding=padding)
                .round()
                .long()
            )
        x, weights = x.float(), weights.float()
        total = weights.abs().sum((1, 2, 3)).max().item()
        if total * LARGEST_INPUT < FLOAT32_EXACT:
            return F.conv2d(x, weights, stride=stride, padding=padding).long()
        if total * 15 >= FLOAT32_EXACT:
            raise ValueError(
                f"a channel's weights sum to {total:.0f}: too many taps for exact sums in float32"
            )
        high = (x / 16).floor()
        upper = F.conv2d(high, weights, stride=stride, padding=padding).long()
        return 16 * upper + F.conv2d(x - 16 * high, weights, stride=stride, padding=padding).long()


@torch.no_grad()
def exact_outputs(x, weights, stride, padding, scales, limits) -> torch.Tensor:
    """What the hardware's layer puts out, int64 [N, O, H, W]. scales: (bias, mult, shift), int64
    [O] each."""
    bias, mult, shift = (v.view(-1, 1, 1) for v in scales)
    return requantize(exact_sums(x, weights, stride, padding), bias, mult, shift, *limits)


class ReplaceForward(torch.autograd.Function):
    """Forward: `exact`; backward: the gradient of `soft`, blocked where `soft` is outside the
    limits."""

    @staticmethod
    def forward(ctx, soft, exact, low, high):
        ctx.save_for_backward(soft)
        ctx.low, ctx.high = low, high
        return exact.to(soft.dtype)  # integers up to 256 are exact in bfloat16 too

    @staticmethod
    def backward(ctx, grad):
        (soft,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, soft, ctx.low, ctx.high), None, None, None
