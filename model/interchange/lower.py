"""ONNX graph -> layers in real numbers. Every node is taken or refused by name."""

from model.interchange.builder import Builder
from model.interchange.float_net import FloatNet
from model.interchange.onnx_file import Graph
from model.interchange.operators import OPERATORS, REMEDIES


def lower(graph: Graph) -> FloatNet:
    """The network that a graph computes. Raises UnsupportedModel with every node that is none, and
    ModelError."""
    return Builder(graph, OPERATORS, REMEDIES).net()
