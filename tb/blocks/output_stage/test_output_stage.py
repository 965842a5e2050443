"""output_stage against model/reference/requantize.py: random parameters in both banks, one written
while the other is used."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.compiler.program_format import MAX_CHANNELS, PARAMETER
from model.compiler.records import encode
from tb.blocks.output_stage import vectors
from tb.blocks.output_stage.pipeline import Pipeline
from tb.lib.packing import pack, unpack
from tb.lib.stalls import PATTERNS, stalls

CHANNELS = MAX_CHANNELS


def _parameters(rng) -> np.ndarray:
    """int64 [512, 3]: bias, mult and shift of every channel."""
    return vectors.random(rng, CHANNELS)[:, 1:]


def _write(dut, rng, bank, channel, parameters):
    """Parameter word as in the weights stream, with whatever in its reserved bits."""
    bias, mult, shift = (int(v) for v in parameters[channel])
    reserved = rng.integers(2**64, dtype=np.uint64)
    word = int(encode(PARAMETER, {"bias": bias, "mult": mult, "shift": shift}, [reserved])[0])
    (
        dut.param_we_i.value,
        dut.param_bank_i.value,
        dut.param_channel_i.value,
        dut.param_data_i.value,
    ) = 1, bank, channel, word


def _sums(rng, parameters) -> np.ndarray:
    """int64 [N]: sums whose results lie in and around the 8-bit range, and any."""
    bias, mult, shift = parameters.T
    near = np.clip(rng.uniform(-200, 350, len(bias)) * 2.0**shift / mult, *vectors.INT32).astype(
        np.int64
    )
    total = np.where(
        rng.random(len(bias)) < 0.8, near, rng.integers(*vectors.INT32, len(bias), endpoint=True)
    )
    return np.clip(total - bias, *vectors.INT32)


def _clamp(rng, layer: int) -> tuple[int, int]:
    """Limits of a layer: first the usual ones, then any legal ones, also a lower limit above 0 and
    an upper one below."""
    if layer < 3:
        return vectors.CLAMPS[layer]
    low, high = sorted(int(v) for v in rng.integers(-128, 128, 2))
    return (low + 128, high + 128) if layer % 2 else (low, high)


async def _start(dut):
    modules, words = int(dut.NUM_MODULES.value), CHANNELS // int(dut.NUM_MODULES.value)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    for port in (
        dut.param_we_i,
        dut.param_bank_i,
        dut.param_channel_i,
        dut.param_data_i,
        dut.valid_i,
        dut.acc_i,
        dut.param_word_i,
        dut.out_min_i,
        dut.out_max_i,
        dut.tag_i,
    ):
        port.value = 0
    await clocking.start(dut)
    read = lambda: (
        unpack(dut.y_o.value, modules, 8).tolist(),
        unpack(dut.sum_o.value, modules, 32).tolist(),
        dut.tag_o.value.to_unsigned(),
    )
    return rng, modules, words, Pipeline(dut.clk_i, dut.valid_o, int(dut.LATENCY.value), read)


@cocotb.test()
async def layers(dut):
    """Layer after layer, banks in turn: sums of one layer while the next one's parameters are
    written."""
    rng, modules, words, pipeline = await _start(dut)
    current = _parameters(rng)
    for channel in range(CHANNELS):
        _write(dut, rng, 0, channel, current)
        await pipeline.step()
    results = set()
    for layer in range(6):
        bank, clamp = layer % 2, _clamp(rng, layer)
        following, unwritten = _parameters(rng), rng.permutation(CHANNELS).tolist()
        dut.out_min_i.value, dut.out_max_i.value = clamp[0] & 0x3FF, clamp[1] & 0x3FF
        stall = stalls(rng, PATTERNS[layer % 4])
        while unwritten:
            dut.param_we_i.value = 0
            if rng.random() < 0.7:
                _write(dut, rng, 1 - bank, unwritten.pop(), following)
            word, tag = int(rng.integers(words)), int(rng.integers(1 << len(dut.tag_i)))
            lanes = current[word * modules : (word + 1) * modules]
            acc = _sums(rng, lanes)
            y, total = vectors.expected(np.column_stack([acc, lanes]), clamp)
            valid = not next(stall)
            dut.valid_i.value, dut.tag_i.value, dut.param_word_i.value = (
                int(valid),
                tag,
                bank * words + word,
            )
            dut.acc_i.value = pack(acc, 32)
            await pipeline.step((y.tolist(), total.tolist(), tag) if valid else None)
            results |= set(y.tolist())
        dut.param_we_i.value = dut.valid_i.value = 0
        await pipeline.drain()
        current = following
    assert pipeline.checked > 1500 and len(results) > 200, "too little was checked"


@cocotb.test()
async def reset_drops(dut):
    """What is in flight at a reset does not come out."""
    rng, _, _, pipeline = await _start(dut)
    for _ in range(5):
        dut.valid_i.value = 1
        for _ in range(int(rng.integers(1, 9))):
            await RisingEdge(dut.clk_i)
        dut.valid_i.value = 0
        await clocking.reset(dut, 1)
        await pipeline.drain()
