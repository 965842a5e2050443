"""Tests of rtl/stream/result_packer.sv: 32-bit results and tensors as beats, none lost, TLAST on
the last one only."""

import itertools
from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from tb.lib import meeting
from tb.lib.packing import pack
from tb.lib.stalls import PATTERNS, random_pattern, stalls

MARGIN = 24  # steps that may still come after room_o has fallen


class Bench:
    """Producer of steps that is MARGIN - 2 cycles long, consumer with stalls; everything taken is
    recorded."""

    def __init__(self, dut, rng, sink):
        self.dut, self.rng, self.sink = dut, rng, stalls(rng, sink)
        self.modules = int(dut.NUM_MODULES.value)
        self.got, self.waiting, self.held_back = [], None, 0

    async def cycle(self, step=None, flush=False, beat=None):
        """One clock cycle; beat: (data, half, last) of a tensor, which must be taken in this
        cycle."""
        dut = self.dut
        dut.raw_valid_i.value, dut.flush_i.value, dut.tensor_valid_i.value = (
            int(step is not None),
            int(flush),
            int(beat is not None),
        )
        if step is not None:
            dut.raw_i.value = pack(step, 32)
        if beat is not None:
            dut.tensor_data_i.value, dut.tensor_half_i.value, dut.tensor_last_i.value = (
                beat[0],
                int(beat[1]),
                int(beat[2]),
            )
        ready = beat is not None or not next(self.sink)
        dut.beat_ready_i.value = int(ready)
        await RisingEdge(dut.clk_i)
        self.held_back += dut.room_o.value == 0
        if dut.beat_valid_o.value == 1:
            now = (
                dut.beat_data_o.value.to_unsigned(),
                dut.beat_half_o.value == 1,
                dut.beat_last_o.value == 1,
            )
            assert self.waiting in (None, now), (
                f"beat {len(self.got)} changed from {self.waiting} to {now} while waiting"
            )
            self.waiting = None if ready else now
            if ready:
                self.got.append(now)
        else:
            assert dut.beat_valid_o.value == 0 and self.waiting is None, (
                f"beat {len(self.got)} withdrawn"
            )
        return dut.room_o.value == 1

    async def raw_tensor(self, count, source):
        """`count` steps through a pipeline that looks at room_o at its start only, then the flush;
        returns the expected beats."""
        steps = [[int(x) for x in self.rng.integers(0, 2**32, self.modules)] for _ in range(count)]
        todo, pipeline, stall, room = (
            deque(steps),
            deque([None] * (MARGIN - 2)),
            stalls(self.rng, source),
            True,
        )
        while todo or any(s is not None for s in pipeline):
            pipeline.append(todo.popleft() if todo and room and not next(stall) else None)
            room = await self.cycle(pipeline.popleft())
        for _ in range(int(self.rng.integers(0, 20))):
            await self.cycle()
        await self.cycle(flush=True)
        await self.empty()
        beats = [s[i] | s[i + 1] << 32 for s in steps for i in range(0, self.modules, 2)]
        return [(data, False, i == len(beats) - 1) for i, data in enumerate(beats)]

    async def empty(self):
        for _ in range(20_000):
            if self.dut.empty_o.value == 1:
                break
            await self.cycle()
        for _ in range(4):
            await self.cycle()
        assert self.dut.empty_o.value == 1 and self.dut.room_o.value == 1

    def expect(self, want):
        for i, (got, beat) in enumerate(zip(self.got, want)):
            assert got == beat, (
                f"beat {i} of {len(want)}: (data, half, last) {got}, expected {beat}"
            )
        assert len(self.got) == len(want), f"{len(self.got)} beats, expected {len(want)}"
        self.got = []


async def _start(dut):
    for name in (
        "raw_valid_i",
        "raw_i",
        "flush_i",
        "tensor_valid_i",
        "tensor_data_i",
        "tensor_half_i",
        "tensor_last_i",
        "beat_ready_i",
    ):
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    assert dut.beat_valid_o.value == 0 and dut.empty_o.value == 1 and dut.room_o.value == 1
    return np.random.default_rng(cocotb.RANDOM_SEED)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def raw_results(dut):
    """Every count of steps around the FIFO's depth, all stall patterns; a full FIFO holds the
    producer back in time."""
    rng = await _start(dut)
    held_back = 0
    for pattern in PATTERNS:
        bench = Bench(dut, rng, pattern)
        for count in (1, 2, int(rng.integers(3, 60)), 64, 65, int(rng.integers(100, 200))):
            bench.expect(await bench.raw_tensor(count, random_pattern(rng)))
        held_back += bench.held_back
    assert held_back, "the FIFO was never full"


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def nothing_before_the_end(dut):
    """The last beat waits for the flush, however late that is, and then carries TLAST."""
    rng = await _start(dut)
    bench = Bench(dut, rng, "none")
    for _ in range(3):
        for _ in range(4):
            await bench.cycle([1] * bench.modules)
        for _ in range(60):
            await bench.cycle()
        assert len(bench.got) == 2 * bench.modules - 1 and not any(last for *_, last in bench.got)
        await bench.cycle(flush=True)
        await bench.empty()
        bench.expect(
            [(1 << 32 | 1, False, i == 2 * bench.modules - 1) for i in range(2 * bench.modules)]
        )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def tensors_between(dut):
    """Tensor beats pass unchanged, with raw tensors before and after them."""
    rng = await _start(dut)
    bench = Bench(dut, rng, "light")
    for _ in range(5):
        want = await bench.raw_tensor(int(rng.integers(1, 30)), "light")
        count = int(rng.integers(1, 20))
        for i in range(count):
            beat = (
                int(rng.integers(2**64, dtype=np.uint64)),
                bool(rng.integers(2)),
                i == count - 1,
            )
            want.append(beat)
            await bench.cycle(beat=beat)
            if rng.random() < 0.3:
                await bench.cycle()
        bench.expect(want)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def flush_beside_the_receiver(dut):
    """The flush in every cycle around the one in which the receiver takes the beat before the last
    one again: the last beat carries TLAST, and nothing of the flush is left for the next tensor."""
    rng = await _start(dut)
    bench = Bench(dut, rng, "none")
    held_up = 12  # cycle in which the receiver is ready again

    async def once(offset):
        for gap in range(3):
            bench.sink = (cycle < held_up for cycle in itertools.count())
            steps = rng.integers(0, 2**32, (4, bench.modules), dtype=np.uint64).tolist()
            for cycle in range(held_up + 8):
                step = steps[cycle] if cycle < 2 else None
                await bench.cycle(step, flush=cycle == held_up + offset)
            await bench.empty()
            for _ in range(gap):
                await bench.cycle()
            for step in steps[2:]:
                await bench.cycle(step)
            await bench.cycle(flush=True)
            await bench.empty()
            want = []
            for tensor in (steps[:2], steps[2:]):
                beats = [s[i] | s[i + 1] << 32 for s in tensor for i in range(0, bench.modules, 2)]
                want += [(data, False, data is beats[-1]) for data in beats]
            bench.expect(want)
        return offset

    await meeting.sweep("flush and receiver", range(-4, 5), once)
