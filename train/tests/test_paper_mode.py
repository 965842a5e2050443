"""The 2022 paper's mode: folding, rebalancing and exact equality of training, export and integer
model."""

import numpy as np
import pytest
import torch

from model.common.errors import UserError
from model.network import load_network, save_network
from model.reference.integer import run_integer
from train import clipq
from train.nin import NIN
from train.paper_mode import (
    FixedGain,
    PaperNIN,
    PaperStart,
    check_equal,
    equalize,
    fold_batch_norm,
    to_paper_network,
)


def full_precision(seed: int) -> NIN:
    """A NIN with random batch norm, scales of both signs and statistics of its own."""
    torch.manual_seed(seed)
    net = NIN(10)
    net.train()
    for _, block in net.blocks():
        block.bn.weight.data.uniform_(0.5, 1.5)
        block.bn.weight.data[::7] *= -1
        block.bn.bias.data.normal_(0, 0.3)
        block.bn.momentum = 1.0
    net(pictures(seed, 4))
    return net.eval()


def pictures(seed: int, count: int, size: int = 8):
    return torch.randint(
        -128, 128, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)
    ).float()


def random_paper_network(seed: int, fraction_bits: int) -> PaperNIN:
    """Random weights, gains and biases, so large that both ends of the clamp are reached."""
    torch.manual_seed(seed)
    net = PaperNIN(10, clipq.Setting(0.2, 2, True, fraction_bits))
    for _, block in net.blocks():
        block.rms.fill_(3 / 2**fraction_bits)  # three steps
        block.bn.bias.data = (
            torch.randn(len(block.bn.bias)) * 4**fraction_bits / 8
        ).round() / 4**fraction_bits
    return net.eval()


def test_codebook_at_any_length_of_the_shadow_weights():
    """P = 20 % of 10 magnitudes; negatives split at -2; means -2.8, -1.1, 2.25, in 32nds -89.6,
    -35.2, 72."""
    weights = torch.tensor([-3.0, -2.6, -1.0, -1.2, -0.2, 0.1, 2.0, 2.4, 2.8, 1.8])
    own = weights.double().square().mean().sqrt().item()
    quantizer = FixedGain(clipq.Setting(0.2, 2, False, 5), own)
    for length in (1.0, 0.037, 100.0):
        index, codebook = quantizer.quantize(length * weights)
        assert codebook.tolist() == [0, -90, -35, 72]
        assert index.tolist() == [1, 1, 2, 2, 0, 0, 3, 3, 3, 3]
    assert FixedGain(quantizer.setting, own / 2).quantize(weights)[1].tolist() == [0, -45, -18, 36]


@pytest.mark.parametrize("fraction_bits", [5, 7])
def test_training_export_and_integer_model_agree_to_the_bit(fraction_bits, tmp_path):
    net = random_paper_network(fraction_bits, fraction_bits)
    network = to_paper_network(net, "cifar10")
    save_network(network, tmp_path / "net.clipq.npz")
    network = load_network(tmp_path / "net.clipq.npz")
    x = pictures(1, 1, 32)
    reference = run_integer(network, x.long().numpy(), keep=True)
    ours = net.integer_forward(x)
    assert set(ours) == set(reference)
    for name, tensor in ours.items():
        assert np.array_equal(tensor.numpy(), reference[name]), name
    net.mode, net.conv9.steps = "exact", torch.tensor(1.0)
    logits = net.train()(x).detach()
    assert np.array_equal((64 * logits).round().long().numpy(), reference["gap"].reshape(1, -1))
    assert reference["conv4"].min() == 0 and reference["conv4"].max() > 0
    assert len(np.unique(reference["gap"])) > 5


@pytest.mark.parametrize("fraction_bits", [4, 6])
def test_mult_is_one_and_shift_the_fraction_bits(fraction_bits):
    network = to_paper_network(random_paper_network(0, fraction_bits), "cifar10")
    convs = [layer for layer in network.layers if layer.op == "conv"]
    assert len(convs) == 9 and all(
        (c.mult == 1).all() and (c.shift == fraction_bits).all() for c in convs
    )
    assert all((c.bias != 0).any() for c in convs)


def test_bias_is_in_units_of_the_sum():
    net = random_paper_network(0, 5)
    net.conv2.bn.bias.data[:3] = torch.tensor([1.0, -0.25, 2.0**-10])
    assert to_paper_network(net, "cifar10").layer("conv2").bias[:3].tolist() == [1024, -256, 1]


def test_fake_mode_rounds_like_the_hardware():
    """Biases are multiples of 2^-10 and sums below 2^24, so float32 is exact."""
    net, x = random_paper_network(3, 5), pictures(2, 2)
    net.mode = "fake"
    fake = net(x)
    net.mode = "exact"
    assert torch.equal(fake, net(x)) and fake.unique().numel() > 5


def test_gradient_reaches_every_parameter():
    net = PaperStart()(full_precision(4), pictures(4, 4)).train()
    for mode in ("fake", "exact"):
        net.mode = mode
        net.zero_grad()
        net(pictures(5, 4))[:, :3].sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters()), mode


def run_folded(layers, x):
    for i, (weights, bias) in enumerate(layers):
        x = torch.nn.functional.conv2d(x, weights, bias, padding=weights.shape[-1] // 2)
        x = x.relu() if i < 8 else x
        x = torch.nn.functional.max_pool2d(x, 2) if i in (2, 5) else x
    return x.mean((2, 3))


@torch.no_grad()
def test_folding_and_equalizing_keep_the_function():
    net, x = full_precision(1), pictures(6, 3)
    layers = fold_batch_norm(net)
    expected = net(x).double()
    assert torch.allclose(run_folded(layers, x.double() / 57), expected, atol=1e-4)
    equalize(layers)
    assert torch.allclose(run_folded(layers, x.double() / 57), expected, atol=1e-4)
    made, read = (
        layers[3][0].flatten(1).norm(dim=1),
        layers[4][0].transpose(0, 1).flatten(1).norm(dim=1),
    )
    assert torch.allclose(made, read, rtol=0.05)


@torch.no_grad()
def distance(net, full, x):
    """Relative error of the network's logits."""
    expected = full(x)
    return ((net.eval()(x) - expected).norm() / expected.norm()).item()


def test_rebalancing_brings_the_network_nearer_to_full_precision():
    full, x = full_precision(2), pictures(7, 8)
    rebalanced, folded = (PaperStart(rebalance=b)(full, x) for b in (True, False))
    assert distance(rebalanced, full, x) < distance(folded, full, x)


def test_biases_restore_the_channels_means():
    full, x = full_precision(3), pictures(8, 4)
    net = PaperStart(rebalance=False)(full, x)
    weights, bias = fold_batch_norm(full)[0]
    target = torch.nn.functional.conv2d(x.double() / 57, weights, bias, padding=2).mean((0, 2, 3))
    rounded = net.conv1.quantizer.integers(net.conv1.conv.weight).double()
    ours = (torch.nn.functional.conv2d(x.double(), rounded, padding=2) / 1024).mean(
        (0, 2, 3)
    ) + net.conv1.bn.bias.detach()
    factor = (ours * target).sum() / target.square().sum()
    assert torch.allclose(ours, factor * target, atol=1e-3) and 0.5 < factor < 1.5


def test_layer_of_zeros_gets_one_step():
    """In Q4.4 weights of 1/200 would all round to zero."""
    full = full_precision(5)
    full.conv5.conv.weight.data *= 1e-3
    full.conv5.bn.weight.data *= 1e-3
    net = PaperStart(fraction_bits=4, rebalance=False)(full, pictures(9, 4))
    assert net.conv5.rms == 2.0**-4 and net.conv5.quantizer.integers(net.conv5.conv.weight).any()


def test_difference_is_named():
    net = random_paper_network(0, 5)
    network, x = to_paper_network(net, "cifar10"), pictures(1, 1, 32)
    check_equal(net, network, x)
    net.conv3.bn.bias.data += 1
    with pytest.raises(UserError, match="conv3"):
        check_equal(net, network, x)


def test_bad_format():
    with pytest.raises(ValueError, match="8 fraction bits"):
        PaperStart(fraction_bits=8)
