"""Network -> program, weight and image streams, and result stream -> tensors
(docs/program-format.md)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from model.compiler import memory_plan, weights
from model.compiler.conv_plan import ConvPlan, ceil_div, plan_conv
from model.compiler.errors import CompileError
from model.compiler.fusion import Entry, entries
from model.compiler.hardware import Hardware
from model.compiler.memory_plan import Tensor
from model.compiler.program_format import (
    DESCRIPTOR,
    DIM_W,
    HEADER,
    MAGIC_PROGRAM,
    MAGIC_WEIGHTS,
    MAX_CHANNELS,
    MAX_LAYERS,
    OP_ADD,
    OP_AVGPOOL,
    OP_CONV,
    OP_MAXPOOL,
    PACKET,
    PROGRAM_VERSION,
    QUAD_ADDR_W,
    TRAILER,
)
from model.compiler.records import encode
from model.network.contract import Pair
from model.network.layer import Layer
from model.network.network import Network

OP_CODES = {"conv": OP_CONV, "maxpool": OP_MAXPOOL, "avgpool": OP_AVGPOOL, "add": OP_ADD}
ADDR_MASK = (1 << QUAD_ADDR_W) - 1
STRIDE_MAX = (1 << DIM_W) - 1


@dataclass(frozen=True)
class Compiled:
    """What the host sends for a network, and how it reads what comes back.

    program, weights: uint64 words of whole packets (header, payload, CRC). tensors: {name: Tensor},
    "input" first.
    plans: {conv layer: ConvPlan}. entries: the layers of each descriptor, in order. debug: every
    tensor that is written is sent, not only the last layer's.
    """

    net: Network
    hardware: Hardware
    program: np.ndarray
    weights: np.ndarray
    tensors: dict[str, Tensor]
    plans: dict[str, ConvPlan]
    entries: list[Entry]
    debug: bool

    @property
    def fused_into(self) -> dict[str, str]:
        """{sum: the convolution into whose write-back it is fused}."""
        return {entry.add.name: entry.layer.name for entry in self.entries if entry.add}

    @property
    def fused_sums(self) -> dict[str, str]:
        """{convolution: the sum that is fused into its write-back}."""
        return {conv: name for name, conv in self.fused_into.items()}

    def by_layer(self, counters: np.ndarray) -> np.ndarray:
        """[descriptors, ...] -> [layers, ...] in the network's order: a convolution has what its
        descriptor counted, a sum that is fused into it zeros."""
        rows = {entry.layer.name: row for entry, row in zip(self.entries, counters)}
        nothing = np.zeros_like(counters[0])
        return np.array([rows.get(layer.name, nothing) for layer in self.net.layers])

    def encode_image(self, image: np.ndarray) -> np.ndarray:
        """Image stream of one input: integers [C, H, W] in the input's range -> uint64 beats."""
        tensor = self.tensors["input"]
        channels, height, width = tensor.shape
        quads = np.zeros((height, width, 4 * tensor.quads), np.uint8)
        quads[:, :, :channels] = (
            (np.asarray(image).astype(np.int64) & 0xFF).astype(np.uint8).transpose(1, 2, 0)
        )
        data = quads.tobytes()
        return np.frombuffer(data + bytes(-len(data) % 8), "<u8")

    @property
    def emitted(self) -> list[Layer]:
        """Layers whose tensors come back, in order."""
        return [e.output for e in self.entries] if self.debug else [self.net.layers[-1]]

    def result_beats(self, layer: Layer) -> int:
        """64-bit beats of a layer's tensor in the result stream."""
        if layer.out == "int32":
            return len(self.raw_order(layer)) * self.hardware.num_modules // 2
        channels, height, width = layer.out_shape
        return ceil_div(height * width * ceil_div(channels, 4), 2)

    @property
    def total_result_beats(self) -> int:
        """64-bit beats of the result stream of one image."""
        return sum(self.result_beats(layer) for layer in self.emitted)

    def decode_results(self, beats: np.ndarray) -> dict[str, np.ndarray]:
        """Result stream of one image, uint64 beats -> {layer name: int32 [C, H, W]}."""
        tensors, at = {}, 0
        for layer in self.emitted:
            count = self.result_beats(layer)
            part = np.ascontiguousarray(beats[at : at + count], "<u8")
            if len(part) != count:
                raise ValueError(f"layer {layer.name!r}: {len(part)} result beats of {count}")
            tensors[layer.name] = (
                self._decode_raw(layer, part)
                if layer.out == "int32"
                else _decode_bytes(layer, part)
            )
            at += count
        if at != len(beats):
            raise ValueError(
                f"{len(beats) - at} result beats too many after layer {self.emitted[-1].name!r}"
            )
        return tensors

    def raw_order(self, layer: Layer) -> list[tuple[int, int, int]]:
        """(word, y, x) of each step of 32-bit results; word = channel / modules."""
        channels, height, width = layer.out_shape
        modules = self.hardware.num_modules
        words = ceil_div(channels, modules)
        if layer.op == "avgpool":
            return [
                (word, y, x) for y in range(height) for x in range(width) for word in range(words)
            ]
        plan = self.plans[layer.name]
        order = []
        for group in range(plan.output_groups):
            steps = range(group * plan.steps, min((group + 1) * plan.steps, words))
            for y0, x0 in plan.tile_origins():
                rows, cols = plan.tile_size(y0, x0)
                order += [
                    (word, y, x)
                    for y in range(y0, y0 + rows)
                    for x in range(x0, x0 + cols)
                    for word in steps
                ]
        return order

    def _decode_raw(self, layer: Layer, beats: np.ndarray) -> np.ndarray:
        channels, height, width = layer.out_shape
        modules = self.hardware.num_modules
        word, y, x = np.array(self.raw_order(layer)).T
        out = np.zeros((ceil_div(channels, modules), modules, height, width), np.int32)
        out[word, :, y, x] = beats.view("<i4").reshape(-1, modules)
        return out.reshape(-1, height, width)[:channels]


def _decode_bytes(layer: Layer, beats: np.ndarray) -> np.ndarray:
    channels, height, width = layer.out_shape
    quads = ceil_div(channels, 4)
    data = beats.view(np.int8 if layer.out_signed else np.uint8)[: height * width * quads * 4]
    return (
        data.reshape(height, width, quads * 4)[:, :, :channels].transpose(2, 0, 1).astype(np.int32)
    )


def packet(magic: int, payload: np.ndarray) -> np.ndarray:
    """Header, payload and CRC-32 trailer of a packet, uint64 words."""
    payload = np.ascontiguousarray(payload, "<u8")
    header = encode(PACKET, {"magic": magic, "length": len(payload)})
    return np.concatenate(
        [header, payload, encode(TRAILER, {"crc": zlib.crc32(payload.tobytes())})]
    )


def compile_network(net: Network, hardware: Hardware = Hardware(), debug: bool = False) -> Compiled:
    """Network -> Compiled for one hardware configuration. CompileError names the layer and why it
    cannot run."""
    _check_supported(net)
    program_entries, plans, tensors = _plan(net, hardware)
    descriptors = []
    for entry in program_entries:
        emit = {"emit": debug or entry.output is net.layers[-1]}
        values = partial(descriptor_values, entry, tensors, plans, hardware)
        descriptors.append(_naming(entry.layer, lambda: encode(DESCRIPTOR, values() | emit)))
    chunks = [
        _naming(entry.layer, lambda: _chunk(entry.layer, plans, hardware))
        for entry in program_entries
        if entry.layer.op != "maxpool"
    ]
    program = np.concatenate([_header(tensors["input"], len(descriptors), hardware), *descriptors])
    payload = np.concatenate(chunks) if chunks else np.zeros(0, np.uint64)
    return Compiled(
        net,
        hardware,
        packet(MAGIC_PROGRAM, program),
        packet(MAGIC_WEIGHTS, payload),
        tensors,
        plans,
        program_entries,
        debug,
    )


def _naming(layer: Layer, make: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return make()
    except CompileError as error:
        raise CompileError(f"layer {layer.name!r}: {error}") from None


def _chunk(layer: Layer, plans: Mapping[str, ConvPlan], hardware: Hardware) -> np.ndarray:
    if layer.op == "conv":
        return weights.conv_chunk(layer, plans[layer.name], hardware)
    if layer.op == "add":  # its two multipliers stand in the descriptor
        mult, shift = 1, layer.shift
    else:
        mult, shift = (0, 0) if layer.out == "int32" else (layer.mult, layer.shift)
    return weights.uniform_chunk(mult, shift, layer.out_shape[0], hardware.num_modules)


def _check_supported(net: Network) -> None:
    if net.input_shape[0] > MAX_CHANNELS:
        raise CompileError(
            f"network {net.name!r}: input.shape: {net.input_shape[0]} channels, the accelerator "
            f"has at most {MAX_CHANNELS}"
        )
    for layer in net.layers:
        if layer.out_shape[0] > MAX_CHANNELS:
            raise CompileError(
                f"layer {layer.name!r}: {layer.out_shape[0]} output channels, the accelerator has "
                f"at most {MAX_CHANNELS}"
            )


def _plan(
    net: Network, hardware: Hardware
) -> tuple[list[Entry], dict[str, ConvPlan], dict[str, Tensor]]:
    """The program's entries, conv plans and placed tensors. Skewed rows and fused sums cost memory;
    without room for them the plain layout is tried, then every sum as a layer of its own."""
    programs = [p for p in (entries(net), entries(net, fuse=False)) if len(p) <= MAX_LAYERS]
    if not programs:
        raise CompileError(
            f"network {net.name!r}: {len(entries(net))} layers besides fused sums, the program "
            f"memory holds {MAX_LAYERS}"
        )
    for program_entries in programs:
        for skew in (True, False):
            try:
                return program_entries, *_plan_layout(net, program_entries, hardware, skew)
            except CompileError as error:
                refusal = error
    raise refusal


def _plan_layout(
    net: Network, program_entries: list[Entry], hardware: Hardware, skew: bool
) -> tuple[dict[str, ConvPlan], dict[str, Tensor]]:
    readers: dict[str, list[Layer]] = {}
    last_use: dict[str, int] = {}
    for index, entry in enumerate(program_entries):
        for name in entry.inputs:
            last_use[name] = index
        for name in entry.layer.inputs:
            readers.setdefault(name, []).append(entry.layer)
    shapes = {"input": (net.input_shape, net.input_signed)}
    shapes.update(
        {
            entry.output.name: (entry.output.out_shape, entry.output.out_signed)
            for entry in program_entries
            if entry.output.out != "int32"
        }
    )
    sums = [entry.inputs for entry in program_entries if entry.layer.op == "add"]
    # a fused sum reads its second tensor as it writes its output
    alike = sums + [(e.other, e.output.name) for e in program_entries if e.other]
    skewed = memory_plan.skewed_names(
        (
            name
            for name, (shape, _) in shapes.items()
            if skew
            and shape[0] <= memory_plan.MOST_SKEWED
            and any(r.op == "conv" and r.kernel[0] > 1 for r in readers.get(name, []))
        ),
        alike,
    )
    tensors = {
        name: memory_plan.layout(shape, signed, name in skewed)
        for name, (shape, signed) in shapes.items()
    }
    tensors = memory_plan.place(tensors, last_use, hardware.quads)
    plans = {
        entry.layer.name: plan_conv(
            entry.layer, hardware, entry.layer.inputs[0] in skewed, entry.add is not None
        )
        for entry in program_entries
        if entry.layer.op == "conv"
    }
    return plans, tensors


def _header(image: Tensor, n_layers: int, hardware: Hardware) -> np.ndarray:
    return encode(
        HEADER,
        {
            "n_layers": n_layers,
            "num_modules": hardware.num_modules,
            "version": PROGRAM_VERSION,
            "two_planes": int(hardware.planes == 2),
            "image_base": image.base,
            "image_row_stride": image.row_stride,
            "image_row_quads": image.row_quads,
            "image_rows": image.shape[1],
            "image_end_addr": image.base + image.size,
        },
    )


def descriptor_values(
    entry: Entry, tensors: Mapping[str, Tensor], plans: Mapping[str, ConvPlan], hardware: Hardware
) -> dict[str, int]:
    """{field: value} of a descriptor, without `emit`."""
    layer = entry.layer
    source = tensors[layer.inputs[0]]
    raw = layer.out == "int32"
    _, out_h, out_w = layer.out_shape
    out_quads = ceil_div(layer.out_shape[0], 4)
    # 32-bit results have no place: any legal one does, however large the result
    target = tensors.get(entry.output.name, memory_plan.Tensor((4, 1, 1), False, 1))
    values = {
        "op": OP_CODES[layer.op],
        "in_signed": source.signed,
        "raw": raw,
        "has_params": layer.op != "maxpool",
        "in_base": source.base,
        "in_row_stride": source.row_stride,
        "in_h": source.shape[1],
        "in_w": source.shape[2],
        "in_quads": source.quads,
        "out_base": target.base,
        "out_row_stride": target.row_stride,
        "out_h": out_h,
        "out_w": out_w,
        "out_quads": out_quads,
        "out_row_quads": target.row_quads,
        "out_end": target.base + target.size,
    }
    if not raw and layer.op != "maxpool":
        values |= {"out_min": layer.out_min, "out_max": layer.out_max}
    if layer.op == "conv":
        weight = weights.numbered(layer, hardware)[0]
        codebook = {f"codebook_{k}": weight[k] for k in (1, 2, 3)}
        values |= codebook | conv_values(plans[layer.name], source, target)
        return values | (fused_values(entry, tensors[entry.other]) if entry.other else {})
    if layer.op == "add":
        return values | add_values(layer, source, tensors[layer.inputs[1]])
    window = {"kernel": layer.kernel, "stride": pool_strides(layer), "pad": layer.pad}
    return values | {
        f"pool_{key}_{axis}": value
        for key, pair in window.items()
        for axis, value in zip("hw", pair)
    }


def pool_strides(layer: Layer) -> Pair:
    """A pool's strides as its descriptor has them. One window on an axis needs none: there any
    stride is legal, which the field may not hold."""
    height, width = layer.stride
    return (
        min(height, STRIDE_MAX) if layer.out_shape[1] == 1 else height,
        min(width, STRIDE_MAX) if layer.out_shape[2] == 1 else width,
    )


def fused_values(entry: Entry, other: Tensor) -> dict[str, int]:
    """{field: value} of what a fused sum adds to its convolution."""
    add = entry.output
    mult, other_mult = entry.factors()
    return {
        "fused": 1,
        "other_base": other.base,
        "other_signed": other.signed,
        "mult": mult,
        "other_mult": other_mult,
        "sum_shift": add.shift,
        "sum_min": add.out_min,
        "sum_max": add.out_max,
    }


def add_values(layer: Layer, source: Tensor, other: Tensor) -> dict[str, int]:
    """{field: value} of what a sum adds to its first input: windows of one pixel, and the second
    input's place."""
    mult, other_mult = layer.mult
    return {
        "pool_kernel_h": 1,
        "pool_kernel_w": 1,
        "pool_stride_h": 1,
        "pool_stride_w": 1,
        "other_base": other.base,
        "other_signed": other.signed,
        "mult": mult,
        "other_mult": other_mult,
    }


def conv_values(plan: ConvPlan, source: Tensor, target: Tensor) -> dict[str, int]:
    """{field: value} of what a convolution's plan and the places of its tensors decide."""
    rows, cols = plan.tile
    (pad_h, pad_w), (stride_h, stride_w) = plan.pad, plan.stride
    # addresses are modulo the address space; masked positions may lie outside
    addresses = {
        "row_base0": source.base - pad_h * source.row_stride,
        "in_tile_row_step": rows * stride_h * source.row_stride,
        "col_base0": -pad_w * source.quads,
        "in_tile_col_step": cols * stride_w * source.quads,
        "kr_addr_step": plan.kr_step * source.row_stride,
        "piece_addr_step": plan.window * source.quads,
        "out_tile_row_step": rows * target.row_stride,
        "out_tile_col_step": cols * target.quads,
    }
    return {name: value & ADDR_MASK for name, value in addresses.items()} | {
        "mode": plan.mode,
        "vertical": plan.vertical,
        "pair": plan.pair,
        "window_addr": (plan.window - 1) * source.quads,
        "stride_h": stride_h - 1,
        "stride_w": stride_w - 1,
        "tile_rows": rows,
        "tile_cols": cols,
        "tile_pixels": rows * cols,
        "kr_count": plan.kr_count,
        "kr_step": plan.kr_step,
        "pad_h": pad_h,
        "pad_w": pad_w,
        "pieces": plan.pieces,
        "window": plan.window,
        "channel_groups": plan.channel_groups,
        "output_groups": plan.output_groups,
        "read_quads": plan.quads,
        "vstep": source.row_stride // 8 if plan.vertical else 0,
    }
