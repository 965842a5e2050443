"""The integer arithmetic inside training: the exported layer's outputs, gradients."""

import numpy as np
import pytest
import torch

from model.reference.integer import run_integer
from train.net import Net, replaced, to_network
from train.quantize.start import quantize
from train.tests.helpers import START, nin, pieced


def random_network(seed: int) -> Net:
    net = nin(seed, 0.3)
    with torch.no_grad():
        for _, block in net.blocks():
            block.bn.weight.uniform_(0.5, 1.5)
            block.bn.bias.normal_(0, 0.3)
    quantize(net, torch.randint(-128, 128, (8, 3, 32, 32)).float(), START)
    net.become_exact()
    return net


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("training", [False, True])
def test_forward_pass_is_the_integer_network(seed, training):
    """Fake-quantized training in its exact mode and the NumPy reference, random networks and
    images, to the bit."""
    net = random_network(seed)
    x = torch.randint(-128, 128, (3, 3, 32, 32))
    logits = net(x.float(), pieced(net) if training else None) * net.steps_of("conv9") * 64
    expected = run_integer(to_network(net, "cifar10"), x.numpy())
    assert np.array_equal(logits.detach().round().long().numpy(), expected.reshape(3, -1))
    assert (logits.detach() - logits.detach().round()).abs().max() < 0.1


def test_frozen_statistics():
    net = random_network(5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    training = pieced(net)
    net(torch.randint(-128, 128, (2, 3, 32, 32)).float(), training)
    assert training.statistics == []
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_gradient_reaches_every_parameter():
    net = random_network(6)
    net(torch.randint(-128, 128, (4, 3, 32, 32)).float(), pieced(net))[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_gradient_stops_at_the_clamp():
    soft = torch.tensor([-3.0, 5.2, 300.0], requires_grad=True)
    out = replaced(soft, torch.tensor([0, 5, 255]), 0, 255)
    assert out.tolist() == [0, 5, 255]
    out.sum().backward()
    assert soft.grad.tolist() == [0, 1, 0]
