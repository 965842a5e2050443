"""Every method keeps the quantizers' protocol, and those with a codebook fit the network file."""

import pytest
import torch

from train.export import to_network
from train.methods import METHODS
from train.nin import NIN


@pytest.mark.parametrize("name", METHODS)
def test_integers(name):
    weights = 0.05 * torch.randn(30, 20, 3, 3, generator=torch.Generator().manual_seed(1))
    integers = METHODS[name].quantizer.integers(weights)
    assert (
        integers.shape == weights.shape
        and integers.dtype == weights.dtype
        and not integers.requires_grad
    )
    assert (
        torch.equal(integers, integers.round()) and integers.min() >= -128 and integers.max() <= 127
    )
    assert (
        integers * weights
    ).sum() > 0.5 * integers.norm() * weights.norm()  # it is the weights that are approximated
    assert hash(METHODS[name]) == hash(METHODS[name]) and "object at" not in repr(METHODS[name])


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.exportable])
def test_codebooks_can_be_exported(name):
    torch.manual_seed(2)
    net = NIN(10)
    for _, block in net.blocks():
        block.quantizer = METHODS[name].quantizer
    net.calibrate(torch.randint(-128, 128, (4, 3, 8, 8)).float())
    network = to_network(net, "cifar10")
    for layer_name, block in net.blocks():
        expected = METHODS[name].quantizer.integers(block.conv.weight).numpy()
        assert (network.layer(layer_name).weights == expected).all()


def test_fixed_point_has_no_codebook():
    assert not METHODS["fixed8"].exportable and METHODS["binary"].exportable
