"""Clock and reset of every block: one clock `clk_i`, one synchronous active-low reset `rst_ni`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge

from host.harness.unknowns import watch_block

PERIOD_NS = 10


async def start(dut: Any, cycles: int = 4) -> None:
    """Start the clock (in the simulator, not in Python) and apply one reset of `cycles` clock
    cycles.

    Set the inputs before: they are sampled from the first cycle on. Returns after a falling edge,
    so that what the caller writes next is stable before the following rising edge. On Icarus the
    block's control outputs are watched for X and Z from then on.
    """
    dut.rst_ni.value = 0
    Clock(dut.clk_i, PERIOD_NS, unit="ns", impl="gpi").start()
    watch_block(dut)
    await reset(dut, cycles)


async def reset(dut: Any, cycles: int = 4) -> None:
    """Apply a reset of `cycles` clock cycles to a running design."""
    dut.rst_ni.value = 0
    await ClockCycles(dut.clk_i, cycles)
    await FallingEdge(dut.clk_i)
    dut.rst_ni.value = 1


async def wait_for(dut: Any, condition: Callable[[], object], limit: int, what: str) -> int:
    """Wait for `condition()` to be true just before a rising edge; returns the number of cycles
    waited.

    Raises AssertionError naming `what` after `limit` cycles.
    """
    for cycle in range(limit):
        await FallingEdge(dut.clk_i)
        if condition():
            return cycle
    raise AssertionError(f"{what}: nothing after {limit} cycles")
