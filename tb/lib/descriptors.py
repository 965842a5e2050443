"""Records of a program in which all bits are random but those of the fields that matter."""

import numpy as np

from model.compiler.program_format import DESCRIPTOR, RECORD_WORDS
from model.compiler.records import encode


def random_words(rng):
    """The words of a record, integers of 64 bits."""
    return [int(word) for word in rng.integers(0, 2**64, RECORD_WORDS, dtype=np.uint64)]


def port(words):
    """A descriptor's words as the value of a port."""
    return sum(int(word) << 64 * i for i, word in enumerate(words))


def random_port(rng, values):
    """The value of a port: a descriptor with the fields {name: value}."""
    return port(encode(DESCRIPTOR, values, random_words(rng)))
