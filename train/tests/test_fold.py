"""Folding batch norm into bias, mult and shift."""

import numpy as np
import pytest
import torch

from model.reference.integer import run_integer
from train.net import Conv, FoldError, Net, to_network


@pytest.mark.parametrize("bad", [0.0, -1.0, 1e9, np.nan])
def test_a_scale_that_cannot_be_expressed_is_named(bad):
    block = random_block(1)
    block.bn.weight.data[4] = bad
    with pytest.raises(FoldError, match="layer conv: channel 4: .* must be positive and at most"):
        to_network(alone(block))


def test_a_bias_that_does_not_fit_is_named():
    block = random_block(1)
    block.bn.bias.data[2] = 1e9
    with pytest.raises(FoldError, match="layer conv: channel 2: bias .* does not fit 32 bits"):
        to_network(alone(block))


def block_of(inputs, outputs, kernel, last: bool = False) -> Conv:
    """A convolution of its own."""
    shape, pad = [outputs, inputs, kernel, kernel], [kernel // 2] * 2
    window = {"shape": shape, "stride": [1, 1], "pad": pad}
    return Conv({**window, "norm": "batch", "relu": not last, "signed": last})


def alone(block: Conv) -> Net:
    """A network of one convolution of 12x12 images."""
    layer = {"name": "conv", "op": "conv", "inputs": ["input"], **block.spec}
    unit = {"scale": [1.0] * 6, "offset": [0.0] * 6, "unit": 1.0}
    net = Net({"input": {"shape": [6, 12, 12], **unit}, "layers": [layer]})
    net.nodes["conv"], block.spec = block, layer
    return net


def random_block(seed: int, last: bool = False) -> Conv:
    torch.manual_seed(seed)
    block = block_of(6, 9, 3, last)
    with torch.no_grad():
        block.bn.running_mean.normal_(0, 2000)
        block.bn.running_var.uniform_(1e7, 1e8)
        block.bn.weight.uniform_(0.5, 1.5)
        block.bn.bias.normal_(0, 0.3)
    block.steps = torch.tensor(50.0)
    block.mode = "fake"
    return block.eval()


@pytest.mark.parametrize("last", [False, True])
def test_integers_follow_the_float_block(last):
    """The rounding of bias and mult moves an output by at most one step, and hardly ever."""
    block = random_block(3, last)
    rng = torch.Generator().manual_seed(4)
    x = torch.randint(-128, 128, (4, 6, 12, 12), generator=rng)
    network = to_network(alone(block))
    with torch.no_grad():
        difference = torch.from_numpy(run_integer(network, x.numpy())) - block(x.float()).long()
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 0.01
