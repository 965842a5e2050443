"""Base class of the UVM tests and how a cocotb test runs one."""

from __future__ import annotations

from pyuvm import ConfigDB, uvm_root, uvm_test

from host.driver import Host
from tb.lib.accelerator import hardware_of
from tb.uvm.config import KEY, EnvConfig
from tb.uvm.env import AcceleratorEnv


class AcceleratorTest(uvm_test):
    """Builds the environment; subclasses say in `stimulus` what is sent."""

    def build_phase(self):
        super().build_phase()
        self.config = ConfigDB().get(None, "", KEY)
        self.env = AcceleratorEnv.create("env", self)

    async def run_phase(self):
        self.raise_objection()
        await self.stimulus()
        self.drop_objection()

    async def stimulus(self):
        """What the test sends; the environment checks it."""
        raise NotImplementedError


async def run(test: type[AcceleratorTest], dut, **options) -> None:
    """Reset the harness, then run a UVM test on it. options: fields of EnvConfig."""
    host = Host(dut)
    await host.start()
    ConfigDB().clear()
    ConfigDB().set(None, "*", KEY, EnvConfig(dut, host, hardware_of(dut), **options))
    await uvm_root().run_test(test, keep_set={ConfigDB})
