"""Tests of rtl/conv_unit/conv_module.sv: sums of passes of random lengths in all modes, each added
to a partial sum."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.reference.blocks import module_products, window_activations
from tb.blocks.conv_unit.streams import (
    array_inputs,
    pack_rows,
    pixel_stream,
    play,
    skew,
    unpack_rows,
)
from tb.lib.effort import scaled

STAGES = 20
TO_PARTIAL = STAGES + 2  # activations of stage 0 to the partial sum of their position
TO_SUM = STAGES + 7
ACC_W, FACTOR_W = 32, 10
STAGE_PES = [[24]] + [[8 * s + 2 * k + i for s in range(3) for i in range(2)] for k in range(4)]


def _passes(rng, cycles, mode):
    """(first position of each pass, its indices uint8 [4, 25]) until `cycles` are full."""
    at, passes = 0, []
    while at < cycles:
        index = np.zeros((4, 25), np.uint8)
        used = 25 if mode == 2 else 24
        full = rng.random() < 0.3  # the largest sums of every plane
        index[:, :used] = 3 if full else rng.integers(0, 4, (4, used))
        passes.append((at, index))
        at += int(rng.integers(1, 40))
    return passes


def _staged(rng, act, passes, total):
    """(activations as each stage gets them, load wave, indices): the first position comes in cycle
    1; indices are right only where they are loaded."""
    stream = np.zeros((total, 4, 25), np.int64)
    stream[1 : len(act) + 1] = act
    staged = np.zeros_like(stream)
    load, shown = np.zeros((total, STAGES), np.int64), rng.integers(0, 4, (total, 4, 25))
    for stage in range(STAGES):
        array, pes = stage // 5, STAGE_PES[stage % 5]
        staged[:, array, pes] = skew(stream, stage)[:, array, pes]
        for start, index in passes:
            load[start + stage, stage] = 1
            shown[start + stage, array, pes] = index[array, pes]
    return staged, load, shown


async def _check(dut, rng, mode, codebook, signed, kind, cycles):
    total = cycles + TO_SUM + 3
    full = np.full(cycles, 255)
    act = window_activations(pixel_stream(rng, cycles, kind), full & 31, full, mode, signed)
    passes = _passes(rng, cycles, mode)
    staged, load, shown = _staged(rng, act, passes, total)
    starts = [start for start, _ in passes]
    of_pass = np.searchsorted(starts, np.arange(cycles), side="right") - 1
    products = module_products(act, np.stack([i for _, i in passes])[of_pass], codebook, mode)
    lanes = 3 if mode == 0 else 1
    want = rng.integers(-(2**31), 2**31, (cycles, 3))
    partial = np.zeros((total, 3), np.int64)
    partial[1 + TO_PARTIAL : 1 + TO_PARTIAL + cycles, :lanes] = (want - products)[:, :lanes]
    w1, w2, w3 = (int(w) for w in codebook[1:])
    factors = [w1, w2, w3 - w1 - w2][: int(dut.PLANES.value)]
    dut.mode_i.value, dut.signed_i.value = mode, int(signed)
    dut.factor_i.value = pack_rows([factors], FACTOR_W)[0]
    ports = array_inputs(staged).items()
    inputs = {
        "load_i": pack_rows(load, 1),
        "idx_i": pack_rows(shown, 2),
        **{port: pack_rows(*value) for port, value in ports},
        "partial_i": pack_rows(partial, ACC_W),
    }
    record = await play(dut, inputs, ["sum_o"])
    words = record["sum_o"][1 + TO_SUM : 1 + TO_SUM + cycles]
    where = f"mode {mode}, {'signed' if signed else 'unsigned'}, {kind}"
    assert None not in words, f"{where}: position {words.index(None)}: sum_o holds X"
    got = unpack_rows(words, 3, ACC_W, signed=True)[:, :lanes]
    wrong = np.argwhere(got != want[:, :lanes])
    assert not len(wrong), (
        f"{where}: position {wrong[0][0]}, lane {wrong[0][1]}: got {got[tuple(wrong[0])]}, "
        f"expected {want[tuple(wrong[0])]}"
    )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def passes(dut):
    """Random passes in all modes, signed and unsigned, extreme activations and weights; partial
    sums over all of 32 bits."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    clocking.start_clock(dut.clk_i)
    await RisingEdge(dut.clk_i)
    for mode in (2, 0, 1):
        for signed in (False, True):
            for kind in ("random", "extreme", "all -128" if signed else "all 255"):
                free = kind != "extreme"
                weights = rng.integers(-128, 128, 3) if free else rng.choice([-128, 127], 3)
                codebook = np.array([0, *weights])
                if int(dut.PLANES.value) == 2:
                    codebook[1:3] = codebook[1:3] // 2 if free else rng.permutation([-128, 127])
                    codebook[3] = codebook[1] + codebook[2]
                await _check(dut, rng, mode, codebook, signed, kind, scaled(60, 300))
