"""The harness's DMA engines instead of drivers on the pins: whole networks at the simulator's full
speed. Items and sequences are the same."""

from __future__ import annotations

from pathlib import Path

from cocotb.triggers import FallingEdge, First
from pyuvm import uvm_factory

from host.harness.engines import Host, write_hex
from tb.lib.signals import is_high
from tb.uvm.axi_stream import PacketDriver, PacketItem, ReadyDriver, StallItem


class DmaPacketDriver(PacketDriver):
    """Sends PacketItems through the engine of its stream."""

    def attach(self):
        self.host = Host(self.dut)

    async def drive(self, item: PacketItem):
        engine, busy = self.stream, getattr(self.dut, f"{self.stream}_busy_o")
        write_hex(Path(f"{engine}.hex"), item.words)  # the file that the engine loads
        getattr(self.dut, f"{engine}_keep_i").value = item.keep
        for name in ("latency", "rate", "stall"):
            getattr(self.dut, f"{engine}_{name}_i").value = getattr(item.traffic, name)
        await self.host.pulse(f"{engine}_load_i")
        await self.host.send(engine, 0, len(item.words))
        if is_high(busy):
            await First(FallingEdge(busy), item.give_up.wait())
        if is_high(busy):
            await self.host.send(engine, 0, 0)
            await self.last_beat(busy)


class DmaReadyDriver(ReadyDriver):
    """Has the receiving engine pause."""

    def attach(self):
        """The engine takes the results by itself."""

    async def drive(self, item: StallItem):
        self.dut.result_stall_i.value = item.stall


def use_dma():
    """Let the factory make drivers of the engines; to be called before the environment is built."""
    factory = uvm_factory()
    factory.set_type_override_by_type(PacketDriver, DmaPacketDriver)
    factory.set_type_override_by_type(ReadyDriver, DmaReadyDriver)
