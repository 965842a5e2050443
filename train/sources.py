"""Images and labels from where a recipe names: CIFAR, an .npz file, a folder of image files, or a
PyTorch Dataset class."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.common.archive import Archive, ArchiveError
from model.common.errors import UserError, printable
from model.compiler.program_format import MAX_CHANNELS
from model.data.cifar import class_names, load_cifar
from model.network.contract import is_name
from train.recipe import Data

MAX_BYTES = 1 << 34
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp"}


class SourceError(UserError, ValueError):
    """Data that cannot be read; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Images:
    """pixels: uint8 [N, C, H, W]. labels: int64 [N], 0..classes-1."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Any) -> "Images":
        """Those that an index or a slice chooses."""
        return Images(self.pixels[chosen], self.labels[chosen])

    def to(self, device: torch.device) -> "Images":
        """The same in the memory of a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Sets:
    """train, val: parts of the training images; test: never chooses anything. classes: names."""

    train: Images
    val: Images
    test: Images
    classes: list[str]

    @cached_property
    def digest(self) -> str:
        """Of all images, labels and names."""
        seen = hashlib.sha256(repr(self.classes).encode())
        for images in (self.train, self.val, self.test):
            seen.update(repr(tuple(images.pixels.shape)).encode())
            seen.update(images.pixels.numpy().tobytes() + images.labels.numpy().tobytes())
        return seen.hexdigest()

    def input(self) -> dict[str, Any]:
        """How pixels become input integers ("input" of `train.net.Net`): the mean colour of the
        training images is zero, the farthest pixel about 127."""
        pixels = self.train.pixels.numpy()
        counts = np.stack([np.bincount(p.ravel(), minlength=256) for p in pixels.swapaxes(0, 1)])
        values, share = np.arange(256), counts / counts.sum(1, keepdims=True)
        mean = np.round(share @ values, 3)
        scale = np.floor(127500 / np.maximum(mean, 255 - mean).max()) / 1000
        spread = float(np.sqrt((share * (values - mean[:, None]) ** 2).sum(1).mean()))
        return {
            "shape": list(pixels.shape[1:]),
            "scale": [float(scale)] * len(mean),
            "offset": [float(-scale * m) for m in mean],
            "unit": round(max(float(scale) * spread, 1.0), 3),
        }


Parts = tuple[Any, Any, list[str]]  # (pixels, labels) for training, for the test; classes


def load(data: Data, folder: Path) -> Sets:
    """The sets that the "data" of a recipe describes. Paths count from `folder`.

    Raises SourceError or CifarError.
    """
    ((kind, named),) = data.sources.items()
    where = folder / named if kind in ("npz", "folder") else named
    readers = {"cifar": _cifar, "npz": _npz, "folder": _folder, "dataset": _dataset}
    given, tests, classes = readers[kind](where, data.arguments)
    if len(classes) > MAX_CHANNELS:
        what = f"more than {MAX_CHANNELS} classes do not fit the accelerator; labels count from 0"
        raise SourceError(f"{printable(where)}: {what}")
    for name in classes:
        if not is_name(name):
            raise SourceError(f"class {printable(name)!r}: a name has 1..255 printable characters")
    trained = _checked(given, len(classes), printable(where))
    count = 0 if tests else data.test  # of the training images, where there are no others
    order = np.random.default_rng(0).permutation(len(trained))
    parts = np.split(order, [count, count + data.validation])
    tested, held, kept = (trained.take(np.sort(part)) for part in parts)
    tested = _checked(tests, len(classes), printable(where)) if tests else tested
    sizes = [list(images.pixels.shape[1:]) for images in (trained, tested)]
    if sizes[0] != sizes[1]:
        raise SourceError(f"{printable(where)}: test images of {sizes[1]}, others of {sizes[0]}")
    sets = Sets(kept, held, tested, classes)
    if 0 in (len(sets.train), len(sets.val), len(sets.test)):
        raise SourceError(
            f"data: {len(trained)} training images leave {len(sets.train)} for training, "
            f"{len(sets.val)} for validation and {len(sets.test)} for the test"
        )
    return sets


def _checked(given: Any, classes: int, where: str) -> Images:
    """Images of (uint8 [N, C, H, W], whole numbers [N])."""
    pixels, labels = map(np.asarray, given)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or 0 in pixels.shape:
        what = f"{pixels.dtype} {list(pixels.shape)}"
        raise SourceError(f"{where}: images must be uint8 [N, C, H, W], not {what}")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise SourceError(f"{where}: labels must be {len(pixels)} whole numbers")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise SourceError(f"{where}: labels must be in 0..{classes - 1}")
    return Images(torch.from_numpy(pixels.copy()), torch.from_numpy(labels.astype(np.int64)))


def _cifar(name: Any, arguments: Any) -> Parts:
    return load_cifar(name, "train"), load_cifar(name, "test"), class_names(name)


def _npz(path: Any, arguments: Any) -> Parts:
    try:
        with Archive(path, MAX_BYTES) as archive:
            found = dict(archive)
    except ArchiveError as error:
        raise SourceError(f"{printable(path)}: {error}") from error
    if missing := {"images", "labels"} - set(found):
        raise SourceError(f"{printable(path)}: array {sorted(missing)[0]} is missing")
    labels = found["labels"]
    last = int(labels.max(initial=0)) if labels.dtype.kind in "iu" else 0
    count = min(last, MAX_CHANNELS) + 1
    classes = [str(name) for name in found.get("classes", np.arange(count)).ravel()]
    tests = (found["test_images"], found.get("test_labels")) if "test_images" in found else None
    return (found["images"], labels), tests, classes


def _folder(path: Any, arguments: Any) -> Parts:
    train, test = path / "train", path / "test"
    if not train.is_dir():
        raise SourceError(f"{printable(train)}: no folder of classes")
    classes = _classes(train)
    given = _read(train, classes)
    if empty := set(range(len(classes))) - set(given[1]):
        raise SourceError(f"{printable(train / classes[min(empty)])}: no images")
    if not test.is_dir():
        return given, None, classes
    if unknown := set(_classes(test)) - set(classes):
        raise SourceError(f"{printable(test / unknown.pop())}: a class without training images")
    return given, _read(test, classes), classes


def _classes(place: Path) -> list[str]:
    """Names of the folders, but for hidden ones."""
    return sorted(p.name for p in place.iterdir() if p.is_dir() and p.name[0] != ".")


def _read(place: Path, classes: list[str]) -> tuple[Any, list[int]]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for path in sorted(p for name in classes for p in (place / name).glob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            with Image.open(path) as image:
                images.append(_pixels(image))
        except Exception as error:  # the library's decoders raise anything
            raise SourceError(f"{printable(path)}: not a readable image ({error})") from error
        labels.append(classes.index(path.parent.name))
        if images[-1].shape != images[0].shape:
            what = f"its shape {images[-1].shape} is not that of the others, {images[0].shape}"
            raise SourceError(f"{printable(path)}: {what}")
    if not images:
        raise SourceError(f"{printable(place)}: no images in folders {', '.join(classes)[:200]}")
    return np.stack(images), labels


def _dataset(kind: Any, arguments: Any) -> Parts:
    parts = []
    try:
        train, test = (kind(train=split, **arguments) for split in (True, False))
        for made in (train, test):
            images, labels = zip(*(made[i] for i in range(len(made))))
            pixels = np.stack([_pixels(one) for one in images])
            parts.append((pixels, [int(label) for label in labels]))
        return parts[0], parts[1], [str(name) for name in train.classes]
    except Exception as error:  # the code of the class
        raise SourceError(
            f"data.class {printable(kind)}: it must take train=True or False, give images of one "
            "size with labels (not normalized), and have classes "
            f"({type(error).__name__}: {printable(error)[:200]})"
        ) from error


def _pixels(image: Any) -> np.ndarray:
    """uint8 [C, H, W] of Pillow's image, of an array [H, W] or [H, W, C], or of a tensor
    [C, H, W], whose floats are 0..1. Raises ValueError for numbers that 8 bits do not hold."""
    if isinstance(image, Tensor):
        image = (image * 255 if image.is_floating_point() else image).round()
        if not 0 <= image.min() <= image.max() <= 255:
            raise ValueError("a tensor has floats beyond 0..1, or integers beyond 0..255")
        return image.byte().numpy()
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":
            raise ValueError(f"mode {image.mode} has more than 8 bits; convert it to L or RGB")
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
