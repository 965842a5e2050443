"""A network in real numbers, in the layers of the network file: what an import quantizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Values that a tensor takes: the integers low..high times scale."""

    scale: float
    low: int
    high: int

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return self.low * self.scale, self.high * self.scale


@dataclass(eq=False)
class FloatLayer:
    """One layer; the fields are those of `model.network.Layer`, in real numbers.

    weight: float64 [O, I, Kh, Kw] and bias: float64 [O] of a convolution. low, high: clamp of the
    result before `grid`, the quantization that the model prescribes for it, if it does. shape: (C,
    H, W) of the result. origin: nodes of the model that it stands for. groups: of the convolution
    that `weight` spells out.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, int, int]
    origin: list[str]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    kernel: tuple[int, int] = (1, 1)
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0))
    low: float = -math.inf
    high: float = math.inf
    grid: Grid | None = None
    groups: int = 1

    @property
    def limits(self) -> tuple[float, float]:
        """The clamp of the result, that of its quantizer included, which is a ReLU if unsigned."""
        if self.grid is None:
            return self.low, self.high
        least, most = self.grid.limits
        return min(max(self.low, least), most), min(max(self.high, least), most)


@dataclass(eq=False)
class FloatNet:
    """Layers in order, each after those it reads; the last one is the output.

    gain, offset: float64 [C], what the network computes of its raw input before anything else.
    grid: prescribed for the input. notes: what the user should know about the translation.
    """

    name: str
    input_shape: tuple[int, int, int]
    layers: list[FloatLayer]
    gain: np.ndarray
    offset: np.ndarray
    grid: Grid | None = None
    notes: list[str] = field(default_factory=list)

    def shape(self, name: str) -> tuple[int, int, int]:
        """(C, H, W) of a layer's result or of the input."""
        if name == "input":
            return self.input_shape
        return next(layer.shape for layer in self.layers if layer.name == name)
