"""Models that cannot become networks: each refusal names the place and a remedy, and ends the
command with status 1 and no traceback."""

import contextlib
import io
import re

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from model.__main__ import main
from model.common.errors import UserError
from model.interchange.lower import lower
from model.interchange.onnx_file import graph_of, load_graph
from model.tests import onnx_models as zoo


def refusal(model):
    """The message about a model."""
    with pytest.raises(UserError) as caught:
        lower(graph_of(model))
    return str(caught.value)


def one(
    kind, *constants, shape=("N", 4, 8, 8), opset=17, domain="", dtype=np.float32, **attributes
):
    """A model of one node that reads the image and constants."""
    g = zoo.Graph(list(shape), opset)
    names = [g.const(c, dtype) for c in constants]
    x = g.op(kind, "image", *names, domain=domain, name="the node", **attributes)
    return g.model(x)


W = np.ones((2, 4, 3, 3))
NODES = {
    "activation": (one("Sigmoid"), "Sigmoid", "Relu"),
    "leaky": (one("LeakyRelu", alpha=0.1), "LeakyRelu", "Relu"),
    "transposed": (one("ConvTranspose", np.ones((4, 2, 3, 3))), "ConvTranspose", "end the network"),
    "dilation": (one("Conv", W, dilations=[2, 2]), r"dilations \[2, 2\]", "dilation of 1"),
    "3d": (
        one("Conv", np.ones((2, 4, 3, 3, 3)), shape=("N", 4, 8, 8)),
        "3 spatial dimensions",
        "only two",
    ),
    "nan": (one("Conv", np.where(W > 0, np.nan, W)), r"holds nan at \[0, 0, 0, 0\]", "train"),
    "infinite": (one("Conv", W * np.inf), "holds inf", "train"),
    "groups": (one("Conv", W, group=3), "3 groups", "export"),
    "channels": (one("Conv", np.ones((2, 5, 3, 3))), "4 channels", "export"),
    "large kernel": (one("Conv", np.ones((2, 4, 9, 9))), "larger than its padded input", "smaller"),
    "huge stride": (one("Conv", W, strides=[2**62, 0]), "strides", "at least 1"),
    "negative pads": (one("Conv", W, pads=[-1, 0, 0, 0]), "pads", "negative"),
    "short pads": (one("Conv", W, pads=[1, 1]), "do not fit the operator", "export"),
    "ceil": (
        one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        "ceil_mode",
        "ceil_mode = 0",
    ),
    "uneven pool": (
        one("MaxPool", kernel_shape=[3, 3], pads=[0, 0, 1, 1]),
        "differ from side to side",
        "both sides",
    ),
    "uncounted": (
        one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        "do not count",
        "count_include_pad",
    ),
    "mean of channels": (one("ReduceMean", axes=[1]), "averages over C", "H and W"),
    "bias of a column": (
        (
            lambda g: g.model(
                g.op(
                    "Gemm",
                    g.op("Flatten", "image"),
                    g.const(np.ones((256, 3))),
                    g.const(np.ones((3, 1))),
                    name="the node",
                )
            )
        )(zoo.Graph(["N", 4, 8, 8])),
        r"its bias has the sizes \[3, 1\]",
        "one number an output",
    ),
    "training dropout": (
        (
            lambda g: g.model(
                g.op("Dropout", "image", g.const(0.5), g.const(True, bool), name="the node")
            )
        )(zoo.Graph(["N", 4, 8, 8])),
        "training_mode = 1",
        "evaluation mode",
    ),
    "softmax over rows": (one("Softmax", axis=2), "it goes over H", "over the channels"),
    "old softmax over rows": (one("Softmax", axis=2, opset=12), "over HW", "over the channels"),
    "softmax inside": (
        (lambda g: g.model(g.op("Relu", g.op("Softmax", "image", name="the node"))))(
            zoo.Graph(["N", 4, 8, 8])
        ),
        "not the end",
        "last Softmax",
    ),
    "reflect": (
        one("Pad", [0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64, mode="reflect"),
        "mode 'reflect'",
        "zeros",
    ),
    "transpose": (one("Transpose", perm=[2, 1, 0, 3]), "layout", "NCHW"),
    "reshape": (one("Reshape", [-1, 8, 32], dtype=np.int64), "makes", r"C \* H \* W"),
    "overflow": (
        one("Reshape", [2**62, 2**62, 4], dtype=np.int64),
        "makes",
        "number of values must stay",
    ),
    "quantized operator": (
        one("ConvInteger", np.ones((2, 4, 3, 3)), dtype=np.uint8),
        "ConvInteger",
        "QDQ",
    ),
    "unknown domain": (one("Frobnicate", domain="com.acme"), "com.acme.Frobnicate", "docs/import"),
    "foreign relu": (one("Relu", domain="com.acme"), "com.acme.Relu", "docs/import"),
    "quantizer without scale": (one("Quant", domain=zoo.QONNX), "input 2 is missing", "export"),
    "other zero point": (
        (
            lambda g: g.model(
                g.op(
                    "DequantizeLinear",
                    g.op("QuantizeLinear", "image", g.const(0.5), g.const(0, np.uint8)),
                    g.const(0.5),
                    g.const(3, np.uint8),
                    name="the node",
                )
            )
        )(zoo.Graph(["N", 4, 8, 8])),
        "not those of its QuantizeLinear",
        "the same in both",
    ),
    "random weights": (
        (
            lambda g: g.model(
                g.op("Conv", "image", g.op("RandomNormalLike", g.const(W), name="the node"))
            )
        )(zoo.Graph(["N", 4, 8, 8])),
        "RandomNormalLike",
        "docs/import",
    ),
    "bipolar": (one("BipolarQuant", 1.0, domain=zoo.QONNX), "BipolarQuant", "2 bits or more"),
    "16 bits": (
        one("Quant", 0.1, 0.0, 16.0, domain=zoo.QONNX, signed=1, narrow=0, rounding_mode="FLOOR"),
        "rounding_mode 'FLOOR'",
        "ROUND",
    ),
    "scale a channel": (
        one("Quant", np.ones((1, 4, 1, 1)), 0.0, 4.0, domain=zoo.QONNX, signed=1, narrow=0),
        "one scale a channel",
        "one scale a tensor",
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_node_is_refused_by_name_with_a_remedy(name):
    model, reason, remedy = NODES[name]
    if name == "quantized operator":
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    text = refusal(model)
    assert re.search(f"'the node'.*{reason}.*; .*{remedy}", text), text


@pytest.mark.parametrize("opset, axis", [(12, None), (12, 1), (12, -3), (13, 1), (17, -3)])
def test_softmax_over_channels_of_a_map_is_dropped(opset, axis):
    g = zoo.Graph(["N", 4, 8, 8], opset)
    over = {} if axis is None else {"axis": axis}
    net = lower(graph_of(g.model(g.op("Softmax", g.conv("image", 4, 3, 1), **over))))
    assert [layer.op for layer in net.layers] == ["conv"]


def test_every_unsupported_node_is_named():
    g = zoo.Graph(["N", 3, 8, 8])
    x = g.op("Tanh", g.conv("image", 3, 4, 3), name="first")
    x = g.op("Elu", g.conv(x, 4, 4, 3), name="second")
    text = refusal(g.model(g.op("Resize", x, "", g.const([1, 1, 2, 2]), name="third")))
    assert text.startswith("3 unsupported nodes")
    assert all(f"'{name}'" in text for name in ("first", "second", "third"))
    assert "number 2" in text and "number 4" in text


def changed(change):
    model = zoo.mobilenet(blocks=((16, 2),))
    change(model.graph)
    return model


def _dynamic(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def _no_shape(graph):
    graph.input[0].type.tensor_type.ClearField("shape")


def _cycle(graph):
    graph.node[0].input[0] = graph.node[3].output[0]


def _two_inputs(graph):
    graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))


def _two_outputs(graph):
    graph.output.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, [1]))


def _missing(graph):
    graph.node[2].input[0] = "nowhere"


def _short(graph):
    graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-5]


def _huge(graph):
    graph.initializer[0].dims[0] = 2**62


def _rank(graph):
    del graph.input[0].type.tensor_type.shape.dim[3]


MODELS = {
    "dynamic": (_dynamic, r"'image' has the dynamic sizes \[N, 3, height, 32\].*export with fixed"),
    "no shape": (_no_shape, "'image' has no shape; export"),
    "cycle": (_cycle, "cycle: .*conv0.*; export"),
    "two inputs": (_two_inputs, "2 inputs .*'other'.*extract_model"),
    "two outputs": (_two_outputs, "2 outputs .*extract_model"),
    "missing tensor": (_missing, "not valid ONNX: .*nowhere"),
    "short tensor": (_short, "tensor 'c0'|not valid ONNX"),
    "huge tensor": (_huge, "tensor 'c0'|not valid ONNX"),
    "three dimensions": (_rank, r"3 dimensions .*\[N, C, H, W\]"),
}


@pytest.mark.parametrize("name", MODELS)
def test_malformed_model(name):
    change, words = MODELS[name]
    assert re.search(words, refusal(changed(change)))


@pytest.mark.parametrize("opset", [9, 10, 99])
def test_opset_out_of_range(opset):
    model = zoo.mobilenet(blocks=((16, 2),))
    model.opset_import[0].version = opset
    assert re.search(f"opset {opset} is outside 11..[0-9]+; .*convert_version", refusal(model))


def test_files(tmp_path):
    path = tmp_path / "model.onnx"
    data = zoo.mobilenet(blocks=((16, 2),)).SerializeToString()
    for content, words in (
        (b"", "not an ONNX model"),
        (b"hello world", "not an ONNX model"),
        (data[: len(data) // 2], "not an ONNX model, or a damaged one"),
        (np.random.default_rng(0).bytes(4000), "not an ONNX model"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"model.onnx: {words}"):
            load_graph(path)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    """A byte changed anywhere gives a network or a message."""
    rng = np.random.default_rng(7)
    data = bytearray(zoo.keras_lenet().SerializeToString())
    path, refused = tmp_path / "m.onnx", 0
    structure = [i for i in range(len(data)) if i < 600 or i > len(data) - 3000]
    for _ in range(150):
        at, value = int(rng.choice(structure)), int(rng.integers(256))
        path.write_bytes(bytes(data[:at]) + bytes([value]) + bytes(data[at + 1 :]))
        try:
            lower(load_graph(path))
        except UserError as error:
            refused += 1
            assert str(error)
    assert refused > 10


def test_external_data_that_is_missing_or_outside(tmp_path):
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "model.onnx"
    model = zoo.mobilenet(blocks=((16, 2),))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "sub" / "w.bin").rename(tmp_path / "w.bin")
    with pytest.raises(UserError, match="external data of tensor 'c0'.*beside the model"):
        load_graph(path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../w.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="external data of tensor 'c0'"):
        load_graph(path)


def test_public_models_are_taken_or_named():
    """Models that come with the onnx package, of architectures that others wrote."""
    folder = f"{onnx.__path__[0]}/backend/test/data/light/light_"
    for name, words in (
        ("squeezenet", "8 unsupported nodes.*Concat.*Add"),
        ("shufflenet", "5 unsupported nodes.*Reshape.*AveragePool.*count_include_pad.*Concat"),
        ("bvlc_alexnet", "2 unsupported nodes.*LRN.*BatchNormalization"),
    ):
        model = onnx.version_converter.convert_version(onnx.load(f"{folder}{name}.onnx"), 13)
        assert re.search(words, refusal(model), re.DOTALL), name
    model = onnx.version_converter.convert_version(onnx.load(f"{folder}resnet50.onnx"), 13)
    layers = lower(graph_of(model)).layers
    ops = [layer.op for layer in layers]
    assert [ops.count(op) for op in ("conv", "add", "maxpool", "avgpool")] == [54, 16, 1, 1]


def test_weights_of_the_format_only(tmp_path):
    """What the network file's rules refuse is said with the layer and its nodes."""
    runner = CliRunner()
    path = tmp_path / "m.onnx"
    onnx.save(one("Conv", np.ones((2, 4, 12, 12)), shape=("N", 4, 20, 20), strides=[3, 1]), path)
    result = runner.invoke(main, ["check", "--net", str(path)])
    assert result.exit_code == 1 and "the node" in result.output and "Conv" in result.output
    assert "kernel height 12" in result.output or "stride" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["import", "check"])
def test_commands_end_with_one_line(command, tmp_path):
    path, out = tmp_path / "m.onnx", tmp_path / "out.clipq.npz"
    onnx.save(NODES["activation"][0], path)
    options = (
        ["--model", str(path), "--out", str(out)] if command == "import" else ["--net", str(path)]
    )
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        result = CliRunner().invoke(main, [command, *options])
    assert result.exit_code == 1 and not out.exists()
    assert "'the node'" in result.output + errors.getvalue() + str(result.exception)
    missing = CliRunner().invoke(
        main, [command, *options[:1], str(tmp_path / "none"), *options[2:]]
    )
    assert missing.exit_code == 1 and "Traceback" not in missing.output


def test_bias_that_the_sum_cannot_hold():
    from model.interchange.onnx_file import ModelError
    from model.interchange.quantize import quantize

    g = zoo.Graph(["N", 1, 4, 4])
    weight = numpy_helper.from_array(np.full((1, 1, 1, 1), 1e-9, np.float32), "w")
    bias = numpy_helper.from_array(np.full(1, 100.0, np.float32), "b")
    g.tensors += [weight, bias]
    net = lower(graph_of(g.model(g.op("Conv", "image", "w", "b", name="c"))))
    with pytest.raises(ModelError, match="layer 'c': output channel 0: its bias of 100"):
        quantize(net, zoo.images((1, 4, 4), 4).astype(float), None)
