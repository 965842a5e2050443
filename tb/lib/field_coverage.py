"""Coverage of the program format: which bits of which fields were 0 and 1 in records on which the
RTL did what it must. A field that the RTL takes to be narrower loses a bit of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model.compiler import Compiled
from model.compiler.program_format import CHUNK, RECORD_WORDS
from model.compiler.records import decode
from tb.lib import coverage
from tb.lib.cover_groups import GROUPS, RECORDS


def hit(record: str, values: Mapping[str, int]) -> None:
    """Count the bits of fields {name: value} of a record that was taken or refused rightly."""
    for name, value in values.items():
        bits = range(RECORDS[record].fields[name].width)
        _count(f"{record}.{name}[{bit}] {int(value) >> bit & 1}" for bit in bits)


def sample(compiled: Compiled) -> None:
    """Count the bits of the packets of a network whose tensors were right. Raises CoverageError for
    one that no program should have."""
    found = points(compiled)
    if impossible := sorted(found - GROUPS["field_bit"]):
        raise coverage.CoverageError(
            f"field_bit.{impossible[0]} is in a program that was computed: take it out of UNSET in "
            "tb/lib/cover_groups.py"
        )
    _count(found)


def points(compiled: Compiled) -> set[str]:
    """The bits with their values in the packets of a network."""
    records = compiled.program[1:-1].reshape(-1, RECORD_WORDS)
    words, at = compiled.weights, 1
    found = _seen("packet", np.stack([compiled.program[:1], words[:1]]))
    found |= _seen("trailer", np.stack([compiled.program[-1:], words[-1:]]))
    found |= _seen("header", records[:1]) | _seen("descriptor", records[1:])
    while at < len(words) - 1:
        chunk = decode(CHUNK, words[at : at + 1].tolist())
        found |= _seen("chunk", words[None, at : at + 1])
        found |= _seen("parameter", words[at + 1 : at + 1 + chunk["n_params"], None])
        blocks = chunk["n_groups"] * chunk["n_passes"]
        at += 1 + chunk["n_params"] + blocks * compiled.hardware.pass_words
    return found


def _seen(record: str, words: np.ndarray) -> set[str]:
    """The values of the bits of records [n, words]."""
    found = set()
    for value, some in ((1, words), (0, ~words)):
        any_of = decode(RECORDS[record], np.bitwise_or.reduce(some).tolist())
        for name, field in RECORDS[record].fields.items():
            bits = any_of[name]
            found |= {f"{record}.{name}[{b}] {value}" for b in range(field.width) if bits >> b & 1}
    return found


def _count(found) -> None:
    coverage.hit("field_bit", *sorted(GROUPS["field_bit"].intersection(found)))
