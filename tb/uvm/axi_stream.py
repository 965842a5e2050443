"""AXI4-Stream: items, drivers on the pins (cocotbext-axi), and the monitor of any stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cocotb.triggers import Event, FallingEdge, First, RisingEdge, Timer
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource
from pyuvm import uvm_analysis_port, uvm_driver, uvm_monitor, uvm_sequence_item, uvm_subscriber

from host.harness import clocking
from host.harness.engines import FULL_RATE, IDEAL, random_traffic
from model.compiler.program_format import MAGIC_PROGRAM, MAGIC_WEIGHTS, PACKET
from model.compiler.records import decode
from tb.lib.handshake import transfer
from tb.lib.signals import is_high

FULL_BEAT = 0xFF  # TKEEP
GIVE_UP_CYCLES = 4000
STALLS = (0, 20, 128, 230)  # of 256: what a random receiver does


class PacketItem(uvm_sequence_item):
    """One packet: uint64 words and TKEEP of the last beat; how its sender behaves; `give_up`, which
    ends it where it is."""

    def __init__(self, words: np.ndarray, keep: int = FULL_BEAT):
        super().__init__("packet_item")
        self.words, self.keep = np.asarray(words, "<u8"), keep
        self.traffic, self.seed = IDEAL, 0
        self.give_up = Event()

    def randomize(self, rng: np.random.Generator):
        """Draw the sender's behaviour; the content stays."""
        self.traffic, self.seed = random_traffic(rng), int(rng.integers(2**31))

    @property
    def kind(self) -> str:
        """program, weights or image, by the first word."""
        magic = decode(PACKET, self.words)["magic"]
        return {MAGIC_PROGRAM: "program", MAGIC_WEIGHTS: "weights"}.get(magic, "image")

    def pauses(self) -> Iterator[bool]:
        """For each cycle: does the sender pause? As host/harness/dma_source.sv does."""
        rng, traffic, credit = np.random.default_rng(self.seed), self.traffic, FULL_RATE
        yield from [True] * traffic.latency
        while True:
            credit = min(credit + traffic.rate, 2 * FULL_RATE)
            go = credit >= FULL_RATE and rng.integers(256) >= traffic.stall
            credit -= FULL_RATE * go
            yield not go

    def __str__(self):
        return f"{self.kind} of {len(self.words)} beats, {self.traffic}, seed {self.seed}"


class StallItem(uvm_sequence_item):
    """From now on the receiver pauses with a probability of stall / 256 in each cycle."""

    def __init__(self):
        super().__init__("stall_item")
        self.stall = self.seed = 0

    def randomize(self, rng: np.random.Generator):
        """Draw how often the receiver pauses."""
        self.stall, self.seed = int(rng.choice(STALLS)), int(rng.integers(2**31))

    def pauses(self) -> Iterator[bool]:
        """For each cycle: does the receiver pause?"""
        rng = np.random.default_rng(self.seed)
        while True:
            yield bool(rng.integers(256) < self.stall)

    def __str__(self):
        return f"stall of {self.stall} / 256, seed {self.seed}"


class StreamDriver(uvm_driver):
    """Does one item after the other, from the end of the reset on."""

    def build_phase(self):
        super().build_phase()
        self.dut, self.stream = self.cdb_get("DUT"), self.cdb_get("STREAM")

    async def run_phase(self):
        await RisingEdge(self.dut.rst_ni)
        self.attach()
        while True:
            item = await self.seq_item_port.get_next_item()
            self.logger.info("%s: %s", self.stream, item)
            await self.drive(item)
            self.seq_item_port.item_done()

    def attach(self):
        """Take hold of the stream."""

    async def drive(self, item):
        """Do what the item says; returns when it is done."""
        raise NotImplementedError

    async def last_beat(self, offered):
        """Wait until a signal falls: the beat that is offered when a packet is given up is not
        withdrawn."""
        limit = Timer(GIVE_UP_CYCLES * clocking.PERIOD_NS, "ns")
        if is_high(offered) and await First(FallingEdge(offered), limit) is limit:
            raise AssertionError(f"{self.stream}: a beat is not taken in {GIVE_UP_CYCLES} cycles")


class PacketDriver(StreamDriver):
    """Sends PacketItems on the pins of a stream into the accelerator."""

    def attach(self):
        self.dut.pins_i.value = 1
        self.source = _endpoint(AxiStreamSource, self.dut, f"s_axis_{self.stream}")

    async def drive(self, item: PacketItem):
        source = self.source
        source.set_pause_generator(item.pauses())
        await source.send(_frame(item))
        await First(source.idle_event.wait(), item.give_up.wait())
        source.clear_pause_generator()
        if not source.idle():
            await self._stop()

    async def _stop(self):
        """Forget the rest of a packet."""
        self.source.pause = True
        await FallingEdge(self.dut.clk_i)
        await self.last_beat(self.source.bus.tvalid)
        self.source.clear()
        self.source.assert_reset()
        self.source.pause = False


class ReadyDriver(StreamDriver):
    """Takes the results from the pins, with the pauses that StallItems ask for."""

    def attach(self):
        self.dut.pins_i.value = 1
        self.sink = _endpoint(AxiStreamSink, self.dut, f"m_axis_{self.stream}")

    async def drive(self, item: StallItem):
        self.sink.set_pause_generator(item.pauses())


class StreamMonitor(uvm_monitor):
    """Publishes every packet on a stream as a PacketItem, whoever sends and takes it.

    A soft reset on `control_export`, and the START after it, end a packet that was begun: the
    accelerator has forgotten it.
    """

    def build_phase(self):
        super().build_phase()
        self.dut = self.cdb_get("DUT")
        self.bus = AxiStreamBus.from_prefix(self.dut, f"axis_{self.cdb_get('STREAM')}")
        self.ap = uvm_analysis_port("ap", self)
        self.control_export = uvm_subscriber.uvm_AnalysisImp("control_export", self, self.control)
        self.words: list[int] = []
        self.aborted = False

    async def run_phase(self):
        await RisingEdge(self.dut.rst_ni)
        bus = self.bus
        while True:
            word, keep, last = await transfer(
                self.dut.clk_i, bus.tvalid, bus.tready, (bus.tdata, bus.tkeep, bus.tlast)
            )
            self.beat(word, keep, bool(last))

    def beat(self, word: int, keep: int, last: bool):
        """One beat that was taken."""
        assert last or keep == FULL_BEAT, f"{self.get_full_name()}: TKEEP {keep:#x} inside a packet"
        self.words.append(word)
        if last:
            item = PacketItem(np.array(self.words, "<u8"), keep)
            self.words = []
            self.ap.write(item)

    def check_phase(self):
        super().check_phase()
        assert not self.words or self.aborted, (
            f"{self.get_full_name()}: {len(self.words)} beats without TLAST were left over"
        )

    def control(self, control):
        """A run begins or is ended (tb.uvm.predictor.Control)."""
        if control.aborted or self.aborted:
            self.words = []
        self.aborted = control.aborted


def _endpoint(kind, dut, prefix: str):
    """A source or sink of cocotbext-axi, with its own chatter off."""
    bus = AxiStreamBus.from_prefix(dut, prefix)
    endpoint = kind(bus, dut.clk_i, dut.rst_ni, reset_active_level=False)
    endpoint.log.setLevel("ERROR")
    return endpoint


def _frame(item: PacketItem) -> AxiStreamFrame:
    keep = [1] * (8 * len(item.words) - 8) + [item.keep >> lane & 1 for lane in range(8)]
    return AxiStreamFrame(item.words.tobytes(), tkeep=keep)
