"""onnxruntime computes the integers of the network file in what export writes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from model.__main__ import main
from model.data.images import ZOO, bundled_images, pixels_to_input
from model.interchange.exporting import to_onnx
from model.network import Layer, Network, load_network, save_network
from model.network.random_networks import random_input, random_network
from model.reference.integer import run_integer


def run(model, net, x):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    kind = np.int8 if net.input_signed else np.uint8
    return session.run(None, {"input": x.astype(kind)})[0]


def test_the_page_names_the_onnxruntime_of_these_tests():
    page = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    assert f"The tests use onnxruntime {onnxruntime.__version__}:" in page


@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed):
    rng = np.random.default_rng(seed)
    net = random_network(rng, max_layers=6)
    x = random_input(rng, net, 2)
    y = run(to_onnx(net), net, x)
    assert y.dtype == np.int32
    assert np.array_equal(y, run_integer(net, x))


def test_layers_named_like_tensors_inside_others():
    net = random_network(np.random.default_rng(1), max_layers=3)
    names = ["a", "a.sums", "a..weight", "a.total"][: len(net.layers)]
    new = dict(zip([layer.name for layer in net.layers], names), input="input")
    layers = tuple(
        replace(layer, name=new[layer.name], inputs=tuple(new[i] for i in layer.inputs))
        for layer in net.layers
    )
    assert len(layers) > 1
    x = random_input(np.random.default_rng(0), net, 2)
    renamed = replace(net, layers=layers)
    assert np.array_equal(run(to_onnx(renamed), renamed, x), run_integer(net, x))


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.clipq.npz")), ids=lambda p: p.name)
def test_shipped_networks(path, tmp_path):
    out, dataset = tmp_path / "x.onnx", path.name.split(".")[0].split("-")[1]
    result = CliRunner().invoke(main, ["export", "--net", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    net, model = load_network(path), onnx.load(out)
    x = pixels_to_input(net, bundled_images(dataset)[0][:20])
    y = run(model, net, x)
    assert np.array_equal(y, run_integer(net, x))
    facts = {p.key: p.value for p in model.metadata_props}
    assert str(net.scale[0]) in facts["scale"] and net.classes[3] in facts["classes"]


def test_rounding_and_clamping_at_their_edges(tmp_path):
    """Sums of both signs by every shift: halves go towards +infinity, negative ones too."""
    channels = 32
    shift = np.arange(channels, dtype=np.uint8)
    index = np.ones((channels, 1, 1, 1), np.uint8)
    layer = Layer(
        name="c",
        op="conv",
        inputs=("input",),
        stride=(1, 1),
        pad=(0, 0),
        index=index,
        codebook=np.array([0, 1, -1, 127], np.int8),
        bias=np.where(shift > 20, np.int32(-(2**31) + 129), np.int32(0)).astype(np.int32),
        mult=np.where(shift % 2 == 0, 32767, 1).astype(np.int32),
        shift=shift,
        out_min=-128,
        out_max=127,
    )
    net = Network(name="n", input_shape=(1, 1, 256), input_signed=True, layers=[layer])
    x = np.arange(-128, 128).reshape(1, 1, 1, 256)
    y = run(to_onnx(net), net, x)
    total = x[0, 0] + layer.bias.astype(np.int64)[:, None]
    product = total * layer.mult.astype(np.int64)[:, None]
    wide = shift.astype(np.int64)[:, None]
    expected = ((product + ((1 << wide) >> 1)) >> wide).clip(-128, 127)
    assert np.array_equal(y[0, :, 0], expected)
    assert len(np.unique(y)) > 150
    path = tmp_path / "n.clipq.npz"
    save_network(net, path)
    out = tmp_path / "missing" / "x.onnx"
    result = CliRunner().invoke(main, ["export", "--net", str(path), "--out", str(out)])
    assert result.exit_code != 0 and "missing" in result.output
