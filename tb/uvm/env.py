"""The environment around one accelerator, and the base class of its tests."""

from __future__ import annotations

import cocotb
from pyuvm import uvm_active_passive_enum, uvm_env, uvm_sequencer, uvm_test

from host.harness import clocking
from host.harness.engines import rest
from model.compiler import Compiled
from tb.lib.accelerator import hardware_of
from tb.uvm.agents import PacketAgent, RegisterAgent, ResultAgent
from tb.uvm.axi_lite import RegisterAdapter
from tb.uvm.predictor import Predictor
from tb.uvm.registers import RegisterScoreboard, register_model
from tb.uvm.scoreboard import LayerCoverage, ResultScoreboard

STREAMS = {"program": "prog", "image": "image", "result": "result"}  # of each agent


class VirtualSequencer(uvm_sequencer):
    """What a virtual sequence runs on: the agents' sequencers, the register model, and the DUT for
    its clock and interrupt."""

    registers = program = image = result = None

    def build_phase(self):
        super().build_phase()
        self.dut, self.model = self.cdb_get("DUT"), self.cdb_get("REGISTERS")


class AcceleratorEnv(uvm_env):
    """Four agents, predictor, two scoreboards, coverage. All parts are made by the factory, so a
    test can override them."""

    def build_phase(self):
        super().build_phase()
        for agent, stream in STREAMS.items():
            self.cdb_set("STREAM", stream, f"{agent}.*")
        self.registers = RegisterAgent.create("registers", self)
        self.program = PacketAgent.create("program", self)
        self.image = PacketAgent.create("image", self)
        self.result = ResultAgent.create("result", self)
        self.virtual_sequencer = VirtualSequencer.create("virtual_sequencer", self)
        self.predictor = Predictor.create("predictor", self)
        self.scoreboard = ResultScoreboard.create("scoreboard", self)
        self.register_scoreboard = RegisterScoreboard.create("register_scoreboard", self)
        self.coverage = LayerCoverage.create("coverage", self)

    def connect_phase(self):
        super().connect_phase()
        agents = (self.registers, self.program, self.image, self.result)
        for agent in agents:
            if agent.active():
                setattr(self.virtual_sequencer, agent.get_name(), agent.sequencer)
        if self.registers.active():
            self.virtual_sequencer.model.get_default_map().set_sequencer(
                self.registers.sequencer, RegisterAdapter("adapter")
            )
        self.registers.monitor.ap.connect(self.register_scoreboard.analysis_export)
        for agent in (self.program, self.image, self.registers):
            agent.monitor.ap.connect(self.predictor.analysis_export)
        for agent in (self.program, self.image, self.result):
            self.predictor.control_ap.connect(agent.monitor.control_export)
        self.predictor.ap.connect(self.scoreboard.expected_fifo.analysis_export)
        self.predictor.control_ap.connect(self.scoreboard.actual_fifo.analysis_export)
        self.result.monitor.ap.connect(self.scoreboard.actual_fifo.analysis_export)
        self.scoreboard.equal_ap.connect(self.coverage.analysis_export)


class AcceleratorTest(uvm_test):
    """Builds the environment and resets the DUT; a test says in `stimulus` what is sent.

    is_active: of all agents. coverage_goal: points (`group.point`) that the test must hit.
    """

    is_active = uvm_active_passive_enum.UVM_ACTIVE
    coverage_goal: frozenset[str] = frozenset()

    def networks(self) -> list[Compiled]:
        """The networks whose programs may be sent."""
        raise NotImplementedError

    async def stimulus(self):
        """What the test sends; the environment checks it."""
        raise NotImplementedError

    def build_phase(self):
        super().build_phase()
        self.dut = cocotb.top
        self.hardware = hardware_of(self.dut)
        self.compiled = self.networks()
        for label, value in {
            "DUT": self.dut,
            "HARDWARE": self.hardware,
            "NETWORKS": self.compiled,
            "REGISTERS": register_model(),
            "COVERAGE_GOAL": self.coverage_goal,
            "is_active": self.is_active,
        }.items():
            self.cdb_set(label, value)
        self.env = AcceleratorEnv.create("env", self)

    async def reset(self):
        """Start the clock and reset the DUT."""
        rest(self.dut)
        await clocking.start(self.dut)

    async def run_phase(self):
        self.raise_objection()
        await self.reset()
        await self.stimulus()
        self.drop_objection()

    async def start(self, sequence):
        """Run a virtual sequence to its end."""
        await sequence.start(self.env.virtual_sequencer)
