"""Arrays of integers <-> the bits of packed ports such as `logic [3:0][7:0]` (element 0 in the
lowest bits)."""

from __future__ import annotations

import numpy as np


def pack(values, width: int) -> int:
    """Pack integers of any shape into one non-negative integer, C order, first element in the
    lowest bits.

    Each value is taken modulo 2^width after a check that it fits as a signed or unsigned number of
    `width` bits. Raises ValueError naming the value that does not fit.
    """
    mask = (1 << width) - 1
    bits = 0
    for position, value in enumerate(np.asarray(values, dtype=object).reshape(-1)):
        value = int(value)
        if not -(1 << (width - 1)) <= value <= mask:
            raise ValueError(f"{value} does not fit {width} bits")
        bits |= (value & mask) << (position * width)
    return bits


def unpack(bits, count: int, width: int, signed: bool = False) -> np.ndarray:
    """The `count` elements of `width` bits in an integer or cocotb LogicArray: int64 [count],
    lowest bits first.

    Raises ValueError if the value holds X or Z.
    """
    number = bits if isinstance(bits, int) else bits.to_unsigned()
    mask = (1 << width) - 1
    values = [(number >> (i * width)) & mask for i in range(count)]
    if signed:
        values = [v - (1 << width) if v >> (width - 1) else v for v in values]
    return np.array(values, dtype=np.int64)
