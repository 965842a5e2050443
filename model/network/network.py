"""A network in memory. Its constructor checks it, so its users need no checks of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.network.checks import check_header, checked_layers
from model.network.contract import Pair, Shape, dims
from model.network.layer import Layer


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """A checked network; the last of ``layers`` is the output. Raises NetworkError where it breaks
    the contract."""

    name: str
    input_shape: Shape
    input_signed: bool  # True: -128..127, False: 0..255
    layers: Sequence[Layer]  # each after the layers it reads; a tuple
    # per input channel: input integer = clamp(rint(pixel * scale + offset))
    scale: Sequence[float] | None = None
    offset: Sequence[float] | None = None
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_header(self)
        object.__setattr__(self, "layers", checked_layers(self))

    @property
    def output(self) -> Layer:
        """The last layer."""
        return self.layers[-1]

    @property
    def input_range(self) -> Pair:
        """(smallest, largest) input integer."""
        return (-128, 127) if self.input_signed else (0, 255)

    def layer(self, name: str) -> Layer:
        """The layer called ``name``; KeyError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


def check_input(net: Network, images: np.ndarray) -> np.ndarray:
    """Check images against the network's input and return them as an array.

    images: any integer dtype, [N, C, H, W], in net.input_range. Raises ValueError that names the
    first image and value out of range.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "iu":
        raise ValueError(f"images must be integers, not {images.dtype}")
    if images.ndim != 4 or images.shape[1:] != net.input_shape:
        raise ValueError(
            f"images must be {dims(('N', *net.input_shape))} for network '{net.name}', not "
            f"{dims(images.shape)}"
        )
    low, high = net.input_range
    bad = (images < low) | (images > high)
    if bad.any():
        n, c, y, x = np.argwhere(bad)[0]
        raise ValueError(
            f"image {n}: value {images[n, c, y, x]} at channel {c}, row {y}, column {x} is outside "
            f"{low}..{high}, "
            f"the input range of network '{net.name}'"
        )
    return images
