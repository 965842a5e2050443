"""Sizes of a hand-made network and of the shipped one; the range coder gives back what it was
given."""

import numpy as np
import pytest

from host import memory
from model.data.images import ZOO
from model.network import Layer, Network, load_network


def small_network(index):
    outputs = len(index)
    conv = Layer(
        name="conv",
        op="conv",
        inputs=("input",),
        stride=(1, 1),
        pad=(0, 0),
        out_min=0,
        out_max=255,
        index=index,
        codebook=np.array([0, 1, 2, 3], np.int8),
        bias=np.zeros(outputs, np.int32),
        mult=np.ones(outputs, np.int32),
        shift=np.zeros(outputs, np.uint8),
    )
    return Network(
        name="small", input_shape=(index.shape[1], 8, 8), input_signed=True, layers=(conv,)
    )


def test_hand_counted_sizes():
    m = memory.measure(small_network(np.arange(30, dtype=np.uint8).reshape(2, 5, 3, 1) % 4))
    assert (m.weights_fp32, m.bias_fp32, m.indices, m.codebooks, m.channels) == (120, 8, 8, 4, 14)
    sizes = {what: (size, ratio) for what, size, ratio in memory.rows(m)}
    assert sizes["indices, codebooks"] == (12, 10.0)
    assert sizes["indices, codebooks, bias, mult, shift"] == (26, 128 / 26)


def test_packing():
    assert memory.pack(np.array([1, 2, 3, 0, 2], np.uint8)) == bytes([1 + 2 * 4 + 3 * 16, 2])


@pytest.mark.parametrize("shape", [(7, 5, 1, 1), (6, 4, 3, 3), (4, 3, 5, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("values", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_decoding_gives_the_indices_back(shape, values):
    index = np.random.default_rng(len(values)).choice(np.array(values, np.uint8), shape)
    assert np.array_equal(memory.decode(memory.encode(index), shape), index)


def test_code_is_near_the_entropy():
    """200,000 independent indices of 1.5 bits each; a flat distribution cannot be compressed."""
    rng = np.random.default_rng(1)
    skewed = rng.choice(4, (500, 400, 1, 1), p=[0.5, 0.25, 0.25, 0.0]).astype(np.uint8)
    assert abs(memory.coded_size(skewed) - 200_000 * 1.5 / 8) < 200
    assert memory.coded_size(rng.integers(0, 4, (500, 400, 1, 1)).astype(np.uint8)) > 49_900


def test_neighbours_help():
    """Rows of equal indices cost little once the left neighbour is known."""
    index = np.repeat(
        np.random.default_rng(2).integers(0, 4, (60, 50, 5, 1)).astype(np.uint8), 5, axis=3
    )
    assert memory.coded_size(index) < 0.3 * index.size / 4


def test_wrong_decoding_is_noticed(monkeypatch):
    monkeypatch.setattr(memory, "decode", lambda code, shape: np.zeros(shape, np.uint8))
    with pytest.raises(RuntimeError, match="range coder"):
        memory.coded_size(np.ones((2, 2, 1, 1), np.uint8))


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.clipq.npz")), ids=lambda p: p.name)
def test_shipped_network_is_small_enough(path):
    ratios = {what: ratio for what, _, ratio in memory.rows(memory.measure(load_network(path)))}
    assert ratios["indices, codebooks"] >= 15.9
    few_weights = path.name.startswith("resnet20")  # against the parameters of a channel
    assert ratios["the same against FP32 weights alone"] >= (14.7 if few_weights else 15.3)
    assert ratios["range-coded indices, codebooks"] > ratios["indices, codebooks"]
