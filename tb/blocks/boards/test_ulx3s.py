"""ulx3s: the whole design of the board, driven through its serial port by the driver."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge
from cocotb.triggers import ClockCycles

from host.driver import Accelerator
from host.harness.clocking import PERIOD_NS
from host.harness.engines import SimulatedTime
from host.register_map import ErrorCode
from host.serial_link import on_serial
from tb.lib.uart import Uart
from tb.top.test_driver import OTHER, SMALL, Platform, error, good_run

SILENCE = 1200


class Time(SimulatedTime):
    """Time of the simulation; `sleep` takes a microsecond, in which requests take their time."""

    async def _sleep(self, seconds: float) -> None:
        await ClockCycles(self._dut.clk_25mhz, 100)


class Board(Platform):
    """The simulated board."""

    def __init__(self, dut, noise: float) -> None:
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        bit = int(dut.CLOCKS_PER_BIT.value)
        self.port = Uart(dut.ftdi_txd, dut.ftdi_rxd, bit, SILENCE, self.rng, noise)
        self.driver = lambda: self._opened(dut)

    def _opened(self, dut) -> Accelerator:
        return on_serial(self.port, clock=Time(dut))


async def power_up(dut, noise: float = 0.0) -> Board:
    """Clock and configuration."""
    dut.btn.value = 0
    board = Board(dut, noise)
    Clock(dut.clk_25mhz, PERIOD_NS, unit="ns", impl="gpi").start()
    await ClockCycles(dut.clk_25mhz, 40)
    assert int(dut.led.value) == 0b0001 and int(dut.wifi_gpio0.value) == 1
    return board


@cocotb.test(timeout_time=200, timeout_unit="ms")
async def networks(dut):
    """Two networks give what the integer model gives, whatever happens on the line."""
    board = await power_up(dut, 0.03)

    @bridge
    def run() -> None:
        accelerator = board.driver()
        good_run(accelerator, SMALL)
        good_run(accelerator, OTHER)

    await run()
    assert board.port.troubles


@cocotb.test(timeout_time=200, timeout_unit="ms")
async def errors(dut):
    """An error is reported, and the next run is right."""
    board = await power_up(dut)
    await bridge(error)(board, ErrorCode.OUT_OF_BOUNDS)


@cocotb.test(timeout_time=200, timeout_unit="ms")
async def button(dut):
    """The button resets the board in the middle of a request; a new driver then finds it as after
    configuration."""
    board = await power_up(dut)

    @bridge
    def run() -> None:
        good_run(board.driver(), OTHER)

    await run()
    await board.port.send_byte(0xC5)
    dut.btn.value = 1
    await ClockCycles(dut.clk_25mhz, 20)
    assert int(dut.led.value) == 0
    dut.btn.value = 0
    await ClockCycles(dut.clk_25mhz, 20)
    await run()
