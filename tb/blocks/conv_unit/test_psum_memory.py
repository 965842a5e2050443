"""Tests of rtl/conv_unit/psum_memory.sv: passes that add to a buffer while the other is drained."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from tb.blocks.conv_unit.streams import pack_rows, play, unpack_rows
from tb.lib.effort import scaled

TO_PARTIAL, TO_SUM = 2, 7
DRAIN_LATENCY = 2
AGAIN = 8  # cycles until the same pixel may return
PIXELS = 256
ACC_W = 32


class Script:
    """Ports of a run, cycle by cycle, and what partial_o and drain_o must show.

    A tile has passes over all its pixels; meanwhile the tile before is drained from the other
    buffer.
    """

    def __init__(self, rng, lanes, three, tiles):
        self.lanes, self.rows, self.partial, self.drained = lanes, [], [], []
        self.sums, at = {}, 0
        used = np.ones(lanes, bool) if three else np.arange(lanes) % 3 == 0
        waiting = np.zeros((0, lanes), np.int64)  # sums of the tile before
        for tile in range(tiles):
            pixels = int(rng.integers(AGAIN, PIXELS + 1)) if tile else PIXELS
            now = np.zeros((pixels, lanes), np.int64)
            drain = rng.permutation(len(waiting))
            for number in range(int(rng.integers(1, 4))):
                for pixel in range(pixels):
                    read = int(drain[0]) if len(drain) else 0
                    if len(drain):
                        self.drained.append((at + DRAIN_LATENCY, waiting[read]))
                    drain = drain[1:]
                    self.rows.append((1, tile & 1, pixel, int(number == 0), 1 - (tile & 1), read))
                    self.partial.append((at + TO_PARTIAL, now[pixel] * used))
                    now[pixel] = rng.integers(-(2**31), 2**31, lanes)
                    self.sums[at + TO_SUM] = now[pixel].copy()
                    at += 1
            # the last sums become visible, and the tile before is drained
            for step in range(AGAIN + len(drain)):
                read = int(drain[step]) if step < len(drain) else 0
                if step < len(drain):
                    self.drained.append((at + DRAIN_LATENCY, waiting[read]))
                self.rows.append((0, 1 - (tile & 1), 0, 0, 1 - (tile & 1), read))
                at += 1
            waiting = now

    def ports(self, rng):
        total = len(self.rows) + TO_SUM + 1
        sums = rng.integers(-(2**31), 2**31, (total, self.lanes))
        for at, values in self.sums.items():
            sums[at] = values
        rows = np.zeros((total, 6), np.int64)
        rows[: len(self.rows)] = self.rows
        names = ("acc_ren_i", "acc_buf_i", "acc_addr_i", "acc_first_i", "drain_buf_i")
        columns = {n: [int(v) for v in rows[:, i]] for i, n in enumerate((*names, "drain_addr_i"))}
        return {**columns, "sum_i": pack_rows(sums, ACC_W)}


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def tiles(dut):
    """Every partial sum of every pass and every drained sum, with one lane and with three; the
    first pass of a tile adds to 0; sums without acc_ren_i are not written."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    clocking.start_clock(dut.clk_i)
    lanes = 3 * int(dut.NUM_MODULES.value)
    dut.acc_ren_i.value = 0
    for _ in range(TO_SUM + 2):
        await RisingEdge(dut.clk_i)
    for three in (True, False):
        dut.three_i.value = int(three)
        script = Script(rng, lanes, three, scaled(4, 12))
        record = await play(dut, script.ports(rng), ["partial_o", "drain_o"])
        for port, wanted in (("partial_o", script.partial), ("drain_o", script.drained)):
            for at, want in wanted:
                word = record[port][at]
                assert word is not None, f"{port}, cycle {at}: X"
                got = unpack_rows([word], lanes, ACC_W, signed=True)[0]
                assert (got == want).all(), f"{port}, cycle {at}: got {got}, expected {want}"
