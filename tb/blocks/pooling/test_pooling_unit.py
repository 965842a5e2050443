"""pooling_unit against model/reference/integer.py, and its reads and cycles against
model/performance/pool_cycles.py."""

from __future__ import annotations

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from cocotb.types import LogicArray

from host.harness import clocking
from tb.blocks.pooling.add_layer import random_add
from tb.blocks.pooling.pool_layer import OPS, placed, random_layer
from tb.lib.descriptors import random_port
from tb.lib.packing import unpack
from tb.lib.stalls import PATTERNS, stalls

VERILATOR = cocotb.SIM_NAME.lower().startswith("verilator")
UNKNOWN = LogicArray("X" * 256)  # what the buffer shows without a read


class Bench:
    """The unit with a feature buffer and an output stage in Python around it."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.modules, self.latency = int(dut.NUM_MODULES.value), int(dut.RD_LATENCY.value)
        self.x_data = int.from_bytes(rng.bytes(32), "little") if VERILATOR else UNKNOWN

    async def run(self, layer, stall=None):
        """Run one layer and check everything about it; `stall`: when the output stage has no room
        (None: never)."""
        x = layer.random_input(self.rng)
        buffer = layer.buffer(self.rng, x)
        cycles = await self._run(layer, buffer, stall)
        what = f"{layer}"
        predicted = layer.cycles(self.modules, self.latency)
        if stall is not None and layer.op == "avgpool":
            predicted = layer.stalled_cycles(self.modules, self.latency, self.blocked)
        assert cycles == predicted, f"{cycles} cycles, {predicted} predicted: {what}"
        if layer.op == "maxpool":
            expected = layer.expected_buffer(buffer, x)
            wrong = np.argwhere(
                (np.frombuffer(self.memory, np.uint8).reshape(-1, 4) != expected).any(1)
            )[:, 0]
            assert len(wrong) == 0, f"{len(wrong)} quads are wrong, the first is {wrong[0]}: {what}"
            assert self.sums == [], what
            outputs = layer.pixel_quads(layer.out_base, layer.out_row_stride, layer.out_size)
            assert (self.written[outputs] == 1).all() and self.written.sum() == outputs.size, (
                f"not written once: {what}"
            )
        else:
            self._compare_sums(layer.expected_sums(x, self.modules), what)
        return cycles

    async def run_add(self, layer):
        """Run a sum of two tensors, with room always, and check everything about it."""
        buffer = layer.buffer(self.rng)
        cycles = await self._run(layer, buffer, None)
        assert cycles == layer.cycles(self.modules, self.latency), f"{cycles} cycles: {layer}"
        self._compare_sums(layer.expected_sums(buffer, self.modules), f"{layer}")

    async def _run(self, layer, buffer, stall) -> int:
        """Cycles from start_i to done_o of a layer on a buffer; all its reads are counted."""
        dut = self.dut
        self.memory, self.written = bytearray(buffer.tobytes()), np.zeros(len(buffer), np.int64)
        self.sums, self.reads, self.sums_without_room = [], 0, 0
        dut.desc_i.value = random_port(self.rng, layer.values)
        dut.start_i.value = 1
        cycles = await self._until_done(layer, stall)
        for _ in range(8):  # nothing follows
            assert await self._cycle(False) is False
        assert self.reads == layer.reads(self.modules), f"{layer}"
        return cycles

    def _compare_sums(self, expected, what):
        assert self.written.sum() == 0 and len(self.sums) == len(expected), (
            f"{len(self.sums)} sums of {len(expected)}: {what}"
        )
        for number, (got, wanted) in enumerate(zip(self.sums, expected)):
            assert got == wanted, f"sum {number}: {got}, expected {wanted}: {what}"

    async def _until_done(self, layer, stall) -> int:
        self.pipeline = deque([None] * (self.latency - 1))
        self.blocked = []
        limit = 20 * layer.cycles(self.modules, self.latency) + 200
        for cycle in range(limit):
            self.blocked.append(stall is not None and next(stall))
            done = await self._cycle(self.blocked[-1])
            self.dut.start_i.value = 0
            if done:
                return cycle
        raise AssertionError(f"not done after {limit} cycles: {layer}")

    async def _cycle(self, blocked: bool) -> bool:
        """One clock cycle: takes reads, writes and sums, drives read data; returns done_o."""
        dut = self.dut
        dut.sum_ready_i.value = int(not blocked)
        await RisingEdge(dut.clk_i)
        address = None
        if dut.rd_valid_o.value:
            self.reads += 1
            address = 4 * dut.rd_addr_o.value.to_unsigned()
        self.pipeline.append(address)
        address = self.pipeline.popleft()
        dut.rd_data_i.value = (
            self.x_data
            if address is None
            else int.from_bytes(self.memory[address : address + 32], "little")
        )
        if dut.wr_valid_o.value:
            self._write()
        self.sums_without_room = self.sums_without_room if blocked else 0
        if dut.sum_valid_o.value:
            self._take_sum(blocked)
        return bool(dut.done_o.value)

    def _write(self):
        address, mask = (
            self.dut.wr_addr_o.value.to_unsigned(),
            self.dut.wr_mask_o.value.to_unsigned(),
        )
        data = str(self.dut.wr_data_o.value)  # entries that are masked may be unknown
        for entry in range(8):
            if mask >> entry & 1:
                quad = int(data[256 - 32 * (entry + 1) : 256 - 32 * entry], 2)
                self.memory[4 * (address + entry) : 4 * (address + entry) + 4] = quad.to_bytes(
                    4, "little"
                )
                self.written[address + entry] += 1

    def _take_sum(self, blocked):
        dut = self.dut
        self.sums_without_room += blocked
        assert self.sums_without_room <= self.latency + 2, "too many sums without room"
        mask = int(dut.sum_mask_o.value)  # a single bit with 4 modules
        sums = unpack(dut.sum_o.value, self.modules, 32, signed=True)
        lanes = np.repeat(
            [mask >> quad & 1 for quad in range(self.modules // 4)], 4
        )  # sums of quads that are masked may be anything
        self.sums.append(
            (
                (sums * lanes).tolist(),
                dut.sum_word_o.value.to_unsigned(),
                dut.sum_addr_o.value.to_unsigned(),
                mask,
                bool(dut.done_o.value),
            )
        )


async def _start(dut) -> Bench:
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    dut.start_i.value = dut.sum_ready_i.value = dut.rd_data_i.value = 0
    dut.desc_i.value = random_port(rng, random_layer(rng, 4, 1000).values)
    await clocking.start(dut)
    return Bench(dut, rng)


@cocotb.test()
async def nin_layers(dut):
    """The pooling layers of NIN: a read in every cycle, and fewer than 30 cycles beside them."""
    bench = await _start(dut)
    for shape in ((96, 32, 32), (192, 16, 16)):
        layer = placed(bench.rng, "maxpool", False, shape, (2, 2), (2, 2), (0, 0))
        assert await bench.run(layer) < layer.reads(bench.modules) + 30
    assert layer.reads(bench.modules) == 6 * 256
    await bench.run(placed(bench.rng, "avgpool", False, (10, 8, 8), (8, 8), (8, 8), (0, 0)))


@cocotb.test()
async def corners(dut):
    """Shapes at the limits of the contract."""
    bench = await _start(dut)
    for op in ("maxpool", "avgpool"):
        for signed in (False, True):
            for case in (
                ((4, 1, 1), (1, 1), (1, 1), (0, 0)),
                ((5, 1, 1), (3, 3), (1, 1), (1, 1)),  # one pixel, all else padding
                ((512, 2, 1), (2, 1), (65535, 65535), (1, 0)),  # 128 quads, the longest stride
                ((36, 9, 9), (1, 1), (4, 4), (0, 0)),  # stride beyond the kernel
                ((36, 9, 10), (2, 3), (5, 7), (1, 1)),
                ((8, 6, 7), (5, 5), (1, 1), (2, 2)),  # overlapping windows, clipped on all sides
                ((33, 5, 4), (5, 4), (1, 1), (0, 0)),  # the whole map
                ((3, 4, 5), (9, 10), (1, 2), (4, 5)),  # kernel beyond the map
                ((4, 30, 1), (1, 1), (1, 1), (0, 0)),  # a new row in every cycle
                ((4, 1, 30), (1, 1), (1, 1), (0, 0)),  # a new pixel in every cycle
                ((64, 3, 3), (1, 1), (2, 2), (0, 0)),  # a new group in every cycle
            ):
                await bench.run(placed(bench.rng, op, signed, *case))
    for case in (
        ((4, 2, 3), (7, 5), (3, 1), (6, 4)),
        ((9, 1, 1), (40, 40), (1, 1), (39, 39)),
    ):  # padding almost as wide as the kernel
        await bench.run(placed(bench.rng, "avgpool", True, *case))


@cocotb.test()
async def longest(dut):
    """Whole maps of 65,535 pixels (fewer where that takes long): one column, one row."""
    bench = await _start(dut)
    length = 65535 if VERILATOR and bench.modules == 4 else 4099
    await bench.run(
        placed(bench.rng, "avgpool", False, (2, length, 1), (length, 1), (7, 1), (0, 0))
    )
    await bench.run(placed(bench.rng, "maxpool", True, (4, 1, length), (1, length), (1, 1), (0, 0)))


@cocotb.test()
async def far_windows(dut):
    """Windows far from the first pixel, the last one clipped by the far edge; wide and high ones
    that wait for the one before."""
    bench = await _start(dut)
    for number in range(16):
        stride, count = int(bench.rng.integers(3000, 16000)), int(bench.rng.integers(1, 5))
        sizes = [
            (stride * count + 1, 1),
            (3, 1),
            (stride, 1),
            (1, 0),
        ]  # image, kernel, stride, padding
        sizes = sizes if number % 2 else [size[::-1] for size in sizes]
        await bench.run(
            placed(
                bench.rng,
                ("maxpool", "avgpool")[number // 2 % 2],
                bool(number // 4 % 2),
                (4, *sizes[0]),
                *sizes[1:],
            )
        )
    if VERILATOR and bench.modules == 4:
        for number in range(4):
            kernel = int(bench.rng.integers(2048, 4096))
            sizes = [(2 * kernel + 5, 1), (kernel, 1), (kernel // 3, 1)]
            sizes = sizes if number % 2 else [size[::-1] for size in sizes]
            await bench.run(placed(bench.rng, "avgpool", True, (4, *sizes[0]), *sizes[1:], (0, 0)))


@cocotb.test()
async def random_layers(dut):
    """Random layers one after the other without reset; the output stage has room always, seldom, or
    in bursts."""
    bench = await _start(dut)
    seen, total = set(), 0
    for number in range(120):
        layer = random_layer(bench.rng, bench.modules, 1500)
        stall = None if number % 2 else stalls(bench.rng, PATTERNS[number // 2 % 4])
        await bench.run(layer, stall)
        kinds = {
            "signed": layer.signed,
            "padded": layer.pad != (0, 0),
            "last group partial": layer.quads % 8 != 0,
            "stalled": stall is not None,
        }
        seen |= {(layer.op, kind, value) for kind, value in kinds.items()}
        total += bench.reads
    assert len(seen) == 8 * len(OPS) and total > 5000, "the layers did not cover all kinds"


@cocotb.test()
async def sums_of_tensors(dut):
    """Sums of two tensors of any sign and place with any multipliers, between pools, without a
    reset."""
    bench = await _start(dut)
    seen = set()
    for number in range(80):
        layer = random_add(bench.rng, (512, 1, 1) if number == 0 else None)
        await bench.run_add(layer)
        seen.add((layer.first.signed, layer.other_signed))
        if number % 4 == 0:
            await bench.run(random_layer(bench.rng, bench.modules, 100))
    assert len(seen) == 4, f"signs {seen}"


@cocotb.test()
async def reset_in_between(dut):
    """A reset ends a layer at any point, with no read, write or sum after it; the next layer is
    right."""
    bench = await _start(dut)
    for _ in range(12):
        layer = random_layer(bench.rng, bench.modules, 300)
        dut.desc_i.value = random_port(bench.rng, layer.values)
        dut.start_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.start_i.value = 0
        for _ in range(int(bench.rng.integers(1, 40))):
            await RisingEdge(dut.clk_i)
        await clocking.reset(dut, 1)
        for _ in range(10):
            await RisingEdge(dut.clk_i)
            for signal in (dut.rd_valid_o, dut.wr_valid_o, dut.sum_valid_o, dut.done_o):
                assert signal.value == 0
        await bench.run(random_layer(bench.rng, bench.modules, 300))
