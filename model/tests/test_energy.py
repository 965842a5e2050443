"""Counts of accesses and operations; the accesses are compared with the RTL by the test
clipq_axi."""

import re
from pathlib import Path

import numpy as np

from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.network import Layer, Network
from model.performance import energy, paper_dataflow
from model.performance.cycle_model import predict

RTL = Path(__file__).parents[2] / "rtl"
MEMORIES = ["feature buffer", "weight buffer", "partial sums", "parameters"]


def network(channels, outputs, size, kernel):
    """One convolution with all weights in use."""
    shape = (outputs, channels, *kernel)
    layer = Layer(
        name="conv",
        op="conv",
        inputs=("input",),
        stride=(1, 1),
        pad=(kernel[0] // 2, kernel[1] // 2),
        out_min=0,
        out_max=255,
        index=np.full(shape, 1, np.uint8),
        codebook=np.array([0, 1, 2, 3], np.int8),
        bias=np.zeros(outputs, np.int32),
        mult=np.ones(outputs, np.int32),
        shift=np.full(outputs, 5, np.uint8),
    )
    return Network(name="one", input_shape=(channels, *size), input_signed=False, layers=[layer])


def test_a_convolution_counted_by_hand():
    """4 to 12 channels, 1x1, 2x2 pixels, 4 modules: one pass of four positions, three results a
    pixel and module."""
    compiled = compile_network(network(4, 12, (2, 2), (1, 1)), Hardware(4))
    work = energy.accelerator(compiled)
    counts = {name: (m.reads, m.writes) for name, m in work.memories.items()}
    assert counts == {
        "feature buffer": (4 * 8 + 4 * 3, 4 + 4 * 3),  # and the result is sent
        "weight buffer": (1 + 12 + 13, 1 + 12 + 13),
        "partial sums": (4 * 3, 2 * 4),
        "parameters": (4 * 3, 12),
    }
    assert work.multiplications == 4 * 4 * 3 * 3 + 12 * 4
    assert work.multiplier_bits == 4 * 4 * 3 * (15 + 14 + 14) * 10 + 12 * 4 * 33 * 15
    planes, pairs = 4 * 4 * 3 * 4 * 13, 4 * 4 * 12
    assert work.additions == planes + pairs + 4 * 4 * 9 + 4 * 4 + 4 * 4 + 12 * 4
    decoded = 4 * 4 * (9 * 32 + 32 + 24)
    assert work.adder_bits == planes * 14 + pairs * 9 + decoded + 12 * 4 * 33
    assert work.memory_bits == 60 * 32 + 52 * 64 + 20 * 384 + 12 * 208 + 12 * 52
    two = energy.accelerator(compile_network(compiled.net, Hardware(4, planes=2)))
    assert two.multiplications == 4 * 4 * 2 * 3 + 12 * 4
    plain = energy.eight_bit(compiled)
    assert plain.multiplications == 4 * 400 + 48 and plain.multiplier_bits == 102400 + 48 * 495
    assert plain.memories["weight buffer"].reads == 13 + 4 * 13
    assert plain.memories["partial sums"] == work.memories["partial sums"]


def test_the_papers_dataflow():
    """A multiplication for each weight and pixel; partial sums once for each group of channels."""
    compiled = compile_network(network(20, 8, (6, 5), (3, 3)), Hardware(4))
    work = energy.paper(compiled)
    macs = 20 * 9 * 8 * 30
    assert work.multiplications == work.additions == macs == predict(compiled).layers[0].macs
    assert work.multiplier_bits == 64 * macs and work.adder_bits == 24 * macs
    groups = 3  # of eight input channels, two in each of four arrays
    assert work.memories["partial sums"].reads == groups * 2 * 30
    assert work.memories["feature buffer"].reads == 2 * 5 * 30
    assert work.memories["weight buffer"].reads == 45
    cycles = paper_dataflow.conv_cycles((8, 6, 5), 20, (3, 3))
    assert cycles == 3 * work.memories["partial sums"].reads


def test_widths_are_those_of_the_rtl():
    package = (RTL / "common" / "cq_pkg.sv").read_text()
    widths = dict(re.findall(r"localparam int (\w+) += (\d+);", package))
    for name in ("SUM_W", "FACTOR_W", "PRODUCT_W", "ACC_W"):
        assert getattr(energy, name) == int(widths[name])
    memory = (RTL / "output_stage" / "parameter_memory.sv").read_text()
    assert int(re.search(r"\.WIDTH +\((\d+)\)", memory)[1]) == energy.PARAMETER_W
