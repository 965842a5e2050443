"""Agents: AXI4-Lite registers, the two input streams, the result stream. A passive agent has only
its monitor.

Monitors wait for edges of valid or busy signals and look at single cycles only while something
happens, so that Verilator runs at full speed between them. The streams go through the harness's DMA
engines; what the monitors publish is what the engines sent and received.
"""

from __future__ import annotations

import cocotb
from cocotb.triggers import FallingEdge, First, RisingEdge
from cocotb_bus.drivers.amba import AXIProtocolError
from pyuvm import ConfigDB, uvm_agent, uvm_analysis_port, uvm_driver, uvm_monitor, uvm_sequencer

from host.driver import RESULT_FILE, read_hex
from tb.uvm.config import ENGINE_FILES, KEY
from tb.uvm.items import RegisterItem, ResultPacket, StreamItem


class _Configured:
    """Mixin: `self.config` and `self.dut` from the ConfigDB."""

    def build_phase(self):
        super().build_phase()
        self.config = ConfigDB().get(self, "", KEY)
        self.dut = self.config.dut


class _Monitor(_Configured, uvm_monitor):
    def build_phase(self):
        super().build_phase()
        self.ap = uvm_analysis_port("ap", self)

    def bit(self, name: str) -> int:
        """Value of a one-bit signal of the harness."""
        return int(getattr(self.dut, name).value)


class _Agent(_Configured, uvm_agent):
    """Builds the monitor, and the sequencer and driver if the configuration says active."""

    monitor_type = driver_type = None

    def build_phase(self):
        super().build_phase()
        self.is_active = self.config.is_active
        self.monitor = self.make(self.monitor_type, "monitor")
        if self.active():
            self.sequencer = uvm_sequencer("sequencer", self)
            self.driver = self.make(self.driver_type, "driver")

    def make(self, kind, name):
        """A child of this agent through the factory."""
        return kind.create(name, self)

    def connect_phase(self):
        super().connect_phase()
        if self.active():
            self.driver.seq_item_port.connect(self.sequencer.seq_item_export)


# ---------------------------------------------------------------------------------------- registers


class RegisterDriver(_Configured, uvm_driver):
    """Drives RegisterItems with the host's AXI4-Lite master; a read's value goes into the item."""

    async def run_phase(self):
        host = self.config.host
        while True:
            item = await self.seq_item_port.get_next_item()
            try:
                if item.write:
                    await host.write(item.register, item.value)
                else:
                    item.value = await host.read(item.register)
            except AXIProtocolError as error:
                item.response = int(error.xresp)
            self.seq_item_port.item_done()


class RegisterMonitor(_Monitor):
    """Publishes every finished access as a RegisterItem."""

    async def run_phase(self):
        cocotb.start_soon(self._writes())
        await self._reads()

    async def _writes(self):
        dut, address, data = self.dut, None, None
        while True:
            if (
                address is None
                and data is None
                and not (self.bit("s_axil_awvalid") or self.bit("s_axil_wvalid"))
            ):
                await First(RisingEdge(dut.s_axil_awvalid), RisingEdge(dut.s_axil_wvalid))
            await FallingEdge(dut.clk_i)
            if self.bit("s_axil_awvalid") and self.bit("s_axil_awready"):
                address = int(dut.s_axil_awaddr.value)
            if self.bit("s_axil_wvalid") and self.bit("s_axil_wready"):
                data = int(dut.s_axil_wdata.value)
            if self.bit("s_axil_bvalid") and self.bit("s_axil_bready"):
                self.ap.write(RegisterItem(address, data, True, int(dut.s_axil_bresp.value)))
                address = data = None

    async def _reads(self):
        dut, address = self.dut, None
        while True:
            if address is None and not self.bit("s_axil_arvalid"):
                await RisingEdge(dut.s_axil_arvalid)
            await FallingEdge(dut.clk_i)
            if self.bit("s_axil_arvalid") and self.bit("s_axil_arready"):
                address = int(dut.s_axil_araddr.value)
            if self.bit("s_axil_rvalid") and self.bit("s_axil_rready"):
                self.ap.write(
                    RegisterItem(
                        address, int(dut.s_axil_rdata.value), False, int(dut.s_axil_rresp.value)
                    )
                )
                address = None


class RegisterAgent(_Agent):
    """AXI4-Lite."""

    monitor_type, driver_type = RegisterMonitor, RegisterDriver


# ------------------------------------------------------------------------------------ input streams


class StreamDriver(_Configured, uvm_driver):
    """Sends StreamItems through the DMA engine that its agent is named after."""

    async def run_phase(self):
        engine, host = self.get_parent().engine, self.config.host
        busy = getattr(self.dut, f"{engine}_busy_o")
        while True:
            item = await self.seq_item_port.get_next_item()
            base = await self.config.memory.append(engine, item.words)
            for name in ("latency", "rate", "stall"):
                getattr(self.dut, f"{engine}_{name}_i").value = getattr(item.traffic, name)
            await host.send(engine, base, len(item.words))
            if not int(busy.value):
                await RisingEdge(busy)
            await FallingEdge(busy)
            self.seq_item_port.item_done()


class StreamMonitor(_Monitor):
    """Publishes a StreamItem for every packet that the engine has sent to its end; one that was
    stopped is not published."""

    async def run_phase(self):
        engine, dut = self.get_parent().engine, self.dut
        go, busy = getattr(dut, f"{engine}_go_i"), getattr(dut, f"{engine}_busy_o")
        while True:
            await RisingEdge(go)
            base, beats = (
                int(getattr(dut, f"{engine}_{name}_i").value) for name in ("base", "beats")
            )
            words = read_hex(ENGINE_FILES[engine], base + beats)[base:]
            if not int(busy.value):
                await RisingEdge(busy)
            ended = FallingEdge(busy)
            if await First(ended, RisingEdge(go)) is ended:
                self.ap.write(StreamItem(words))
            elif int(busy.value):
                await FallingEdge(busy)


class StreamAgent(_Agent):
    """One input stream; `engine` is "prog" or "image"."""

    monitor_type, driver_type = StreamMonitor, StreamDriver
    engine = ""


class ProgramAgent(StreamAgent):
    """Program and weights."""

    engine = "prog"


class ImageAgent(StreamAgent):
    """Images."""

    engine = "image"


# ------------------------------------------------------------------------------------------ results


class ResultDriver(_Configured, uvm_driver):
    """Takes the results with the stalls that StallItems ask for, and has every finished packet
    written to the results' file."""

    async def run_phase(self):
        cocotb.start_soon(self._dump())
        while True:
            item = await self.seq_item_port.get_next_item()
            self.dut.result_stall_i.value = item.stall
            self.seq_item_port.item_done()

    async def _dump(self):
        packets, dumped = self.dut.result_packets_o, 0
        while True:
            if int(packets.value) == dumped:
                await packets.value_change
            more, dumped = int(packets.value) > dumped, int(packets.value)
            if more:  # fewer: the receiver was emptied
                await self.config.host.pulse("result_dump_i")


class ResultMonitor(_Monitor):
    """Notes where packets end and publishes each as a ResultPacket when the results' file is
    written."""

    async def run_phase(self):
        self.ends, self.published = [], 0
        cocotb.start_soon(self._note_ends())
        while True:
            await RisingEdge(self.dut.result_dump_i)
            ends = list(self.ends)  # before the next clock edge: what the file will hold
            await FallingEdge(self.dut.result_dump_i)
            words = read_hex(RESULT_FILE, ends[-1]) if ends else []
            for start, end in list(zip([0, *ends], ends))[self.published :]:
                self.ap.write(ResultPacket(words[start:end]))
            self.published = len(ends)

    async def _note_ends(self):
        packets = self.dut.result_packets_o
        while True:
            await packets.value_change
            await FallingEdge(self.dut.clk_i)
            if int(packets.value) <= len(self.ends):  # the receiver was emptied
                self.ends.clear()
                self.published = 0
            if int(packets.value):
                self.ends.append(int(self.dut.result_beats_o.value))


class ResultAgent(_Agent):
    """The result stream."""

    monitor_type, driver_type = ResultMonitor, ResultDriver
