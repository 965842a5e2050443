"""ram_1r1rw against a dictionary: random reads and writes of both ports, collisions, held read
registers, words never written."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking


@cocotb.test()
async def random_traffic(dut):
    """Each read register shows the word as it was before the cycle of the read, and keeps it
    otherwise; a write wins over a read of its port."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    depth, width = int(dut.DEPTH.value), len(dut.port_wdata_i)
    dut.re_i.value = dut.port_we_i.value = dut.port_re_i.value = 0
    clocking.start_clock(dut.clk_i)
    await RisingEdge(dut.clk_i)
    memory: dict[int, int] = {}
    expected: dict[str, int | None] = {"rdata_o": None, "port_rdata_o": None}  # None: not defined
    checked, kept = {"rdata_o": 0, "port_rdata_o": 0}, 0
    for _ in range(4000):
        read, write, port_read = (bool(x) for x in rng.random(3) < (0.7, 0.5, 0.6))
        address, port_address = (int(x) for x in rng.integers(0, depth, 2))
        if rng.random() < 0.2:
            port_address = address
        word = int(rng.integers(1 << width))
        dut.re_i.value, dut.raddr_i.value = int(read), address
        dut.port_we_i.value, dut.port_re_i.value = int(write), int(port_read)
        dut.port_addr_i.value, dut.port_wdata_i.value = port_address, word
        await RisingEdge(dut.clk_i)
        for name, value in expected.items():
            if value is not None:
                assert getattr(dut, name).value.to_unsigned() == value, name
                checked[name] += 1
        if read:
            collision = write and port_address == address
            expected["rdata_o"] = None if collision else memory.get(address)
        if write:
            memory[port_address] = word
            kept += port_read
        elif port_read:
            expected["port_rdata_o"] = memory.get(port_address)
    assert min(checked.values()) > 1000 and kept > 500, "the traffic did not exercise the memory"
