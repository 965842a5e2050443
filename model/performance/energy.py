"""What stands behind the energy of an image: accesses of every memory, multiplications, additions.

No watt is claimed. The counts are those of the accelerator, of the paper's dataflow
(paper_dataflow.py) and of a plain array that computes the accelerator's passes with 8-bit weights,
all in the same units: bits read and written, and bits of arithmetic. A multiplication of m by n
bits counts m * n, an addition the bits of its sum. The accelerator's accesses are compared with the
RTL. What moves data only, such as the skew of activations, is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model.compiler.conv_plan import ConvPlan, ceil_div
from model.compiler.program import Compiled
from model.compiler.program_format import ARRAYS, PES
from model.network.layer import Layer
from model.performance import paper_dataflow
from model.performance.cycle_model import predict

# bits, as in rtl/common/cq_pkg.sv
SUM_W, FACTOR_W, PRODUCT_W, ACC_W = 14, 10, 24, 32
PARAMETER_W = 52  # bias, multiplier and shift of a channel
QUAD_W, WORD_W, BYTE_W, INDEX_W = 32, 64, 8, 2
SEGMENTS = 3  # of a conv module, with a decoder each
ADDERS = 13  # of an array and index plane: twelve pairs and the single PE
OPERANDS = (15, 14, 14)  # bits of a decoder's operands, by segment


@dataclass(frozen=True)
class Memory:
    """Accesses of one memory and the bits of one of them."""

    reads: int
    writes: int
    read_width: int
    write_width: int

    @property
    def bits(self) -> int:
        """All bits read and written."""
        return self.reads * self.read_width + self.writes * self.write_width


@dataclass(frozen=True)
class Work:
    """Of one image: memories by name, numbers of operations and their bits."""

    memories: Mapping[str, Memory]
    multiplications: int
    multiplier_bits: int
    additions: int
    adder_bits: int

    @property
    def memory_bits(self) -> int:
        """Bits read and written, of all memories."""
        return sum(memory.bits for memory in self.memories.values())


def accelerator(compiled: Compiled) -> Work:
    """Work of this accelerator."""
    modules, planes = compiled.hardware.num_modules, compiled.hardware.planes
    positions, results = _positions(compiled), _results(compiled)
    decodings = positions * modules * planes
    additions = {
        SUM_W: decodings * ARRAYS * ADDERS,
        BYTE_W + 1: positions * ARRAYS * (ADDERS - 1),  # x + y, for all modules
        ACC_W: decodings * SEGMENTS + positions * modules,
        PRODUCT_W: positions * modules,  # segments 1 and 2 to segment 0
        ACC_W + 1: results * modules,  # bias
    }
    return Work(
        _memories(compiled, INDEX_W),
        decodings * SEGMENTS + results * modules,
        decodings * sum(OPERANDS) * FACTOR_W + results * modules * _SCALING,
        sum(additions.values()),
        sum(width * count for width, count in additions.items()),
    )


def eight_bit(compiled: Compiled) -> Work:
    """Work of a plain array with a multiplier in each PE and 8-bit weights, in the same passes."""
    modules = compiled.hardware.num_modules
    results = _results(compiled) * modules
    sums = _positions(compiled) * modules
    macs = sums * ARRAYS * PES
    return Work(
        _memories(compiled, BYTE_W),
        macs + results,
        macs * BYTE_W * BYTE_W + results * _SCALING,
        macs + sums + results,
        macs * PRODUCT_W + sums * ACC_W + results * (ACC_W + 1),
    )


def paper(compiled: Compiled) -> Work:
    """Work of the paper's dataflow: weights are read once, a partial sum once for each pass over
    its input channels. Pools are as here; parameters are not published and count nothing."""
    modules, layers = compiled.hardware.num_modules, predict(compiled).layers
    reads = writes = weights = sums = macs = 0
    for layer, here in zip(compiled.net.layers, layers):
        pixels = layer.out_shape[1] * layer.out_shape[2]
        writes += here.writes
        if layer.op != "conv":
            reads += here.reads
            continue
        shapes = (layer.out_shape, layer.in_shape, layer.kernel, modules)
        reads += paper_dataflow.conv_reads(*shapes)
        weights += ceil_div(INDEX_W * layer.index.size, WORD_W)
        passes = paper_dataflow.conv_passes(layer.in_shape[0], layer.kernel)
        sums += pixels * ceil_div(layer.out_shape[0], modules) * passes
        macs += here.macs
    return Work(
        {
            "feature buffer": Memory(reads, writes + _image_quads(compiled), QUAD_W, QUAD_W),
            "weight buffer": Memory(weights, weights, WORD_W, WORD_W),
            "partial sums": Memory(sums, sums, ACC_W * modules, ACC_W * modules),
            "parameters": Memory(0, 0, 0, 0),
        },
        macs,
        macs * BYTE_W * BYTE_W,
        macs,
        macs * PRODUCT_W,
    )


_SCALING = (ACC_W + 1) * 15  # multiplier bits of a result's scaling


def _memories(compiled: Compiled, weight_width: int) -> dict[str, Memory]:
    """The accelerator's memories, whose array holds weights of so many bits."""
    hardware, layers = compiled.hardware, predict(compiled).layers
    modules = hardware.num_modules
    others = [ceil_div(x.out_shape[0], modules) * modules for x in _parameterized(compiled)]
    headed = sum(others) + len(others)  # parameters and the headers of chunks
    sent = len(compiled.weights) - 2  # without the packet's header and trailer
    read = sum(layer.weight_words for layer in layers)
    factor = weight_width // INDEX_W
    positions, results = _positions(compiled), _results(compiled)
    pixels = sum(x.out_shape[1] * x.out_shape[2] * p.output_groups for x, p in _convs(compiled))
    drained = sum(
        x.out_shape[1] * x.out_shape[2] * ceil_div(x.out_shape[0], modules)
        for x, _ in _convs(compiled)
    )
    wide = SEGMENTS * ACC_W * modules  # a lane for each output channel of the fullest mode
    return {
        "feature buffer": Memory(
            sum(layer.reads for layer in layers),
            sum(layer.writes for layer in layers) + _image_quads(compiled),
            QUAD_W,
            QUAD_W,
        ),
        "weight buffer": Memory(
            (read - headed) * factor + headed, (sent - headed) * factor + headed, WORD_W, WORD_W
        ),
        # a position adds to what its pixel has, if anything; two copies are written
        "partial sums": Memory(positions - pixels + drained, 2 * positions, wide, wide),
        "parameters": Memory(results, sum(others), PARAMETER_W * modules, PARAMETER_W),
    }


def _parameterized(compiled: Compiled) -> list[Layer]:
    return [entry.layer for entry in compiled.entries if entry.layer.op != "maxpool"]


def _convs(compiled: Compiled) -> list[tuple[Layer, ConvPlan]]:
    return [
        (layer, compiled.plans[layer.name]) for layer in compiled.net.layers if layer.op == "conv"
    ]


def _image_quads(compiled: Compiled) -> int:
    image = compiled.tensors["input"]
    return image.row_quads * image.shape[1]


def _positions(compiled: Compiled) -> int:
    """Positions that the array computes: an output pixel of a tile in one pass, for all modules."""
    return sum(
        p.rows * p.cols * plan.channel_groups * plan.output_groups
        for _, plan in _convs(compiled)
        for origin in plan.tile_origins()
        for p in plan.tile_passes(*origin)
    )


def _results(compiled: Compiled) -> int:
    """Steps of the output stage, each of which takes a value of every module."""
    modules = compiled.hardware.num_modules
    return sum(
        layer.out_shape[1]
        * layer.out_shape[2]
        * (
            ceil_div(layer.out_shape[0], modules)
            if layer.op == "conv"
            else ceil_div(ceil_div(layer.out_shape[0], 4), modules // 4)
        )
        for layer in _parameterized(compiled)
    )
