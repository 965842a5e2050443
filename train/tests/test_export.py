"""The shipped networks: reproducible from the shipped checkpoints, and the same integers in both
integer models."""

import numpy as np
import pytest
import torch

from model.network import load_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from train import checkpoint
from train.checkpoint import ZOO, export
from train.net import to_input, to_network
from train.tests.helpers import nin, quantized

SHIPPED = sorted(ZOO.glob("*.ckpt.npz"))


@pytest.fixture(params=SHIPPED, ids=lambda p: p.name)
def shipped(request):
    return request.param


def test_something_is_shipped():
    assert "nin-cifar10.ckpt.npz" in [p.name for p in SHIPPED]


def test_export_reproduces_the_shipped_network(shipped, tmp_path):
    target = tmp_path / "net.clipq.npz"
    export(shipped, target)
    assert (
        target.read_bytes()
        == shipped.with_name(shipped.name.replace(".ckpt.", ".clipq.")).read_bytes()
    )


def test_layers_agree_to_the_bit(shipped):
    """Both integer models, every layer of random and extreme inputs."""
    network = to_network(checkpoint.read(shipped)[0])
    x = np.random.default_rng(7).integers(-128, 128, (4, 3, 32, 32))
    x[2], x[3] = 127, -128
    torch_net = TorchNet(network)(torch.from_numpy(x), keep=True)
    integer = run_integer(network, x, keep=True)
    assert set(integer) == set(torch_net)
    for name, tensor in torch_net.items():
        assert np.array_equal(tensor.numpy(), integer[name]), name


def test_fake_quantized_evaluation_agrees(shipped):
    """Training's evaluation in float32 differs from the integers by roundings of the scales only"""
    net, _ = checkpoint.read(shipped)
    x = torch.from_numpy(np.random.default_rng(8).integers(-100, 100, (4, 3, 32, 32)))
    with torch.no_grad():
        fake = net(x.float()) * 64 * net.steps_of(net.blocks()[-1][0])
    exact = TorchNet(to_network(net))(x).flatten(1)
    assert (fake - exact).abs().max() < 0.1 * exact.float().std()


def test_input_integers_are_those_of_the_file(shipped):
    """Pixels become the same integers in training and by the scale and offset of the file, for
    every value."""
    net, _ = checkpoint.read(shipped)
    network = load_network(shipped.with_name(shipped.name.replace(".ckpt.", ".clipq.")))
    pixels = np.broadcast_to(np.arange(256, dtype=np.uint8), (1, 3, 256))[..., None]
    scale, offset = (np.reshape(v, (1, 3, 1, 1)) for v in (network.scale, network.offset))
    expected = np.clip(np.rint(pixels * scale + offset), -128, 127)
    assert np.array_equal(
        to_input(torch.from_numpy(pixels.copy()), net.spec["input"]).numpy(), expected
    )


def test_checkpoint_round_trip(tmp_path):
    path, again = tmp_path / "a.ckpt.npz", tmp_path / "b.ckpt.npz"
    checkpoint.write(quantized(), path, {"seed": 0, "name": "small"})
    restored, facts = checkpoint.read(path)
    checkpoint.write(restored, again, {"seed": 0, "name": "small"})
    assert facts == {"seed": 0, "name": "small"}
    assert path.read_bytes() == again.read_bytes()


def test_full_precision_round_trip(tmp_path):
    """Only the rounding to float16 changes the network, and it is validated as rounded."""
    net, path = nin(1, 0.3), tmp_path / "a.float.npz"
    checkpoint.write(net, path, {})
    restored, _ = checkpoint.read(path)
    ours, theirs = checkpoint.snapped(net).state_dict(), restored.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    checkpoint.write(checkpoint.snapped(net), tmp_path / "b.float.npz", {})
    assert path.read_bytes() == (tmp_path / "b.float.npz").read_bytes()
    x = torch.randint(-128, 128, (2, 3, 32, 32)).float()
    with torch.no_grad():
        a, b = net(x), restored(x)
    assert restored.mode == "float" and (a - b).abs().max() < 0.01 * a.std()


def test_incomplete_checkpoint_names_the_array(tmp_path):
    path = tmp_path / "a.ckpt.npz"
    checkpoint.write(nin(), path, {})
    arrays = dict(np.load(path))
    del arrays["conv4.bn.bias"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="conv4.bn.bias"):
        checkpoint.read(path)


def test_negative_batch_norm_scale_names_the_layer():
    net = nin()
    with torch.no_grad():
        net.nodes["conv5"].bn.weight[7] = -1
    with pytest.raises(ValueError, match="conv5: channel 7"):
        to_network(net, "net")
