"""One layer of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.network.contract import Pair, Shape

ABSENT: Any = None  # in a field that the op does not have


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer. Give the fields that its op has; the rest stays None. ``Network`` checks them and
    fills in the derived ones.

    conv: inputs, stride, pad, index, codebook, bias, mult, shift, out_min, out_max (kernel is
    derived from index).
    maxpool: inputs, kernel, stride, pad.
    avgpool: inputs, kernel, stride, pad, mult, shift, out_min, out_max (mult and shift are ints).
    add: inputs (two), mult (two ints), shift (int), out_min, out_max.
    With out="int32" (last layer only; conv or avgpool) mult, shift, out_min and out_max are None:
    the sum leaves unscaled.
    """

    name: str
    op: str  # one of OPS
    inputs: tuple[str, ...]  # names of earlier layers, or "input"
    stride: Pair = ABSENT  # (vertical, horizontal)
    pad: Pair = ABSENT  # (vertical, horizontal), on both sides
    kernel: Pair = ABSENT  # (height, width)
    out_min: int = ABSENT  # clamp of the result, inside [-128, 127] or [0, 255]
    out_max: int = ABSENT
    mult: Any = ABSENT  # conv: int32 [O]; avgpool: int; add: (int, int); each 1..32767
    shift: Any = ABSENT  # conv: uint8 [O]; avgpool, add: int; each 0..31
    out: str = "int8"  # "int8" (signed or unsigned, see out_signed) or "int32"
    index: np.ndarray = ABSENT  # uint8 [O, I, Kh, Kw], 0..3
    codebook: np.ndarray = ABSENT  # int8 [4], codebook[0] == 0
    bias: np.ndarray = ABSENT  # int32 [O]
    in_shape: Shape = field(default=ABSENT, init=False)  # derived: (C, H, W), of every input
    out_shape: Shape = field(default=ABSENT, init=False)  # derived: (C, H, W)
    in_signed: bool = field(default=ABSENT, init=False)  # derived: whether inputs[0] is signed
    in_signed_all: tuple[bool, ...] = field(
        default=ABSENT, init=False
    )  # derived: the same for each input (an add has two)
    out_signed: bool = field(default=ABSENT, init=False)  # derived

    @property
    def weights(self) -> np.ndarray:
        """int8 [O, I, Kh, Kw]: the codebook looked up (conv only)."""
        return self.codebook[self.index]

    @property
    def sum_bound(self) -> np.ndarray:
        """int64 [O]: the largest |sum| that the operation can reach, at any point of any summation
        order, without bias (conv and avgpool only)."""
        largest = 128 if self.in_signed else 255
        if self.op == "avgpool":
            reach = min(largest * math.prod(self.kernel), 1 << 62)  # an int64 that says too large
            return np.full(self.in_shape[0], reach, np.int64)
        counts = [
            np.count_nonzero(self.index == k, axis=(1, 2, 3)) for k in range(len(self.codebook))
        ]
        return largest * (np.abs(self.codebook.astype(np.int64)) @ np.array(counts, np.int64))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, those on padding included (0 where there are no
        weights)."""
        return math.prod(self.out_shape[1:]) * self.index.size if self.op == "conv" else 0
