"""The generator keeps its limits, reproduces from its seed and reaches the corners it exists for"""

import numpy as np
import pytest

from model.network import load_network, save_network
from model.network.random_networks import random_input, random_network, tensor_bytes


def draw(count, **limits):
    rng = np.random.default_rng(7)
    return [random_network(rng, **limits) for _ in range(count)]


def test_limits_hold():
    limits = dict(
        stride=(1,),
        ops=("conv", "maxpool", "avgpool"),
        max_macs=50_000,
        max_tensor_bytes=3000,
        max_layers=4,
        int32=False,
    )
    for net in draw(80, **limits):
        assert 1 <= len(net.layers) <= 4
        assert sum(layer.macs for layer in net.layers) <= 50_000
        assert all(
            tensor_bytes(shape) <= 3000
            for shape in [net.input_shape] + [layer.out_shape for layer in net.layers]
        )
        assert all(layer.op != "add" and layer.out == "int8" for layer in net.layers)
        assert all(layer.stride == (1, 1) for layer in net.layers if layer.op == "conv")


def test_corners_are_reached():
    nets = draw(300)
    layers = [layer for net in nets for layer in net.layers]
    convs = [layer for layer in layers if layer.op == "conv"]
    books = {tuple(layer.codebook.tolist()) for layer in convs}
    seen = {
        "1x1 map": any(net.input_shape[1:] == (1, 1) for net in nets),
        "13x9 map": any(net.input_shape[1:] == (13, 9) for net in nets),
        "both signs": {net.input_signed for net in nets} == {True, False},
        "101 channels": any(101 in (layer.in_shape[0], layer.out_shape[0]) for layer in convs),
        "every kernel side": {k for layer in convs for k in layer.kernel} == set(range(1, 12)),
        "rectangular": any(layer.kernel[0] != layer.kernel[1] for layer in convs),
        "largest padding": any(
            p == k - 1 > 0 for layer in convs for p, k in zip(layer.pad, layer.kernel)
        ),
        "whole map": any(
            layer.kernel == layer.in_shape[1:] and layer.pad == (0, 0) and layer.kernel != (1, 1)
            for layer in convs
        ),
        "overlapping padded max pool": any(
            layer.op == "maxpool" and max(layer.pad) > 0 and layer.stride < layer.kernel
            for layer in layers
        ),
        "padded average pool": any(
            layer.op == "avgpool" and max(layer.pad) > 0 for layer in layers
        ),
        "extreme codebook": any(sorted(book) == [-128, -128, 0, 127] for book in books),
        "repeated entries": any(len(set(book)) < 3 for book in books),
        "all strides": {s for layer in convs for s in layer.stride} == {1, 2},
        "shift 0 and 31": {0, 31}
        <= {int(s) for layer in convs if layer.shift is not None for s in layer.shift},
        "mult 1 and 32767": {1, 32767}
        <= {int(m) for layer in convs if layer.mult is not None for m in layer.mult},
        "int32 conv and pool": {net.output.op for net in nets if net.output.out == "int32"}
        == {"conv", "avgpool"},
        "add of differing signs": any(
            layer.op == "add" and len(set(layer.in_signed_all)) == 2 for layer in layers
        ),
        "float64 sums": any(layer.sum_bound.max() >= 2**24 for layer in convs),
    }
    assert all(seen.values()), [name for name, found in seen.items() if not found]


def test_a_seed_reproduces_the_network_and_input(tmp_path):
    files = []
    for number in range(2):
        rng = np.random.default_rng(5)
        net = random_network(rng)
        save_network(net, tmp_path / f"{number}.clipq.npz")
        files.append(
            (tmp_path / f"{number}.clipq.npz").read_bytes()
            + random_input(rng, load_network(tmp_path / f"{number}.clipq.npz"), 2).tobytes()
        )
    assert files[0] == files[1]


def test_inputs_span_the_range():
    rng = np.random.default_rng(1)
    for net in draw(20):
        images = random_input(rng, net, 8)
        assert images.shape == (8, *net.input_shape) and images.dtype == np.int32
        low, high = net.input_range
        assert low <= images.min() and images.max() <= high
    assert any((random_input(rng, net, 8) == net.input_range[0]).any() for net in draw(5))


def test_impossible_limits_are_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="max_tensor_bytes = 3"):
        random_network(rng, max_tensor_bytes=3)
    with pytest.raises(ValueError, match="unknown ops: softmax"):
        random_network(rng, ops=("conv", "softmax"))
    with pytest.raises(ValueError, match="found no layer"):
        random_network(rng, ops=("conv",), max_macs=0)
