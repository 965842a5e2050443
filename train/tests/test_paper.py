"""The 2022 paper's mode: folding, rebalancing and exact equality of training, export and integer
model."""

import copy

import numpy as np
import pytest
import torch

from model.network import load_network, save_network
from model.reference.integer import run_integer
from train import checkpoint
from train.export import to_network
from train.net import Net
from train.quantize import FixedGain, Setting, paper
from train.tests.helpers import nin


def full_precision(seed: int) -> Net:
    """A NIN with random batch norm, scales of both signs and statistics of its own."""
    net = nin(seed, 0.3)
    net.train()
    for _, block in net.blocks():
        block.bn.weight.data.uniform_(0.5, 1.5)
        block.bn.weight.data[::7] *= -1
        block.bn.bias.data.normal_(0, 0.3)
        block.bn.momentum = 1.0
    net(integers(seed, 4))
    return net.eval()


def integers(seed: int, count: int, size: int = 8):
    return torch.randint(
        -128, 128, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)
    ).float()


def started(seed: int, x, fraction_bits: int = 5, rebalance: bool = True) -> Net:
    """A network at the start of the paper's mode."""
    net = full_precision(seed)
    paper.start(net, x, 0.2, fraction_bits, rebalance)
    return net.eval()


def test_codebook_at_any_length_of_the_shadow_weights():
    """P = 20 % of 10 magnitudes; negatives split at -2; means -2.8, -1.1, 2.25, in 32nds -89.6,
    -35.2, 72."""
    weights = torch.tensor([-3.0, -2.6, -1.0, -1.2, -0.2, 0.1, 2.0, 2.4, 2.8, 1.8])
    own = weights.double().square().mean().sqrt().item()
    quantizer = FixedGain(Setting(0.2, 2, False, 5), own)
    for length in (1.0, 0.037, 100.0):
        index, codebook = quantizer.quantize(length * weights)
        assert codebook.tolist() == [0, -90, -35, 72]
        assert index.tolist() == [1, 1, 2, 2, 0, 0, 3, 3, 3, 3]
    assert FixedGain(quantizer.setting, own / 2).quantize(weights)[1].tolist() == [0, -45, -18, 36]


@pytest.mark.parametrize("fraction_bits", [5, 7])
def test_training_export_and_integer_model_agree_to_the_bit(fraction_bits, tmp_path):
    x = integers(1, 4, 32)
    net = checkpoint.snapped(started(fraction_bits, x, fraction_bits)).eval()
    checkpoint.write(net, tmp_path / "net.ckpt.npz", {})
    net, _ = checkpoint.read(tmp_path / "net.ckpt.npz")
    save_network(to_network(net, "net"), tmp_path / "net.clipq.npz")
    network = load_network(tmp_path / "net.clipq.npz")
    reference = run_integer(network, x.long().numpy(), keep=True)
    ours = net.integer_forward(x)
    assert set(ours) == set(reference)
    for name, tensor in ours.items():
        assert np.array_equal(tensor.numpy(), reference[name]), name
    net.mode = "exact"
    logits = net(x) * net.steps_of(net.last)
    assert np.array_equal((64 * logits).detach().round().numpy(), reference["gap"].reshape(4, -1))
    assert reference["conv4"].min() == 0 and reference["conv4"].max() > 0
    assert len(np.unique(reference["gap"])) > 5


@pytest.mark.parametrize("fraction_bits", [4, 6])
def test_mult_is_one_and_shift_the_fraction_bits(fraction_bits):
    network = to_network(started(0, integers(2, 4), fraction_bits), "net")
    convs = [layer for layer in network.layers if layer.op == "conv"]
    assert len(convs) == 9
    for conv in convs:
        assert (conv.mult == 1).all() and (conv.shift == fraction_bits).all()
        assert (conv.bias != 0).any() and conv.codebook.any()


def test_bias_is_in_units_of_the_sum():
    net = started(0, integers(2, 4))
    block = net.nodes["conv2"]
    steps = float(block.steps)
    block.bn.bias.data[:3] = torch.tensor([1.0, -0.25, 2.0**-10]) * 32 / steps
    assert to_network(net, "net").layer("conv2").bias[:3].tolist() == [1024, -256, 1]


def test_fake_mode_rounds_like_the_hardware():
    """Where the biases are multiples of the sums' unit; the sums are below 2^24."""
    net, x = started(3, integers(2, 4)), integers(2, 2)
    for _, block in net.blocks():
        unit = float(block.steps) * 32
        block.bn.bias.data = (block.bn.bias.data * unit).round() / unit
    fake = net(x)
    net.mode = "exact"
    off = (fake - net(x)).abs() * net.steps_of(net.last)
    assert off.max() <= 1 and fake.unique().numel() > 5


def test_gradient_reaches_every_parameter():
    net = started(4, integers(4, 4)).train()
    for mode in ("fake", "exact"):
        net.mode = mode
        net.zero_grad()
        net(integers(5, 4))[:, :3].sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters()), mode


@torch.no_grad()
def test_folding_and_equalizing_keep_the_function():
    net, x = full_precision(1), integers(6, 3)
    expected = net(x)
    paper.fold_batch_norm(net)
    assert torch.allclose(net(x), expected, atol=1e-4)
    paper.equalize(net)
    assert torch.allclose(net(x), expected, atol=1e-4)
    made = net.nodes["conv4"].conv.weight.flatten(1).norm(dim=1)
    read = net.nodes["conv5"].conv.weight.transpose(0, 1).flatten(1).norm(dim=1)
    assert torch.allclose(made, read, rtol=0.05)


@torch.no_grad()
def distance(net, full, x):
    """Relative error of the network's logits."""
    expected = full(x)
    return ((net.eval()(x) - expected).norm() / expected.norm()).item()


def test_rebalancing_brings_the_network_nearer_to_full_precision():
    full, x = full_precision(2), integers(7, 8)
    rebalanced, folded = (started(2, x, rebalance=b) for b in (True, False))
    assert distance(rebalanced, full, x) < distance(folded, full, x)


@torch.no_grad()
def test_biases_restore_the_channels_means():
    full, x = full_precision(3), integers(8, 4)
    net = started(3, x, rebalance=False)
    paper.fold_batch_norm(full)
    first, ours = full.nodes["conv1"], net.nodes["conv1"]
    target = first.bn(first.sums(x / 57, first.conv.weight)).mean((0, 2, 3))
    rounded = ours.quantizer.integers(ours.conv.weight)
    sums = ours.sums(x, rounded).mean((0, 2, 3)) / 32 / float(ours.steps)
    assert torch.allclose(sums + ours.bn.bias, target, atol=1e-3)


def test_layer_of_zeros_gets_one_step():
    """In Q4.4 weights of 1/200 would all round to zero."""
    full = full_precision(5)
    full.nodes["conv5"].conv.weight.data *= 1e-3
    full.nodes["conv5"].bn.weight.data *= 1e-3
    paper.start(full, integers(9, 4), 0.2, 4, False)
    block = full.nodes["conv5"]
    assert block.quantizer.rms == 2.0**-4 and block.quantizer.integers(block.conv.weight).any()


def test_neighbours_are_those_that_alone_read_each_other():
    net = nin()
    names = {block: name for name, block in net.blocks()}
    pairs = [(names[a], names[b]) for a, b in paper.neighbours(net)]
    assert pairs == [(f"conv{k}", f"conv{k + 1}") for k in range(1, 9)]
    assert copy.deepcopy(net).last == "gap"
