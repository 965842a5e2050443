"""The quick evaluation against the NumPy model and the plain network."""

import torch

from model.reference.integer import run_integer
from train.evaluate import accuracy
from train.export import to_network
from train.nin import NIN, to_input
from train.tests.pictures import pictures


def test_quantized_network_is_evaluated_in_integers():
    torch.manual_seed(9)
    net, pixels = NIN(10), pictures(12)[0]
    net.calibrate(to_input(pixels, "cifar10"))
    net.eval()
    sums = run_integer(
        to_network(net, "cifar10"), to_input(pixels, "cifar10").long().numpy()
    ).reshape(12, -1)
    labels = torch.from_numpy(sums.argmax(1))
    labels[:3] = (labels[:3] + 1) % 10
    assert accuracy(net, pixels, labels, "cifar10", threads=2) == 0.75


def test_full_precision_network():
    torch.manual_seed(10)
    net, pixels = NIN(10).eval(), pictures(8)[0]
    with torch.no_grad():
        labels = net(to_input(pixels, "cifar10")).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    assert accuracy(net, pixels, labels, "cifar10") == 7 / 8
