"""A Network as a PyTorch module, which training evaluates; equal to the NumPy reference in every
value.

Shares the file reader and the requantization function with the NumPy reference, nothing else.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from model.network import Layer, Network
from model.reference.requantize import requantize, shift_round


class TorchNet(nn.Module):
    """Forward pass of ``net`` on integer-valued tensors; a fixed network, without gradients.

    Layers are submodules in ``self.layers``, in the network's order. Move it to a GPU with
    ``.to(device)``; ``.half()`` and the like have no effect on the result, since parameters are
    kept as integers.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
        makers = {"conv": Conv, "maxpool": MaxPool, "avgpool": AvgPool, "add": Add}
        self.layers = nn.ModuleList(makers[layer.op](layer) for layer in net.layers)

    @torch.no_grad()
    def forward(
        self, x: torch.Tensor, keep: bool = False
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """x: [N, C, H, W] of integers in net.input_range, in any real dtype.

        Returns the last layer's tensor, int32 [N, C, H, W], or with keep=True a dict {layer name:
        int32 tensor}. Raises ValueError for a wrong shape and for values that are fractional or out
        of range.
        """
        self._check(x)
        last_use = {
            name: number for number, layer in enumerate(self.net.layers) for name in layer.inputs
        }
        tensors = {"input": x.to(torch.int32)}
        for number, (layer, module) in enumerate(zip(self.net.layers, self.layers)):
            tensors[layer.name] = module(*[tensors[name] for name in layer.inputs])
            for name in () if keep else set(layer.inputs):
                if last_use[name] == number:
                    del tensors[name]
        tensors.pop("input", None)
        return tensors if keep else tensors[self.net.output.name]

    def _check(self, x: torch.Tensor) -> None:
        low, high = self.net.input_range
        if x.ndim != 4 or tuple(x.shape[1:]) != self.net.input_shape:
            raise ValueError(
                f"input must be [N, {', '.join(map(str, self.net.input_shape))}], not "
                f"{list(x.shape)}"
            )
        if x.numel() and (
            x.min() < low
            or x.max() > high
            or (x.is_floating_point() and not torch.equal(x, x.round()))
        ):
            raise ValueError(
                f"input must be integers in {low}..{high}; it spans "
                f"{x.min().item()}..{x.max().item()}"
            )


class _Scaled(nn.Module):
    """A layer that ends in requantization (or, for an int32 output, in adding the bias)."""

    bias: torch.Tensor | None
    mult: torch.Tensor
    shift: torch.Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        for name in ("bias", "mult", "shift"):
            value = getattr(layer, name)
            value = (
                None
                if value is None
                else torch.as_tensor(value.tolist() if hasattr(value, "tolist") else value)
                .to(torch.int64)
                .reshape(-1, 1, 1)
            )
            self.register_buffer(name, value)

    def finish(self, sums: torch.Tensor) -> torch.Tensor:
        bias: int | torch.Tensor = 0 if self.bias is None else self.bias
        if self.layer.out == "int32":
            return (sums + bias).to(torch.int32)
        return requantize(
            sums, bias, self.mult, self.shift, self.layer.out_min, self.layer.out_max
        ).to(torch.int32)


class Conv(_Scaled):
    """Convolution whose sums are exact: float32 where they provably stay below 2**24 in every order
    of summation, else float64.

    The proof covers the direct algorithms, which add products of the operands. Winograd and FFT
    transform them first, so NNPACK is switched off and GPUs always compute in float64, where the
    error of a transform stays far below the 0.5 that rounding removes.
    """

    weight: torch.Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.fits_float32 = bool(layer.sum_bound.max() < 2**24)
        self.register_buffer("weight", torch.tensor(layer.weights, dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [N, I, H, W], integers; returns int32 [N, O, Ho, Wo]."""
        dtype = torch.float32 if self.fits_float32 and x.device.type == "cpu" else torch.float64
        with (
            torch.autocast(x.device.type, enabled=False),
            torch.backends.nnpack.flags(enabled=False),
        ):
            sums = F.conv2d(
                x.to(dtype), self.weight.to(dtype), stride=self.layer.stride, padding=self.layer.pad
            )
        return self.finish(sums.round().to(torch.int64))


class MaxPool(nn.Module):
    """Max pooling; 8-bit values are exact in float32, and PyTorch pads with -infinity."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [N, C, H, W], integers; returns int32 [N, C, Ho, Wo]."""
        return F.max_pool2d(x.float(), self.layer.kernel, self.layer.stride, self.layer.pad).to(
            torch.int32
        )


class AvgPool(_Scaled):
    """Sums of windows as differences of running sums, exact in int64, then requantization. Any
    window costs the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [N, C, H, W], integers; returns int32 [N, C, Ho, Wo]."""
        layer = self.layer
        for dim, kernel, stride, pad in zip((2, 3), layer.kernel, layer.stride, layer.pad):
            start = torch.arange(layer.out_shape[dim - 1], device=x.device) * stride - pad
            running = torch.cat(
                [
                    torch.zeros_like(x.narrow(dim, 0, 1), dtype=torch.int64),
                    x.cumsum(dim, dtype=torch.int64),
                ],
                dim,
            )
            first, end = (place.clamp(0, x.shape[dim]) for place in (start, start + kernel))
            x = running.index_select(dim, end) - running.index_select(dim, first)
        return self.finish(x)


class Add(nn.Module):
    """Residual addition with a multiplier per input."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a, b: [N, C, H, W], integers; returns int32 of this shape."""
        layer = self.layer
        total = a.to(torch.int64) * layer.mult[0] + b.to(torch.int64) * layer.mult[1]
        return shift_round(total, layer.shift).clip(layer.out_min, layer.out_max).to(torch.int32)
