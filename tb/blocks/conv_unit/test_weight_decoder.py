"""Tests of rtl/conv_unit/weight_decoder.sv: the codebook applied to plane sums against the sum of
the products, added to a partial sum."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from tb.blocks.conv_unit.streams import pack_rows, play, unpack_rows
from tb.lib.effort import scaled

LATENCY = 5
PARTIAL = 2  # the partial sum comes that many cycles after the plane sums
SUM_W, FACTOR_W, ACC_W = 14, 10, 32
EXTREMES = (0, 1, -1, 127, -128)


def _sums(rng, cycles, terms, signed):
    """Activations int64 [cycles, terms], indices uint8 of the same shape; whole rows at the limits
    now and then."""
    low, high = (-128, 127) if signed else (0, 255)
    act = rng.integers(low, high + 1, (cycles, terms))
    index = rng.integers(0, 4, (cycles, terms)).astype(np.uint8)
    kind = rng.integers(0, 6, cycles)
    act[kind == 0], act[kind == 1] = high, low
    index[kind < 2] = rng.integers(0, 4, (np.sum(kind < 2), 1))
    return act, index


async def _check(dut, rng, codebook, cycles):
    if int(dut.PLANES.value) == 2:
        codebook = (*codebook[:2], codebook[0] + codebook[1])
    bit, signed = int(dut.OFFSET_BIT.value), bool(rng.integers(2))
    terms = {12: 32, 13: 36}[bit]  # activations of a segment
    act, index = _sums(rng, cycles, terms, signed)
    gates = np.stack([index & 1, index >> 1, index == 3], axis=-1).astype(np.int64)
    planes = (act[..., None] * gates).sum(axis=1)[:, : int(dut.PLANES.value)]
    dut.signed_i.value = int(signed)
    # the partial sum with the product has 32 bits
    product = (act * np.array([0, *codebook])[index]).sum(axis=1)
    want = rng.integers(-(2**31), 2**31, cycles)
    partial = want - product
    w1, w2, w3 = codebook
    dut.factor_i.value = pack_rows([[w1, w2, w3 - w1 - w2][: planes.shape[1]]], FACTOR_W)[0]
    tail = np.zeros((LATENCY, planes.shape[1]), np.int64)
    inputs = {
        "sum_i": pack_rows(np.concatenate([planes + (int(signed) << bit), tail]), SUM_W),
        "partial_i": pack_rows(np.concatenate([tail[:PARTIAL, 0], partial]), ACC_W),
    }
    record = await play(dut, inputs, ["sum_o"])
    words = record["sum_o"][LATENCY : LATENCY + cycles]
    assert None not in words, "sum_o holds X"
    got = unpack_rows(words, 1, ACC_W, signed=True)[:, 0]
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
    dut.signed_i.value = dut.sum_i.value = dut.factor_i.value = dut.partial_i.value = 0
    clocking.start_clock(dut.clk_i)
    await RisingEdge(dut.clk_i)
    cycles = scaled(20, 60)
    for w1 in EXTREMES:
        for w2 in EXTREMES:
            for w3 in EXTREMES:
                await _check(dut, rng, (w1, w2, w3), cycles)
    for _ in range(20):
        await _check(dut, rng, tuple(int(w) for w in rng.integers(-128, 128, 3)), cycles)
