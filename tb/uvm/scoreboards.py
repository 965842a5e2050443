"""Scoreboards: result packets against the predictor, register accesses against the register model.
What checked nothing has failed."""

from __future__ import annotations

import numpy as np
from cocotbext.axi import AxiResp
from pyuvm import (
    ConfigDB,
    uvm_analysis_port,
    uvm_predict_e,
    uvm_reg,
    uvm_scoreboard,
    uvm_subscriber,
    uvm_tlm_analysis_fifo,
)

from host.rtl_backend import first_mismatch
from tb.uvm.config import KEY
from tb.uvm.items import Control, ExpectedImage, RegisterItem
from tb.uvm.register_access import build_parameters, register_at


class ResultScoreboard(uvm_scoreboard):
    """Pairs every result packet with the next expected tensor; the verdict falls in check_phase.

    A soft reset drops what is not complete; what the stream still holds of the aborted run is
    ignored until the next START. `images` and `values` count what was compared; `equal_ap`
    publishes every image that was equal, for coverage. A mismatch is reported as layer, image,
    channel, row, column, expected, got.
    """

    def build_phase(self):
        super().build_phase()
        self.expected_fifo = uvm_tlm_analysis_fifo("expected_fifo", self)
        self.actual_fifo = uvm_tlm_analysis_fifo("actual_fifo", self)
        self.equal_ap = uvm_analysis_port("equal_ap", self)
        self.images = self.values = self.aborted = 0
        self.problems: list[str] = []
        self.packets: list = []  # of an image that is not complete
        self.expected: ExpectedImage | None = None
        self.ignoring = False  # between a soft reset and the next START

    async def run_phase(self):
        while True:
            item = await self.actual_fifo.get()
            if isinstance(item, Control):
                self._control(item)
            elif not self.ignoring:
                self._packet(item)

    def _control(self, item: Control):
        if item.aborted:
            self.aborted += 1
            self.packets, self.expected, self.ignoring = [], None, True
            self.expected_fifo.flush()
        elif item.started:
            self.ignoring = False

    def _packet(self, packet):
        if self.expected is None:
            found, self.expected = self.expected_fifo.try_get()
            if not found:
                self.problems.append("a result packet came that no image calls for")
                return
        self.packets.append(packet)
        if len(self.packets) == len(self.expected.compiled.emitted):
            expected, packets = self.expected, self.packets
            self.packets, self.expected = [], None
            self._compare(expected, packets)

    def _compare(self, expected: ExpectedImage, packets: list):
        compiled = expected.compiled
        for layer, packet in zip(compiled.emitted, packets):
            if len(packet.words) != compiled.result_beats(layer):
                self.problems.append(
                    f"layer {layer.name!r} of image {expected.number}: a packet of "
                    f"{len(packet.words)} beats, "
                    f"expected {compiled.result_beats(layer)}"
                )
                return
        got = compiled.decode_results(np.concatenate([packet.words for packet in packets]))
        for name, tensor in expected.tensors.items():
            problem = first_mismatch(name, tensor, got[name][None])
            if problem:
                self.problems.append(
                    f"network {compiled.net.name!r}, image {expected.number} of the test: {problem}"
                )
                return
            self.values += tensor.size
        self.images += 1
        self.equal_ap.write(expected)

    def check_phase(self):
        super().check_phase()
        if self.packets:
            self.problems.append(
                f"the last image came back incomplete: {len(self.packets)} packets only"
            )
        if not self.expected_fifo.is_empty():
            self.problems.append("an expected image never came back")
        if not self.actual_fifo.is_empty():
            self.problems.append("result packets were left over")
        assert not self.problems, f"{len(self.problems)} problems, first: {self.problems[0]}"
        assert self.images and self.values, "the scoreboard checked nothing"

    def report_phase(self):
        super().report_phase()
        self.logger.info(
            "%d images, %d values equal, %d soft resets", self.images, self.values, self.aborted
        )


class RegisterScoreboard(uvm_subscriber):
    """Every access against the register model: SLVERR exactly where the model has nothing, and the
    fields that only the host changes."""

    def build_phase(self):
        super().build_phase()
        config = ConfigDB().get(self, "", KEY)
        self.model, self.parameters = config.registers, build_parameters(config.hardware)
        self.checked = self.refused = 0
        self.problems: list[str] = []

    def write(self, tt: RegisterItem):
        register = register_at(self.model, tt.register, tt.write)
        if tt.response != (AxiResp.OKAY if register else AxiResp.SLVERR):
            self.problems.append(f"unexpected response: {tt}")
        elif register is None:
            self.refused += 1
        elif tt.write:
            register.predict(tt.value, kind=uvm_predict_e.UVM_PREDICT_WRITE)
        else:
            self._read(register, tt.value)

    def _read(self, register: uvm_reg, value: int):
        for field in register.get_fields():
            name = field.get_name()
            expected = (
                self.parameters.get((register.get_name(), name))
                if field.is_volatile()
                else field.get_mirrored_value()
            )
            if expected is None:
                continue
            self.checked += 1
            got = field.extract_from_register(value)
            if got != expected:
                self.problems.append(
                    f"register {register.get_name()}.{name}: expected {expected:#x}, got {got:#x}"
                )

    def check_phase(self):
        super().check_phase()
        assert not self.problems, f"{len(self.problems)} problems, first: {self.problems[0]}"
        assert self.checked, "the register scoreboard checked nothing"

    def report_phase(self):
        super().report_phase()
        self.logger.info(
            "%d register fields equal, %d accesses refused as they must", self.checked, self.refused
        )
