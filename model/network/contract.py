"""Limits and names of the network contract (docs/arithmetic.md, docs/network-file.md), and its
error."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

from model.common.errors import UserError

Pair = tuple[int, int]  # (vertical, horizontal), or (smallest, largest)
Shape = tuple[int, int, int]  # (C, H, W) of one image's tensor

OPS = ("conv", "maxpool", "avgpool", "add")
MAX_KERNEL = 11
MAX_MULT = 32767
MAX_SHIFT = 31
ACC_MAX = 2**31 - 1
MAX_TENSOR = 1 << 26  # values of the input or of a layer's output, of one image
MAX_NAME = 255  # characters of a network's, class's or layer's name
NAMES = f"1..{MAX_NAME} printable characters"

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
show = _repr.repr  # a value in a message: never longer than a few lines, whatever the file holds


class NetworkError(UserError, ValueError):
    """A network or network file that breaks the contract; the message names the layer, the field
    and why."""


def is_name(value: object) -> bool:
    """Whether a value may be the name of a network, class or layer."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def bad_name(number: int, name: object) -> NetworkError:
    """The error of layer `number` (0 is the first), whose name is none."""
    return NetworkError(f"layers[{number}]: name: must be a string of {NAMES}, not {show(name)}")


def dims(shape: Iterable[object]) -> str:
    """A shape as messages show it: [3, 32, 32]."""
    return "[" + ", ".join(str(n) for n in shape) + "]"
