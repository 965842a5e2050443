"""Rounds of holding weights: what is held stays, what is free makes up for it, and the end is an ordinary four-value network."""

import copy

import pytest
import torch

from model.integer import run_integer
from train import checkpoint, incremental, reconstruct
from train.export import to_network
from train.incremental import Held, finished, hold, load_state, share, state
from train.muon import Muon
from train.nin import NIN
from train.reconstruct import descend, relative_error
from train.segments import Segments

WEIGHTS = torch.tensor([[3.5, -127.0], [9.0, 60.0]])
INDEX = torch.tensor([[-1, 1], [0, -1]])
CODEBOOK = torch.tensor([0, -127, -50, 83])


def test_held_weights_are_codebook_entries_and_free_ones_themselves():
    held = Held(INDEX, CODEBOOK)
    assert held.integers(WEIGHTS).tolist() == [[3.5, -127.0], [0.0, 60.0]]
    assert held.free.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    with pytest.raises(ValueError, match="2 weights are still free"):
        held.quantize(WEIGHTS)


def test_free_weights_stay_near_the_codebook():
    weights = torch.tensor([-500.0, 500.0, 7.0])
    Held(INDEX, CODEBOOK).confine(weights)
    assert weights.tolist() == [-127 * incremental.ROOM, 83 * incremental.ROOM, 7.0]


@pytest.mark.parametrize("codebook", [[0, -127, -50, 83], [0, -85, 55, 127], [0, 20, 60, 127], [0, -127, -60, -20]])
def test_a_finished_layer_is_its_segments(codebook):
    index = torch.randint(0, 4, (20, 30), generator=torch.Generator().manual_seed(0))
    held = Held(index, torch.tensor(codebook))
    weights = held.integers(torch.zeros(20, 30))
    assert torch.equal(held.segments.integers(weights), weights)
    assert torch.equal(held.segments.quantize(weights)[0], held.quantize(weights)[0])


def test_free_weights_make_up_for_held_ones():
    """Half of the weights rounded: the other half takes most of the error away, in a range that leaves it room."""
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(500, 24, generator=rng) @ torch.randn(24, 24, generator=rng)
    covariance, target = x.T @ x / 500, torch.randn(6, 24, generator=rng)
    values, scale = torch.tensor([-1.5, -0.5, 0.0, 1.0]), torch.ones(6)
    chosen = torch.rand(6, 24, generator=rng) < 0.5
    rounded = torch.where(chosen, values[reconstruct.nearest(target, values)], target)
    weights = descend(target, covariance, target, scale, values, 20, rng, chosen, 2.0)
    assert all(w in values for w in weights[chosen])
    assert weights.min() >= -3.0 and weights.max() <= 2.0 and not torch.isin(weights[~chosen], values).all()
    assert relative_error(target, covariance, weights) < 0.5 * relative_error(target, covariance, rounded)


@pytest.fixture(scope="module")
def rounds():
    """(full-precision network, [the same after holding half, 80 % and all of its weights], input integers)."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net, x = NIN(10), torch.randint(-128, 128, (20, 3, 16, 16)).float()
    net.train()
    for _, block in net.blocks():
        block.bn.momentum = 1.0
        block.bn.bias.data.normal_(0, 0.2)
    net.conv2.bn.weight.data[::7] *= -1
    with torch.no_grad():
        net(x)
    held, networks = copy.deepcopy(net), []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ROUNDS", 1), ("SWEEPS", 1), ("STARTS", reconstruct.STARTS[:1]), ("ROWS", 4000)):
            patch.setattr(reconstruct, name, value)
        patch.setattr(incremental, "SWEEPS", 2)
        for part in (0.5, 0.8, 1.0):
            hold(held, x, part)
            networks.append(copy.deepcopy(held))
    torch.set_num_threads(threads)
    return net.eval(), networks, x


def test_held_share_grows_and_nothing_gets_free_again(rounds):
    _, networks, _ = rounds
    assert [share(n) for n in networks] == pytest.approx([0.5, 0.8, 1.0], abs=0.01)
    for earlier, later in zip(networks, networks[1:]):
        for (_, a), (_, b) in zip(earlier.blocks(), later.blocks()):
            assert not ((a.quantizer.index >= 0) & (b.quantizer.index < 0)).any()
            assert torch.equal(a.quantizer.codebook, b.quantizer.codebook)


def test_outputs_follow_the_network_before(rounds):
    """On the pictures it was fitted to, and the better the more weights are free."""
    net, networks, x = rounds
    with torch.no_grad():
        logits = [n.eval()(x) for n in (net, *networks)]
    logits = [(z - z.mean(0)).flatten() for z in logits]
    follows = [float(torch.corrcoef(torch.stack([logits[0], z]))[0, 1]) for z in logits[1:]]
    assert follows[0] > 0.9 and follows[0] > follows[2] > 0.5


def test_held_weights_hold_while_free_ones_are_trained(rounds):
    net = copy.deepcopy(rounds[1][0])
    block = net.conv2
    weight, before = block.conv.weight, block.conv.weight.detach().clone()
    optimizer = Muon([weight], lr=0.05)
    optimizer.free = {weight: block.quantizer.free}
    length = weight.norm()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    moved = weight.detach() != before
    assert torch.equal(moved, block.quantizer.free.bool())
    step = (weight.detach() - before).norm() / length
    assert 0.3 * 0.05 < step < 0.05  # at most the whole length's twentieth, less as half of the weights do not move


def test_state_comes_back(rounds, tmp_path):
    _, networks, x = rounds
    torch.save({"net": networks[1].state_dict(), "held": state(networks[1])}, tmp_path / "run.pt")
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    again = NIN(10)
    again.load_state_dict(saved["net"])
    load_state(again, saved["held"])
    again.mode = "fake"
    with torch.no_grad():
        assert torch.equal(again.eval()(x), networks[1].eval()(x))
    assert state(NIN(10)) is None and share(NIN(10)) == 0.0


def test_finished_network_is_exported_to_the_bit(rounds, tmp_path):
    _, networks, _ = rounds
    path = tmp_path / "nin-cifar10.ckpt.npz"
    checkpoint.write(finished(networks[2]), "cifar10", path, {})
    read, _ = checkpoint.read(path)
    for (_, a), (_, b) in zip(networks[2].blocks(), read.blocks()):
        assert isinstance(b.quantizer, Segments)
        assert torch.equal(a.quantizer.integers(a.conv.weight), b.quantizer.integers(b.conv.weight))
    picture = torch.randint(-128, 128, (2, 3, 32, 32))
    reference = run_integer(to_network(read, "cifar10"), picture.numpy())
    assert (read.integer_forward(picture.float())["gap"].numpy() == reference).all()
