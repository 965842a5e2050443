"""Clock and reset of every block: one clock `clk_i`, one synchronous active-low reset `rst_ni`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, FallingEdge
from cocotb.utils import get_sim_steps

from host.harness.unknowns import watch_block

PERIOD_NS = 10


def start_clock(signal: Any) -> None:
    """Drive a clock input of the top level, with 1 first, until the test ends.

    In Verilator the model's main program toggles it (host/simulation/verilator_main.cpp), in Icarus
    cocotb does. Raises ValueError for a signal of more than one bit.
    """
    if len(signal) != 1:
        raise ValueError(f"{signal._path} has {len(signal)} bits and is no clock")
    if "verilator" not in cocotb.SIM_NAME.lower():
        Clock(signal, PERIOD_NS, unit="ns", impl="gpi").start()
        return
    simulator, half_period = ctypes.CDLL(None), get_sim_steps(PERIOD_NS / 2, "ns")
    simulator.start_clock(signal._name.encode(), ctypes.c_uint64(half_period))

    async def run() -> None:
        try:
            await Event().wait()
        finally:
            simulator.stop_clock()

    cocotb.start_soon(run())


async def start(dut: Any, cycles: int = 4) -> None:
    """Start the clock and apply one reset of `cycles` clock cycles.

    Set the inputs before: they are sampled from the first cycle on. Returns after a falling edge,
    so that what the caller writes next is stable before the following rising edge. On Icarus the
    block's control outputs are watched for X and Z from then on.
    """
    dut.rst_ni.value = 0
    start_clock(dut.clk_i)
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
