"""Quantization without training: each step against brute force or against what it must not make
worse."""

import itertools
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from model.reference.integer import run_integer
from train import checkpoint, reconstruct
from train.export import to_network
from train.kmeans import KMeans
from train.nin import NIN
from train.reconstruct import (
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
from train.segments import Segments


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
    covariance, crossed = moments(quantized, original, weight, False)
    a = quantized.permute(0, 2, 3, 1).reshape(-1, 4).double()
    b = original.permute(0, 2, 3, 1).reshape(-1, 4).double() @ weight.flatten(1).T.double()
    a, b = a - a.mean(0), b - b.mean(0)
    assert torch.allclose(covariance.double(), a.T @ a / len(a), atol=1e-5)
    assert torch.allclose(crossed.double(), b.T @ a / len(a), atol=1e-5)


@pytest.fixture(scope="module")
def networks():
    """Few pictures, one round and one sweep, to be quick.

    (full-precision network with random batch norm, some of its scales negative; the same
    reconstructed; input integers)."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
        # many small operations: threads that wait for one another take many times as long
        # beside other
        # tests
    )
    net = NIN(10)
    x = torch.randint(-128, 128, (40, 3, 32, 32)).float()
    net.train()
    for _, block in net.blocks():
        block.bn.momentum = 1.0
        block.bn.bias.data.normal_(0, 0.2)
    net.conv2.bn.weight.data[::7] *= -1
    with torch.no_grad():
        net(x)
    net.eval()
    quantized = NIN(10)
    quantized.load_state_dict(net.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("ROUNDS", 1),
            ("SWEEPS", 1),
            ("STARTS", reconstruct.STARTS[:1]),
            ("ROWS", 8000),
        ):
            patch.setattr(reconstruct, name, value)
        reconstruct.reconstruct(quantized, x)
    torch.set_num_threads(threads)
    return net, quantized, x


def test_outputs_stay_near_the_full_precision_ones(networks):
    """On the pictures it was fitted to (40 pictures of noise say nothing about others) the logits
    follow the full-precision network's."""
    net, quantized, x = networks
    with torch.no_grad():
        logits, ours = net(x), quantized(x)
    logits, ours = logits - logits.mean(0), ours - ours.mean(0)
    assert torch.corrcoef(torch.stack([logits.flatten(), ours.flatten()]))[0, 1] > 0.7


def test_statistics_of_sums(monkeypatch):
    monkeypatch.setattr(reconstruct, "CHUNK", 7)
    rng = torch.Generator().manual_seed(4)
    x, weight = (
        torch.randint(0, 256, (20, 3, 6, 6), generator=rng, dtype=torch.uint8),
        torch.randn(5, 3, 3, 3, generator=rng),
    )
    sums = torch.nn.functional.conv2d(x.float(), weight, padding=1)
    found = statistics(x, weight)
    assert torch.allclose(found.mean, sums.mean((0, 2, 3)), rtol=1e-4)
    assert torch.allclose(found.variance, sums.var((0, 2, 3), unbiased=False), rtol=1e-4)
    assert torch.equal(
        found.sample.flatten().sort().values, sums.flatten().sort().values
    )  # few enough to be taken all


def test_outputs_are_the_blocks(networks):
    net, quantized, x = networks
    with torch.no_grad():
        wanted = torch.nn.functional.max_pool2d(net.conv1(x[:5] / 57), 2)
        ours = outputs(net.conv1, x[:5] / 57, net.conv1.conv.weight, True)
        assert ours.dtype == torch.float16 and torch.allclose(ours.float(), wanted, atol=1e-2)
        weights = quantized.conv1.quantizer.integers(quantized.conv1.conv.weight)
        integers = outputs(quantized.conv1, x[:5].to(torch.int8), weights, False)
        off = (integers.float() - quantized.conv1(x[:5])).abs()
        assert (
            integers.dtype == torch.uint8 and off.max() <= 1 and (off > 0).float().mean() < 1e-3
        )  # floats near a half may round either way


def test_checkpoint_and_integer_model_agree(networks, tmp_path):
    _, quantized, x = networks
    path = tmp_path / "nin-cifar10.ckpt.npz"
    checkpoint.write(quantized, "cifar10", path, {})
    read, _ = checkpoint.read(path)
    for (_, a), (_, b) in zip(quantized.blocks(), read.blocks()):
        assert isinstance(b.quantizer, Segments) and (b.bn.weight > 0).all()
        assert torch.equal(a.quantizer.integers(a.conv.weight), b.quantizer.integers(b.conv.weight))
    reference = run_integer(to_network(read, "cifar10"), x[:4].long().numpy())
    assert (read.integer_forward(x[:4])["gap"].numpy() == reference).all()


def test_command_writes_the_network_and_refuses_a_quantized_start(networks, tmp_path, monkeypatch):
    _, quantized, _ = networks
    rng = torch.Generator().manual_seed(5)
    pixels, labels = (
        torch.randint(0, 256, (20, 3, 32, 32), generator=rng, dtype=torch.uint8),
        torch.arange(20) % 10,
    )
    monkeypatch.setattr(
        reconstruct.data,
        "load",
        lambda dataset: {"train": (pixels, labels), "val": (pixels, labels)},
    )
    monkeypatch.setattr(reconstruct, "class_names", lambda dataset: list("abcdefghij"))

    def stands_in(net, x, report):
        net.load_state_dict(quantized.state_dict())
        for (_, block), (_, done) in zip(net.blocks(), quantized.blocks()):
            block.quantizer = done.quantizer
        net.mode = "fake"

    monkeypatch.setattr(reconstruct, "reconstruct", stands_in)
    start = tmp_path / "nin-cifar10.float.npz"
    checkpoint.write(NIN(10), "cifar10", start, {"seed": 0, "classes": list("abcdefghij")})
    run = lambda source: CliRunner().invoke(
        reconstruct.main, ["--start", str(source), "--out", str(tmp_path / "out")]
    )
    done = run(start)
    assert done.exit_code == 0, done.output
    written = tmp_path / "out" / "nin-cifar10.ckpt.npz"
    assert (
        0 <= checkpoint.read(written)[1]["validation"] <= 1
        and (tmp_path / "out" / "nin-cifar10.clipq.npz").exists()
    )
    refused = run(written)
    assert refused.exit_code == 1 and f"{written} is not a full-precision network" in refused.output
