"""Tests of rtl/memory/tensor_reader.sv: tensors with even and odd rows as beats, with a result FIFO
that fills up."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.compiler.program_format import DIM_W
from model.performance.pool_cycles import READ_LATENCY
from model.reference.blocks import tensor_beats
from tb.lib.effort import scaled
from tb.lib.packing import pack
from tb.lib.stalls import PATTERNS, stalls

FIFO_DEPTH = 64


async def _start(dut):
    for name in (
        "start_i",
        "base_i",
        "row_stride_i",
        "row_quads_i",
        "height_i",
        "rd_data_i",
        "room_i",
    ):
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    for name in ("done_o", "rd_valid_o", "beat_valid_o"):
        assert getattr(dut, name).value == 0, f"{name} after reset"
    return np.random.default_rng(cocotb.RANDOM_SEED)


async def _run(dut, rng, base, row_stride, row_quads, height, stall):
    """Read one tensor; returns the cycles from its first read to its last beat, and the highest
    level of the FIFO."""
    memory = rng.integers(0, 2**32, base + height * row_stride + 16)
    want = tensor_beats(memory, base, row_stride, row_quads, height)
    dut.base_i.value, dut.row_stride_i.value, dut.row_quads_i.value, dut.height_i.value = (
        base,
        row_stride,
        row_quads,
        height,
    )
    dut.start_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.start_i.value = 0
    requests = [None] * READ_LATENCY
    got, level, highest, done, cycle, first, last = [], 0, 0, 0, 0, None, None
    while cycle < 60 + 100 * len(want):
        dut.room_i.value = FIFO_DEPTH - level
        address = requests[-1]
        junk = [int(q) for q in rng.integers(0, 2**32, 8)]
        dut.rd_data_i.value = pack(
            junk
            if address is None
            else [*(int(q) for q in memory[address : address + 2]), *junk[2:]],
            32,
        )
        await RisingEdge(dut.clk_i)
        cycle += 1
        reading = dut.rd_valid_o.value == 1
        requests = [dut.rd_addr_o.value.to_unsigned() if reading else None, *requests[:-1]]
        first = cycle if reading and first is None else first
        if level and not next(stall):
            level -= 1
        if dut.beat_valid_o.value == 1:
            got.append(
                (
                    dut.beat_data_o.value.to_unsigned(),
                    dut.beat_half_o.value == 1,
                    dut.beat_last_o.value == 1,
                )
            )
            last, level = cycle, level + 1
            highest = max(highest, level)
            assert level <= FIFO_DEPTH, "a beat too many for the FIFO"
        assert dut.done_o.value == (dut.beat_valid_o.value == 1 and got[-1][2]), (
            "done_o is not with the last beat"
        )
        done += dut.done_o.value == 1
        if done and cycle > last + 8:
            break
    for i, (beat, expected) in enumerate(zip(got, want)):
        same = beat == expected or (expected[1] and (beat[0] & 0xFFFFFFFF, *beat[1:]) == expected)
        assert same, (
            f"{height} rows of {row_quads}: beat {i} of {len(want)} is {beat}, expected {expected}"
        )
    assert len(got) == len(want) and done == 1, (
        f"{height} rows of {row_quads}: {len(got)} beats of {len(want)}, done {done} times"
    )
    return last - first, highest


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def small_tensors(dut):
    """All rows of 1..7 quads and heights 1..5, packed and with gaps, under every stall pattern."""
    rng = await _start(dut)
    for row_quads in range(1, 8):
        for height in range(1, 6):
            gap = int(rng.choice([0, 0, 1, 2, 7]))
            pattern = PATTERNS[rng.integers(4)]
            await _run(
                dut,
                rng,
                int(rng.integers(50)),
                row_quads + gap,
                row_quads,
                height,
                stalls(rng, pattern),
            )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_tensors(dut):
    """Long tensors against a FIFO that is drained slowly: it never overflows."""
    rng = await _start(dut)
    highest = 0
    for pattern in PATTERNS:
        for i in range(scaled(2, 6)):
            row_quads, height = (
                (61, 12) if i == 0 else (int(rng.integers(1, 60)), int(rng.integers(1, 9)))
            )
            _, level = await _run(
                dut,
                rng,
                int(rng.integers(1000)),
                row_quads + int(rng.integers(9)),
                row_quads,
                height,
                stalls(rng, pattern),
            )
            highest = max(highest, level)
    assert highest >= FIFO_DEPTH - 8, f"the FIFO never held more than {highest} beats"


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def throughput(dut):
    """One beat a cycle for even rows, one cycle more a row for odd ones; a beat follows its read
    after READ_LATENCY + 1 cycles."""
    rng = await _start(dut)
    for row_quads, height in ((20, 10), (21, 10), (1, 1), (2, 1)):
        cycles, _ = await _run(dut, rng, 0, row_quads, row_quads, height, stalls(rng, "none"))
        assert cycles == height * -(-row_quads // 2) - 1 + READ_LATENCY + 1, (
            f"{height} rows of {row_quads} quads: {cycles} cycles"
        )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def many_rows(dut):
    """A tensor with more rows than half of the heights that the field holds."""
    rng = await _start(dut)
    await _run(dut, rng, 0, 1, 1, 2 ** (DIM_W - 1) + 5, stalls(rng, "none"))
