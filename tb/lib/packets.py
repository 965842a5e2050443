"""Packets with one thing changed."""

from __future__ import annotations

import numpy as np

from model.compiler import Compiled
from model.compiler.program import packet
from model.compiler.program_format import DESCRIPTOR, HEADER, MAGIC_PROGRAM, RECORD_WORDS
from model.compiler.records import encode

WORD = np.uint64


def flipped(words: np.ndarray, at: int, bit: int) -> np.ndarray:
    """A copy with one bit of word `at` inverted."""
    words = words.copy()
    words[at] ^= WORD(1) << WORD(bit)
    return words


def payload(words: np.ndarray) -> np.ndarray:
    """Payload of a packet."""
    return words[1:-1]


def edited(compiled: Compiled, layer: int | None, field: dict[str, int]) -> np.ndarray:
    """The program with a field of a layer's descriptor (None: of the header) replaced."""
    records = payload(compiled.program).copy().reshape(-1, RECORD_WORDS)
    layout, number = (HEADER, 0) if layer is None else (DESCRIPTOR, layer + 1)
    records[number] = encode(layout, field, records[number])
    return packet(MAGIC_PROGRAM, records.reshape(-1))
