"""Networks on edges, where half precision moves an index or an entry: what was validated ships."""

import numpy as np
import pytest
import torch

from train import checkpoint
from train.checkpoint import CheckpointError, snapped
from train.quantize.codebooks import (
    ClipQ,
    FixedPoint,
    Segments,
    Signs,
    halves,
    halves_of_index,
    root_mean_square,
)
from train.tests.helpers import quantized


@pytest.fixture
def calibrated():
    return quantized()


def moved_entry(fraction: float) -> float:
    """The next weight from `fraction` on that half precision takes over the edge of its entry."""
    entries = (int(127 * fraction) + np.arange(127) + 0.5) / 127
    for entry in entries.astype(np.float32):
        for weight in (np.nextafter(entry, np.float32(1)), np.nextafter(entry, np.float32(0))):
            if round(127 * float(np.float16(weight))) != round(127 * float(weight)):
                return float(weight)
    raise AssertionError("there is none")


def on_an_entrys_edge(net, weights):
    """Layer conv2 with the values 0, 1, -1 and one whose entry is moved."""
    values = torch.tensor([0.0, 1.0, -1.0, moved_entry(0.3)])
    weights.copy_(values[torch.arange(weights.numel()) % 4].view_as(weights))
    net.nodes["conv2"].quantizer = Segments((-0.9, 0.1, 1.1), 1)
    return "codebook"


def on_a_boundary(net, weights):
    """conv2 with a weight that half precision moves over the boundary to the zeros."""
    values = torch.where(torch.arange(weights.numel()) % 2 == 0, 1.0, -1.0)
    values[6] = 0.75 - 1e-6
    weights.copy_(values.view_as(weights))
    net.nodes["conv2"].quantizer = Segments(
        (-2.0, -0.5, (0.75 - 5e-7) / root_mean_square(weights)), 2
    )
    return "index"


def on_a_threshold(net, weights):
    """conv2 with two weights about the clipping point that are equal in half precision."""
    count = weights.numel()
    values = torch.linspace(0.5, 1, count // 2).half().float()
    values[count // 4 - 1 : count // 4 + 1] = torch.tensor([0.75 - 1e-6, 0.75 + 1e-6])
    weights.copy_(torch.cat([values, -values]).view_as(weights))
    net.nodes["conv2"].quantizer = ClipQ(0.5)
    return "index"


EDGES = [on_an_entrys_edge, on_a_boundary, on_a_threshold]


@pytest.fixture(params=EDGES, ids=lambda edge: edge.__name__)
def on_edge(request, calibrated):
    """(a network on an edge, the field of the exported layer that half precision changes)."""
    net = snapped(calibrated)
    with torch.no_grad():
        return net, request.param(net, net.nodes["conv2"].weight)


def same(ours, theirs):
    """Whether two networks have the same integers."""
    folded = [[block.folded() for _, block in net.blocks()] for net in (ours, theirs)]
    return all(np.array_equal(a[key], b[key]) for a, b in zip(*folded) for key in a)


def test_a_network_that_half_precision_changes_is_refused(on_edge, tmp_path):
    net, field = on_edge
    path = tmp_path / "nin.ckpt.npz"
    message = f"{path} is not written: layer conv2: .* its {field}"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.write(net, path, {})
    assert not path.exists()


def test_a_snapped_network_is_read_back_to_the_bit(on_edge, tmp_path):
    net = snapped(on_edge[0])
    path, again = tmp_path / "a.ckpt.npz", tmp_path / "b.ckpt.npz"
    checkpoint.write(net, path, {})
    read, _ = checkpoint.read(path)
    assert same(net, read)
    ours, theirs = net.state_dict(), read.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    checkpoint.write(read, again, {})
    assert path.read_bytes() == again.read_bytes()


def test_snapping_keeps_every_index(on_edge):
    net, field = on_edge
    before, after = (one.nodes["conv2"].folded() for one in (net, snapped(net)))
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert "index" not in changed and (changed or field == "index")


@pytest.mark.parametrize("quantizer", [Segments((-1.2, -0.3, 0.5), 2), Signs(0.7)])
def test_weights_beside_a_boundary_keep_their_side(quantizer):
    """Fine-tuning leaves many there: their nearest halves would have hundreds of other indices."""
    rng = torch.Generator().manual_seed(3)
    weights = torch.randn(20_000, generator=rng)
    near = torch.rand(weights.shape, generator=rng) < 0.3
    which = torch.randint(3, weights.shape, generator=rng)
    drift = 1e-4 * torch.randn(weights.shape, generator=rng)
    for _ in range(20):  # boundaries follow the weights
        ordered = weights.sort().values
        last = quantizer.quantize(ordered)[0].diff().nonzero().flatten()
        bounds = (ordered[last] + ordered[last + 1]) / 2
        weights = torch.where(near, bounds[which % len(bounds)] + drift, weights)
    index = quantizer.quantize(weights)[0]
    assert (quantizer.quantize(halves(weights).float())[0] != index).sum() > 100
    kept = quantizer.quantize(halves_of_index(weights, quantizer).float())[0]
    assert (kept != index).sum() <= 2


@pytest.mark.parametrize("clip", [0.2, 0.5])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_snapping_once_is_enough(clip, scale, calibrated, tmp_path):
    """With weights of any scale."""
    net = snapped(calibrated)
    rng = torch.Generator().manual_seed(1)
    for _, block in net.blocks():
        block.weight.data = scale * torch.randn(block.weight.shape, generator=rng)
        block.quantizer = ClipQ(clip)
    once = snapped(net)
    for (_, a), (_, b) in zip(once.blocks(), snapped(once).blocks()):
        assert torch.equal(a.weight, b.weight)
    checkpoint.write(once, tmp_path / "x.ckpt.npz", {})
    assert same(once, checkpoint.read(tmp_path / "x.ckpt.npz")[0])


@pytest.mark.parametrize("quantizer", [Signs(0), Signs(0.7), ClipQ(0.2, 5, 1.5), FixedPoint(4)])
def test_quantizers_are_read_back_where_the_file_can_hold_them(quantizer, calibrated, tmp_path):
    net, path = snapped(calibrated), tmp_path / "x.ckpt.npz"
    net.nodes["conv4"].weight.data[0].abs_()  # so that the signs differ in number
    net.nodes["conv4"].quantizer = quantizer
    if isinstance(quantizer, FixedPoint):
        with pytest.raises(CheckpointError, match="is not written: .* no codebook"):
            checkpoint.write(net, path, {})
        return
    checkpoint.write(net, path, {})
    read, _ = checkpoint.read(path)
    assert read.nodes["conv4"].quantizer == quantizer and same(net, read)
