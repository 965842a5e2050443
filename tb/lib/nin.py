"""The shipped Network-in-Network and its real test images, for tests."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from model.data.images import ZOO, bundled_images, pixels_to_input
from model.network import Network, load_network


def load_nin() -> Network:
    """The shipped CIFAR-10 network, or the file that the environment variable CLIPQ_NIN names.
    Fails if it is missing."""
    path = Path(os.environ.get("CLIPQ_NIN") or ZOO / "nin-cifar10.clipq.npz")
    return load_network(path)


def nin_images(net: Network, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` different bundled test images, drawn by `rng`: (integers [count, 3, 32, 32], labels
    [count])."""
    pixels, labels = bundled_images("cifar10")
    chosen = rng.choice(len(pixels), count, replace=False)
    return pixels_to_input(net, pixels[chosen]), labels[chosen]
