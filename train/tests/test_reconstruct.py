"""Quantization without training: each step against brute force or against what it must not make
worse."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from model.common.errors import UserError
from model.reference.integer import run_integer
from train import checkpoint
from train.export import to_network
from train.quantize import KMeans, Segments, reconstruct
from train.quantize.reconstruct import (
    Fit,
    descend,
    fit_layer,
    gptq,
    moments,
    nearest,
    outputs,
    refit,
    relative_error,
    statistics,
)
from train.tests.helpers import nin


def layer(outputs=6, inputs=12, rows=400, seed=0):
    """(target [O, K], covariance [K, K]) of random weights on correlated inputs."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=rng) @ torch.randn(
        inputs, inputs, generator=rng
    ) + 3 * torch.randn(rows, 1, generator=rng)
    return torch.randn(outputs, inputs, generator=rng), x.T @ x / rows


def rounded(target):
    scale = target.square().mean(1).sqrt()
    values = torch.from_numpy(
        KMeans(60, reconstruct.STARTS[0]).centres(target / scale[:, None])
    ).float()
    return Fit(scale, values, nearest(target / scale[:, None], values))


def settle(target, covariance, fit, sweeps):
    weights = descend(
        target,
        covariance,
        fit.weights,
        fit.scale,
        fit.values,
        sweeps,
        torch.Generator().manual_seed(0),
    )
    return nearest(weights / fit.scale[:, None], fit.values)


def test_nearest():
    assert nearest(
        torch.tensor([-9.0, -1.6, -1.4, 0.4, 0.6, 5.0]), torch.tensor([-2.0, -1.0, 0.0, 1.0])
    ).tolist() == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("seed", range(5))
def test_each_step_lowers_the_error(seed):
    target, covariance = layer(seed=seed)
    plain = rounded(target)
    error = lambda fit: relative_error(target, covariance, fit.weights)
    passed = replace(plain, place=gptq(target, covariance, plain.scale, plain.values))
    settled = replace(passed, place=settle(target, covariance, passed, 20))
    fitted = refit(target, covariance, settled)
    assert error(passed) < error(plain)
    assert error(settled) <= error(passed) + 1e-6
    assert error(fitted) <= error(settled) + 1e-6
    assert fit_layer(target, covariance).error < 0.5 * error(plain)
    affine = fit_layer(target, covariance, affine=True)
    low, middle, high = affine.values[affine.values != 0].tolist()
    assert middle == pytest.approx(low + high, abs=1e-6)
    assert affine.error < 0.5 * error(plain)


def test_descent_ends_where_no_single_change_helps():
    target, covariance = layer(outputs=3, inputs=7)
    fit = rounded(target)
    fit = replace(fit, place=settle(target, covariance, fit, 100))
    best = relative_error(target, covariance, fit.weights)
    for o, k, value in itertools.product(range(3), range(7), range(4)):
        place = fit.place.clone()
        place[o, k] = value
        assert relative_error(target, covariance, replace(fit, place=place).weights) >= best - 1e-6


def test_uncorrelated_inputs_are_rounded():
    target = torch.randn(5, 30, generator=torch.Generator().manual_seed(2))
    fit = rounded(target)
    assert torch.equal(gptq(target, torch.eye(30), fit.scale, fit.values), fit.place)


def test_moments_of_a_pointwise_layer():
    rng = torch.Generator().manual_seed(3)
    quantized, original = (
        torch.randn(60, 4, 3, 3, generator=rng),
        torch.randn(60, 4, 3, 3, generator=rng),
    )
    weight = torch.randn(2, 4, 1, 1, generator=rng)
    conv = nn.Conv2d(4, 2, 1, bias=False)
    conv.weight.data = weight
    with torch.no_grad():
        covariance, crossed = moments(quantized, original, conv, False)
    a = quantized.permute(0, 2, 3, 1).reshape(-1, 4).double()
    b = original.permute(0, 2, 3, 1).reshape(-1, 4).double() @ weight.flatten(1).T.double()
    a, b = a - a.mean(0), b - b.mean(0)
    assert torch.allclose(covariance.double(), a.T @ a / len(a), atol=1e-5)
    assert torch.allclose(crossed.double(), b.T @ a / len(a), atol=1e-5)


def random_norms(net):
    """Random batch norm, some of its scales negative, with statistics of its own."""
    net.train()
    for _, block in net.blocks():
        block.bn.momentum = 1.0
        block.bn.bias.data.normal_(0, 0.2)
    net.nodes["conv2"].bn.weight.data[::7] *= -1
    with torch.no_grad():
        net(torch.randint(-128, 128, (40, 3, 32, 32)).float())
    for _, block in net.blocks():
        block.bn.momentum = 0.1
    return net.eval()


@pytest.fixture(scope="module", params=[False, True], ids=["free", "affine"])
def networks(request):
    """Few images, one round and one sweep, to be quick.

    (full-precision network with random batch norm; the same reconstructed; input integers)."""
    net = random_norms(nin(0, 0.3))
    x, quantized = torch.randint(-128, 128, (40, 3, 32, 32)).float(), copy.deepcopy(net)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("ROUNDS", 1),
            ("SWEEPS", 1),
            ("STARTS", reconstruct.STARTS[:1]),
            ("ROWS", 8000),
        ):
            patch.setattr(reconstruct, name, value)
        reconstruct.reconstruct(quantized, x, request.param)
    return net, quantized.eval(), x


@torch.no_grad()
def test_outputs_stay_near_the_full_precision_ones(networks):
    """On the images it was fitted to (40 images of noise say nothing about others) the logits
    follow the full-precision network's."""
    net, quantized, x = networks
    logits, ours = net(x), quantized(x)
    logits, ours = logits - logits.mean(0), ours - ours.mean(0)
    assert torch.corrcoef(torch.stack([logits.flatten(), ours.flatten()]))[0, 1] > 0.7


def test_affine_codebooks_are_sums_but_for_the_last(networks):
    _, quantized, _ = networks
    codebooks = [b.quantizer.quantize(b.conv.weight)[1].tolist() for _, b in quantized.blocks()]
    affine = [b.quantizer.affine for _, b in quantized.blocks()]
    assert affine[:-1] == [affine[0]] * 8 and not affine[-1]
    if affine[0]:
        assert all(d == b + c for _, b, c, d in codebooks[:-1])
    else:
        assert any(d != b + c for _, b, c, d in codebooks)


def test_statistics_of_sums(monkeypatch):
    monkeypatch.setattr(reconstruct, "CHUNK", 7)
    rng = torch.Generator().manual_seed(4)
    x = torch.randint(0, 256, (20, 3, 7, 6), generator=rng, dtype=torch.uint8)
    conv = nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0), bias=False)
    with torch.no_grad():
        sums = conv(x.float())
        found = statistics(x, conv, conv.weight)
    assert torch.allclose(found.mean, sums.mean((0, 2, 3)), rtol=1e-4)
    assert torch.allclose(found.variance, sums.var((0, 2, 3), unbiased=False), rtol=1e-4)
    assert torch.equal(
        found.sample.flatten().sort().values, sums.flatten().sort().values
    )  # few enough to be taken all


@torch.no_grad()
def test_outputs_are_the_blocks(networks):
    net, quantized, x = networks
    conv1 = net.nodes["conv1"]
    ours = outputs(conv1, conv1.conv.weight, x[:5] / 57)
    assert ours.dtype == torch.float16 and torch.allclose(
        ours.float(), conv1(x[:5] / 57), atol=2e-2
    )
    block = quantized.nodes["conv1"]
    weights = block.quantizer.integers(block.conv.weight)
    integers = outputs(block, weights, x[:5].to(torch.int8))
    off = (integers.float() - block(x[:5])).abs()
    # floats near a half may round either way
    assert integers.dtype == torch.uint8 and off.max() <= 1 and (off > 0).float().mean() < 1e-3


def test_checkpoint_and_integer_model_agree(networks, tmp_path):
    _, quantized, x = networks
    path = tmp_path / "nin.ckpt.npz"
    checkpoint.write(quantized, path, {})
    read, _ = checkpoint.read(path)
    for (_, a), (_, b) in zip(quantized.blocks(), read.blocks()):
        assert isinstance(b.quantizer, Segments) and (b.bn.weight > 0).all()
        assert a.quantizer == b.quantizer
        assert torch.equal(a.quantizer.integers(a.conv.weight), b.quantizer.integers(b.conv.weight))
    reference = run_integer(to_network(read, "net"), x[:4].long().numpy())
    assert (read.integer_forward(x[:4])["gap"].numpy() == reference).all()


def test_the_result_does_not_depend_on_threads():
    results, full = [], random_norms(nin(3))
    x = torch.randint(-128, 128, (60, 3, 32, 32)).float()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        net = copy.deepcopy(full)
        reconstruct.reconstruct(net, x)
        results.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(r.values() for r in results)))


def test_a_layer_of_zeros_is_named():
    net = nin(1)
    net.nodes["conv4"].conv.weight.data.zero_()
    with pytest.raises(UserError, match="layer conv4: its weights have fewer than four values"):
        reconstruct.reconstruct(net, torch.randint(-128, 128, (20, 3, 32, 32)).float())
