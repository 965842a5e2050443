"""requantize against model/reference/requantize.py: every rounding and clamp at its edges, then
random sums, with random bubbles."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from tb.blocks.output_stage import vectors
from tb.blocks.output_stage.pipeline import Pipeline
from tb.lib.stalls import PATTERNS, stalls


async def _start(dut):
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    dut.valid_i.value = 0
    _drive(dut, 0, 0, 1, 0, 0)
    dut.out_min_i.value, dut.out_max_i.value = 0, 255
    await clocking.start(dut)
    read = lambda: (
        dut.y_o.value.to_unsigned(),
        dut.sum_o.value.to_unsigned(),
        dut.tag_o.value.to_unsigned(),
    )
    return rng, Pipeline(dut.clk_i, dut.valid_o, int(dut.LATENCY.value), read)


def _drive(dut, acc, bias, mult, shift, tag):
    dut.acc_i.value = acc & 0xFFFFFFFF
    dut.bias_i.value = bias & 0xFFFFFFFF
    dut.mult_i.value, dut.shift_i.value, dut.tag_i.value = mult, shift, tag


async def _run(dut, pipeline, rng, batch, clamp, stall):
    """All vectors of a batch, all with one clamp; between them, cycles that are not valid but carry
    other numbers."""
    dut.out_min_i.value, dut.out_max_i.value = clamp[0] & 0x3FF, clamp[1] & 0x3FF
    tags = rng.integers(0, 1 << len(dut.tag_i), len(batch)).tolist()
    y, total = vectors.expected(batch, clamp)
    for vector, tag, *result in zip(batch.tolist(), tags, y.tolist(), total.tolist()):
        while next(stall):
            dut.valid_i.value = 0
            _drive(dut, *rng.permutation(vector[:2]).tolist(), vector[2] ^ 1, vector[3] ^ 1, tag)
            await pipeline.step()
        dut.valid_i.value = 1
        _drive(dut, *vector, tag)
        await pipeline.step((*result, tag))
    dut.valid_i.value = 0
    await pipeline.drain()


@cocotb.test()
async def edges(dut):
    """Halves of both signs, extreme sums, multipliers and shifts, results just inside and outside
    of each clamp."""
    rng, pipeline = await _start(dut)
    for clamp in vectors.CLAMPS:
        batch = vectors.edges(clamp)
        if clamp not in vectors.CLAMPS[:2]:
            batch = rng.permutation(batch)[:1000]
        await _run(dut, pipeline, rng, batch, clamp, stalls(rng, "none"))
    assert pipeline.checked >= 20_000


@cocotb.test()
async def random_sums(dut):
    """Random vectors and clamps, in bursts and with bubbles; every result must occur."""
    rng, pipeline = await _start(dut)
    seen = set()
    for number in range(30):
        low = int(rng.choice([-128, 0]))
        clamp = (0, 255), (-128, 127), tuple(sorted(rng.integers(low, low + 256, 2).tolist()))
        batch = vectors.random(rng, 700)
        seen |= set(vectors.expected(batch, clamp[number % 3])[0].tolist())
        await _run(dut, pipeline, rng, batch, clamp[number % 3], stalls(rng, PATTERNS[number % 4]))
    assert pipeline.checked >= 20_000
    assert len(seen) == 256, "the vectors did not reach all results"


@cocotb.test()
async def reset_drops(dut):
    """What is in flight at a reset does not come out."""
    rng, pipeline = await _start(dut)
    for _ in range(5):
        dut.valid_i.value = 1
        for _ in range(int(rng.integers(1, 7))):
            await RisingEdge(dut.clk_i)
        dut.valid_i.value = 0
        await clocking.reset(dut, 1)
        for _ in range(10):
            await RisingEdge(dut.clk_i)
            assert dut.valid_o.value == 0
    await _run(dut, pipeline, rng, vectors.random(rng, 50), (0, 255), stalls(rng, "light"))
