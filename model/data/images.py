"""Converts image files and pixels to the integers that a network reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.common.archive import Archive, read_array
from model.common.errors import UserError, printable
from model.common.files import StrPath
from model.network import Network, check_input

ZOO = Path(__file__).resolve().parents[1] / "zoo"


class ImageError(UserError, ValueError):
    """Images that the network cannot take; the message names the file and, for a bad value, the
    image."""


def pixels_to_input(net: Network, pixels: np.ndarray) -> np.ndarray:
    """clamp(rint(pixel * scale + offset)) per channel in float64, halves to even.

    pixels: uint8 [N, C, H, W] of net.input_shape. Returns int32 of the same shape in
    net.input_range. Raises ImageError, also where the network gives no scale and offset.
    """
    pixels = np.asarray(pixels)
    if net.scale is None:
        raise ImageError(
            f"network '{net.name}' has no scale and offset, so it cannot read pixels; give it "
            "integers"
        )
    if pixels.dtype != np.uint8:
        raise ImageError(f"pixels must be uint8, not {pixels.dtype}")
    if pixels.ndim != 4 or pixels.shape[1:] != net.input_shape:
        raise ImageError(
            f"pixels must be [N, {', '.join(map(str, net.input_shape))}] for network '{net.name}', "
            f"not {list(pixels.shape)}"
        )
    values = np.arange(256, dtype=np.float64)
    with np.errstate(over="ignore"):  # infinity is clamped, too
        table = (
            np.rint(values * np.array(net.scale)[:, None] + np.array(net.offset)[:, None])
            .clip(*net.input_range)
            .astype(np.int32)
        )
    return table[np.arange(net.input_shape[0])[:, None, None], pixels]


def load_images(path: StrPath, net: Network, pixels: bool = False) -> np.ndarray:
    """Read an .npy file of images for ``net``: any integer dtype [N, C, H, W] in net.input_range,
    or with pixels=True uint8 pixels.

    Returns int32 [N, C, H, W], N >= 1. Raises ImageError that starts with the path.
    """
    try:
        images = read_array(path)
        if images.ndim and not len(images):
            raise ImageError("holds no image")
        return pixels_to_input(net, images) if pixels else check_input(net, images).astype(np.int32)
    except ValueError as error:
        raise ImageError(f"{printable(path)}: {error}") from None
    except OSError as error:
        raise ImageError(f"{printable(path)}: {error.strerror or error}") from None


def bundled_images(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """The test images that ship with the project, the first 200 of the official order.

    dataset: "cifar10" or "cifar100". Returns (images uint8 [200, 3, 32, 32], labels int64 [200]).
    Raises ImageError.
    """
    path = ZOO / f"{dataset}-test-images.npz"
    if not path.exists():
        raise ImageError(f"{path}: no such file; there are images of cifar10 and cifar100")
    with Archive(path) as archive:
        return archive["images"], archive["labels"].astype(np.int64)
