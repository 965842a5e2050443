"""The agents. A passive one, `is_active` in the ConfigDB, has only its monitor."""

from __future__ import annotations

from pyuvm import uvm_agent, uvm_sequencer

from tb.uvm.axi_lite import RegisterDriver, RegisterMonitor
from tb.uvm.axi_stream import PacketDriver, ReadyDriver, StreamMonitor


class Agent(uvm_agent):
    """A monitor and, if it is active, a sequencer and a driver, all made by the factory."""

    monitor_type: type
    driver_type: type

    def build_phase(self):
        super().build_phase()
        self.monitor = self.monitor_type.create("monitor", self)
        if self.active():
            self.sequencer = uvm_sequencer.create("sequencer", self)
            self.driver = self.driver_type.create("driver", self)

    def connect_phase(self):
        super().connect_phase()
        if self.active():
            self.driver.seq_item_port.connect(self.sequencer.seq_item_export)


class RegisterAgent(Agent):
    """AXI4-Lite: takes RegisterItems."""

    monitor_type, driver_type = RegisterMonitor, RegisterDriver


class PacketAgent(Agent):
    """A stream into the accelerator, named by `STREAM` in the ConfigDB: takes PacketItems."""

    monitor_type, driver_type = StreamMonitor, PacketDriver


class ResultAgent(Agent):
    """The stream out of the accelerator: takes StallItems."""

    monitor_type, driver_type = StreamMonitor, ReadyDriver
