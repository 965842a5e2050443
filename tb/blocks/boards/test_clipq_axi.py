"""clipq_axi: the driver on the ports of the block for IP integrator, over AXI models of another
project."""

from __future__ import annotations

from types import SimpleNamespace

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from host.driver import Accelerator
from host.harness.clocking import PERIOD_NS
from host.harness.engines import SimulatedTime
from host.register_map import ErrorCode
from tb.lib.effort import scaled
from tb.top.test_driver import OTHER, SMALL, Platform, error, good_run


class Time(SimulatedTime):
    """Time of the simulation; `sleep` takes a microsecond."""

    async def _sleep(self, seconds: float) -> None:
        await ClockCycles(self._dut.aclk, 100)


class Send:
    """A sending channel of pynq.lib.dma on an AxiStreamSource."""

    def __init__(self, source: AxiStreamSource) -> None:
        self.source, self.transferred = source, 0
        self.transfer = lambda array: source.send_nowait(AxiStreamFrame(array.tobytes()))
        self.stop = source.clear

    @property
    def idle(self) -> bool:
        """Whether all has been sent."""
        return self.source.idle()

    def wait(self) -> None:
        """Everything has been sent when the driver asks."""
        assert self.idle

    def start(self) -> None:
        """The engine always runs."""


class Receive:
    """A receiving channel of pynq.lib.dma on an AxiStreamSink."""

    def __init__(self, sink: AxiStreamSink) -> None:
        self.sink, self.transferred = sink, 0
        self.stop = sink.clear

    def transfer(self, array: np.ndarray) -> None:
        """Name the buffer of the next packet."""
        self._buffer = array

    @property
    def idle(self) -> bool:
        """Whether the packet has come."""
        return not self.sink.empty()

    def wait(self) -> None:
        """Copy the packet into the buffer, every byte that TKEEP marks."""
        words = np.frombuffer(bytes(self.sink.recv_nowait().tdata), "<u8")
        self.transferred = words.nbytes
        self._buffer[: len(words)] = words

    def start(self) -> None:
        """The engine always runs."""


class Ports(Platform):
    """The accelerator at the ports of the block."""

    def __init__(self, dut) -> None:
        def stream(kind, prefix):
            bus = AxiStreamBus.from_prefix(dut, prefix)
            return kind(bus, dut.aclk, dut.aresetn, reset_active_level=False)

        bus = AxiLiteBus.from_prefix(dut, "s_axil")
        master = AxiLiteMaster(bus, dut.aclk, dut.aresetn, reset_active_level=False)

        async def read(offset: int) -> int:
            return await master.read_dword(int(offset))

        async def write(offset: int, value: int) -> None:
            await master.write_dword(int(offset), int(value))

        mmio = SimpleNamespace(read=resume(read), write=resume(write))
        weights, images = (
            SimpleNamespace(sendchannel=Send(stream(AxiStreamSource, f"s_axis_{name}")))
            for name in ("prog", "image")
        )
        results = SimpleNamespace(recvchannel=Receive(stream(AxiStreamSink, "m_axis_result")))
        self.driver = lambda: Accelerator(mmio, weights, images, results, clock=Time(dut))


async def power_up(dut) -> Ports:
    """Clock and reset; the models of the other side begin when the block's outputs are known."""
    dut.aresetn.value = 0
    Clock(dut.aclk, PERIOD_NS, unit="ns", impl="gpi").start()
    await ClockCycles(dut.aclk, 8)
    ports = Ports(dut)
    await ClockCycles(dut.aclk, 8)
    dut.aresetn.value = 1
    await ClockCycles(dut.aclk, 2)
    return ports


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def networks(dut):
    """What the driver computes through the ports is right, and an error comes back with its code
    and layer."""
    ports = await power_up(dut)

    @bridge
    def run() -> None:
        accelerator = ports.driver()
        for network in scaled([OTHER], [SMALL, OTHER]):
            good_run(accelerator, network)
        for code in scaled([], [ErrorCode.WEIGHTS_SHORT]):
            error(ports, code)

    await run()
    assert int(dut.irq.value) == 0
