"""The integer arithmetic inside training: exact sums, the exported layer's outputs, gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.reference.integer import run_integer
from train.export import to_network
from train.net import Net
from train.quantize.exact import ReplaceForward, exact_sums
from train.tests.helpers import nin


@pytest.mark.parametrize("channels, signed", [(3, True), (64, False), (300, False), (300, True)])
def test_sums_are_exact_where_float32_alone_is_not(channels, signed):
    """300 channels of 5x5 taps with the largest values reach 2.4e8, far above 2^24."""
    rng = torch.Generator().manual_seed(channels)
    low, high = (-128, 128) if signed else (0, 256)
    x = torch.randint(low, high, (2, channels, 7, 6), generator=rng)
    weights = torch.randint(-127, 128, (5, channels, 5, 5), generator=rng)
    x[0], weights[0] = high - 1, 127
    expected = F.conv2d(x.double(), weights.double(), padding=2).long()
    assert torch.equal(exact_sums(x.float(), weights.float(), padding=2), expected)
    assert torch.equal(exact_sums(x.bfloat16(), weights.float(), padding=2), expected)


def test_too_many_taps_are_refused():
    with pytest.raises(ValueError, match="too many taps"):
        exact_sums(torch.zeros(1, 9000, 1, 1), torch.full((1, 9000, 1, 1), 127.0))


def random_network(seed: int) -> Net:
    net = nin(seed, 0.3)
    with torch.no_grad():
        for _, block in net.blocks():
            block.bn.weight.uniform_(0.5, 1.5)
            block.bn.bias.normal_(0, 0.3)
    net.calibrate(torch.randint(-128, 128, (8, 3, 32, 32)).float())
    net.mode = "exact"
    return net


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("training", [False, True])
def test_forward_pass_is_the_integer_network(seed, training):
    """Fake-quantized training in its exact mode and the NumPy reference, random networks and
    images, to the bit."""
    net = random_network(seed)
    net.train(training)
    x = torch.randint(-128, 128, (3, 3, 32, 32))
    logits = net(x.float()) * net.steps_of("conv9") * 64
    expected = run_integer(to_network(net, "cifar10"), x.numpy())
    assert np.array_equal(logits.detach().round().long().numpy(), expected.reshape(3, -1))
    assert (logits.detach() - logits.detach().round()).abs().max() < 0.1


def test_frozen_statistics():
    net = random_network(5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    net(torch.randint(-128, 128, (2, 3, 32, 32)).float())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_gradient_reaches_every_parameter():
    net = random_network(6)
    net.train()
    net(torch.randint(-128, 128, (4, 3, 32, 32)).float())[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_gradient_stops_at_the_clamp():
    soft = torch.tensor([-3.0, 5.2, 300.0], requires_grad=True)
    out = ReplaceForward.apply(soft, torch.tensor([0, 5, 255]), 0, 255)
    assert out.tolist() == [0, 5, 255]
    out.sum().backward()
    assert soft.grad.tolist() == [0, 1, 0]
