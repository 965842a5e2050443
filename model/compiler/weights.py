"""Packs a layer's weight indices and parameters into the words of the weight stream
(docs/program-format.md)."""

from __future__ import annotations

import numpy as np

from model.compiler.conv_plan import ConvPlan, ceil_div
from model.compiler.errors import CompileError
from model.compiler.hardware import Hardware
from model.compiler.program_format import ARRAYS, CHUNK, PARAMETER, PES
from model.compiler.records import encode
from model.network.layer import Layer

EXTRA_PES = (5, 6, 7, 13, 14, 15, 21, 22, 23, 24)  # conv mode 2: taps 3 and 4 of channels 0..4


def pe_indices(index: np.ndarray, plan: ConvPlan) -> np.ndarray:
    """Index of every PE in every pass: uint8 [groups, channel groups, row steps, pieces, ARRAYS,
    modules, PES].

    index: uint8 [O, I, Kh, Kw], values 0..3. Array a takes channels 4q + a; taps count from the
    right (the newest column).
    """
    out_channels, _, height, width = index.shape
    quads, window, modules = plan.quads, plan.window, plan.num_modules
    groups, steps = plan.output_groups, plan.steps
    rows = plan.kr_count * plan.kr_step
    channels = 16 if plan.pair else 4 if plan.vertical else plan.channel_groups * quads * 4
    padded = np.zeros(
        (groups * plan.group_channels, channels, rows, plan.pieces * window), np.uint8
    )
    padded[:out_channels, : index.shape[1], :height, :width] = index
    if plan.pair:  # [g, j, m, q, a, kr, row, p, w] -> [g, cg, kr, p, a, m, j, v, w]
        split = padded.reshape(
            groups, steps, modules, 4, 4, plan.kr_count, 2, plan.pieces, window
        ).transpose(0, 5, 7, 4, 2, 1, 6, 3, 8)
        taps = split.reshape(groups, 1, *split.shape[1:6], quads, window)
    elif plan.vertical:  # [g, j, m, a, kr, v, p, w] -> [g, cg, kr, p, a, m, j, v, w]
        split = padded.reshape(
            groups, steps, modules, 1, 4, plan.kr_count, quads, plan.pieces, window
        )
        taps = split.transpose(0, 3, 5, 7, 4, 2, 1, 6, 8)
    else:  # [g, j, m, cg, v, a, kr, p, w]
        split = padded.reshape(
            groups, steps, modules, plan.channel_groups, quads, 4, rows, plan.pieces, window
        )
        taps = split.transpose(0, 3, 6, 7, 5, 2, 1, 4, 8)
    taps = taps[..., ::-1]
    pes = np.zeros(taps.shape[:6] + (PES,), np.uint8)
    if plan.mode == 0:
        for step in range(3):
            pes[..., 8 * step : 8 * step + 8] = taps[..., step, :, 0]
    else:
        for tap in range(3):
            pes[..., 8 * tap : 8 * tap + quads] = taps[..., 0, :, tap]
        if plan.mode == 2:
            for k, pe in enumerate(EXTRA_PES):
                pes[..., pe] = taps[..., 0, k % 5, 3 + k // 5]
    return pes


def pack_passes(pes: np.ndarray) -> np.ndarray:
    """PE indices -> uint64 [groups, passes, words], array-major, two bits a PE, the first in the
    lowest bits."""
    groups = pes.shape[0]
    flat = pes.reshape(groups, -1, ARRAYS * pes.shape[5] * PES)
    words = ceil_div(2 * flat.shape[2], 64)
    bits = np.zeros(flat.shape[:2] + (64 * words,), np.uint8)
    bits[..., 0 : 2 * flat.shape[2] : 2] = flat & 1
    bits[..., 1 : 2 * flat.shape[2] : 2] = flat >> 1
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8")


def parameter_words(
    bias: np.ndarray, mult: np.ndarray, shift: np.ndarray, count: int
) -> np.ndarray:
    """One uint64 a channel, padded with zeros to `count` words."""
    words = np.zeros(count, np.uint64)
    for channel, values in enumerate(zip(bias, mult, shift)):
        words[channel : channel + 1] = encode(
            PARAMETER, dict(zip(("bias", "mult", "shift"), values))
        )
    return words


def chunk(parameters: np.ndarray, blocks: np.ndarray | None = None, tiles: int = 1) -> np.ndarray:
    """A layer's chunk: header, parameters, and the pass blocks uint64 [groups, passes, words], each
    group to be used for `tiles` tiles."""
    groups, passes = (0, 0) if blocks is None else blocks.shape[:2]
    header = encode(
        CHUNK,
        {"n_params": len(parameters), "n_tiles": tiles, "n_passes": passes, "n_groups": groups},
    )
    parts = [header, parameters]
    return np.concatenate(parts if blocks is None else parts + [blocks.reshape(-1)])


def numbered(layer: Layer, hardware: Hardware) -> tuple[np.ndarray, np.ndarray]:
    """Codebook int8 [4] and index uint8 [O, I, Kh, Kw] of a conv layer as this build computes them.

    With two index planes the third weight must be the sum of the other two, or not be used: the
    weights are renumbered. Raises CompileError where no order does it.
    """
    if hardware.planes == 3:
        return layer.codebook, layer.index
    values = [int(value) for value in np.unique(layer.codebook[layer.index]) if value]
    if len(values) < 3:
        values = [*values, 0, 0, 0][:3]
    else:
        orders = [values[k:] + values[:k] for k in range(3)]
        fitting = [order for order in orders if order[0] + order[1] == order[2]]
        if not fitting:
            raise CompileError(
                f"codebook: no weight of {values} is the sum of the other two, as a build with two "
                "index planes needs (one with three computes any codebook)"
            )
        values = fitting[0]
    order = {0: 0, **{value: index for index, value in enumerate(values, 1) if value}}
    renumbered = np.array([order.get(int(weight), 0) for weight in layer.codebook], np.uint8)
    return np.array([0, *values], np.int8), renumbered[layer.index]


def conv_chunk(layer: Layer, plan: ConvPlan, hardware: Hardware) -> np.ndarray:
    """Chunk of a conv layer; a group that the weight buffer cannot keep for its other tiles is
    repeated in the stream."""
    count = ceil_div(layer.out_shape[0], plan.num_modules) * plan.num_modules
    zeros = np.zeros(layer.out_shape[0], np.int64)
    raw = layer.out == "int32"
    parameters = parameter_words(
        layer.bias, zeros if raw else layer.mult, zeros if raw else layer.shift, count
    )
    blocks = pack_passes(pe_indices(numbered(layer, hardware)[1], plan))
    if plan.tiles == 1 or replayed(plan, hardware):
        return chunk(parameters, blocks, plan.tiles)
    return chunk(parameters, np.repeat(blocks, plan.tiles, axis=0))


def replayed(plan: ConvPlan, hardware: Hardware) -> bool:
    """Whether the weight buffer keeps a group's weights for all its tiles."""
    return plan.tiles > 1 and plan.passes * hardware.pass_words <= hardware.weight_words


def uniform_chunk(mult: int, shift: int, channels: int, num_modules: int) -> np.ndarray:
    """Chunk of a layer without weights: the same multiplier and shift for every channel."""
    return chunk(
        parameter_words(
            np.zeros(channels, np.int64),
            np.full(channels, mult),
            np.full(channels, shift),
            ceil_div(channels, num_modules) * num_modules,
        )
    )
