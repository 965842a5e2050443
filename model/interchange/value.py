"""What a tensor of an ONNX graph stands for: a layer's result, and how it is laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

NO_PAD = (0, 0, 0, 0)


@dataclass(frozen=True)
class Value:
    """The result of layer `source` (or "input"), shape (C, H, W), as an ONNX tensor.

    axes: letter of each dimension, N C H W; F is C, H and W flattened in the order `flat`. Of one
    pixel H or W may be squeezed out alone, of one image N, too.
    pad: zeros around it that are still to be applied, (top, left, bottom, right).
    exclusive: nothing else reads the layer's result. steps: (scale, zero point) of the
    QuantizeLinear that made integers of it, which are not dequantized yet.
    """

    source: str
    shape: tuple[int, int, int]
    axes: str = "NCHW"
    flat: str = ""
    pad: tuple[int, int, int, int] = NO_PAD
    exclusive: bool = True
    steps: tuple[float, int] | None = None

    def dims(self, batch: int) -> list[int]:
        """Sizes of the ONNX tensor."""
        channels, height, width = self.shape
        height, width = height + self.pad[0] + self.pad[2], width + self.pad[1] + self.pad[3]
        features = channels * height * width
        sizes = {"N": batch, "C": channels, "H": height, "W": width, "F": features}
        return [sizes[axis] for axis in self.axes]

    def with_axes(self, axes: str) -> Value:
        return replace(self, axes=axes, flat="")

    def flattened(self) -> Value:
        """[N, F], or [N, C] where there is one pixel."""
        if self.shape[1:] == (1, 1):
            return self.with_axes("NC")
        return replace(self, axes="NF", flat=self.axes.replace("N", ""))

    def reshaped(self, dims: list[int]) -> Value | None:
        """The value with these sizes after the batch, None where that is no layout of it."""
        if dims == self.dims(1)[1:]:
            return self
        if dims == [math.prod(self.shape)] and self.axes != "NF":
            return self.flattened()
        channels, one_pixel = self.shape[0], self.shape[1:] == (1, 1)
        if one_pixel and dims == [channels, 1, 1]:
            return self.with_axes("NCHW")
        if one_pixel and dims == [1, 1, channels]:
            return self.with_axes("NHWC")
        return None
