"""Network -> program, weight and image streams, and result stream -> tensors (docs/architecture.md)."""
import zlib
from dataclasses import dataclass

import numpy as np

from model.compiler import memory_plan, weights
from model.compiler.conv_plan import ceil_div, plan_conv
from model.compiler.hardware import DESC_WORDS, MAX_CHANNELS, MAX_LAYERS, QUAD_ADDR_BITS, CompileError, Hardware

MAGIC_PROGRAM, MAGIC_WEIGHTS = 0x52505143, 0x54575143  # "CQPR", "CQWT"
PROGRAM_VERSION = 1
OP_CODES = {"conv": 1, "maxpool": 2, "avgpool": 3}
MAX_FIELD = 65535  # of the descriptor's sizes
ADDR_MASK = (1 << QUAD_ADDR_BITS) - 1


@dataclass(frozen=True)
class Compiled:
    """What the host sends for a network, and how it reads what comes back.

    program, weights: uint64 words of whole packets (header, payload, CRC). tensors: {name: Tensor}, "input" first.
    plans: {conv layer: ConvPlan}. debug: every layer's tensor is sent, not only the last one's.
    """
    net: object
    hardware: Hardware
    program: np.ndarray
    weights: np.ndarray
    tensors: dict
    plans: dict
    debug: bool

    def encode_image(self, image):
        """Image stream of one input: integers [C, H, W] in the input's range -> uint64 beats."""
        tensor = self.tensors["input"]
        channels, height, width = tensor.shape
        quads = np.zeros((height, width, 4 * tensor.quads), np.uint8)
        quads[:, :, :channels] = (np.asarray(image).astype(np.int64) & 0xFF).astype(np.uint8).transpose(1, 2, 0)
        data = quads.tobytes()
        return np.frombuffer(data + bytes(-len(data) % 8), "<u8")

    @property
    def emitted(self):
        """Layers whose tensors come back, in order."""
        return list(self.net.layers) if self.debug else [self.net.layers[-1]]

    def result_beats(self, layer):
        """64-bit beats of a layer's tensor in the result stream."""
        if layer.out == "int32":
            return len(self._raw_order(layer)) * self.hardware.num_modules // 2
        channels, height, width = layer.out_shape
        return ceil_div(height * width * ceil_div(channels, 4), 2)

    @property
    def total_result_beats(self):
        return sum(self.result_beats(layer) for layer in self.emitted)

    def decode_results(self, beats):
        """Result stream of one image, uint64 beats -> {layer name: int32 [C, H, W]}."""
        tensors, at = {}, 0
        for layer in self.emitted:
            count = self.result_beats(layer)
            part = np.ascontiguousarray(beats[at:at + count], "<u8")
            if len(part) != count:
                raise ValueError(f"layer {layer.name!r}: {len(part)} result beats of {count}")
            tensors[layer.name] = self._decode_raw(layer, part) if layer.out == "int32" else _decode_bytes(layer, part)
            at += count
        if at != len(beats):
            raise ValueError(f"{len(beats) - at} result beats too many after layer {self.emitted[-1].name!r}")
        return tensors

    def _raw_order(self, layer):
        """(word, y, x) of each step of 32-bit results; word = channel / modules."""
        channels, height, width = layer.out_shape
        modules = self.hardware.num_modules
        words = ceil_div(channels, modules)
        if layer.op == "avgpool":
            return [(word, y, x) for y in range(height) for x in range(width) for word in range(words)]
        plan = self.plans[layer.name]
        order = []
        for group in range(plan.output_groups):
            steps = range(group * plan.steps, min((group + 1) * plan.steps, words))
            for y0, x0 in plan.tile_origins():
                rows, cols = plan.tile_size(y0, x0)
                order += [(word, y, x) for y in range(y0, y0 + rows) for x in range(x0, x0 + cols) for word in steps]
        return order

    def _decode_raw(self, layer, beats):
        channels, height, width = layer.out_shape
        modules = self.hardware.num_modules
        word, y, x = np.array(self._raw_order(layer)).T
        out = np.zeros((ceil_div(channels, modules), modules, height, width), np.int32)
        out[word, :, y, x] = beats.view("<i4").reshape(-1, modules)
        return out.reshape(-1, height, width)[:channels]


def _decode_bytes(layer, beats):
    channels, height, width = layer.out_shape
    quads = ceil_div(channels, 4)
    data = beats.view(np.int8 if layer.out_signed else np.uint8)[:height * width * quads * 4]
    return data.reshape(height, width, quads * 4)[:, :, :channels].transpose(2, 0, 1).astype(np.int32)


def packet(magic, payload):
    """Header, payload and CRC-32 trailer of a packet, uint64 words."""
    payload = np.ascontiguousarray(payload, "<u8")
    return np.concatenate([np.array([len(payload) << 32 | magic], "<u8"), payload, np.array([zlib.crc32(payload.tobytes())], "<u8")])


def compile_network(net, hardware=Hardware(), debug=False):
    """Network -> Compiled for one hardware configuration. CompileError names the layer and why it cannot run."""
    _check_supported(net)
    plans, tensors = _plan(net, hardware)
    descriptors = [_naming(layer, lambda: _words(_descriptor(layer, index, net, tensors, plans, debug))) for index, layer in enumerate(net.layers)]
    chunks = [_naming(layer, lambda: _chunk(layer, plans, hardware)) for layer in net.layers if layer.op in ("conv", "avgpool")]
    program = np.concatenate([_words(_header(tensors["input"], len(net.layers), hardware)), *descriptors])
    payload = np.concatenate(chunks) if chunks else np.zeros(0, np.uint64)
    return Compiled(net, hardware, packet(MAGIC_PROGRAM, program), packet(MAGIC_WEIGHTS, payload), tensors, plans, debug)


def _naming(layer, make):
    try:
        return make()
    except CompileError as error:
        raise CompileError(f"layer {layer.name!r}: {error}") from None


def _chunk(layer, plans, hardware):
    if layer.op == "avgpool":
        return weights.avgpool_chunk(layer, hardware.num_modules)
    return weights.conv_chunk(layer, plans[layer.name], hardware)


def _check_supported(net):
    if len(net.layers) > MAX_LAYERS:
        raise CompileError(f"network {net.name!r}: {len(net.layers)} layers, the program memory holds {MAX_LAYERS}")
    if net.input_shape[0] > MAX_CHANNELS:
        raise CompileError(f"network {net.name!r}: input.shape: {net.input_shape[0]} channels, the accelerator has at most {MAX_CHANNELS}")
    for layer in net.layers:
        if layer.op not in OP_CODES:
            raise CompileError(f"layer {layer.name!r}: op {layer.op!r} is not supported by the accelerator yet")
        if layer.op == "conv" and tuple(layer.stride) != (1, 1):
            raise CompileError(f"layer {layer.name!r}: stride {list(layer.stride)} is not supported by the accelerator yet (convolutions: 1)")
        if layer.out_shape[0] > MAX_CHANNELS:
            raise CompileError(f"layer {layer.name!r}: {layer.out_shape[0]} output channels, the accelerator has at most {MAX_CHANNELS}")
        if max(*layer.in_shape[1:], *layer.out_shape[1:]) > MAX_FIELD:
            raise CompileError(f"layer {layer.name!r}: images are at most {MAX_FIELD:,} pixels high and wide")
        for key in ("kernel", "stride", "pad") if layer.op in ("maxpool", "avgpool") else ():
            if max(getattr(layer, key)) > MAX_FIELD:
                raise CompileError(f"layer {layer.name!r}: {key}: {max(getattr(layer, key))} is more than the accelerator's {MAX_FIELD:,}")


def _plan(net, hardware):
    """Conv plans and placed tensors. Skewed rows cost memory; without room for them the plain layout is tried."""
    try:
        return _plan_layout(net, hardware, skew=True)
    except CompileError:
        return _plan_layout(net, hardware, skew=False)


def _plan_layout(net, hardware, skew):
    readers, last_use = {}, {}
    for index, layer in enumerate(net.layers):
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer)
            last_use[name] = index
    shapes = {"input": (tuple(net.input_shape), net.input_signed)}
    shapes.update({layer.name: (layer.out_shape, layer.out_signed) for layer in net.layers if layer.out != "int32"})
    skewed = {name: skew and shape[0] <= 4 and any(r.op == "conv" and r.kernel[0] > 1 for r in readers.get(name, []))
              for name, (shape, _) in shapes.items()}
    tensors = {name: memory_plan.layout(shape, signed, skewed[name]) for name, (shape, signed) in shapes.items()}
    tensors = memory_plan.place(tensors, last_use, hardware.quads)
    plans = {layer.name: plan_conv(layer, hardware, skewed[layer.inputs[0]]) for layer in net.layers if layer.op == "conv"}
    return plans, tensors


def _words(fields):
    """{word: [(value, shift, bits), ...]} -> 16 uint64 words."""
    words = [0] * DESC_WORDS
    for word, parts in fields.items():
        for value, shift, bits in parts:
            value = int(value)
            if not -(1 << bits) < value < 1 << bits:
                raise CompileError(f"descriptor word {word}: {value} does not fit in {bits} bits")
            words[word] |= (value & ((1 << bits) - 1)) << shift
    return np.array(words, np.uint64)


def _header(image, n_layers, hardware):
    return {0: [(n_layers, 0, 16), (hardware.num_modules, 16, 8), (PROGRAM_VERSION, 24, 8)],
            1: [(image.base, 0, 17), (image.row_stride, 32, 17)],
            2: [(image.row_quads, 0, 17), (image.shape[1], 32, 16)],
            3: [(image.base + image.size, 0, 18)]}


def _descriptor(layer, index, net, tensors, plans, debug):
    """Fields of a layer's descriptor as main_controller and clipq_accel take them apart."""
    source = tensors[layer.inputs[0]]
    raw = layer.out == "int32"
    quads_out = ceil_div(layer.out_shape[0], 4)
    target = tensors.get(layer.name) or memory_plan.Tensor(layer.out_shape, False, layer.out_shape[2] * quads_out, 0)
    emit = debug or index + 1 == len(net.layers)
    low, high = (0, 0) if raw or layer.op == "maxpool" else (layer.out_min, layer.out_max)
    fields = {
        0: [(OP_CODES[layer.op], 0, 4), (source.signed, 7, 1), (raw, 8, 1), (emit, 9, 1), (layer.op != "maxpool", 10, 1)],
        1: [(source.base, 0, 17), (source.row_stride, 32, 17)],
        2: [(source.shape[2], 0, 16), (source.shape[1], 16, 16), (source.quads, 32, 8), (quads_out, 40, 8)],
        3: [(target.base, 0, 17), (target.row_stride, 32, 17)],
        4: [(layer.out_shape[2], 0, 16), (layer.out_shape[1], 16, 16), (target.base + target.size, 32, 18)],
        5: [(low, 32, 10), (high, 48, 10)],
        14: [(target.row_quads, 0, 17)],
    }
    if layer.op == "conv":
        _conv_fields(fields, layer, plans[layer.name], source, target)
    else:
        fields[0] += [(layer.kernel[0], 16, 16), (layer.kernel[1], 32, 16)]
        fields[13] = [(layer.stride[0], 0, 16), (layer.stride[1], 16, 16), (layer.pad[0], 32, 16), (layer.pad[1], 48, 16)]
    return fields


def _conv_fields(fields, layer, plan, source, target):
    rows, cols = plan.tile
    pad_h, pad_w = layer.pad
    window = plan.window
    fields[0] += [(plan.mode, 4, 2), (plan.vertical, 6, 1)]
    fields[5] += [(int(w), 8 * k, 8) for k, w in enumerate(layer.codebook[1:])]
    address = lambda value: value & ADDR_MASK  # addresses are modulo the address space; masked positions may lie outside
    fields[6] = [(address(source.base - pad_h * source.row_stride), 0, 17), (address(rows * source.row_stride), 32, 17)]
    fields[7] = [(address(-pad_w * source.quads), 0, 17), (address(cols * source.quads), 32, 17)]
    fields[8] = [(address(plan.kr_step * source.row_stride), 0, 17), (address(window * source.quads), 32, 17)]
    fields[9] = [((window - 1) * source.quads, 0, 17), (pad_h * cols, 32, 20)]
    fields[10] = [(rows, 0, 9), (cols, 16, 9), (rows * cols, 32, 9)]
    fields[11] = [(plan.kr_count, 0, 4), (plan.kr_step, 4, 4), (pad_h, 8, 4), (pad_w, 12, 4), (plan.pieces, 16, 4), (window, 24, 3),
                  (plan.channel_groups, 32, 8), (plan.output_groups, 40, 8), (plan.quads, 48, 4)]
    fields[12] = [(address(rows * target.row_stride), 0, 17), (address(cols * target.quads), 32, 17)]
    fields[15] = [((source.row_stride - 1) // 8 if plan.vertical else 0, 0, 14)]
