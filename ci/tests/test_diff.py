"""`make diff` shows errors in the layer where they happen."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from host import diff, rtl_backend
from model.interchange.importing import import_onnx
from model.network import save_network
from model.network.random_networks import random_input, random_network
from model.reference.integer import run_integer
from model.tests import onnx_models as zoo
from tb.lib.chain import Chain


@pytest.mark.parametrize("seed", range(12))
def test_unrounded_is_within_rounding_of_one_layer(seed):
    """From the same integers, a layer's unrounded values are at most half a step away."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, int32=False)
    tensors = {"input": random_input(rng, net, 2)}
    tensors |= run_integer(net, tensors["input"], keep=True)
    import torch

    for layer in net.layers:
        inputs = (torch.from_numpy(tensors[n].astype(np.float64)) for n in layer.inputs)
        soft = diff._layer(layer, *inputs).numpy()
        assert np.abs(soft - tensors[layer.name]).max() <= 0.5


def test_planted_errors_show_in_their_layer():
    rng = np.random.default_rng(3)
    net = random_network(rng, ops=("conv",), max_layers=5, int32=False)
    while len(net.layers) < 3:
        net = random_network(rng, ops=("conv",), max_layers=5, int32=False)
    x = random_input(rng, net, 3)
    integers = run_integer(net, x, keep=True)
    fake = diff.unrounded(net, x)
    rtl = {name: tensor.copy() for name, tensor in integers.items()}
    wrong = net.layers[1].name
    rtl[wrong][1, 0, 0, 0] += 1
    rows = diff.compare(net, integers, fake, fake, rtl)
    assert [bool(row.mismatch) for row in rows] == [layer.name == wrong for layer in net.layers]
    assert "image 1, channel 0, row 0, column 0" in rows[1].mismatch
    assert all(row.weights > 100 for row in rows if np.any(fake[row.name]))
    fake[wrong] = fake[wrong] + 9
    assert diff.compare(net, integers, fake)[1].error >= 8.5
    with pytest.raises(diff.DiffError, match=f"layer '{wrong}' is not in the model"):
        diff.compare(net, integers, fake, {k: v for k, v in fake.items() if k != wrong})


def test_noise_without_a_signal_is_no_perfect_match():
    zero, one = np.zeros(4), np.ones(4)
    found = [diff.sqnr(zero, zero), diff.sqnr(one, one), diff.sqnr(zero, one), diff.sqnr(one, zero)]
    assert found == [np.inf, np.inf, -np.inf, 0.0]


def test_command_from_model_to_plot(tmp_path):
    model, net_path = tmp_path / "m.onnx", tmp_path / "n.clipq.npz"
    onnx.save(zoo.mobilenet(blocks=((16, 2),)), model)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    net = import_onnx(model, pixels, 0.5, 0.25)[0].net
    save_network(replace(net, name="[/a] costs $x_$"), net_path)  # neither markup nor a formula
    np.save(tmp_path / "p.npy", pixels)
    options = ["--net", net_path, "--images", tmp_path / "p.npy", "--float", model]
    options = [str(o) for o in [*options, "--mean=0.5", "--std=0.25", "--out", tmp_path / "d.png"]]
    result = CliRunner().invoke(diff.main, [*options, "--pixels"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output.count("conv") >= 4 and "6 images" in result.output
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(diff.main, options)
    assert result.exit_code == 1, "pixels without --pixels are out of range, or FLOAT is refused"
    alone = [option for option in options if option not in ("--float", str(model))]
    result = CliRunner().invoke(diff.main, [*alone, "--pixels"])
    assert result.exit_code == 1 and "--mean and --std belong to a model" in result.output


def residual_block():
    """A chain with a sum that is fused and one that cannot be, and two images."""
    chain = Chain(np.random.default_rng(4), (5, 4, 3), True, "block")
    chain.conv(5, (1, 1)).conv(5, (3, 3), (1, 1)).add("input", "conv2_3x3", clamp=(-100, 90))
    return chain.add(), chain.images


@pytest.mark.parametrize("wrong", [False, True])
def test_rtl_stands_beside_the_integers(wrong, tmp_path, monkeypatch):
    """Every tensor that the RTL writes is compared; both layers of a fused sum are named."""
    chain, images = residual_block()
    save_network(chain.network(), tmp_path / "n.clipq.npz")
    np.save(tmp_path / "i.npy", images)
    run_rtl = rtl_backend.run_rtl

    def planted(*arguments, **options):
        run = run_rtl(*arguments, **options)
        run.tensors["add3"][1, 4, 3, 2] += wrong
        return run

    monkeypatch.setattr(rtl_backend, "run_rtl", planted)
    options = ["--net", tmp_path / "n.clipq.npz", "--images", tmp_path / "i.npy", "--backend=rtl"]
    result = CliRunner().invoke(diff.main, [*map(str, options), "--out", str(tmp_path / "d.png")])
    rows = {
        line.split()[1]: line for line in result.output.splitlines() if line.count("\u2502") > 3
    }
    assert "equal" in rows["conv1_1x1"] and "equal" in rows["add4"], result.output
    assert "in add3" in rows["conv2_3x3"]
    assert ("equal" in rows["add3"]) != wrong and (result.exit_code != 0) == wrong
    if wrong:
        assert "the RTL differs" in str(result.exception or result.output)
