"""Tests of rtl/conv_unit/conv_array.sv with its PEs (pe.sv, pe_pair.sv): gated sums, index waves,
activations at their limits."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.reference.blocks import gated_sums, window_activations
from tb.blocks.conv_unit.streams import (
    PIXEL_KINDS,
    array_inputs,
    pack_rows,
    pixel_stream,
    play,
    skew,
    sum_offset,
    unpack_rows,
)
from tb.lib.effort import scaled

LATENCY = 5
SUM_W = 14
MOST_BEFORE = (1 << SUM_W) - 1 - 9 * 255  # the sum of an array fits
PES = 25
STAGE_PES = [[24]] + [[8 * s + 2 * k + i for s in range(3) for i in range(2)] for k in range(4)]
MODE_PES = {
    0: range(24),
    1: range(24),
    2: range(25),
}  # PEs that a mode uses: the weight loader gives the others index 0


def _passes(rng, cycles, mode, full):
    """(first position of each pass, indices uint8 [passes, 25])."""
    starts, at = [0], 0
    while at < cycles:
        at += int(rng.integers(1, 40))
        starts.append(at)
    starts = [s for s in starts if s < cycles]
    index = np.zeros((len(starts), PES), np.uint8)
    used = list(MODE_PES[mode])
    index[:, used] = 3 if full else rng.integers(0, 4, (len(starts), len(used)))
    return starts, index


def _index_ports(rng, starts, index, total):
    """load_i and idx_i of each cycle: stage n loads in the cycle before its first activation; idx_i
    is right only where it is loaded."""
    load = np.zeros((total, 5), np.int64)
    shown = rng.integers(0, 4, (total, PES))
    for start, values in zip(starts, index):
        for stage, pes in enumerate(STAGE_PES):
            load[start + stage, stage] = (
                1  # activations begin one cycle later, at start + stage + 1
            )
            shown[start + stage, pes] = values[pes]
    return load, shown


async def _check(dut, rng, mode, signed, kind, cycles, full=False):
    total = cycles + LATENCY + 2
    pixels = pixel_stream(rng, cycles, kind)
    mask = rng.integers(0, 32, cycles) if kind == "random" else np.full(cycles, 31)
    act = window_activations(pixels, mask, np.full(cycles, 255), mode, signed)
    act = act[:, rng.integers(4)]
    starts, index = _passes(rng, cycles, mode, full)
    load, shown = _index_ports(rng, starts, index, total)
    stream = np.zeros((total, PES), np.int64)
    stream[1 : cycles + 1] = act
    staged = np.zeros((total, PES), np.int64)
    for stage, pes in enumerate(STAGE_PES):
        staged[:, pes] = skew(stream, stage)[:, pes]
    planes = int(dut.PLANES.value)
    sums = 3 * planes
    previous = np.zeros((total, sums), np.int64)
    previous[1 : cycles + 1] = (
        MOST_BEFORE if full else rng.integers(0, MOST_BEFORE + 1, (cycles, sums))
    )
    dut.signed_i.value = int(signed)
    record = await play(
        dut,
        {
            "load_i": pack_rows(load, 1),
            "idx_i": pack_rows(shown, 2),
            **{port: pack_rows(*value) for port, value in array_inputs(staged).items()},
            "sum_i": pack_rows(previous, SUM_W),
        },
        ["sum_o"],
    )
    of_pass = np.searchsorted(starts, np.arange(cycles), side="right") - 1
    added = gated_sums(act, index[of_pass])[..., :planes] + sum_offset(signed)[:, None]
    want = previous[1 : cycles + 1] + added.reshape(cycles, sums)
    words = record["sum_o"][1 + LATENCY : 1 + LATENCY + cycles]
    assert None not in words, f"mode {mode}, {kind}: position {words.index(None)}: sum_o holds X"
    got = unpack_rows(words, sums, SUM_W)
    wrong = np.argwhere(got != want)
    assert not len(wrong), (
        f"mode {mode}, {kind}: position {wrong[0][0]} (pass "
        f"{of_pass[wrong[0][0]]}), segment "
        f"{wrong[0][1] // planes}, plane {wrong[0][1] % planes}: got {got[tuple(wrong[0])]}, "
        "expected "
        f"{want[tuple(wrong[0])]}"
    )


async def _start(dut):
    for port in ("load_i", "idx_i", "single_i", "x_i", "y_i", "xy_i", "signed_i", "sum_i"):
        getattr(dut, port).value = 0
    clocking.start_clock(dut.clk_i)
    await RisingEdge(dut.clk_i)
    return np.random.default_rng(cocotb.RANDOM_SEED)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_passes(dut):
    """All modes one after the other, so that PE 24 has a stale index after the five-wide one; sums
    before it of any size."""
    rng = await _start(dut)
    for _ in range(scaled(1, 4)):
        for mode in (2, 0, 2, 1, 0):
            for kind in PIXEL_KINDS:
                await _check(dut, rng, mode, bool(rng.integers(2)), kind, scaled(40, 120))


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def limits(dut):
    """All activations 255 or -128, every index 3 and the largest sums before it: no plane carries
    into the next."""
    rng = await _start(dut)
    for kind, signed in (("all 255", False), ("all -128", True)):
        for mode in range(3):
            await _check(dut, rng, mode, signed, kind, 30, full=True)
