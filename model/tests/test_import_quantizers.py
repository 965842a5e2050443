"""Quantizers of a model keep their meaning: range, zero point, and which branch they belong to."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from model.common.errors import UserError
from model.interchange.lower import lower
from model.interchange.onnx_file import graph_of
from model.interchange.quantize import quantize, run_net
from model.reference.integer import run_integer
from model.tests import onnx_models as zoo

EYE = np.eye(2).reshape(2, 2, 1, 1)


def qdq(g, x, scale, zero, dtype=np.int8):
    args = g.const(scale), g.const(zero, dtype)
    return g.op("DequantizeLinear", g.op("QuantizeLinear", x, *args), *args)


@pytest.mark.parametrize("kind", ["Quant", "QDQ"])
def test_relu_after_one_of_two_equal_quantizers_is_that_branch_s(kind):
    g = zoo.Graph(["N", 2, 4, 4])
    t = g.op("Conv", "image", g.const(EYE))
    one, two = (
        g.quant(t, 8, 1 / 16, True) if kind == "Quant" else qdq(g, t, 1 / 16, 0) for _ in range(2)
    )
    x = g.op("Add", g.relu(one), g.op("Conv", two, g.const(EYE)))
    net = lower(graph_of(g.model(x)))
    assert net.layers[0].grid.scale == 1 / 16 and net.layers[0].low == -np.inf
    assert (run_net(net, np.full((1, 2, 4, 4), -2.0))[net.layers[-1].name] == -2).all()


def test_quantizers_of_different_sign_do_not_agree():
    g = zoo.Graph(["N", 2, 4, 4])
    t = g.op("Conv", "image", g.const(EYE))
    one, two = (g.quant(t, 8, 1 / 16, signed) for signed in (False, True))
    x = g.op("Add", one, g.op("Conv", two, g.const(EYE)))
    net = lower(graph_of(g.model(x)))
    assert net.layers[0].grid is None
    assert [layer.grid.low for layer in net.layers[1:3]] == [0, -128]


@pytest.mark.parametrize("signed, limits", [(True, (-8, 7)), (False, (0, 15))])
def test_narrow_quantizer_of_the_image_saturates(signed, limits):
    """Also without calibration images: it prescribes all there is."""
    g = zoo.Graph(["N", 2, 4, 4])
    x = g.op("Conv", g.quant("image", 4, 0.25, signed), g.const(EYE))
    model = lower(graph_of(g.model(x)))
    assert (model.grid.high - model.grid.low, model.layers[0].grid.high) == (255, limits[1])
    net = quantize(model, None, None).net
    for value in (-40, -3, 0, 5, 20, 100):
        value = max(value, net.input_range[0])
        y = run_integer(net, np.full((1, 2, 4, 4), value, np.int32))
        assert (y == min(max(value, limits[0]), limits[1])).all(), value


def test_whole_quantizer_of_the_image_is_no_layer():
    for narrow in (0, 1):
        g = zoo.Graph(["N", 2, 4, 4])
        scale, zero, bits = (g.const(v) for v in (0.25, 0.0, 8.0))
        x = g.op("Quant", "image", scale, zero, bits, domain=zoo.QONNX, signed=1, narrow=narrow)
        model = lower(graph_of(g.model(g.op("Conv", x, g.const(EYE)))))
        assert len(model.layers) == 1 and model.grid.scale == 0.25


def test_zero_point_that_the_hardware_lacks_still_clamps():
    """uint8 with zero point 3 is about a ReLU: both readers of the convolution have it so."""
    g = zoo.Graph(["N", 2, 4, 4])
    t = g.op("Conv", "image", g.const(EYE))
    one, two = (qdq(g, t, 0.05, 3, np.uint8) for _ in range(2))
    x = g.op("Add", one, g.op("Conv", two, g.const(EYE)))
    net = lower(graph_of(g.model(x)))
    first = net.layers[0]
    assert len(net.layers) == 3 and first.grid is None
    assert (first.low, first.high) == pytest.approx((-3 * 0.05, 252 * 0.05))
    assert (run_net(net, np.full((1, 2, 4, 4), -5.0))[first.name] == first.low).all()
    assert any("zero point are -3..252" in note and "clamps" in note for note in net.notes)


@pytest.mark.parametrize("dead", [False, True])
def test_scales_that_differ_by_rounding_keep_32_bit_scores(dead):
    """The last layer's rows have one scale up to float32, or none where all weights are zero."""
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-0.3, 0, 0.1, 0.2], np.float32), (3, 2, 4, 4))
    weight[2] = 0 if dead else weight[2].clip(0)
    g = zoo.Graph(["N", 2, 4, 4])
    model = lower(graph_of(g.model(g.op("Conv", "image", g.const(weight), g.const([0, 1, 2])))))
    quantized = quantize(model, rng.normal(size=(8, 2, 4, 4)), None)
    assert quantized.layers[0].weights == "exact" and quantized.net.output.out == "int32"
    assert quantized.layers[0].sqnr > 30


def test_a_codebook_may_hold_the_least_integer():
    """-128, beside a bias between its steps."""
    g = zoo.Graph(["N", 2, 4, 4])
    weight = np.array([[-128, 127], [127, 0]]).reshape(2, 2, 1, 1)
    x = g.op("Conv", g.quant("image", 8, 1.0, True), g.const(weight), g.const([0.4, 0]))
    net = quantize(lower(graph_of(g.model(x))), None, None).net
    assert (net.output.weights == weight).all() and net.output.out == "int32"


@pytest.mark.parametrize("value, sqnr", [(0.0, np.inf), (0.25, -np.inf)])
def test_noise_without_a_signal_is_no_perfect_layer(value, sqnr):
    """1/4 is read as zero, so the bias that makes it zero is an error."""
    g = zoo.Graph(["N", 1, 1, 1])
    x = g.op("Conv", g.quant("image", 8, 1.0, True), g.const([[[[1]]]]), g.const([-value]))
    quantized = quantize(lower(graph_of(g.model(x))), np.full((1, 1, 1, 1), value), None)
    assert quantized.layers[0].sqnr == sqnr


class Images(CalibrationDataReader):
    def __init__(self, images):
        self.left = iter(images)

    def get_next(self):
        image = next(self.left, None)
        return None if image is None else {"image": image[None]}


def test_onnxruntime_leaves_clamps_to_its_quantizers(tmp_path):
    """quantize_static drops Relu and Clip before an unsigned QuantizeLinear, which clamps alike."""
    g = zoo.Graph(["N", 3, 16, 16])
    x = g.relu(g.conv("image", 3, 16, 3, pads=[1] * 4))
    x = g.op("Clip", g.conv(x, 16, 24, 3, pads=[1] * 4), g.const(0.0), g.const(1.0))
    x = g.dense(g.op("Flatten", g.op("GlobalAveragePool", x), axis=1), 24, 10)
    paths, images = [tmp_path / name for name in ("real.onnx", "qdq.onnx")], zoo.images((3, 16, 16))
    onnx.save(g.model(x), paths[0])
    quantize_static(*paths, Images(images))
    model = onnx.load(paths[1])
    assert not {"Relu", "Clip"} & {node.op_type for node in model.graph.node}
    options = onnxruntime.SessionOptions()  # fused 8-bit kernels saturate on some processors
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(paths[1], options, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": images})[0]
    net = lower(graph_of(model))
    real = list(run_net(net, images).values())[-1][:, :, 0, 0]
    assert np.abs(real - expected).max() < 0.02 * np.abs(expected).max()
    quantized = quantize(net, images.astype(np.float64), None)
    assert min(layer.sqnr for layer in quantized.layers) > 10 and quantized.agreement > 0.9


@pytest.mark.parametrize("signed", [True, False])
def test_a_quantizer_saturates_in_real_numbers_too(signed):
    """That of the image, and a narrow one, whose zeros may be padded if it is unsigned."""
    g = zoo.Graph(["N", 2, 4, 4])
    x = g.quant("image", 8, 1 / 16, signed)
    x = g.quant(g.op("Conv", x, g.const(2 * EYE)), 4, 1 / 2, signed)
    net = lower(graph_of(g.model(g.op("Conv", x, g.const(EYE)))))
    for value in (-30.0, -0.25, 1.0, 30.0):
        real = run_net(net, np.full((1, 2, 4, 4), value))
        limits = (-4, 3.5) if signed else (0, 7.5)
        assert (list(real.values())[-1] == np.clip(2 * value, *limits)).all()
    padded = g.op("Pad", x, g.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    model = graph_of(g.model(g.op("MaxPool", padded, kernel_shape=[2, 2])))
    if signed:
        with pytest.raises(UserError, match="whose zeros may win"):
            lower(model)
    else:
        assert lower(model).layers[-1].pad == (1, 1)
