"""image_loader against a memory model: odd and even rows, strides, images sent ahead, every error,
exact latencies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotb.utils import get_sim_time

from host.harness import clocking
from host.register_map import ErrorCode
from tb.blocks.stream import beats as b
from tb.lib import coverage, meeting
from tb.lib.effort import scaled
from tb.lib.packing import unpack
from tb.lib.stalls import PATTERNS, stalls

CONTROL = ("s_axis_tready", "wr_valid_o", "first_beat_o", "done_o", "err_valid_o")
LIMIT = 20_000  # cycles in which any image here is through


@dataclass(frozen=True)
class Shape:
    """Where an image goes, in quads."""

    base: int
    row_quads: int
    stride: int
    rows: int

    @property
    def quads(self) -> int:
        return self.row_quads * self.rows


def random_shape(rng: np.random.Generator, odd: bool | None = None) -> Shape:
    """Rows of 1..40 quads; `odd` fixes the parity of that."""
    row_quads = int(rng.integers(1, 41))
    if odd is not None:
        row_quads = row_quads // 2 * 2 + (1 if odd else 2)
    rows = int(rng.integers(1, 12))
    stride = row_quads + int(rng.integers(0, 3)) * int(rng.integers(0, 20))
    return Shape(int(rng.integers(0, 2**17 - rows * stride)), row_quads, stride, rows)


def image(rng: np.random.Generator, shape: Shape) -> tuple[list[b.Beat], dict[int, int]]:
    """A random image as beats, and what the memory has to hold afterwards."""
    quads = rng.integers(0, 2**32, shape.quads + shape.quads % 2, dtype=np.uint64)
    words = [int(quads[i]) | int(quads[i + 1]) << 32 for i in range(0, len(quads), 2)]
    memory = {
        shape.base + y * shape.stride + x: int(quads[y * shape.row_quads + x])
        for y in range(shape.rows)
        for x in range(shape.row_quads)
    }
    return b.with_last(words), memory


class Bench:
    """Drives one loader, with cocotbext-axi or by hand, and keeps the memory behind its write
    port."""

    def __init__(self, dut, by_hand: bool = False):
        self.dut = dut
        self.by_hand = by_hand
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self.source = None  # cocotbext-axi reads tready at once: not before the reset
        self.forget()

    def forget(self) -> None:
        self.memory: dict[int, int] = {}
        self.errors: list[int] = []
        self.times: dict[str, list[int]] = {
            "beat": [],
            "wr_valid": [],
            "first_beat": [],
            "done": [],
            "err_valid": [],
        }

    async def start(self) -> None:
        for name in ("clear_i", "enable_i", "base_i", "row_quads_i", "row_stride_i", "n_rows_i"):
            getattr(self.dut, name).value = 0
        b.idle(self.dut)
        await clocking.start(self.dut)
        if not self.by_hand:
            self.source = b.source(self.dut)
        cocotb.start_soon(self._record())
        await RisingEdge(self.dut.clk_i)

    async def _record(self) -> None:
        dut = self.dut
        while True:
            await RisingEdge(dut.clk_i)
            now = int(get_sim_time("ns")) // clocking.PERIOD_NS
            for name in CONTROL:
                assert str(getattr(dut, name).value) in "01", (
                    f"{name} is {getattr(dut, name).value}"
                )
            for name in ("wr_valid", "first_beat", "done", "err_valid"):
                if getattr(dut, f"{name}_o").value == 1:
                    self.times[name].append(now)
            if dut.s_axis_tvalid.value == 1 and dut.s_axis_tready.value == 1:
                self.times["beat"].append(now)
            if dut.err_valid_o.value == 1:
                self.errors.append(dut.err_code_o.value.to_unsigned())
            if dut.wr_valid_o.value == 1:
                self._write()

    def _write(self) -> None:
        address, mask = (
            self.dut.wr_addr_o.value.to_unsigned(),
            self.dut.wr_mask_o.value.to_unsigned(),
        )
        data = unpack(self.dut.wr_data_o.value, 8, 32)
        for entry in range(8):
            if mask >> entry & 1:
                assert address + entry not in self.memory, (
                    f"quad {address + entry} is written twice"
                )
                self.memory[address + entry] = int(data[entry])

    async def enable(self, shape: Shape) -> None:
        await FallingEdge(self.dut.clk_i)
        self.dut.base_i.value, self.dut.row_quads_i.value = shape.base, shape.row_quads
        self.dut.row_stride_i.value, self.dut.n_rows_i.value = shape.stride, shape.rows
        self.dut.enable_i.value = 1

    async def disable(self) -> None:
        await FallingEdge(self.dut.clk_i)
        self.dut.enable_i.value = 0
        await RisingEdge(self.dut.clk_i)

    async def send(self, beats) -> None:
        """Start sending; does not wait."""
        if self.by_hand:
            cocotb.start_soon(b.send_by_hand(self.dut, beats, stalls(self.rng, "none")))
        else:
            await self.source.send(b.frame(beats))

    async def finish(self, event: str) -> None:
        """Wait for `done` or `err_valid`."""
        await clocking.wait_for(self.dut, lambda: self.times[event], LIMIT, event)

    async def clear(self) -> None:
        await FallingEdge(self.dut.clk_i)
        self.dut.clear_i.value = 1
        await FallingEdge(self.dut.clk_i)
        self.dut.clear_i.value = 0

    async def check_good(self, shape: Shape) -> None:
        """Send one image, unless it is under way, and check all that follows from it."""
        beats, memory = image(self.rng, shape)
        await self.send(beats)
        await self.check_sent(shape, memory)

    async def check_sent(self, shape: Shape, memory: dict[int, int]) -> None:
        self.forget()
        await self.enable(shape)
        await self.finish("done")
        await ClockCycles(self.dut.clk_i, int(self.rng.integers(1, 10)))
        assert self.errors == [] and self.memory == memory, f"{shape}"
        assert len(self.times["done"]) == len(self.times["first_beat"]) == 1
        assert self.times["done"][0] == self.times["wr_valid"][-1] + 1
        assert self.times["first_beat"][0] == self.times["beat"][0] + 1
        assert len(self.times["beat"]) == (shape.quads + 1) // 2, (
            "beats of the next image were taken"
        )
        await self.disable()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def good_images(dut):
    """Random shapes and strides, all source stalls."""
    bench = Bench(dut)
    await bench.start()
    for pattern in PATTERNS:
        bench.source.set_pause_generator(stalls(bench.rng, pattern))
        for _ in range(8):
            await bench.check_good(random_shape(bench.rng))
    for shape in (
        Shape(0, 1, 1, 1),
        Shape(9, 1, 3, 7),
        Shape(8, 2, 2, 1),
        Shape(2**17 - 6, 3, 3, 2),
        Shape(0, 1, 1, 2),
    ):
        await bench.check_good(shape)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def images_sent_ahead(dut):
    """Images that wait at the loader: no beat of the next image is accepted before its turn."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    shapes = [random_shape(bench.rng) for _ in range(8)]
    images = [image(bench.rng, shape) for shape in shapes]
    await bench.send([beat for beats, _ in images for beat in beats])
    await ClockCycles(dut.clk_i, 20)
    assert bench.times["beat"] == [], "a beat was taken before enable_i"
    for shape, (_, memory) in zip(shapes, images):
        await bench.check_sent(shape, memory)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def throughput_and_latency(dut):
    """Even rows: one beat a cycle. Odd rows: one more cycle for a beat that straddles. Latencies as
    documented."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for odd in (False, True):
        for _ in range(5):
            shape = random_shape(bench.rng, odd)
            await bench.check_good(shape)
            straddles = sum((y * shape.row_quads) % 2 for y in range(shape.rows))
            first, writes = bench.times["beat"][0], bench.times["wr_valid"]
            assert writes == list(
                range(first + 2, first + 2 + (shape.quads + 1) // 2 + straddles)
            ), f"{shape}"


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def half_beat(dut):
    """The last beat of an odd image may say TKEEP 0x0f; on any other beat that is an error."""
    bench = Bench(dut)
    await bench.start()
    shape = Shape(40, 5, 7, 3)
    beats, memory = image(bench.rng, shape)
    await bench.send(b.with_keep(beats, len(beats) - 1, 0x0F))
    await bench.check_sent(shape, memory)
    for sent, index in (
        (shape, 0),
        (shape, 2),
        (shape, 6),
        (Shape(40, 5, 7, 4), 9),
        (Shape(40, 6, 7, 3), 8),
    ):
        beats, _ = image(bench.rng, sent)
        await _check_error(bench, sent, b.with_keep(beats, index, 0x0F), ErrorCode.IMAGE_TKEEP)


async def _check_error(bench: Bench, shape: Shape, beats: list[b.Beat], code: ErrorCode) -> None:
    """One error: everything is dropped at once until clear_i, nothing outside the image's region is
    written, and the next good image passes."""
    bench.forget()
    await bench.send(beats)
    await bench.enable(shape)
    await bench.finish("err_valid")
    await bench.disable()
    for _ in range(3):
        await bench.send(b.with_last(b.random_words(bench.rng, 4)))
    while not bench.source.idle():
        await RisingEdge(bench.dut.clk_i)
        assert bench.dut.s_axis_tready.value == 1, f"{shape}: a beat behind the error waits"
    await ClockCycles(bench.dut.clk_i, 10)
    assert bench.errors == [code], f"{shape}: {bench.errors}"
    assert bench.times["done"] == []
    assert set(bench.memory) <= set(image(bench.rng, shape)[1])
    assert bench.dut.err_code_o.value.to_unsigned() == code
    await bench.clear()
    await bench.check_good(random_shape(bench.rng))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def every_error(dut):
    """Too short, too long, TKEEP with holes, at every place."""
    bench = Bench(dut)
    await bench.start()
    for pattern in PATTERNS:
        bench.source.set_pause_generator(stalls(bench.rng, pattern))
        for _ in range(4):
            shape = random_shape(bench.rng)
            beats, _ = image(bench.rng, shape)
            extra = [x.data for x in beats] + b.random_words(
                bench.rng, int(bench.rng.integers(1, 6))
            )
            await _check_error(bench, shape, b.with_last(extra), ErrorCode.IMAGE_OVERLONG)
            hole = 0xFF ^ 1 << int(bench.rng.integers(8))
            await _check_error(
                bench,
                shape,
                b.with_keep(beats, int(bench.rng.integers(len(beats))), hole),
                ErrorCode.IMAGE_TKEEP,
            )
            if len(beats) > 1:
                short = b.truncated(beats, int(bench.rng.integers(1, len(beats))))
                await _check_error(bench, shape, short, ErrorCode.IMAGE_TRUNCATED)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clear_in_the_middle(dut):
    """The loader waits for the rest of an image that stops; clear_i discards it."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for _ in range(10):
        shape = Shape(100, 11, 13, 9)
        beats, _ = image(bench.rng, shape)
        bench.forget()
        await bench.send(beats[: int(bench.rng.integers(1, len(beats)))])
        await bench.enable(shape)
        await ClockCycles(dut.clk_i, 100)
        assert bench.errors == bench.times["done"] == []
        await bench.disable()
        await bench.clear()
        await bench.check_good(random_shape(bench.rng))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def cancelled_before_first_beat(dut):
    """enable_i falls around the first beat: either nothing is accepted or the whole image is
    loaded, as first_beat_o says."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    outcomes = set()
    for _ in range(40):
        wanted, other = random_shape(bench.rng), random_shape(bench.rng)
        beats, memory = image(bench.rng, wanted)
        bench.forget()
        enabled, sent = bench.rng.integers(1, 6, 2)
        await bench.enable(wanted)
        sender = cocotb.start_soon(_send_after(dut, beats, int(sent)))
        await ClockCycles(dut.clk_i, int(enabled))
        await bench.disable()
        await RisingEdge(dut.clk_i)
        await FallingEdge(dut.clk_i)
        begun = bool(bench.times["first_beat"])
        outcomes.add(begun)
        await ClockCycles(dut.clk_i, 10)
        if begun:
            await bench.finish("done")
            assert bench.memory == memory
            await RisingEdge(dut.clk_i)
            await bench.check_good(other)
        else:
            assert bench.times["beat"] == [], "a beat was accepted after the cancellation"
            # the image still waits at the port: the next run takes it
            await bench.check_sent(wanted, memory)
        await sender
    assert outcomes == {False, True}


async def _send_after(dut, beats: list[b.Beat], cycles: int) -> None:
    await ClockCycles(dut.clk_i, cycles)
    await b.send_by_hand(dut, beats, iter(lambda: False, True))


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def keep_at_every_place(dut):
    """TKEEP wrong in each bit of each beat, of images with even and odd rows; half a beat is right
    at the end of an odd image only."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for row_quads, rows in ((4, 2), (3, 3), (1, 5), (1, 4)):
        shape = Shape(40, row_quads, row_quads + 2, rows)
        beats, memory = image(bench.rng, shape)
        for place in range(len(beats)):
            for keep in (0x0F, 0x00, *(0xFF ^ 1 << bit for bit in range(8))):
                last = place == len(beats) - 1
                right = keep == 0x0F and last and shape.quads % 2 == 1
                await _lean(bench, shape, b.with_keep(beats, place, keep), memory, right)
            part = "first" if place == 0 else "last" if last else "middle"
            coverage.hit("keep_place", f"image {part}")


async def _lean(bench: Bench, shape: Shape, beats, memory, right: bool) -> None:
    """One image of which only TKEEP may be wrong, and a clear."""
    bench.forget()
    await bench.enable(shape)
    await b.send_by_hand(bench.dut, beats, stalls(bench.rng, "none"))
    await ClockCycles(bench.dut.clk_i, 6)
    keeps = [f"{beat.keep:02x}" for beat in beats]
    errors = [] if right else [ErrorCode.IMAGE_TKEEP]
    assert bench.errors == errors, f"{shape}, TKEEP {keeps}: {bench.errors}"
    assert len(bench.times["done"]) == right, f"{shape}, TKEEP {keeps}: done"
    assert bench.memory.items() <= memory.items(), f"{shape}, TKEEP {keeps}: written"
    assert not right or bench.memory == memory
    await bench.disable()
    await bench.clear()
    await RisingEdge(bench.dut.clk_i)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def faults_in_one_beat(dut):
    """Two faults in one beat: TKEEP is told first."""
    bench = Bench(dut)
    await bench.start()
    shape = Shape(0, 4, 4, 3)
    beats, _ = image(bench.rng, shape)
    short = b.truncated(beats, 4)
    await _check_error(bench, shape, b.with_keep(short, 3, 0x7F), ErrorCode.IMAGE_TKEEP)
    long = b.with_last([*(beat.data for beat in beats), 0])
    await _check_error(bench, shape, b.with_keep(long, 5, 0x7F), ErrorCode.IMAGE_TKEEP)
    await _check_error(bench, shape, b.with_keep(long, 6, 0x7F), ErrorCode.IMAGE_OVERLONG)
    coverage.hit("error_pair", "one beat")


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def many_rows_and_quads(dut):
    """Numbers of rows, and of quads in a row, around powers of two, and one or two with each higher
    bit set: none is taken for fewer."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for bit in scaled((4, 8), (8, 9, 10, 11)):
        for step in (-1, 0, 1):
            many = (1 << bit) + step
            stride = int(bench.rng.integers(1, 6))
            await bench.check_good(Shape(int(bench.rng.integers(100)), 1, stride, many))
            await bench.check_good(Shape(int(bench.rng.integers(100)), many, many, 1))
    base, far = (1 << 16) + 77, 1 << 15
    for stride in (far - 1, far, far + 1, 1 << 16):
        await bench.check_good(
            Shape(base, 3, stride, 2) if stride < far else Shape(9, 3, stride, 2)
        )
    for few, bit in product((1, 2), range(2, 17)):
        await _lean_truncated(bench, Shape(0, few | 1 << bit, 1, 1))
        if bit < 16:
            await _lean_truncated(bench, Shape(0, 1, 1, few | 1 << bit))


async def _lean_truncated(bench: Bench, shape: Shape) -> None:
    """An image of which only the first beat comes, and a clear."""
    beats, _ = image(bench.rng, shape)
    bench.forget()
    await bench.enable(shape)
    await b.send_by_hand(bench.dut, b.truncated(beats, 1), stalls(bench.rng, "none"))
    await ClockCycles(bench.dut.clk_i, 6)
    assert bench.errors == [ErrorCode.IMAGE_TRUNCATED]
    await bench.disable()
    await bench.clear()
    await RisingEdge(bench.dut.clk_i)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def clear_beside_the_end(dut):
    """clear_i around an image's last beat, right or with a wrong TKEEP: either done_o or the error
    came out, or nothing is left of it and no code has changed."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    shape = Shape(16, 4, 4, 2)
    for good, pair in ((True, "clear and image end"), (False, "clear and image error")):

        async def once(offset: int, good=good) -> int:
            beats, _ = image(bench.rng, shape)
            sent = beats if good else b.with_keep(beats, 3, 0xF7)
            code = dut.err_code_o.value.to_unsigned()
            bench.forget()
            await bench.enable(shape)
            out = len(beats) + (2 if good else 1)  # edge after which done_o or the error shows
            cocotb.start_soon(b.send_by_hand(dut, sent, stalls(bench.rng, "none")))
            for edge in range(out + 6):
                dut.clear_i.value = int(edge == out + offset)
                if edge == out + offset:
                    dut.enable_i.value = 0
                await RisingEdge(dut.clk_i)
            dut.clear_i.value = dut.enable_i.value = 0
            await RisingEdge(dut.clk_i)
            what = f"clear {offset} edges after the {'end' if good else 'error'}"
            assert len(bench.times["done"]) == (good and offset > 0), f"{what}: done"
            told = not good and offset > 0
            assert bench.errors == [ErrorCode.IMAGE_TKEEP] * told, f"{what}: {bench.errors}"
            now = dut.err_code_o.value.to_unsigned()
            assert now == (ErrorCode.IMAGE_TKEEP if told else code), f"{what}: code {now:#x}"
            await bench.check_good(random_shape(bench.rng))
            other = Shape(0, 4, 4, 1)
            await _lean_truncated(bench, other)  # leaves another code
            return offset

        await meeting.sweep(pair, range(-2, 4), once)
