"""The scoreboard of the results, and the coverage of what it found equal."""

from __future__ import annotations

import numpy as np
from pyuvm import uvm_analysis_port, uvm_scoreboard, uvm_subscriber, uvm_tlm_analysis_fifo

from host.rtl_backend import first_mismatch
from tb.lib import coverage, layer_coverage
from tb.uvm.axi_stream import FULL_BEAT, PacketItem
from tb.uvm.predictor import Control, ExpectedImage

HALF_BEAT = 0x0F  # TKEEP of a result's last beat that holds one quad


class ResultScoreboard(uvm_scoreboard):
    """Pairs every result packet with the next expected tensor; the verdict falls in check_phase,
    and what checked nothing has failed.

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
        self.packets: list[PacketItem] = []  # of an image that is not complete
        self.expected: ExpectedImage | None = None
        self.ignoring = False  # between a soft reset and the next START

    async def run_phase(self):
        while True:
            item = await self.actual_fifo.get()
            if isinstance(item, Control):
                self.control(item)
            elif not self.ignoring:
                self.packet(item)

    def control(self, item: Control):
        """A run began or was ended."""
        if item.aborted:
            self.aborted += 1
            self.packets, self.expected, self.ignoring = [], None, True
            self.expected_fifo.flush()
        elif item.started:
            self.ignoring = False

    def packet(self, packet: PacketItem):
        """A result packet came."""
        if self.expected is None:
            found, self.expected = self.expected_fifo.try_get()
            if not found:
                self.problems.append("a result packet came that no image calls for")
                return
        self.packets.append(packet)
        if len(self.packets) == len(self.expected.compiled.emitted):
            expected, packets = self.expected, self.packets
            self.packets, self.expected = [], None
            self.compare(expected, packets)

    def compare(self, expected: ExpectedImage, packets: list[PacketItem]):
        """All packets of an image are there."""
        problem = (
            self._layers(expected)
            or self._sizes(expected, packets)
            or self._values(expected, packets)
        )
        if problem:
            self.problems.append(
                f"network {expected.compiled.net.name!r}, image {expected.number} of the test: "
                f"{problem}"
            )
            return
        self.images += 1
        self.values += sum(tensor.size for tensor in expected.tensors.values())
        self.equal_ap.write(expected)

    def _layers(self, expected: ExpectedImage) -> str:
        names = [layer.name for layer in expected.compiled.emitted]
        return "" if [*expected.tensors] == names else f"{[*expected.tensors]} predicted of {names}"

    def _sizes(self, expected: ExpectedImage, packets: list[PacketItem]) -> str:
        compiled = expected.compiled
        for layer, packet in zip(compiled.emitted, packets):
            beats = compiled.result_beats(layer)
            channels, height, width = layer.out_shape
            odd = layer.out != "int32" and height * width * -(-channels // 4) % 2
            keep = HALF_BEAT if odd else FULL_BEAT
            if (len(packet.words), packet.keep) != (beats, keep):
                return (
                    f"layer {layer.name!r}: a packet of {len(packet.words)} beats, the last with "
                    f"TKEEP {packet.keep:#04x}, expected {beats} and {keep:#04x}"
                )
        return ""

    def _values(self, expected: ExpectedImage, packets: list[PacketItem]) -> str:
        words = np.concatenate([packet.words for packet in packets])
        got = expected.compiled.decode_results(words)
        problems = (
            first_mismatch(name, tensor, got[name][None])
            for name, tensor in expected.tensors.items()
        )
        return next(filter(None, problems), "")

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


class LayerCoverage(uvm_subscriber):
    """Samples the layers of each compared image, in the project's common coverage; points of
    COVERAGE_GOAL (`group.point`) that this test did not hit fail it."""

    def build_phase(self):
        super().build_phase()
        self.goal = self.cdb_get("COVERAGE_GOAL")
        self.before = coverage.hits()

    def write(self, tt: ExpectedImage):
        layer_coverage.sample(tt.compiled, tt.tensors)

    def check_phase(self):
        super().check_phase()
        hit = set(coverage.hits() - self.before)
        missing = sorted(self.goal - hit)
        self.logger.info(
            "%d coverage points hit, %d of %d of the goal",
            len(hit),
            len(self.goal) - len(missing),
            len(self.goal),
        )
        assert not missing, "coverage holes: " + ", ".join(missing)
