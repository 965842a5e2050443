"""Images from arrays, folders and Dataset classes: what is read, and what is wrong by name."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from train import sources
from train.net import to_input
from train.recipe import Data
from train.sources import SourceError, load

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 2, 5, 4)).astype(np.uint8)
LABELS = np.arange(40) % 3


def data(**kind):
    return Data(**{"validation": 6, "test": 10, **kind})


def npz(folder, **changes):
    arrays = {"images": PIXELS, "labels": LABELS, **changes}
    np.savez(folder / "x.npz", **{k: v for k, v in arrays.items() if v is not None})
    return data(npz="x.npz")


def test_an_archive_is_split(tmp_path):
    sets = load(npz(tmp_path), tmp_path)
    assert [len(s) for s in (sets.train, sets.val, sets.test)] == [24, 6, 10]
    assert sets.classes == ["0", "1", "2"]
    seen = torch.cat([s.pixels for s in (sets.train, sets.val, sets.test)]).flatten(1).numpy()
    assert sorted(map(bytes, seen)) == sorted(map(bytes, PIXELS.reshape(40, -1)))
    again = load(npz(tmp_path), tmp_path)
    assert again.digest == sets.digest
    other = load(npz(tmp_path, labels=LABELS[::-1].copy()), tmp_path)
    assert other.digest != sets.digest


def test_an_archive_with_test_images_and_names(tmp_path):
    named = np.array(["cat", "dog", "cow"])
    described = npz(tmp_path, test_images=PIXELS[:7], test_labels=LABELS[:7], classes=named)
    sets = load(described, tmp_path)
    assert sets.classes == ["cat", "dog", "cow"]
    assert [len(s) for s in (sets.train, sets.val, sets.test)] == [34, 6, 7]
    assert torch.equal(sets.test.pixels, torch.from_numpy(PIXELS[:7]))


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"images": None}, "array images is missing"),
        ({"images": PIXELS.astype(np.float32)}, "images must be uint8"),
        ({"images": PIXELS[0]}, "images must be uint8"),
        ({"labels": LABELS[:5]}, "labels must be 40"),
        ({"labels": LABELS / 2}, "labels must be 40"),
        ({"labels": LABELS - 1}, "labels must be in 0..1"),
        ({"classes": np.array(["one"])}, "labels must be in 0..0"),
        ({"labels": LABELS + 2**31}, "more than 512 classes do not fit"),
        ({"test_images": PIXELS, "test_labels": None}, "labels must be 40"),
        (
            {"test_images": PIXELS[:, :, :4], "test_labels": LABELS},
            "test images of [2, 4, 4], others of [2, 5, 4]",
        ),
    ],
)
def test_a_bad_archive_is_named(changes, culprit, tmp_path):
    with pytest.raises(SourceError, match="x.npz: ") as caught:
        load(npz(tmp_path, **changes), tmp_path)
    assert culprit in str(caught.value)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256])
def test_a_class_name_that_no_file_holds(name, tmp_path):
    with pytest.raises(SourceError, match="a name has 1..255 printable characters"):
        load(npz(tmp_path, classes=np.array([name, "dog", "cow"])), tmp_path)


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(SourceError, match="x.npz: not a readable"):
        load(data(npz="x.npz"), tmp_path)


def test_too_few_images_are_named(tmp_path):
    with pytest.raises(SourceError, match="40 training images leave 0 for training"):
        load(npz(tmp_path).model_copy(update={"validation": 30}), tmp_path)


def folder(root, splits=("train", "test"), mode="RGB"):
    for split in splits:
        for label, name in enumerate(("bird", "cat")):
            (root / split / name).mkdir(parents=True)
            for k in range(8):
                array = np.full((6, 7), 100 * label + k, np.uint8)
                Image.fromarray(array).convert(mode).save(root / split / name / f"{k}.png")
    return data(folder=".", validation=4, test=3)


@pytest.mark.parametrize("mode, channels", [("RGB", 3), ("RGBA", 3), ("L", 1), ("LA", 1)])
def test_a_folder_of_classes(mode, channels, tmp_path):
    sets = load(folder(tmp_path, mode=mode), tmp_path)
    assert sets.classes == ["bird", "cat"] and len(sets.test) == 16 and len(sets.train) == 12
    assert sets.train.pixels.shape[1:] == (channels, 6, 7)
    assert torch.equal(sets.test.pixels[:, 0, 0, 0] >= 100, sets.test.labels == 1)


def test_a_folder_whose_test_images_lack_a_class(tmp_path):
    described = folder(tmp_path)
    shutil.rmtree(tmp_path / "test" / "cat")
    assert load(described, tmp_path).test.labels.tolist() == [0] * 8


def test_a_folder_without_test_images(tmp_path):
    sets = load(folder(tmp_path, ("train",)), tmp_path)
    assert [len(s) for s in (sets.train, sets.val, sets.test)] == [9, 4, 3]


def test_bad_folders_are_named(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match="train: no folder of classes"):
        load(data(folder="."), tmp_path)
    described = folder(tmp_path)
    (tmp_path / "train" / "cat" / "9.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(SourceError, match="9.png: not a readable image"):
        load(described, tmp_path)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "train" / "cat" / "9.png")
    with pytest.raises(SourceError, match="9.png: its shape .3, 9, 9. is not that of the others"):
        load(described, tmp_path)
    Image.fromarray(np.zeros((6, 7), np.uint16)).save(tmp_path / "train" / "cat" / "9.png")
    with pytest.raises(SourceError, match="9.png: .*mode I;16 has more than 8 bits; convert it"):
        load(described, tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(SourceError, match="0.png: .*exceeds limit"):
        load(described, tmp_path)


def test_folders_of_classes_must_agree(tmp_path):
    described = folder(tmp_path)
    for hidden in ("train", "test"):
        (tmp_path / hidden / ".ipynb_checkpoints").mkdir()
    assert load(described, tmp_path).classes == ["bird", "cat"]
    (tmp_path / "test" / "bird").rename(tmp_path / "test" / "Bird")
    with pytest.raises(SourceError, match="test/Bird: a class without training images"):
        load(described, tmp_path)
    (tmp_path / "train" / "Bird").mkdir()
    with pytest.raises(SourceError, match="train/Bird: no images"):
        load(described, tmp_path)


class Splits(Dataset):
    """As SVHN, which has another argument."""

    def __init__(self, split):
        self.split = split


def test_a_dataset_class_of_another_kind_is_named(tmp_path):
    wrong = {None: "TypeError", "none": "AttributeError"}
    wrong |= {"normalized": "not normalized.*beyond 0..1", "deep": "beyond 0..255"}
    for kind, culprit in wrong.items():
        name, arguments = ("Ramps", {"kind": kind}) if kind else ("Splits", {})
        described = data(**{"class": f"train.tests.test_sources:{name}", "arguments": arguments})
        with pytest.raises(SourceError, match=f"{name}.*must take train=.*{culprit}"):
            load(described, tmp_path)


class Ramps(Dataset):
    """Floats, arrays or images, as Dataset classes give them."""

    classes = ["low", "high"]

    def __init__(self, train, kind="float"):
        self.count, self.kind = 30 if train else 8, kind

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        label = number % 2
        array = np.full((4, 6, 3), 51 * (1 + 2 * label), np.uint8)
        if self.kind == "none":
            return None.image, label
        if self.kind == "image":
            return Image.fromarray(array), label
        if self.kind == "array":
            return array[:, :, 0], label
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        if self.kind == "deep":
            return tensor.int() * 257, label
        mean = 0.5 if self.kind == "normalized" else 0
        return tensor / 255 - mean, torch.tensor(label)


@pytest.mark.parametrize("kind, channels", [("float", 3), ("image", 3), ("array", 1)])
def test_a_dataset_class(kind, channels, tmp_path):
    described = data(**{"class": "train.tests.test_sources:Ramps", "arguments": {"kind": kind}})
    sets = load(described, tmp_path)
    assert sets.classes == ["low", "high"] and (len(sets.train), len(sets.test)) == (24, 8)
    assert sets.train.pixels.shape[1:] == (channels, 4, 6)
    assert torch.equal(sets.test.pixels[:, 0, 0, 0], torch.where(sets.test.labels == 1, 153, 51))


def test_input_integers_fill_the_range():
    """The mean is zero, no pixel is clamped by more than rounding, one unit is about a standard
    deviation."""
    rng = np.random.default_rng(1)
    pixels = rng.normal([[[[60]], [[150]]]], 20, (50, 2, 8, 8)).clip(0, 255).astype(np.uint8)
    part = sources.Images(torch.from_numpy(pixels), torch.zeros(50, dtype=torch.int64))
    source = sources.Sets(part, part, part, ["a"]).input()
    x = to_input(part.pixels, source)
    assert x.mean((0, 2, 3)).abs().max() < 0.1
    assert source["unit"] == pytest.approx(x.std().item(), rel=0.02)
    ends = to_input(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 2, 1, 1), source
    )
    assert 120 < ends.abs().max() <= 128
    assert source["shape"] == [2, 8, 8]


def test_digits():
    sets = load(Data(**{"class": "train.nets.digits:Digits"}, validation=200), None)
    assert len(sets.train) + len(sets.val) + len(sets.test) == 1797
    assert sets.train.pixels.shape[1:] == (1, 8, 8) and int(sets.train.pixels.max()) == 255
