"""Batch norm folded into integers: from a trained block to the arrays of the network file."""

from typing import NamedTuple

import numpy as np

from model.common.errors import UserError

MULT_BITS = 15  # mult is 1..32767
SHIFT_MAX = 31


class FoldError(UserError, ValueError):
    """Numbers that the integers of a layer cannot express; the message names the channel."""


class FoldedConv(NamedTuple):
    """Arrays of one conv layer: y = clamp(((acc + bias) * mult + round) >> shift)."""

    index: np.ndarray  # uint8 [O, I, Kh, Kw]
    codebook: np.ndarray  # int8 [4]
    bias: np.ndarray  # int32 [O]
    mult: np.ndarray  # int32 [O]
    shift: np.ndarray  # uint8 [O]


def _float64(tensor):
    return tensor.detach().cpu().numpy().astype(np.float64)


def mult_and_shift(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mult, shift) int64 with mult / 2^shift nearest to each positive `factor` and mult as large
    as it may be."""
    good = (factor > 0) & np.isfinite(factor)
    if not good.all():
        channel = np.argmin(good)
        raise FoldError(
            f"channel {channel}: scale {factor[channel]} is not positive, no mult can express it"
        )
    _, exponent = np.frexp(factor)  # factor = m * 2^exponent, 0.5 <= m < 1
    shift = MULT_BITS - exponent
    mult = np.rint(np.ldexp(factor, shift)).astype(np.int64)
    halve = mult > 2**MULT_BITS - 1  # rounded up to a power of two
    shift, mult = shift - halve, np.where(halve, 2 ** (MULT_BITS - 1), mult)
    if shift.min() < 0 or shift.max() > SHIFT_MAX:
        worst = np.argmax(np.abs(shift - SHIFT_MAX / 2))
        raise FoldError(
            f"channel {worst}: scale {factor[worst]} needs shift {shift[worst]}, "
            f"outside 0..{SHIFT_MAX}"
        )
    return mult, shift


def add_scales(ratio: np.ndarray) -> tuple[tuple[int, int], int]:
    """((mult of either input), shift) of an addition, from output integers per integer of either
    input, float64 [2]. Raises FoldError for a ratio that is not positive or too large."""
    _, shift = mult_and_shift(ratio.max(keepdims=True))
    mult = np.rint(np.ldexp(ratio, shift)).astype(np.int64)
    if mult.min() < 1:
        raise FoldError(f"inputs whose scales differ by {ratio.max() / ratio.min():.0f} times")
    return (int(mult[0]), int(mult[1])), int(shift[0])


def fold_scales(block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bias, mult, shift), int64 [O] each, of a convolution of train.net; in float64.

    A layer whose norm is "fixed" has a power of two as its factor, and mult is 1. Raises FoldError
    that names the channel if a scale cannot be expressed.
    """
    bn, steps = block.bn, float(block.steps)
    factor = steps * _float64(bn.weight) / np.sqrt(_float64(bn.running_var) + bn.eps)
    if block.spec["norm"] == "fixed":
        shift = np.rint(-np.log2(factor)).astype(np.int64)
        mult = np.ones_like(shift)
        factor = np.ldexp(1.0, -shift)
    else:
        mult, shift = mult_and_shift(factor)
    bias = steps * _float64(bn.bias) / factor - _float64(bn.running_mean)
    if not np.isfinite(bias).all():
        raise FoldError(f"channel {np.argmin(np.isfinite(bias))}: bias is not finite")
    # Processors differ in what a cast makes of values beyond 64 bits; `fold` refuses those beyond
    # 32.
    bias = np.rint(bias).clip(-(2.0**62), 2.0**62).astype(np.int64)
    return bias, mult, shift.astype(np.int64)


def fold(block) -> FoldedConv:
    """Arrays of a convolution whose quantizer has a codebook, the same on every machine.

    Raises FoldError for what the file cannot express.
    """
    if not block.conv.weight.isfinite().all():  # a quantizer would make zeros of them
        raise FoldError("weights that are not finite")
    index, codebook = block.quantizer.quantize(block.conv.weight)
    bias, mult, shift = (v.cpu().numpy() for v in block.frozen_scales())
    if (outside := (bias < -(2**31)) | (bias >= 2**31)).any():
        channel = np.argmax(outside)
        raise FoldError(f"channel {channel}: bias {bias[channel]} does not fit 32 bits")
    return FoldedConv(
        index.cpu().numpy().astype(np.uint8),
        codebook.cpu().numpy().astype(np.int8),
        bias.astype(np.int32),
        mult.astype(np.int32),
        shift.astype(np.uint8),
    )


def fold_network(net) -> dict[str, FoldedConv]:
    """`fold` of every layer of a quantized network. Raises FoldError that names the layer."""
    folded = {}
    for name, block in net.blocks():
        try:
            folded[name] = fold(block)
        except FoldError as error:
            raise FoldError(f"layer {name}: {error}") from None
    return folded
