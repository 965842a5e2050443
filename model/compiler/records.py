"""Records of 64-bit words with named fields."""
from typing import NamedTuple

import numpy as np

from model.compiler.hardware import CompileError


class Field(NamedTuple):
    """Bits low .. low + width - 1 of a word."""
    word: int
    low: int
    width: int

    @property
    def mask(self):
        return (1 << self.width) - 1


def encode(layout, values, n_words=None):
    """uint64 words of a record.

    layout: {name: Field}. values: {name: int}, negative ones in two's complement; fields without a value are zero.
    n_words: of the record, by default as many as the layout names. Raises CompileError for a value that does not fit.
    """
    words = [0] * (n_words or 1 + max(field.word for field in layout.values()))
    for name, value in values.items():
        field, value = layout[name], int(value)
        if not -(1 << field.width) < value <= field.mask:
            raise CompileError(f"{name}: {value} does not fit in {field.width} bits")
        words[field.word] |= (value & field.mask) << field.low
    return np.array(words, np.uint64)


def decode(layout, words):
    """{name: unsigned value} of all fields of a record."""
    return {name: int(words[field.word]) >> field.low & field.mask for name, field in layout.items()}
