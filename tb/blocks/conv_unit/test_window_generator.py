"""Tests of rtl/conv_unit/window_generator.sv: every activation at its PE and in its cycle, the pair
sums and the load wave."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.reference.blocks import window_activations
from tb.blocks.conv_unit.streams import (
    PIXEL_KINDS,
    array_inputs,
    pack_rows,
    pixel_stream,
    play,
    unpack_rows,
)
from tb.lib.effort import scaled

LATENCY = 2  # data to the activation of stage 0
STAGES = 20
FLUSH = STAGES + LATENCY + 5
OUTPUTS = {
    "load_o": (STAGES, 1),
    "single_o": (4, 8),
    "x_o": (48, 9),
    "y_o": (48, 9),
    "xy_o": (48, 9),
}
PAIR_OUTPUTS = ("x_o", "y_o", "xy_o")


async def _check(dut, rng, mode, signed, kind, cycles, masks=None):
    """Play `cycles` positions and compare everything that comes out of them. masks: (column, row)
    masks or None for random ones."""
    col, row = masks or (rng.integers(0, 32, cycles), rng.integers(0, 256, cycles))
    pixels = pixel_stream(rng, cycles, kind)
    load = (rng.random(cycles) < 0.2).astype(np.int64)
    dut.mode_i.value, dut.signed_i.value = mode, int(signed)
    tail = np.zeros(FLUSH, np.int64)
    inputs = {
        "data_i": pack_rows(
            np.concatenate(
                [
                    np.zeros((5, 32), np.int64),
                    pixels.reshape(cycles, 32),
                    np.zeros((FLUSH, 32), np.int64),
                ]
            ),
            8,
        )
    }
    for port, values in (("col_mask_i", col), ("row_mask_i", row), ("load_i", load)):
        inputs[port] = [int(v) for v in np.concatenate([np.zeros(5, np.int64), values, tail])]
    record = await play(dut, inputs, OUTPUTS)
    act = window_activations(pixels, col, row, mode, signed)
    want = {
        port[:-1] + "o": rows & ((1 << width) - 1)
        for port, (rows, width) in array_inputs(act).items()
    }
    where = f"mode {mode}, {'signed' if signed else 'unsigned'}, {kind}"
    start = 5  # zeros before the first pixel
    for stage in range(STAGES):
        array, k = divmod(stage, 5)
        at = slice(start + LATENCY + stage, start + LATENCY + stage + cycles)
        got = {
            port: unpack_rows(record[port][at], *OUTPUTS[port])
            for port in (("single_o",) if k == 0 else PAIR_OUTPUTS)
        }
        if k == 0:
            _same(
                got["single_o"][:, array],
                want["single_o"][:, array, 0],
                f"{where}: PE 24 of array {array}",
            )
        for segment in range(3) if k else ():
            pair = 4 * segment + k - 1
            for port in PAIR_OUTPUTS:
                _same(
                    got[port][:, 12 * array + pair],
                    want[port][:, array, pair],
                    f"{where}: {port} of pair {pair} of array {array}",
                )
        wave = unpack_rows(
            record["load_o"][start + 1 + stage : start + 1 + stage + cycles], STAGES, 1
        )
        _same(wave[:, stage], load, f"{where}: load of stage {stage}")


def _same(got, want, what):
    wrong = np.flatnonzero(got != want)
    assert not len(wrong), (
        f"{what}: position {wrong[0]} of {len(want)}: got {got[wrong[0]]}, expected "
        f"{want[wrong[0]]} ({len(wrong)} wrong)"
    )


async def _start(dut):
    for port in ("mode_i", "signed_i", "data_i", "col_mask_i", "row_mask_i", "load_i"):
        getattr(dut, port).value = 0
    clocking.start_clock(dut.clk_i)
    for _ in range(FLUSH):
        await RisingEdge(dut.clk_i)
    return np.random.default_rng(cocotb.RANDOM_SEED)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_streams(dut):
    """All modes, signed and unsigned, random and extreme pixels and masks."""
    rng = await _start(dut)
    for mode in range(3):
        for signed in (False, True):
            for kind in PIXEL_KINDS:
                await _check(dut, rng, mode, signed, kind, scaled(30, 120))


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def all_masks(dut):
    """Every column mask with full rows, every row mask with full columns, in all modes."""
    rng = await _start(dut)
    col = np.concatenate([np.arange(32), np.full(256, 31)])
    row = np.concatenate([np.full(32, 255), np.arange(256)])
    for mode in range(3):
        await _check(dut, rng, mode, mode == 1, "random", len(col), (col, row))
