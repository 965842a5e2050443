"""The environment: four agents, predictor, two scoreboards, coverage."""

from __future__ import annotations

from pyuvm import ConfigDB, uvm_env

from tb.uvm.agents import ImageAgent, ProgramAgent, RegisterAgent, ResultAgent
from tb.uvm.config import KEY
from tb.uvm.coverage import LayerCoverage
from tb.uvm.predictor import Predictor
from tb.uvm.register_access import RegisterAdapter
from tb.uvm.scoreboards import RegisterScoreboard, ResultScoreboard


class AcceleratorEnv(uvm_env):
    """Everything around one accelerator; all parts are made by the factory, so a test can override
    them."""

    def build_phase(self):
        super().build_phase()
        self.registers = RegisterAgent.create("registers", self)
        self.program = ProgramAgent.create("program", self)
        self.image = ImageAgent.create("image", self)
        self.result = ResultAgent.create("result", self)
        self.predictor = Predictor.create("predictor", self)
        self.scoreboard = ResultScoreboard.create("scoreboard", self)
        self.register_scoreboard = RegisterScoreboard.create("register_scoreboard", self)
        self.coverage = LayerCoverage.create("coverage", self)

    def connect_phase(self):
        super().connect_phase()
        if self.registers.active():
            model = ConfigDB().get(self, "", KEY).registers
            model.get_default_map().set_sequencer(
                self.registers.sequencer, RegisterAdapter("adapter")
            )
        self.registers.monitor.ap.connect(self.register_scoreboard.analysis_export)
        for agent in (self.program, self.image, self.registers):
            agent.monitor.ap.connect(self.predictor.analysis_export)
        self.predictor.ap.connect(self.scoreboard.expected_fifo.analysis_export)
        self.predictor.control_ap.connect(self.scoreboard.actual_fifo.analysis_export)
        self.scoreboard.equal_ap.connect(self.coverage.analysis_export)
        self.result.monitor.ap.connect(self.scoreboard.actual_fifo.analysis_export)
