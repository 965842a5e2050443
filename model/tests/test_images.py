"""Pixels and image files."""

import numpy as np
import pytest

from model.data.images import ImageError, bundled_images, load_images, pixels_to_input
from model.network import Layer, Network


def network(signed, scale=None, offset=None):
    pool = Layer(
        name="pool", op="maxpool", inputs=("input",), kernel=(1, 1), stride=(1, 1), pad=(0, 0)
    )
    return Network(
        name="test",
        input_shape=(2, 1, 3),
        input_signed=signed,
        layers=[pool],
        scale=scale,
        offset=offset,
    )


def test_pixels_by_hand():
    pixels = np.array([[[[0, 1, 255]], [[3, 5, 200]]]], np.uint8)
    # channel 0: p - 128; channel 1: p / 2 with halves to even (1.5 -> 2, 2.5 -> 2)
    assert pixels_to_input(network(True, (1, 0.5), (-128, 0)), pixels).tolist() == [
        [[[-128, -127, 127]], [[2, 2, 100]]]
    ]
    # clamped on both sides
    assert pixels_to_input(network(True, (2, 1), (-130, 0)), pixels).tolist() == [
        [[[-128, -128, 127]], [[3, 5, 127]]]
    ]
    assert pixels_to_input(network(False, (2, 1), (-1, 100)), pixels).tolist() == [
        [[[0, 1, 255]], [[103, 105, 255]]]
    ]


def test_pixels_equal_the_formula():
    rng = np.random.default_rng(0)
    net = network(True, tuple(rng.uniform(0.1, 2, 2)), tuple(rng.uniform(-150, 10, 2)))
    pixels = rng.integers(0, 256, (50, 2, 1, 3)).astype(np.uint8)
    scale, offset = (np.array(v).reshape(2, 1, 1) for v in (net.scale, net.offset))
    expected = np.clip(np.rint(pixels.astype(np.float64) * scale + offset), -128, 127)
    np.testing.assert_array_equal(pixels_to_input(net, pixels), expected)


def test_bad_pixels():
    net = network(True, (1, 1), (0, 0))
    with pytest.raises(ImageError, match="pixels must be uint8, not int64"):
        pixels_to_input(net, np.zeros((1, 2, 1, 3), np.int64))
    with pytest.raises(
        ImageError, match=r"pixels must be \[N, 2, 1, 3\] for network 'test', not \[2, 1, 3\]"
    ):
        pixels_to_input(net, np.zeros((2, 1, 3), np.uint8))
    with pytest.raises(ImageError, match="network 'test' has no scale and offset"):
        pixels_to_input(network(True), np.zeros((1, 2, 1, 3), np.uint8))


@pytest.mark.parametrize("dtype", ["int8", "uint8", ">i2", "int32", "int64", "uint64"])
def test_any_integer_type_is_read(tmp_path, dtype):
    images = np.array([[[[0, 5, 127]], [[1, 2, 3]]]], dtype)
    np.save(tmp_path / "x.npy", images)
    got = load_images(tmp_path / "x.npy", network(True))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, images)


def test_bad_image_files(tmp_path):
    good = np.zeros((2, 2, 1, 3), np.int64)
    low, high = good.copy(), good.copy()
    low[1, 1, 0, 2], high[0, 0, 0, 0] = (
        -129,
        2**32,
    )  # a value that would wrap around to 0 in 32 bits
    cases = {
        "low": (low, "image 1: value -129 at channel 1, row 0, column 2 is outside -128..127"),
        "high": (high, "image 0: value 4294967296"),
        "float": (good.astype(float), "images must be integers, not float64"),
        "bool": (good.astype(bool), "images must be integers, not bool"),
        "shape": (good[0], r"images must be \[N, 2, 1, 3\]"),
        "none": (good[:0], "holds no image"),
        "scalar": (np.array(3), "images must be"),
        "object": (np.array([None]), "not a readable .npy file"),
    }
    for name, (images, message) in cases.items():
        path = tmp_path / f"{name}.npy"
        np.save(path, images)
        with pytest.raises(ImageError, match=f"{name}.npy: .*{message}"):
            load_images(path, network(True))
    np.savez(tmp_path / "several.npz", good)
    (tmp_path / "text.npy").write_text("hello")
    for name, message in (
        ("several.npz", "not a readable .npy file: it is a zip archive"),
        ("text.npy", "not a readable .npy file: it is a file that starts with b'hello'"),
        ("absent.npy", "No such file"),
    ):
        with pytest.raises(ImageError, match=message):
            load_images(tmp_path / name, network(True))


@pytest.mark.parametrize(
    "dataset, labels, classes",
    [("cifar10", [3, 8, 8, 0, 6, 6, 1, 6, 3, 1], 10), ("cifar100", [49, 33, 72, 51, 71], 100)],
)
def test_bundled_images(dataset, labels, classes):
    images, got = bundled_images(dataset)
    assert images.shape == (200, 3, 32, 32) and images.dtype == np.uint8 and got.dtype == np.int64
    assert got[: len(labels)].tolist() == labels and got.max() < classes
    assert 80 < images.mean() < 160 and images.std() > 40  # photographs, not zeros
    with pytest.raises(ImageError, match="there are images of cifar10 and cifar100"):
        bundled_images("mnist")
