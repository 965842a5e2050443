"""Writes the bundled test images, ``<dataset>-test-images.npz``: ``images`` uint8 [200, 3, 32, 32]
and ``labels`` uint8 [200].

python model/zoo/make_images.py        # reads $CIFAR_ROOT; the same data gives the same bytes
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from model.common.archive import write_npz  # noqa: E402
from model.data.cifar import SETS, load_cifar  # noqa: E402 (needs the path above)

COUNT = 200  # first images of the official test order


def main() -> None:
    for dataset in SETS:
        images, labels = load_cifar(dataset, "test")
        path = HERE / f"{dataset}-test-images.npz"
        write_npz(path, {"images": images[:COUNT], "labels": labels[:COUNT].astype(np.uint8)})
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
