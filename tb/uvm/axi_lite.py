"""AXI4-Lite: item, driver (cocotb-bus), monitor on the pins, and the register model's adapter."""

from __future__ import annotations

import cocotb
from cocotb.triggers import RisingEdge, gather
from cocotb_bus.drivers.amba import AXI4LiteMaster, AXIProtocolError
from pyuvm import (
    uvm_access_e,
    uvm_analysis_port,
    uvm_driver,
    uvm_monitor,
    uvm_reg_adapter,
    uvm_sequence_item,
    uvm_status_e,
)

from host.register_map import Register
from tb.lib.handshake import transfer


class RegisterItem(uvm_sequence_item):
    """One access. `value` is written, or filled in by a read; `response` is that of AXI, 0 for
    OKAY."""

    def __init__(
        self, register: int, value: int | None = None, write: bool = False, response: int = 0
    ):
        super().__init__("register_item")
        self.register, self.value, self.write, self.response = register, value, write, response

    def __str__(self):
        known = self.register in set(Register)
        name = Register(self.register).name if known else f"{self.register:#05x}"
        value = "" if self.value is None else f" {self.value:#x}"
        return f"{'write' if self.write else 'read'} {name}{value}, response {self.response}"


class RegisterDriver(uvm_driver):
    """Does one RegisterItem after the other; the value of a read goes into the item."""

    async def run_phase(self):
        dut = self.cdb_get("DUT")
        await RisingEdge(dut.rst_ni)
        master = AXI4LiteMaster(dut, "s_axil", dut.clk_i, case_insensitive=True)
        while True:
            item = await self.seq_item_port.get_next_item()
            try:
                if item.write:
                    await master.write(int(item.register), int(item.value))
                else:
                    item.value = int(await master.read(int(item.register)))
            except AXIProtocolError as error:
                item.response = int(error.xresp)
            self.seq_item_port.item_done()


class RegisterMonitor(uvm_monitor):
    """Publishes every finished access as a RegisterItem."""

    def build_phase(self):
        super().build_phase()
        self.dut = self.cdb_get("DUT")
        self.ap = uvm_analysis_port("ap", self)

    async def run_phase(self):
        await RisingEdge(self.dut.rst_ni)
        cocotb.start_soon(self._writes())
        await self._reads()

    async def _writes(self):
        while True:
            (address,), (data, _) = await gather(
                self._taken("aw", "addr"), self._taken("w", "data", "strb")
            )
            (response,) = await self._taken("b", "resp")
            self.ap.write(RegisterItem(address, data, True, response))

    async def _reads(self):
        while True:
            (address,) = await self._taken("ar", "addr")
            data, response = await self._taken("r", "data", "resp")
            self.ap.write(RegisterItem(address, data, False, response))

    async def _taken(self, channel: str, *payload: str) -> tuple[int, ...]:
        """What the next transfer of a channel carries."""

        def signal(name):
            return getattr(self.dut, f"s_axil_{channel}{name}")

        return await transfer(
            self.dut.clk_i, signal("valid"), signal("ready"), [signal(name) for name in payload]
        )


class RegisterAdapter(uvm_reg_adapter):
    """Between the register model's operations and RegisterItems; a response other than OKAY is
    UVM_NOT_OK."""

    def reg2bus(self, rw):
        write = rw.kind == uvm_access_e.UVM_WRITE
        return RegisterItem(rw.addr, rw.data if write else None, write)

    def bus2reg(self, bus_item, rw):
        rw.data = bus_item.value or 0
        rw.status = uvm_status_e.UVM_NOT_OK if bus_item.response else uvm_status_e.UVM_IS_OK
