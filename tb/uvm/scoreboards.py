"""Scoreboards: result packets against the predictor, register reads against a mirror. What checked nothing has failed."""
from __future__ import annotations

import numpy as np
from pyuvm import ConfigDB, uvm_analysis_port, uvm_scoreboard, uvm_subscriber, uvm_tlm_analysis_fifo

from tb.control.register_map import FIELDS, Register, field
from tb.rtl_backend import first_mismatch
from tb.uvm.config import KEY
from tb.uvm.items import ExpectedImage, RegisterItem


class ResultScoreboard(uvm_scoreboard):
    """Pairs every result packet with the next expected tensor; the verdict falls in check_phase.

    `images` and `values` count what was compared; `equal_ap` publishes every image that was equal, for coverage. A mismatch is reported
    as layer, image, channel, row, column, expected, got.
    """

    def build_phase(self):
        super().build_phase()
        self.expected_fifo = uvm_tlm_analysis_fifo("expected_fifo", self)
        self.actual_fifo = uvm_tlm_analysis_fifo("actual_fifo", self)
        self.equal_ap = uvm_analysis_port("equal_ap", self)
        self.images = self.values = 0
        self.problems: list[str] = []
        self.unfinished = 0  # packets of an image that is not complete

    async def run_phase(self):
        while True:
            packets = [await self.actual_fifo.get()]
            found, expected = self.expected_fifo.try_get()
            if not found:
                self.problems.append("a result packet came that no image calls for")
                continue
            for _ in expected.compiled.emitted[1:]:
                self.unfinished = len(packets)
                packets.append(await self.actual_fifo.get())
            self.unfinished = 0
            self._compare(expected, packets)

    def _compare(self, expected: ExpectedImage, packets: list):
        compiled = expected.compiled
        for layer, packet in zip(compiled.emitted, packets):
            if len(packet.words) != compiled.result_beats(layer):
                self.problems.append(f"layer {layer.name!r} of image {expected.number}: a packet of {len(packet.words)} beats, "
                                     f"expected {compiled.result_beats(layer)}")
                return
        got = compiled.decode_results(np.concatenate([packet.words for packet in packets]))
        for name, tensor in expected.tensors.items():
            problem = first_mismatch(name, tensor, got[name][None])
            if problem:
                self.problems.append(f"network {compiled.net.name!r}, image {expected.number} of the test: {problem}")
                return
            self.values += tensor.size
        self.images += 1
        self.equal_ap.write(expected)

    def check_phase(self):
        super().check_phase()
        if self.unfinished:
            self.problems.append(f"the last image came back incomplete: {self.unfinished} packets only")
        if not self.expected_fifo.is_empty():
            self.problems.append("an expected image never came back")
        if not self.actual_fifo.is_empty():
            self.problems.append("result packets were left over")
        assert not self.problems, f"{len(self.problems)} problems, first: {self.problems[0]}"
        assert self.images and self.values, "the scoreboard checked nothing"

    def report_phase(self):
        super().report_phase()
        self.logger.info("%d images, %d values equal", self.images, self.values)


class RegisterScoreboard(uvm_subscriber):
    """Checks every read of a constant or host-written register field, and that mapped registers never answer with an error."""

    def build_phase(self):
        super().build_phase()
        self.hardware = ConfigDB().get(self, "", KEY).hardware
        self.mirror = {(register, name): reset for register, fields in FIELDS.items() for name, (_, _, access, reset) in fields.items()
                       if access in ("r", "rw") and reset is not None}
        self.mirror[Register.PARAMS, "NUM_MODULES"] = self.hardware.num_modules
        self.checked = 0
        self.problems: list[str] = []

    def write(self, tt: RegisterItem):
        if tt.response:
            self.problems.append(f"unexpected response: {tt}")
        elif tt.write:
            for name, (_, _, access, _) in FIELDS[Register(tt.register)].items():
                if access == "rw":
                    self.mirror[tt.register, name] = field(tt.value, Register(tt.register), name)
        else:
            self._read(tt)

    def _read(self, item: RegisterItem):
        for name in FIELDS[Register(item.register)]:
            expected = self.mirror.get((item.register, name))
            if expected is None:
                continue
            self.checked += 1
            got = field(item.value, Register(item.register), name)
            if got != expected:
                self.problems.append(f"register {Register(item.register).name}.{name}: expected {expected:#x}, got {got:#x}")

    def check_phase(self):
        super().check_phase()
        assert not self.problems, f"{len(self.problems)} problems, first: {self.problems[0]}"
        assert self.checked, "the register scoreboard checked nothing"
