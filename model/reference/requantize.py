"""The one requantization function of the project: 32-bit sums in, 8-bit activations out.

The NumPy reference, the PyTorch module and the RTL's checker all call it. It uses
operators and ``.clip`` only, so that the same lines run on NumPy arrays and on torch tensors. See
docs/arithmetic.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # NumPy users need no PyTorch
    import torch

_Integers = TypeVar("_Integers", np.ndarray, "torch.Tensor")


def shift_round(x: _Integers, shift: int | _Integers) -> _Integers:
    """``(x + round) >> shift`` with ``round = 1 << (shift - 1)``, or 0 when ``shift`` is 0: halves
    go towards +infinity.

    x: int64 array or tensor, |x| < 2**62. shift: 0..31, an int or an int64 array that broadcasts
    with x.
    Raises TypeError for narrower arrays: ``1 << shift`` in 8 bits or a product in 32 would wrap
    around silently.
    """
    for name, value in (("x", x), ("shift", shift)):
        if not isinstance(value, int) and not str(value.dtype).endswith("int64"):
            raise TypeError(f"{name} must be int64, not {value.dtype}")
    return (x + ((1 << shift) >> 1)) >> shift


def requantize(
    acc: _Integers,
    bias: int | _Integers,
    mult: int | _Integers,
    shift: int | _Integers,
    out_min: int,
    out_max: int,
) -> _Integers:
    """``clamp(((acc + bias) * mult + round) >> shift, out_min, out_max)``, the output stage of
    convolution and average pooling.

    acc: int64 array or tensor of sums, |acc + bias| < 2**31. bias: int32 range. mult: 1..32767.
    shift: 0..31. Each parameter is an int or an int64 array that broadcasts with acc (``[O, 1, 1]``
    for channels). out_min, out_max: ints. Returns int64 of acc's shape. Raises TypeError where acc
    or shift is a narrower array.
    """
    if not str(acc.dtype).endswith("int64"):
        raise TypeError(f"acc must be int64, not {acc.dtype}")
    return shift_round((acc + bias) * mult, shift).clip(out_min, out_max)
