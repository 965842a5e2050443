"""Records of 64-bit words with named fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from model.compiler.errors import CompileError


class Field(NamedTuple):
    """Bits low .. low + width - 1 of a word; signed: in two's complement."""

    word: int
    low: int
    width: int
    signed: bool = False

    @property
    def mask(self) -> int:
        """The largest unsigned value."""
        return (1 << self.width) - 1

    @property
    def limits(self) -> tuple[int, int]:
        """(smallest, largest) value."""
        return (-1 << self.width - 1, self.mask >> 1) if self.signed else (0, self.mask)


class Layout(NamedTuple):
    """Number of a record's words, and its fields by name."""

    words: int
    fields: dict[str, Field]


def encode(
    layout: Layout, values: Mapping[str, int], words: Sequence[int] | None = None
) -> np.ndarray:
    """uint64 words of a record in which the fields {name: int} of `values` are set.

    words: what all other bits are; zero by default.
    Raises CompileError for a value that does not fit.
    """
    words = [0] * layout.words if words is None else [int(word) for word in words]
    for name, value in values.items():
        field, value = layout.fields[name], int(value)
        low, high = field.limits
        if not low <= value <= high:
            raise CompileError(f"{name}: {value} does not fit in {field.width} bits")
        words[field.word] &= ~(field.mask << field.low)
        words[field.word] |= (value & field.mask) << field.low
    return np.array(words, np.uint64)


def decode(layout: Layout, words: Sequence[int]) -> dict[str, int]:
    """{name: value} of all fields of a record."""
    return {
        name: _value(field, int(words[field.word]) >> field.low & field.mask)
        for name, field in layout.fields.items()
    }


def _value(field: Field, bits: int) -> int:
    return bits - (1 << field.width) if bits > field.limits[1] else bits
