"""ONNX models for the tests, node by node as well-known exporters write them, with random weights.

torchvision's ResNet-18 (the graph of torchvision.models.resnet18), a LeNet as tf2onnx exports it
from Keras (NHWC), the ResNet-8 of MLPerf Tiny, a MobileNetV1, a CNV as Brevitas exports it to
QONNX.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"


class Graph:
    """Nodes one after the other; `op` returns the name of a node's result."""

    def __init__(self, shape, opset=17, seed=0):
        self.nodes, self.tensors, self.opset = [], [], opset
        self.rng = np.random.default_rng(seed)
        self.input = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)

    def const(self, array, dtype=np.float32):
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, kind, *inputs, domain="", name=None, **attributes):
        result = f"t{len(self.nodes)}"
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [result], name=name, domain=domain, **attributes)
        )
        return result

    def model(self, output):
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [self.input], [result], self.tensors)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(QONNX, 1)]
        opsets.append(helper.make_opsetid("com.acme", 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    # -- layers with random weights

    def weights(self, *shape):
        """Gaussian, He's variance."""
        fan_in = int(np.prod(shape[1:]))
        return self.rng.normal(0, np.sqrt(2 / fan_in), shape)

    def conv(self, x, inputs, outputs, kernel, group=1, **attributes):
        weight = self.weights(outputs, inputs // group, kernel, kernel)
        return self.op("Conv", x, self.const(weight), group=group, **attributes)

    def bn(self, x, channels):
        draw = self.rng.uniform
        parts = draw(0.7, 1.3, channels), draw(-0.3, 0.3, channels), draw(-0.3, 0.3, channels)
        return self.op(
            "BatchNormalization",
            x,
            *map(self.const, (*parts, draw(0.6, 1.4, channels))),
            epsilon=1e-5,
        )

    def relu(self, x):
        return self.op("Relu", x)

    def dense(self, x, inputs, outputs):
        """Gemm as torch exports it."""
        weight, bias = self.weights(outputs, inputs), self.rng.normal(0, 0.1, outputs)
        return self.op("Gemm", x, self.const(weight), self.const(bias), transB=1)

    def quant(self, x, bits, scale, signed):
        """QONNX Quant as Brevitas exports it."""
        return self.op(
            "Quant",
            x,
            self.const(scale),
            self.const(0.0),
            self.const(float(bits)),
            domain=QONNX,
            signed=int(signed),
            narrow=0,
            rounding_mode="ROUND",
        )


def images(shape, count=16, seed=1):
    """Smooth random images, float32 [count, *shape], about -2..2."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = rng.uniform(0.5, 4, (count, channels, 3, 2)), rng.uniform(0, 6.3, (count, channels, 3))
    total = sum(
        np.sin(6.3 * (waves[0][:, :, i, :1, None] * y + waves[0][:, :, i, 1:, None] * x)
               + waves[1][:, :, i, None, None])
        for i in range(3)
    )  # fmt: skip
    return (0.6 * total + rng.normal(0, 0.1, total.shape)).astype(np.float32)


def resnet18(width=64, classes=1000, size=32, opset=17):
    g = Graph(["batch", 3, size, size], opset)

    def block(x, inputs, outputs, stride):
        y = g.conv(x, inputs, outputs, 3, strides=[stride] * 2, pads=[1] * 4)
        y = g.relu(g.bn(y, outputs))
        y = g.bn(g.conv(y, outputs, outputs, 3, strides=[1, 1], pads=[1] * 4), outputs)
        if stride > 1:
            x = g.bn(g.conv(x, inputs, outputs, 1, strides=[stride] * 2), outputs)
        return g.relu(g.op("Add", y, x))

    x = g.relu(g.bn(g.conv("image", 3, width, 7, strides=[2, 2], pads=[3] * 4), width))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = width
    for stage in range(4):
        for first in (True, False):
            stride = 2 if first and stage else 1
            x = block(x, channels, width << stage, stride)
            channels = width << stage
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    return g.model(g.dense(x, channels, classes))


def keras_lenet(opset=15):
    """Channels last, SAME and VALID padding, MatMul and Add, Softmax; pixels / 255 in the graph."""
    g = Graph(["unk__1", 28, 28, 1], opset)
    x = g.op("Mul", "image", g.const(1 / 255))
    x = g.op("Transpose", x, perm=[0, 3, 1, 2])
    for inputs, outputs, mode in ((1, 6, "SAME_UPPER"), (6, 16, "VALID")):
        x = g.conv(x, inputs, outputs, 5, auto_pad=mode)
        x = g.relu(g.op("Add", x, g.const(g.rng.normal(0, 0.1, (1, outputs, 1, 1)))))
        x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    x = g.op("Reshape", x, g.const([-1, 400], np.int64))
    for inputs, outputs in ((400, 120), (120, 84), (84, 10)):
        x = g.op("MatMul", x, g.const(g.weights(outputs, inputs).T))
        x = g.op("Add", x, g.const(g.rng.normal(0, 0.1, outputs)))
        x = g.relu(x) if outputs > 10 else x
    return g.model(g.op("Softmax", x, axis=-1))


def mlperf_resnet8(opset=13):
    """MLPerf Tiny's image classification, as tf2onnx exports it: SAME padding, which is asymmetric
    where the stride is 2."""
    g = Graph([1, 32, 32, 3], opset)
    x = g.op("Transpose", "image", perm=[0, 3, 1, 2])
    x = g.relu(g.bn(g.conv(x, 3, 16, 3, pads=[1] * 4), 16))
    channels = 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        pads = [1] * 4 if stride == 1 else [0, 0, 1, 1]
        y = g.relu(g.bn(g.conv(x, channels, outputs, 3, strides=[stride] * 2, pads=pads), outputs))
        y = g.bn(g.conv(y, outputs, outputs, 3, pads=[1] * 4), outputs)
        if stride > 1:
            x = g.conv(x, channels, outputs, 1, strides=[stride] * 2)
        x, channels = g.relu(g.op("Add", x, y)), outputs
    x = g.op("AveragePool", x, kernel_shape=[8, 8], strides=[8, 8])
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 3, 1]), g.const([-1, 64], np.int64))
    x = g.op("MatMul", x, g.const(g.weights(10, 64).T))
    return g.model(g.op("Softmax", g.op("Add", x, g.const(np.zeros(10)))))


def mobilenet(width=8, blocks=((16, 1), (32, 2), (32, 1)), opset=18):
    g = Graph(["N", 3, 32, 32], opset)

    def relu6(x):
        return g.op("Clip", x, g.const(0.0), g.const(6.0))

    x = relu6(g.bn(g.conv("image", 3, width, 3, strides=[2, 2], pads=[1] * 4), width))
    channels = width
    for outputs, stride in blocks:
        x = g.conv(x, channels, channels, 3, group=channels, strides=[stride] * 2, pads=[1] * 4)
        x = relu6(g.bn(x, channels))
        x = relu6(g.bn(g.conv(x, channels, outputs, 1), outputs))
        channels = outputs
    x = g.op("ReduceMean", x, g.const([2, 3], np.int64), keepdims=0)
    return g.model(g.dense(x, channels, 10))


def cnv(bits=2, width=16, opset=14):
    """Six 3x3 convolutions without padding, two max pools, two fully connected layers; weights and
    activations of two bits, as in Brevitas' and FINN's CNV-w2a2."""
    g = Graph([1, 3, 32, 32], opset)

    def weight(*shape):
        scale = 1.8 / np.sqrt(np.prod(shape[1:]))
        return g.quant(g.const(g.rng.normal(0, scale, shape)), bits, scale, True)

    def activation(x):
        return g.quant(g.relu(x), bits, 0.5, False)

    x = g.quant("image", 8, 1 / 64, True)
    channels = 3
    for number, outputs in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width)):
        x = g.op("Conv", x, weight(outputs, channels, 3, 3), kernel_shape=[3, 3])
        x, channels = activation(g.bn(x, outputs)), outputs
        if number in (1, 3):
            x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Reshape", x, g.const([1, -1], np.int64))
    x = g.op("MatMul", x, g.op("Transpose", weight(64, channels), perm=[1, 0]))
    x = activation(g.bn(x, 64))
    return g.model(g.op("MatMul", x, g.op("Transpose", weight(10, 64), perm=[1, 0])))


def without_qonnx(model):
    """The model with each Quant spelled out in standard operators, for onnxruntime."""
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes, made = [], []
    for node in model.graph.node:
        if node.op_type != "Quant":
            nodes.append(node)
            continue
        x, scale, _, bits = node.input
        signed = next(a.i for a in node.attribute if a.name == "signed")
        low = -(2.0 ** (values[bits] - 1)) if signed else 0.0
        high = 2.0 ** (values[bits] - (1 if signed else 0)) - 1
        out = node.output[0]
        names = [f"{out}.{part}" for part in ("divided", "rounded", "clipped", "low", "high")]
        made += [numpy_helper.from_array(np.float32(v), n) for v, n in zip((low, high), names[3:])]
        nodes += [
            helper.make_node("Div", [x, scale], [names[0]]),
            helper.make_node("Round", [names[0]], [names[1]]),
            helper.make_node("Clip", [names[1], *names[3:]], [names[2]]),
            helper.make_node("Mul", [names[2], scale], [out]),
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        list(model.graph.input),
        list(model.graph.output),
        [*model.graph.initializer, *made],
    )
    opsets = [o for o in model.opset_import if not o.domain]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
