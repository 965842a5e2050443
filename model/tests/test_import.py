"""Models of public architectures become networks: what is translated equals onnxruntime in real
numbers, and what is quantized runs the same in integers, torch and onnxruntime."""

import re
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from model.__main__ import main
from model.common.errors import UserError
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.interchange import importing
from model.interchange.checking import check, high_water
from model.interchange.exporting import to_onnx
from model.interchange.importing import CalibrationError, import_onnx, import_torch
from model.interchange.lower import lower
from model.interchange.onnx_file import graph_of
from model.interchange.quantize import run_net
from model.network import save_network
from model.performance.cycle_model import predict
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from model.tests import onnx_models as zoo


def run_onnx(model, x):
    """First output of onnxruntime, image by image where the batch is fixed."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    source = session.get_inputs()[0]
    parts = [x] if source.shape[0] != 1 else np.split(x, len(x))
    return np.concatenate([session.run(None, {source.name: p})[0] for p in parts])


def channels_last(x, model):
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return x if dims[1:] == list(x.shape[1:]) else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def saved(model, tmp_path, name="model.onnx", **options):
    onnx.save(model, tmp_path / name, **options)
    return tmp_path / name


def integers(net, pixels_or_numbers, source_scale):
    low, high = net.input_range
    return np.rint(pixels_or_numbers / source_scale).clip(low, high).astype(np.int32)


def assert_same_everywhere(net, x):
    """int = torch = onnxruntime(export), every layer's last tensor."""
    expected = run_integer(net, x)
    assert (TorchNet(net)(torch.from_numpy(x)).numpy() == expected).all()
    kind = np.int8 if net.input_signed else np.uint8
    assert (run_onnx(to_onnx(net), x.astype(kind)) == expected).all()
    return expected


FLOATS = {
    "resnet18": (lambda: zoo.resnet18(8, 20), (3, 32, 32), 31),
    "lenet": (zoo.keras_lenet, (1, 28, 28), 7),
    "resnet8": (zoo.mlperf_resnet8, (3, 32, 32), 14),
    "mobilenet": (zoo.mobilenet, (3, 32, 32), 9),
}


@pytest.mark.parametrize("name", FLOATS)
def test_architecture_in_real_numbers_and_integers(name, tmp_path):
    make, shape, layers = FLOATS[name]
    model = make()
    graph = lower(graph_of(model))
    assert len(graph.layers) == layers
    x = zoo.images(shape, 24)
    last = {"lenet": model.graph.node[-1].input[0], "resnet8": model.graph.node[-1].input[0]}
    scores = onnx.ModelProto()
    scores.CopyFrom(model)
    if name in last:  # before the softmax, which the network does not have
        scores.graph.output[0].name = last[name]
    expected = run_onnx(scores, channels_last(x, model))
    real = list(run_net(graph, x).values())[-1][:, :, 0, 0]
    assert np.abs(real - expected).max() < 1e-4 * np.abs(expected).max()

    quantized, _ = import_onnx(saved(model, tmp_path), x)
    net = quantized.net
    assert net.output.out == "int32"
    source = x / 255 if name == "lenet" else x
    y = assert_same_everywhere(net, integers(net, source[:4], _input_scale(graph, source)))
    assert y.shape == (4, expected.shape[1], 1, 1)
    centred = expected - expected.mean(axis=0)
    sqnr = quantized.layers[-1].sqnr
    assert sqnr > 10 and centred.std() > 0, f"{sqnr} dB"


def _input_scale(graph, x):
    from model.interchange.quantize import _scale

    return _scale(np.asarray(x, np.float64), bool((x < 0).any()))


def test_widths_of_torchvision_resnet18_are_checked(tmp_path):
    verdict = check(saved(zoo.resnet18(), tmp_path), Hardware())
    assert len(verdict.layers) == 31
    assert [layer.op for layer in verdict.layers].count("add") == 8
    assert sum(layer.index.size for layer in verdict.layers if layer.op == "conv") == 11_678_912
    # The fully connected layer of 1000 classes is wider than the accelerator.
    assert any("1000 output channels" in problem for problem in verdict.problems)
    assert all("node" in problem or "layer" in problem for problem in verdict.problems)


@pytest.mark.parametrize("modules", [4, 16])
def test_check_predicts_what_the_imported_network_takes(modules, tmp_path):
    """Cycles of a model without quantization are those of its network file, layer by layer."""
    path, hardware = saved(zoo.mlperf_resnet8(), tmp_path), Hardware(num_modules=modules)
    verdict = check(path, hardware)
    assert verdict.problems == [] and verdict.prediction.total_cycles > 10_000
    net = import_onnx(path, zoo.images((3, 32, 32), 2))[0].net
    assert predict(compile_network(net, hardware)) == verdict.prediction
    save_network(net, tmp_path / "n.clipq.npz")
    again = check(tmp_path / "n.clipq.npz", hardware)
    assert again.prediction == verdict.prediction
    held, where = high_water(again.compiled)
    assert where == "conv7 + add9" and held == 4 * sum(
        again.compiled.tensors[n].size for n in ("conv1", "conv4", "add9")
    )
    result = CliRunner().invoke(main, ["check", "--net", str(path), "--modules", str(modules)])
    assert result.exit_code == 0 and f"{verdict.prediction.total_cycles:,} cycles" in result.output
    assert any("add9" in line and "in conv7" in line for line in result.output.splitlines())


@pytest.mark.parametrize("kind", ["clipped", "scaled", "whole", "pool"])
def test_check_knows_which_last_layer_keeps_its_sums(kind, tmp_path):
    """Not one that is clamped above only, nor one of exact weights with a scale a channel."""
    g = zoo.Graph(["N", 4, 8, 8])
    weight = g.rng.choice([-1, 0, 1], (20, 4, 3, 3)) * np.float32(0.1)
    factors = np.linspace(1, 2, 20).reshape(-1, 1, 1, 1) if kind == "scaled" else 1
    x = g.op("Conv", "image", g.const(weight * factors))
    if kind == "clipped":
        x = g.op("Clip", x, "", g.const(6.0))
    if kind == "pool":
        x = g.op("GlobalAveragePool", x)
    path = saved(g.model(x), tmp_path)
    net = import_onnx(path, zoo.images((4, 8, 8), 4))[0].net
    assert net.output.out == ("int8" if kind in ("clipped", "scaled") else "int32")
    assert check(path, Hardware()).prediction == predict(compile_network(net, Hardware()))


@pytest.mark.parametrize(
    "levels, words",
    [
        (None, "'c': weights: an import gives them any three values.*; train.*PLANES=3"),
        ([-3, 0, 1, 5], r"'c': codebook: no weight of \[-3, 1, 5\]"),
        ([-3, 0, 2, 5], None),
        ([-1, 0, 1], None),
    ],
)
def test_two_index_planes_are_checked_as_the_import_fits(levels, words, tmp_path):
    g = zoo.Graph(["N", 4, 6, 6])
    weight = g.weights(6, 4, 3, 3) if levels is None else g.rng.choice(levels, (6, 4, 3, 3)) / 8
    path = saved(g.model(g.op("Conv", "image", g.const(weight), name="c")), tmp_path)
    assert check(path, Hardware()).problems == []
    problems, hardware = check(path, Hardware(planes=2)).problems, Hardware(planes=2)
    net = import_onnx(path, zoo.images((4, 6, 6), 4))[0].net
    if words is None:
        assert problems == [] and compile_network(net, hardware)
        return
    (problem,) = problems
    assert re.search(words, problem), problem
    with pytest.raises(UserError, match="two index planes"):
        compile_network(net, hardware)


def test_every_layer_that_the_compiler_refuses_is_named(tmp_path):
    g = zoo.Graph(["N", 4, 4, 4])
    x = g.conv(g.conv("image", 4, 600, 1), 600, 700, 1)
    verdict = check(saved(g.model(x), tmp_path), Hardware())
    first, second = verdict.problems
    assert "'conv0'" in first and "'conv1'" in second and "600" in first and "conv0" not in second


def test_a_layer_may_have_any_name(tmp_path):
    """One like that of a helper, and one that a terminal would show as a picture."""
    g = zoo.Graph(["N", 4, 4, 4])
    a, b = (g.conv("image", 4, 600, 1, name=name) for name in ("a:bug:", "b"))
    path = saved(g.model(g.op("Add", a, b, name="twin")), tmp_path)
    result = CliRunner().invoke(main, ["check", "--net", str(path)])
    assert result.exit_code == 1 and "used twice" not in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("not possible: ")]
    assert any("'twin'" in line for line in lines) and any("'a:bug:'" in line for line in lines)


def test_nodes_out_of_order_and_large_images(tmp_path):
    model = zoo.mobilenet(blocks=((16, 2),))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert [layer.op for layer in lower(graph_of(model)).layers][-2:] == ["avgpool", "conv"]
    with pytest.raises(ValueError, match="exceed floating point"):
        import_onnx(saved(model, tmp_path), np.full((2, 3, 32, 32), 1e300))


def test_quantized_cnv_is_taken_exactly(tmp_path):
    """Two-bit weights keep their values, two-bit activations their steps: the integers are those of
    the model, but for the rounding of requantization."""
    model = zoo.cnv()
    quantized, _ = import_onnx(saved(model, tmp_path), None)
    net = quantized.net
    assert [q.weights for q in quantized.layers if q.weights] == ["exact"] * 8
    x = zoo.images((3, 32, 32), 4)
    ints = np.rint(x * 64).clip(-128, 127).astype(np.int32)
    y = assert_same_everywhere(net, ints)[:, :, 0, 0]
    scores = run_onnx(zoo.without_qonnx(model), x)
    scale = (y * scores).sum() / (y * y).sum()
    assert np.abs(y * scale - scores).max() < 0.02 * np.abs(scores).max()
    tensors = run_integer(net, ints, keep=True)
    assert {layer.out_max for layer in net.layers[:-1] if layer.op == "conv"} == {3}
    assert all(len(np.unique(t)) > 2 for t in list(tensors.values())[:-1])


def test_qdq_scales_are_kept(tmp_path):
    """QuantizeLinear and DequantizeLinear around float operators, weights per channel in int8."""
    g = zoo.Graph(["N", 2, 8, 8], 13)

    def qdq(x, scale, dtype):
        args = g.const(scale), g.const(0, dtype)
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, *args), *args)

    levels = g.rng.integers(-1, 2, (4, 2, 3, 3))
    factors = g.rng.uniform(0.01, 0.02, 4)
    weight = g.op(
        "DequantizeLinear", g.const(levels, np.int8), g.const(factors), g.const([0] * 4, np.int8),
        axis=0,
    )  # fmt: skip
    x = qdq("image", 0.02, np.int8)
    x = qdq(g.relu(g.op("Conv", x, weight, pads=[1] * 4)), 0.005, np.uint8)
    x = qdq(g.op("Conv", x, weight_two(g)), 0.004, np.int8)
    model = g.model(x)
    quantized, _ = import_onnx(saved(model, tmp_path), None)
    net = quantized.net
    assert net.input_signed and not net.layers[0].out_signed and net.output.out_signed
    x = zoo.images((2, 8, 8), 8)
    y = assert_same_everywhere(net, np.rint(x / 0.02).clip(-128, 127).astype(np.int32))
    expected = np.rint(run_onnx(model, x) / 0.004)
    assert np.abs(y - expected).max() <= 1 and (y == expected).mean() > 0.97


def weight_two(g):
    levels = g.rng.choice([-3, 0, 1, 5], (3, 4, 1, 1))
    return g.op("DequantizeLinear", g.const(levels, np.int8), g.const(0.01), g.const(0, np.int8))


class Residual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Buffer(torch.tensor([100.0, 110.0, 120.0]).view(1, 3, 1, 1))
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.second = torch.nn.Conv2d(8, 8, (3, 2), stride=(2, 1), padding=(1, 1))
        self.short = torch.nn.Conv2d(8, 8, (1, 2), stride=(2, 1), padding=(0, 1), bias=False)
        self.last = torch.nn.Linear(8, 5)

    def forward(self, pixels):
        x = (pixels - self.mean) / 60
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x) + self.short(x))
        return self.last(torch.flatten(torch.nn.functional.adaptive_avg_pool2d(x, 1), 1))


def test_torch_module_with_its_normalization():
    torch.manual_seed(3)
    module = Residual().train()
    pixels = np.random.default_rng(5).integers(0, 256, (32, 3, 12, 10), dtype=np.uint8)
    quantized, _ = import_torch(module, pixels)
    assert module.training, "the module is left as it was"
    net = quantized.net
    assert [layer.op for layer in net.layers] == ["conv", "conv", "conv", "add", "avgpool", "conv"]
    from model.data.images import pixels_to_input

    x = pixels_to_input(net, pixels)
    y = assert_same_everywhere(net, x)[:, :, 0, 0]
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(pixels).float()).numpy()
    real = (pixels - np.array([100, 110, 120]).reshape(3, 1, 1)) / 60
    assert np.corrcoef(x.ravel(), real.ravel())[0, 1] > 0.9999
    assert np.corrcoef(y.ravel(), expected.ravel())[0, 1] > 0.97


def test_result_does_not_depend_on_threads(tmp_path):
    """The same network from one thread and from several."""
    path, x = saved(zoo.mobilenet(), tmp_path), zoo.images((3, 32, 32), 24)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(import_onnx(path, x)[0].net)
    finally:
        torch.set_num_threads(before)
    for one, two in zip(results[0].layers, results[1].layers):
        for key in ("index", "codebook", "bias", "mult", "shift"):
            assert np.array_equal(getattr(one, key), getattr(two, key)), (one.name, key)


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 18, 20, 21, 24, onnx.defs.onnx_opset_version()])
def test_opsets(opset):
    """Axes and pads move from attributes to inputs between opsets 11 and 18."""
    g = zoo.Graph(["N", 2, 9, 9], opset)
    x = g.op("Pad", "image", g.const([0, 0, 1, 0, 0, 0, 0, 1], np.int64))
    x = g.op("Clip", g.conv(x, 2, 4, 3), g.const(0.0), g.const(4.0))
    x = (
        g.op("ReduceMean", x, axes=[2, 3])
        if opset < 18
        else g.op("ReduceMean", x, g.const([2, 3], np.int64))
    )
    x = (
        g.op("Squeeze", x, axes=[2, 3])
        if opset < 13
        else g.op("Squeeze", x, g.const([2, 3], np.int64))
    )
    model = g.model(g.op("Softmax", g.dense(g.op("Dropout", x), 4, 3), axis=1))
    graph = lower(graph_of(model))
    assert [layer.op for layer in graph.layers] == ["conv", "avgpool", "conv"]
    assert graph.layers[0].kernel == (4, 4) and graph.layers[0].pad == (1, 1)
    assert any("dropped" in note for note in graph.notes)


@pytest.mark.parametrize(
    "batch, squeezes, more",
    [
        ("N", [[-1], [-1]], []),
        ("N", [[2], [2]], []),
        (1, [[0, 2, 3]], []),
        (1, [[0, 2, 3]], [("Unsqueeze", [0]), ("Relu", None)]),
        (1, [[0, 2, 3]], [("Reshape", [1, -1])]),
    ],
)
def test_squeezed_pixel_equals_onnxruntime(batch, squeezes, more):
    """One dimension after the other, and the batch of the only image, too."""
    g = zoo.Graph([batch, 3, 5, 6])
    x = g.op("GlobalAveragePool", g.conv("image", 3, 4, 3))
    for axes in squeezes:
        x = g.op("Squeeze", x, g.const(axes, np.int64))
    for kind, axes in more:
        x = g.op(kind, x, *([] if axes is None else [g.const(axes, np.int64)]))
    x = g.op("MatMul", x, g.const(g.weights(3, 4).T))
    model, images = g.model(g.op("Add", x, g.const([1, 2, 3]))), zoo.images((3, 5, 6), 1)
    real = list(run_net(lower(graph_of(model)), images).values())[-1]
    assert np.abs(real.ravel() - run_onnx(model, images).ravel()).max() < 1e-4


def test_a_batch_of_several_images_is_not_squeezed():
    g = zoo.Graph(["N", 3, 5, 6])
    x = g.op("Squeeze", g.op("GlobalAveragePool", "image"), g.const([0, 2, 3], np.int64))
    with pytest.raises(UserError, match=r"axes \[0, 2, 3\].*; only H and W of size 1"):
        lower(graph_of(g.model(x)))


def test_shape_after_pad_is_that_of_the_padded_tensor():
    """Reshapes to the tensor's own shape, as exporters of dynamic models write them."""
    g = zoo.Graph([2, 3, 5, 6])
    x = g.op("Pad", "image", g.const([0, 0, 1, 0, 0, 0, 1, 2], np.int64))
    x = g.op("Reshape", x, g.const([2, 3, 7, 8], np.int64))
    x = g.conv(g.op("Reshape", x, g.op("Shape", x)), 3, 4, 3)
    model, images = g.model(x), zoo.images((3, 5, 6), 2)
    graph = lower(graph_of(model))
    real = list(run_net(graph, images).values())[-1]
    assert np.abs(real - run_onnx(model, images)).max() < 1e-4


def test_unequal_padding_and_groups_equal_onnxruntime():
    for pads in ([0, 0, 1, 1], [2, 0, 0, 1], [3, 3, 0, 0], [0, 4, 0, 1]):
        for stride in (1, 2):
            g = zoo.Graph(["N", 4, 9, 8])
            x = g.conv("image", 4, 6, 3, group=2, pads=pads, strides=[stride, stride])
            x = g.op("AveragePool", g.relu(x), kernel_shape=[2, 2], pads=[1, 0, 0, 0],
                     count_include_pad=1)  # fmt: skip
            model, x = g.model(x), zoo.images((4, 9, 8), 2)
            graph = lower(graph_of(model))
            real, expected = list(run_net(graph, x).values())[-1], run_onnx(model, x)
            assert real.shape == expected.shape and np.abs(real - expected).max() < 1e-4
            assert all(layer.pad[0] < layer.kernel[0] for layer in graph.layers)


def test_what_nothing_before_can_take_becomes_a_layer():
    """Batch norm after an addition, Relu that another reader does not see, Sub and Div."""
    g = zoo.Graph(["N", 3, 6, 6])
    start = g.op("Div", g.op("Sub", "image", g.const(np.ones((3, 1, 1)))), g.const(2.0))
    a = g.conv(start, 3, 4, 1)
    b = g.op("Add", a, g.relu(a))
    x = g.relu(g.bn(b, 4))
    model, images = g.model(g.conv(x, 4, 2, 3)), zoo.images((3, 6, 6), 8)
    graph = lower(graph_of(model))
    assert [layer.op for layer in graph.layers] == ["conv", "conv", "add", "conv", "conv"]
    assert (graph.gain == 0.5).all() and (graph.offset == -0.5).all()
    expected = run_onnx(model, images)
    assert np.abs(list(run_net(graph, images).values())[-1] - expected).max() < 1e-4


def dequantized_image(zero, kind=TensorProto.UINT8):
    """DequantizeLinear of an image of integers, max pool, convolution; its scale is 1/64."""
    g = zoo.Graph(["N", 3, 6, 6], opset=19)
    g.input = helper.make_tensor_value_info("image", kind, ["N", 3, 6, 6])
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    x = g.op("MaxPool", "image", kernel_shape=[2, 2])
    x = g.op("DequantizeLinear", x, g.const(1 / 64), g.const(zero, dtype))
    return g.model(g.conv(x, 3, 4, 3))


@pytest.mark.parametrize("zero", [0, 128])
def test_image_of_integers_is_dequantized(zero):
    model = dequantized_image(zero)
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 6), dtype=np.uint8)
    expected = run_onnx(model, x)
    real = list(run_net(lower(graph_of(model)), x.astype(float)).values())[-1]
    assert np.abs(real - expected).max() < 1e-4
    g = zoo.Graph(["N", 3, 6, 6], opset=19)
    g.input = model.graph.input[0]
    first = g.op("DequantizeLinear", "image", g.const(1 / 64), g.const(zero, np.uint8))
    model = g.model(g.conv(first, 3, 4, 3))
    graph = lower(graph_of(model))
    assert (graph.gain == 1 / 64).all() and (graph.offset == -zero / 64).all()
    quantized, _ = import_onnx_model(model, x)
    assert quantized.net.scale is not None and quantized.layers[0].sqnr > 10


def import_onnx_model(model, images):
    with tempfile.TemporaryDirectory() as folder:
        return import_onnx(saved(model, Path(folder)), images)


def test_pool_between_quantizer_and_its_inverse():
    g = zoo.Graph(["N", 3, 8, 8], opset=19)
    scale, zero = g.const(1 / 16), g.const(0, np.uint8)
    x = g.op("QuantizeLinear", g.relu(g.conv("image", 3, 4, 3)), scale, zero)
    x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("DequantizeLinear", x, scale, zero)
    model, images = g.model(g.conv(x, 4, 2, 3)), zoo.images((3, 8, 8), 4)
    graph = lower(graph_of(model))
    assert [layer.op for layer in graph.layers] == ["conv", "maxpool", "conv"]
    assert graph.layers[0].grid.scale == 1 / 16
    assert np.abs(list(run_net(graph, images).values())[-1] - run_onnx(model, images)).max() < 0.3


@pytest.mark.parametrize("op", ["Add", "Relu", "Clip", "Pad"])
def test_operators_on_quantized_integers_are_refused(op):
    g = zoo.Graph(["N", 3, 6, 6], opset=19)
    scale, zero = g.const(1 / 16), g.const(3, np.int8)
    x = g.op("QuantizeLinear", g.conv("image", 3, 4, 3), scale, zero)
    more = {"Add": [x], "Pad": [g.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64)]}.get(op, [])
    x = g.op("DequantizeLinear", g.op(op, x, *more, name="the node"), scale, zero)
    with pytest.raises(UserError, match="'the node'.*reads quantized integers; dequantize"):
        lower(graph_of(g.model(x)))


def test_type_of_a_quantizer_without_a_zero_point():
    """output_dtype of opset 21: weights keep their sign, activations their range."""
    g = zoo.Graph(["N", 3, 6, 6], opset=21)
    scale, weight = g.const(1 / 32), g.weights(4, 3, 3, 3)
    q = g.op("QuantizeLinear", g.const(weight), scale, output_dtype=TensorProto.INT8)
    w = g.op("DequantizeLinear", q, scale)
    x = g.op("QuantizeLinear", "image", scale, output_dtype=TensorProto.INT8)
    x = g.op("Conv", g.op("DequantizeLinear", x, scale), w)
    graph = lower(graph_of(g.model(x)))
    assert np.array_equal(graph.layers[0].weight, np.rint(weight.astype(np.float32) * 32) / 32)
    assert (graph.grid.low, graph.grid.high) == (-128, 127)


@pytest.mark.parametrize("kind", ["Conv", "AveragePool"])
def test_same_padding_of_a_padded_tensor(kind):
    """The operator sees the tensor that Pad makes."""
    g = zoo.Graph(["N", 3, 8, 8])
    x = g.relu(g.conv("image", 3, 3, 1))
    x = g.op("Pad", x, g.const([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    kernel = [g.const(g.weights(3, 3, 3, 3))] if kind == "Conv" else []
    size = {} if kernel else {"kernel_shape": [3, 3], "count_include_pad": 1}
    x = g.op(kind, x, *kernel, **same, **size)
    model, images = g.model(g.conv(x, 3, 2, 1)), zoo.images((3, 8, 8), 3)
    expected = run_onnx(model, images)
    real = list(run_net(lower(graph_of(model)), images).values())[-1]
    assert real.shape == expected.shape == (3, 2, 5, 5)
    assert np.abs(real - expected).max() < 1e-4


def test_numbers_say_nothing_of_pixels():
    """A normalization in the graph is of the numbers that the model reads, not of pixels."""
    g = zoo.Graph(["N", 3, 6, 6])
    model = g.model(g.conv(g.op("Div", "image", g.const(0.25)), 3, 4, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 6, 6), dtype=np.uint8)
    quantized, notes = import_onnx_model(model, pixels)
    assert quantized.net.scale and not notes
    quantized, notes = import_onnx_model(model, pixels / 255)
    assert not quantized.net.scale and "no scale and offset" in notes[-1]


def test_layer_name_that_looks_like_markup(tmp_path):
    g = zoo.Graph(["N", 3, 6, 6])
    path = saved(g.model(g.conv("image", 3, 4, 3, name="block[/a]/conv")), tmp_path)
    np.save(tmp_path / "x.npy", zoo.images((3, 6, 6), 4))
    given = ["--model", path, "--calib", tmp_path / "x.npy", "--out", tmp_path / "n.clipq.npz"]
    result = CliRunner().invoke(main, ["import", *map(str, given)])
    assert result.exit_code == 0 and "block[/a]/conv" in result.output, result.output


def test_external_data(tmp_path):
    model = zoo.mobilenet()
    path = saved(model, tmp_path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert len(check(path, Hardware()).layers) == 9


def test_calibration_images_and_normalization_must_fit(tmp_path):
    path = saved(zoo.mobilenet(), tmp_path)
    pixels = np.zeros((2, 3, 32, 32), np.uint8)
    for images, options, words in (
        (pixels, {}, "--mean and --std"),
        (pixels[:, :2], {}, r"must be \[N, 3, 32, 32\]"),
        (pixels, {"mean": [125.3, 123, 114]}, "divide both by 255"),
        (pixels, {"std": [0, 1, 1]}, "std in 0..1"),
        (pixels, {"mean": [0.1, 0.2]}, "one for each of 3 channels"),
        (np.full(pixels.shape, np.nan), {}, "NaN"),
        (pixels.astype(complex), {}, "must be numbers"),
    ):
        with pytest.raises(CalibrationError, match=words):
            import_onnx(path, images, **options)
    with pytest.raises(ValueError, match="give calibration images"):
        import_onnx(path)


def test_images_beyond_those_used_are_not_converted(monkeypatch):
    net = lower(graph_of(zoo.mobilenet()))
    pixels = np.broadcast_to(np.uint8(7), (300, 3, 32, 32))
    with monkeypatch.context() as patch:
        patch.setattr("model.interchange.quantize.quantize", lambda net, raw, pixels: raw)
        raw = importing._import(net, pixels, 0, 1)[0]
    assert raw.shape == (256, 3, 32, 32)


def test_mean_and_std_become_scale_and_offset(tmp_path):
    path = saved(zoo.mobilenet(blocks=((16, 2),)), tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    mean, std = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
    net = import_onnx(path, pixels, mean, std)[0].net
    unit = net.scale[0] * 255 * std[0]
    for channel in range(3):
        assert net.scale[channel] * 255 * std[channel] == pytest.approx(unit)
        assert net.offset[channel] == pytest.approx(-unit * mean[channel] / std[channel])


def test_half_precision_and_double_weights():
    for kind, dtype in ((TensorProto.FLOAT16, np.float16), (TensorProto.DOUBLE, np.float64)):
        weight = numpy_helper.from_array(np.full((2, 1, 1, 1), 0.5, dtype), "w")
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
        x, y = (helper.make_tensor_value_info(n, kind, [1, 1, 4, 4]) for n in "xy")
        y = helper.make_tensor_value_info("y", kind, None)
        graph = helper.make_graph(nodes, "g", [x], [y], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        assert (lower(graph_of(model)).layers[0].weight == 0.5).all()
