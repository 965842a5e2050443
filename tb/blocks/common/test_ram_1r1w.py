"""ram_1r1w against a dictionary: random reads and writes, collisions, the held read register, words
never written."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking


@cocotb.test()
async def random_traffic(dut):
    """The read register shows the word as it was before the cycle of the read, and keeps it while
    re_i is low."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    depth, width, read_old = int(dut.DEPTH.value), len(dut.wdata_i), int(dut.READ_OLD.value)
    dut.we_i.value = dut.re_i.value = 0
    clocking.start_clock(dut.clk_i)
    await RisingEdge(dut.clk_i)
    memory: dict[int, int] = {}
    expected: int | None = None  # None: not defined
    collisions = checked = 0
    for _ in range(3000):
        write, read = rng.random(2) < 0.7
        write_address = int(rng.integers(depth))
        read_address = write_address if rng.random() < 0.3 else int(rng.integers(depth))
        word = int.from_bytes(rng.bytes((width + 7) // 8), "little") & ((1 << width) - 1)
        dut.we_i.value, dut.re_i.value = int(write), int(read)
        dut.waddr_i.value, dut.raddr_i.value, dut.wdata_i.value = write_address, read_address, word
        await RisingEdge(dut.clk_i)
        if expected is not None:
            assert dut.rdata_o.value.to_unsigned() == expected
            checked += 1
        collision = bool(write and read and write_address == read_address)
        if read:
            expected = None if collision and not read_old else memory.get(read_address)
        if write:
            memory[write_address] = word
        collisions += collision
    assert collisions > 100 and checked > 1000, "the traffic did not exercise the memory"
