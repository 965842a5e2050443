"""Quantization without training: it stays near the full-precision network, and what it measures is
what the file holds."""

import copy

import pytest
import torch

from model.common.errors import UserError
from train import checkpoint
from train.net import Conv, Piece, to_network
from train.quantize import start
from train.quantize.codebooks import ClipQ, Segments, root_mean_square
from train.quantize.start import equalize, fold_batch_norm, neighbours, outputs, patches, quantize
from train.recipe import Quantization
from train.tests.helpers import nin, pieced

METHODS = {
    "reconstruct": Quantization(),
    "affine": Quantization(affine=True),
    "clipq": Quantization("clipq", clip=0.5),
    "ternary": Quantization("ternary"),
    "fixed": Quantization("fixed"),
    "paper": Quantization("paper"),
}
# Of noise; the logits' correlation with those in full precision, at least.
NEAR = {"ternary": 0.2, "clipq": 0.05, "paper": 0.0, "fixed": 0.95}


def integers(count, size=16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, (count, 3, size, size), generator=rng).float()


def full_precision(seed=0):
    """A NIN with random batch norm, with statistics of its own."""
    net, training = nin(seed, 0.2), Piece()
    for _, block in net.blocks():
        block.bn.weight.data.uniform_(0.5, 1.5)
        block.bn.bias.data.normal_(0, 0.2)
    with torch.no_grad():
        net(integers(40), training)
    for (_, block), (mean, variance) in zip(net.blocks(), training.statistics):
        block.bn.running_mean = mean - 0.5 * variance.sqrt()  # not that of the images
        block.bn.running_var = variance
    return net


@pytest.fixture(scope="module", params=METHODS)
def started(request):
    """(method, full-precision network, the same quantized, input integers)."""
    net = full_precision()
    x, quantized = integers(40), copy.deepcopy(net)
    quantize(quantized, x, METHODS[request.param])
    return request.param, net, quantized.eval(), x


@torch.no_grad()
def test_the_logits_follow_the_full_precision_ones(started):
    method, net, quantized, x = started
    logits, ours = (part - part.mean(0) for part in (net(x), quantized(x)))
    found = torch.corrcoef(torch.stack([logits.flatten(), ours.flatten()]))[0, 1]
    assert found > NEAR.get(method, 0.3)


def test_the_quantizers_are_those_of_the_method(started):
    method, _, quantized, _ = started
    quantizers = [block.quantizer for _, block in quantized.blocks()]
    if method in ("reconstruct", "affine"):
        assert all(isinstance(one, Segments) for one in quantizers)
        assert [one.affine for one in quantizers] == [method == "affine"] * 8 + [False]
        for _, block in quantized.blocks():
            codebook = block.quantizer.quantize(block.weight)[1].tolist()
            assert (codebook[3] == codebook[1] + codebook[2]) or not block.quantizer.affine
    if method == "paper":
        network = to_network(quantized)
        assert all((n.mult == 1).all() and (n.shift == 5).all() for n in network.layers[:2])


def test_a_checkpoint_holds_what_was_measured(started, tmp_path):
    method, _, quantized, _ = started
    if method in ("reconstruct", "affine", "paper"):
        net = checkpoint.snapped(quantized)
        for (_, a), (_, b) in zip(quantized.blocks(), net.blocks()):
            ours, theirs = (one.quantizer.integers(one.weight) for one in (a, b))
            assert torch.equal(ours, theirs) or method == "paper"
        checkpoint.write(net, tmp_path / "x.ckpt.npz", {})
        assert checkpoint.read(tmp_path / "x.ckpt.npz")[0].blocks()[3][1].quantizer == (
            net.blocks()[3][1].quantizer
        )


@torch.no_grad()
def test_patches_are_those_of_the_convolution(monkeypatch):
    monkeypatch.setattr(start, "CHUNK", 7)
    x = torch.randint(0, 256, (20, 3, 7, 6), dtype=torch.uint8)
    window = {"shape": [5, 3, 3, 2], "stride": [2, 1], "pad": [1, 0]}
    conv = Conv({**window, "norm": "bias", "relu": False, "signed": True}).eval()
    conv.weight.normal_()
    rows = patches(x, conv)
    assert rows.dtype == torch.uint8 and rows.shape == (20 * 4 * 5, 18)
    ours, sums = start.applied(rows, conv.weight), conv(x.float())
    assert torch.allclose(ours.sum(0), sums.sum((0, 2, 3)), rtol=1e-4)
    assert torch.allclose(ours.square().sum(0), sums.square().sum((0, 2, 3)), rtol=1e-4)


@torch.no_grad()
def test_outputs_are_the_layers(started):
    _, net, quantized, x = started
    ours = outputs(net.nodes["conv1"], x / 57)
    assert ours.dtype == torch.float16
    assert torch.allclose(ours.float(), net.nodes["conv1"](x / 57), atol=2e-2)
    assert outputs(quantized.nodes["conv1"], x.to(torch.int8)).dtype == torch.uint8


def test_the_result_does_not_depend_on_threads():
    results, full = [], full_precision(3)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        net = copy.deepcopy(full)
        quantize(net, integers(20), Quantization())
        results.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(r.values() for r in results)))


@pytest.mark.parametrize("method", ["reconstruct", "paper"])
def test_a_layer_of_zeros_is_named(method):
    net = nin(1)
    net.nodes["conv4"].weight.data.zero_()
    with pytest.raises(UserError, match="layer conv4: its weights "):
        quantize(net, integers(20), Quantization(method))


@torch.no_grad()
def test_folding_and_equalizing_keep_the_function():
    net, x = full_precision(1), integers(3)
    expected = net(x)
    for _, block in net.blocks():
        fold_batch_norm(block)
    assert torch.allclose(net(x), expected, atol=1e-4)
    equalize(net)
    assert torch.allclose(net(x), expected, atol=1e-4)
    made = net.nodes["conv4"].weight.flatten(1).norm(dim=1)
    read = net.nodes["conv5"].weight.transpose(0, 1).flatten(1).norm(dim=1)
    assert torch.allclose(made, read, rtol=0.05)


def test_neighbours_are_those_that_alone_read_each_other():
    net = nin()
    names = {block: name for name, block in net.blocks()}
    pairs = [(names[a], names[b]) for a, b in neighbours(net)]
    assert pairs == [(f"conv{k}", f"conv{k + 1}") for k in range(1, 9)]


def test_the_papers_codebook_at_any_length_of_the_shadow_weights():
    """P = 20 % of 5 magnitudes of either sign; negatives split at -2; means -2.8, -1.1, 2.25, in
    32nds -89.6, -35.2, 72."""
    weights = torch.tensor([-3.0, -2.6, -1.0, -1.2, -0.2, 0.1, 2.0, 2.4, 2.8, 1.8])
    own = root_mean_square(weights)
    for length in (1.0, 0.037, 100.0):
        index, codebook = ClipQ(0.2, 5, own).quantize(length * weights)
        assert codebook.tolist() == [0, -90, -35, 72]
        assert index.tolist() == [1, 1, 2, 2, 0, 0, 3, 3, 3, 3]
    assert ClipQ(0.2, 5, own / 2).quantize(weights)[1].tolist() == [0, -45, -18, 36]


@pytest.mark.parametrize("fraction_bits", [4, 6])
def test_the_paper_mode(fraction_bits):
    """mult = 1, shift = the fraction bits, biases in units of the sum; a gradient everywhere."""
    net, x = full_precision(2), integers(6)
    quantize(net, x, Quantization("paper", fraction_bits=fraction_bits))
    convs = [layer for layer in to_network(net).layers if layer.op == "conv"]
    for conv in convs:
        assert (conv.mult == 1).all() and (conv.shift == fraction_bits).all()
        assert (conv.bias != 0).any() and conv.codebook.any()
    net(x, pieced(net))[:, :3].sum().backward()
    trained = [p for p in net.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained)
