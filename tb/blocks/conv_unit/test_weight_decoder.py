"""Tests of rtl/conv_unit/weight_decoder.sv: the codebook applied to plane sums against the sum of
the products."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.reference.blocks import gated_sums
from tb.blocks.conv_unit.streams import pack_rows, play, unpack_rows
from tb.lib.effort import scaled

LATENCY = 4
SUM_W, PRODUCT_W = 15, 24
TERMS = 36  # activations of the widest segment
EXTREMES = (0, 1, -1, 127, -128)


def _sums(rng, cycles):
    """Activations int64 [cycles, 36], indices uint8 of the same shape; whole rows at the limits now
    and then."""
    act = rng.integers(-128, 256, (cycles, TERMS))
    index = rng.integers(0, 4, (cycles, TERMS)).astype(np.uint8)
    kind = rng.integers(0, 6, cycles)
    act[kind == 0], act[kind == 1] = 255, -128
    index[kind < 2] = rng.integers(0, 4, (np.sum(kind < 2), 1))
    return act, index


async def _check(dut, rng, codebook, cycles):
    act, index = _sums(rng, cycles)
    planes = np.zeros((cycles, 3), np.int64)
    for part in range(4):
        padded = np.zeros((cycles, 25), np.int64)
        chosen = np.zeros((cycles, 25), np.uint8)
        pes = [*range(8), 24]
        padded[:, pes], chosen[:, pes] = (
            act[:, 9 * part : 9 * part + 9],
            index[:, 9 * part : 9 * part + 9],
        )
        planes += gated_sums(padded, chosen)[:, 0]
    want = (act * np.array([0, *codebook])[index]).sum(axis=1)
    dut.codebook_i.value = pack_rows([codebook], 8)[0]
    idle = np.zeros((2, 3), np.int64)  # the codebook is stable two cycles before the first sum
    words = pack_rows(np.concatenate([idle, planes, np.zeros((LATENCY, 3), np.int64)]), SUM_W)
    record = await play(dut, {"sum_i": words}, ["product_o"])
    words = record["product_o"][2 + LATENCY : 2 + LATENCY + cycles]
    assert None not in words, "product_o holds X"
    got = unpack_rows(words, 1, PRODUCT_W, signed=True)[:, 0]
    wrong = np.flatnonzero(got != want)
    assert not len(wrong), (
        f"codebook {codebook}, sums {planes[wrong[0]]}: got {got[wrong[0]]}, expected "
        f"{want[wrong[0]]}"
    )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def codebooks(dut):
    """All combinations of extreme weights, then random ones, each with random and extreme sums, one
    a cycle."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    dut.sum_i.value = dut.codebook_i.value = 0
    clocking.Clock(dut.clk_i, clocking.PERIOD_NS, unit="ns", impl="gpi").start()
    await RisingEdge(dut.clk_i)
    cycles = scaled(20, 60)
    for w1 in EXTREMES:
        for w2 in EXTREMES:
            for w3 in EXTREMES:
                await _check(dut, rng, (w1, w2, w3), cycles)
    for _ in range(20):
        await _check(dut, rng, tuple(int(w) for w in rng.integers(-128, 128, 3)), cycles)
