"""The NumPy reference: runs a Network in integer arithmetic, independent of PyTorch.

Convolutions are matrix products in floating point, chosen so that they are exact: every operand and
every partial sum, in whatever order BLAS adds, is an integer of magnitude at most
``layer.sum_bound``. Below 2**24 float32 holds them all, and float64 holds all that a legal layer
has.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import ThreadpoolController

from model.common.cores import cores
from model.network import Layer, Network, check_input
from model.reference.requantize import requantize, shift_round

COLUMN_BYTES = (
    1 << 23
    # size of a block of unrolled windows: large enough for BLAS, small enough to stay
    # near the caches
)
BLAS = ThreadpoolController()


@overload
def run_integer(net: Network, images: np.ndarray, keep: Literal[False] = False) -> np.ndarray: ...


@overload
def run_integer(net: Network, images: np.ndarray, keep: Literal[True]) -> dict[str, np.ndarray]: ...


def run_integer(
    net: Network, images: np.ndarray, keep: bool = False
) -> np.ndarray | dict[str, np.ndarray]:
    """Run ``net`` on images, an array [N, C, H, W] of any integer dtype in the network's input
    range.

    Returns the last layer's tensor, int32 [N, C, H, W], or with keep=True a dict {layer name: int32
    tensor} of all layers, in their order. Needs memory for N images of the network's largest
    tensors (with keep of all): call it in batches. Raises ValueError for input out of range.

    Images are distributed over the cores, one thread each. BLAS's own threads wait for each other
    after every small product, which is 13 times slower on a busy machine.
    """
    images = check_input(net, images).astype(np.int32)
    threads = max(1, min(cores(), len(images)))
    shares = np.array_split(images, threads)
    with BLAS.limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(lambda share: _run(net, share, keep), shares))
    tensors = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    return tensors if keep else tensors[net.output.name]


def _run(net: Network, images: np.ndarray, keep: bool) -> dict[str, np.ndarray]:
    """All layers' tensors in their order, or the last one's."""
    last_use = {name: number for number, layer in enumerate(net.layers) for name in layer.inputs}
    tensors = {"input": images}
    for number, layer in enumerate(net.layers):
        tensors[layer.name] = run_layer(layer, *[tensors[name] for name in layer.inputs])
        for name in () if keep else set(layer.inputs):
            if last_use[name] == number:
                del tensors[name]
    return {name: tensors[name] for name in tensors if name != "input"}


def run_layer(layer: Layer, *inputs: np.ndarray) -> np.ndarray:
    """One checked Layer on its input tensors, int32 [N, C, H, W] each; returns int32 [N, C, H,
    W]."""
    operations: dict[str, Callable[..., np.ndarray]] = {
        "conv": _conv,
        "maxpool": _maxpool,
        "avgpool": _avgpool,
        "add": _add,
    }
    return operations[layer.op](layer, *inputs)


def _conv(layer: Layer, x: np.ndarray) -> np.ndarray:
    dtype = np.float32 if layer.sum_bound.max() < 2**24 else np.float64
    weights = layer.weights.reshape(len(layer.index), -1).astype(dtype)
    bias = layer.bias.astype(np.int64)[:, None]
    mult, shift = (
        (None, None)
        if layer.out == "int32"
        else (layer.mult.astype(np.int64)[:, None], layer.shift.astype(np.int64)[:, None])
    )
    windows = _windows(layer, x.astype(dtype))
    count, channels, height, width = windows.shape[:4]
    row_bytes = channels * width * layer.kernel[0] * layer.kernel[1] * weights.itemsize
    step = max(1, COLUMN_BYTES // row_bytes)
    y = np.empty((count, *layer.out_shape), np.int32)
    for image in range(count):
        for top in range(0, height, step):
            block = windows[image, :, top : top + step]  # [I, rows, Wo, Kh, Kw]
            columns = block.transpose(0, 3, 4, 1, 2).reshape(
                weights.shape[1], -1
            )  # [I * Kh * Kw, rows * Wo]
            sums = (weights @ columns).astype(np.int64)
            sums = (
                sums + bias
                if layer.out == "int32"
                else requantize(sums, bias, mult, shift, layer.out_min, layer.out_max)
            )
            y[image, :, top : top + step] = sums.reshape(len(weights), -1, width)
    return y


def _maxpool(layer: Layer, x: np.ndarray) -> np.ndarray:
    return _pool(layer, x, np.maximum)


def _avgpool(layer: Layer, x: np.ndarray) -> np.ndarray:
    sums = _pool(
        layer, x, np.add
    )  # at most 2**31 - 1 in magnitude: checked when the layer was made
    if layer.out == "int32":
        return sums
    return requantize(
        sums.astype(np.int64), 0, layer.mult, layer.shift, layer.out_min, layer.out_max
    ).astype(np.int32)


def _pool(layer: Layer, x: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """Combine each window, one axis after the other. Windows are clipped to the image: padding
    never wins and adds nothing."""
    for axis, kernel, stride, pad in zip((2, 3), layer.kernel, layer.stride, layer.pad):
        start = np.arange(layer.out_shape[axis - 1], dtype=np.int64) * stride - pad
        bounds = np.stack([start, start + kernel], axis=1).clip(0, x.shape[axis])
        x = np.concatenate([x, x.take([-1], axis)], axis)  # reduceat needs an element at each bound
        x = combine.reduceat(x, bounds.ravel(), axis, dtype=x.dtype).take(
            range(0, bounds.size, 2), axis
        )
    return x


def _add(layer: Layer, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = a.astype(np.int64) * layer.mult[0] + b.astype(np.int64) * layer.mult[1]
    return shift_round(total, layer.shift).clip(layer.out_min, layer.out_max).astype(np.int32)


def _windows(layer: Layer, x: np.ndarray) -> np.ndarray:
    """View [N, C, Ho, Wo, Kh, Kw] of the tensor padded with zeros."""
    (py, px), (sy, sx) = layer.pad, layer.stride
    if py or px:
        x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    return sliding_window_view(x, layer.kernel, axis=(2, 3))[:, :, ::sy, ::sx]
