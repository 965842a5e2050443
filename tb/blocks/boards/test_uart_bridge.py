"""uart_bridge: the driver through it on the behavioural model, over a clean and a noisy line, and
the protocol frame by frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import cocotb
import numpy as np
from cocotb.task import bridge
from cocotb.triggers import Event, FallingEdge, RisingEdge

from host.driver import DriverError, beats
from host.fake import FakeAccelerator
from host.harness import clocking
from host.harness.engines import SimulatedTime
from host.register_map import Register
from host.serial_link import WORDS, Link, Operation, on_serial
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.reference.integer import run_integer
from tb.lib.effort import scaled
from tb.lib.stalls import random_pattern, stalls
from tb.lib.uart import Uart
from tb.top.test_driver import OTHER, SMALL, images

CLOCKS_PER_BIT, SILENCE = 4, 1200
STREAMS = {"prog": "weights", "image": "images"}


class Slave:
    """The behavioural model at the bridge's ports, with random pauses on each."""

    def __init__(self, dut, rng: np.random.Generator, fake: FakeAccelerator) -> None:
        self.dut, self.fake, self.rng = dut, fake, rng
        self.writes: list[tuple[int, int]] = []
        self.packets: list[tuple[str, list[int], int]] = []  # stream, words, TKEEP of the last
        self.changed = Event()  # of the model's results, perhaps
        self.held = dict.fromkeys(STREAMS, 0)  # words that a stream may still take; 0: any number
        for name in ("awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata", "rresp"):
            getattr(dut, f"m_axil_{name}").value = 0
        for stream in STREAMS:
            getattr(dut, f"m_axis_{stream}_tready").value = 0
        dut.s_axis_result_tvalid.value = dut.s_axis_result_tdata.value = 0
        dut.s_axis_result_tlast.value = 0

    def start(self) -> None:
        """Serve until the test ends."""
        for task in (self._reads(), self._writes(), self._results()):
            cocotb.start_soon(task)
        for stream in STREAMS:
            cocotb.start_soon(self._stream(stream))

    async def _cycle(self) -> None:
        await RisingEdge(self.dut.clk_i)

    async def _pause(self) -> None:
        for _ in range(self.rng.integers(4)):
            await self._cycle()

    async def _accept(self, channel: str) -> None:
        valid, ready = (getattr(self.dut, f"m_axil_{channel}{end}") for end in ("valid", "ready"))
        if not int(valid.value):
            await RisingEdge(valid)
        await self._pause()
        ready.value = 1
        await self._cycle()
        assert int(valid.value), f"{channel}valid fell before it was taken"
        ready.value = 0

    async def _answer(self, channel: str) -> None:
        valid, ready = (getattr(self.dut, f"m_axil_{channel}{end}") for end in ("valid", "ready"))
        valid.value = 1
        await self._cycle()
        while not int(ready.value):
            await self._cycle()
        valid.value = 0

    async def _reads(self) -> None:
        dut = self.dut
        while True:
            await self._accept("ar")
            offset = int(dut.m_axil_araddr.value)
            try:
                dut.m_axil_rdata.value, dut.m_axil_rresp.value = self.fake.read(offset), 0
            except OSError:
                dut.m_axil_rresp.value = 2
            await self._pause()
            await self._answer("r")

    async def _writes(self) -> None:
        dut = self.dut
        while True:
            first, second = self.rng.permutation(["aw", "w"])
            await self._accept(first)
            await self._accept(second)
            offset, value = int(dut.m_axil_awaddr.value), int(dut.m_axil_wdata.value)
            assert int(dut.m_axil_wstrb.value) == 15
            self.writes.append((offset, value))
            try:
                self.fake.write(offset, value)
                self.changed.set()
                dut.m_axil_bresp.value = 0
            except OSError:
                dut.m_axil_bresp.value = 2
            await self._answer("b")

    async def _stream(self, stream: str) -> None:
        valid, ready, data, keep, last = (
            getattr(self.dut, f"m_axis_{stream}_t{end}")
            for end in ("valid", "ready", "data", "keep", "last")
        )
        stall, words = stalls(self.rng, random_pattern(self.rng)), list[int]()
        while True:
            ready.value = eager = int(self.rng.integers(2)) and not self.held[stream]
            if not int(valid.value):
                await RisingEdge(valid)
                await FallingEdge(self.dut.clk_i)
            beat = (int(data.value), int(keep.value), int(last.value))
            while not eager and (next(stall) or 0 < self.held[stream] <= len(words)):
                await self._cycle()
                assert int(valid.value), f"{stream}: an offer was withdrawn"
            ready.value = 1
            await self._cycle()
            assert (int(data.value), int(keep.value), int(last.value)) == beat
            assert int(valid.value) and (beat[2] or beat[1] == 0xFF), "TKEEP before the last word"
            ready.value = 0
            await FallingEdge(self.dut.clk_i)
            words.append(beat[0])
            if beat[2]:
                self.packets.append((stream, words, beat[1]))
                self.fake.send(STREAMS[stream], np.array(words, np.uint64), beat[1])
                self.changed.set()
                words = []

    async def _results(self) -> None:
        dut = self.dut
        stall = stalls(self.rng, "light")
        while True:
            while (packet := self.fake.take()) is None:
                self.changed.clear()
                await self.changed.wait()
            for number, word in enumerate(packet):
                while next(stall):
                    await self._cycle()
                dut.s_axis_result_tdata.value = int(word)
                dut.s_axis_result_tlast.value = int(number + 1 == len(packet))
                dut.s_axis_result_tvalid.value = 1
                await self._cycle()
                while not int(dut.s_axis_result_tready.value):
                    await RisingEdge(dut.s_axis_result_tready)
                    await self._cycle()
                dut.s_axis_result_tvalid.value = 0


async def begin(dut, noise: float = 0.0) -> tuple[Uart, Slave]:
    """Clock, reset, and both ends of the bridge."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    slave = Slave(dut, rng, FakeAccelerator([SMALL, OTHER]))
    port = Uart(dut.rx_i, dut.tx_o, CLOCKS_PER_BIT, SILENCE, rng, noise)
    await clocking.start(dut)
    slave.start()
    return port, slave


class Time(SimulatedTime):
    """Time of the simulation; `sleep` takes a tenth of a microsecond."""

    async def _sleep(self, seconds: float) -> None:
        for _ in range(10):
            await FallingEdge(self._dut.clk_i)


@cocotb.test(timeout_time=100, timeout_unit="ms")
@cocotb.parametrize(noise=[0.0, 0.05])
async def networks(dut, noise):
    """The driver runs two networks; what it computes is right although frames are damaged and lost,
    and each register is written as often as on a clean line."""
    port, slave = await begin(dut, noise)
    used = scaled([OTHER], [SMALL, OTHER])

    @bridge
    def run() -> None:
        accelerator = on_serial(port, clock=Time(dut))
        for network in used:
            accelerator.load(network)
            x = images(network, 1)
            assert np.array_equal(accelerator.run(x).y, run_integer(network, x))

    await run()
    assert bool(port.troubles) == bool(noise)
    layers = sum(len(compile_network(network, Hardware()).entries) for network in used)
    assert [w[0] for w in slave.writes].count(Register.LAYER_SEL) == layers
    assert len(slave.packets) == len(used) * 3  # program, weights, image
    assert all(keep == 0xFF for _, _, keep in slave.packets)


def bits(data: bytes) -> Iterator[bytes]:
    """`data` with each of its bits wrong, one at a time."""
    for place in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[place // 8] ^= 1 << place % 8
        yield bytes(wrong)


@cocotb.test(timeout_time=100, timeout_unit="ms")
async def frames(dut):
    """Damaged and unfinished frames get no answer, a repeated one has no second effect, and what
    lies between frames is skipped."""
    port, slave = await begin(dut)
    enable = Register.IRQ_ENABLE

    def frame(sequence: int, operation: int, *words: int, argument: int = 0) -> bytes:
        head = bytes([0xC5, sequence, operation, len(words), argument & 255, argument >> 8, 0, 0])
        data = head + b"".join(word.to_bytes(8, "little") for word in words)
        return data + zlib.crc32(data).to_bytes(8, "little")

    def answer() -> bytes:
        """The next frame that comes; empty if none does."""
        head = port.read(8)
        return head and head + port.read(8 * head[3] + 8)

    @bridge
    def talk() -> None:
        write = frame(7, Operation.WRITE, 5, argument=enable)
        port.write(write)
        first = answer()
        assert first[:4] == bytes([0xCA, 7, Operation.WRITE, 0]) and len(first) == 16
        assert slave.writes == [(enable, 5)]
        port.write(write)
        assert answer() == first and len(slave.writes) == 1
        read = frame(8, Operation.READ, argument=enable)
        port.write(read)
        value = answer()
        assert int.from_bytes(value[8:16], "little") == 5 and len(value) == 24
        slave.fake.write(enable, 3)
        port.write(read)
        assert answer() == value
        port.write(frame(8, Operation.HELLO))
        assert answer()[1:5] == bytes([8, Operation.HELLO, 0, WORDS])
        new = frame(9, Operation.WRITE, 1, argument=enable)
        for damaged in [*bits(new)][:: scaled(37, 5)]:
            port.write(damaged)
            assert not answer(), "an answer to a damaged frame"
        for size in (1, 7, 8, 20, len(new) - 1):
            port.write(new[:size])
            assert not answer()
        port.write(frame(9, Operation.WRITE, *range(WORDS + 1), argument=enable))
        assert not answer()
        assert len(slave.writes) == 1
        port.write(b"\x00\xff\xca\x51" + new)
        assert answer()[1:3] == bytes([9, Operation.WRITE]) and slave.writes[1:] == [(enable, 1)]
        port.write(frame(10, 15))
        assert answer()[1:4] == bytes([10, 15, 0]), "an operation that there is not"

    await talk()


@cocotb.test(timeout_time=100, timeout_unit="ms")
async def streams(dut):
    """A stream that stands still takes part of a frame and holds up nothing else; TKEEP and the end
    of a packet go with its last word; results come in frames."""
    port, slave = await begin(dut)
    slave.held["prog"] = 3
    data = np.arange(1, 8 * 70 + 4, dtype=np.uint8)  # 71 words, the last of three bytes
    words, keep = beats(data)
    assert keep == 7

    @bridge
    def talk() -> None:
        link = Link(port)
        reply = link.request(Operation.PROGRAM, words[:WORDS], argument=keep)
        assert reply.result == 4, "three words are taken and one is offered"
        assert link.request(Operation.PROGRAM, words[4:65], argument=keep).result == 0
        assert link.request(Operation.IMAGE, words[:2], argument=1, last=True).result == 2
        assert slave.packets == [("image", words[:2].tolist(), 1)]
        slave.held["prog"] = 0
        assert link.request(Operation.PROGRAM, words[4:65], argument=keep).result == 61
        assert link.request(Operation.PROGRAM, words[65:], argument=keep, last=True).result == 6
        assert slave.packets[1:] == [("prog", words.tolist(), keep)]
        assert len(link.request(Operation.TAKE).words) == 0
        slave.fake.results = [words, words[:1]]
        slave.changed.set()
        parts = [link.request(Operation.TAKE) for _ in range(3)]
        assert [(len(part.words), part.last) for part in parts] == [
            (64, False),
            (7, True),
            (1, True),
        ]
        assert np.array_equal(np.concatenate([part.words for part in parts[:2]]), words)

    await talk()


@cocotb.test(timeout_time=100, timeout_unit="ms")
async def strangers(dut):
    """A register that there is not is refused by name, and a host without a bridge learns it."""
    port, _ = await begin(dut)

    @bridge
    def talk() -> str:
        registers = on_serial(port, clock=Time(dut)).mmio
        messages = []
        for access in (lambda: registers.read(0xFFC), lambda: registers.write(0, 1)):
            try:
                access()
            except DriverError as error:
                messages.append(str(error))
        return "; ".join(messages)

    text = await talk()
    assert "READ of register 0xffc is refused" in text and "WRITE of register 0x0" in text

    @bridge
    def silence() -> str:
        try:
            Link(port)
        except DriverError as error:
            return str(error)
        return ""

    dut.rst_ni.value = 0
    assert "no answer to HELLO after 8 tries" in await silence()
