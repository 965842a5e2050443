"""result_writer: beats, TKEEP and TLAST through all stalls, room_o as a promise to producers with
words in flight."""

from __future__ import annotations

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotb.utils import get_sim_time

from host.harness import clocking
from tb.blocks.stream import beats as b
from tb.blocks.stream import channel
from tb.lib import meeting
from tb.lib.stalls import PATTERNS, stalls

PIPELINE = 5  # words in flight of the producer that only looks at room_o


async def _start(dut) -> np.random.Generator:
    for name in ("clear_i", "in_valid_i", "in_data_i", "in_half_i", "in_last_i", "m_axis_tready"):
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    return np.random.default_rng(cocotb.RANDOM_SEED)


def _packets(rng: np.random.Generator, count: int) -> list[list[b.Beat]]:
    """Random packets; every other one ends in half a beat."""
    packets = []
    for i in range(count):
        beats = b.with_last(b.random_words(rng, int(rng.integers(1, 50))))
        packets.append(b.with_keep(beats, len(beats) - 1, 0x0F) if i % 2 else beats)
    return packets


def _drive(dut, beat: b.Beat) -> None:
    dut.in_data_i.value, dut.in_half_i.value, dut.in_last_i.value = (
        beat.data,
        int(beat.keep == 0x0F),
        int(beat.last),
    )


def _expected(beat: b.Beat) -> tuple[int, int, int]:
    return (beat.data if beat.keep == 0xFF else beat.data & b.MASK_32, beat.keep, int(beat.last))


async def _receive(dut, count: int, stall) -> list[tuple[int, int, int]]:
    """(tdata, tkeep, tlast) of `count` beats."""

    def read() -> int:
        return (
            dut.m_axis_tdata.value.to_unsigned() << 9
            | dut.m_axis_tkeep.value.to_unsigned() << 1
            | int(dut.m_axis_tlast.value)
        )

    words = await channel.receive(
        dut.clk_i, dut.m_axis_tvalid, dut.m_axis_tready, read, count, stall
    )
    return [(w >> 9, w >> 1 & 0xFF, w & 1) for w in words]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def packets_to_axi_sink(dut):
    """Packets arrive unchanged at cocotbext-axi's sink; the upper half of a half beat is zero."""
    rng = await _start(dut)
    sink = b.sink(dut)
    for pattern in PATTERNS:
        sink.set_pause_generator(stalls(rng, pattern))
        for beats in _packets(rng, 6):
            await channel.send(
                dut.clk_i,
                dut.in_valid_i,
                dut.in_ready_o,
                lambda beat: _drive(dut, beat),
                beats,
                stalls(rng, PATTERNS[rng.integers(4)]),
            )
            frame = await sink.recv(compact=False)
            assert frame.tdata == b"".join(_expected(x)[0].to_bytes(8, "little") for x in beats)
            assert list(frame.tkeep) == [x.keep >> lane & 1 for x in beats for lane in range(8)]
        await ClockCycles(dut.clk_i, 3)
        assert dut.empty_o.value == 1


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def stability_and_level(dut):
    """All pairs of stalls; m_axis is stable while it waits; room_o counts exactly."""
    rng = await _start(dut)

    async def watch():
        inside = 0  # words in the FIFO cannot be seen: room_o has to lie between the bounds
        depth = int(dut.DEPTH.value)
        while True:
            await RisingEdge(dut.clk_i)
            assert inside - 2 <= depth - dut.room_o.value.to_unsigned() <= inside
            assert (dut.empty_o.value == 1) == (inside == 0)
            inside += int(dut.in_valid_i.value == 1 and dut.in_ready_o.value == 1)
            inside -= int(dut.m_axis_tvalid.value == 1 and dut.m_axis_tready.value == 1)

    cocotb.start_soon(watch())
    for source in PATTERNS:
        for sink in PATTERNS:
            packets = _packets(rng, 4)
            beats = [beat for p in packets for beat in p]
            cocotb.start_soon(
                channel.send(
                    dut.clk_i,
                    dut.in_valid_i,
                    dut.in_ready_o,
                    lambda beat: _drive(dut, beat),
                    beats,
                    stalls(rng, source),
                )
            )
            assert await _receive(dut, len(beats), stalls(rng, sink)) == [
                _expected(x) for x in beats
            ], f"{source}, {sink}"


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def credits(dut):
    """A producer with a pipeline of PIPELINE words that never looks at in_ready_o loses nothing."""
    rng = await _start(dut)
    for pattern in PATTERNS:
        beats = [beat for p in _packets(rng, 8) for beat in p]
        receiver = cocotb.start_soon(_receive(dut, len(beats), stalls(rng, pattern)))
        todo, flight = deque(beats), deque([None] * PIPELINE)
        while todo or any(flight):
            await FallingEdge(dut.clk_i)
            out = flight.popleft()
            dut.in_valid_i.value = int(out is not None)
            if out is not None:
                _drive(dut, out)
                assert dut.in_ready_o.value == 1, "room_o promised an entry that is not there"
            on_the_way = sum(x is not None for x in flight) + (out is not None)
            flight.append(
                todo.popleft() if todo and dut.room_o.value.to_unsigned() > on_the_way else None
            )
        await FallingEdge(dut.clk_i)
        dut.in_valid_i.value = 0
        assert await receiver == [_expected(x) for x in beats]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def throughput_and_latency(dut):
    """Without stalls one beat a cycle, two cycles (four with block RAM) after it was given."""
    rng = await _start(dut)
    words = b.random_words(rng, 100)
    latency = 2 if int(dut.DEPTH.value) <= 64 else 4
    dut.m_axis_tready.value = 1
    times = {"in": [], "out": []}

    async def watch():
        while True:
            await RisingEdge(dut.clk_i)
            now = int(get_sim_time("ns")) // clocking.PERIOD_NS
            if dut.in_valid_i.value == 1 and dut.in_ready_o.value == 1:
                times["in"].append(now)
            if dut.m_axis_tvalid.value == 1:
                times["out"].append(now)

    cocotb.start_soon(watch())
    await channel.send(
        dut.clk_i,
        dut.in_valid_i,
        dut.in_ready_o,
        lambda beat: _drive(dut, beat),
        b.with_last(words),
        stalls(rng, "none"),
    )
    await ClockCycles(dut.clk_i, 10)
    assert times["in"] == list(range(times["in"][0], times["in"][0] + len(words)))
    assert times["out"] == [t + latency for t in times["in"]]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clear_drops_all(dut):
    """clear_i empties the FIFO; the beats of the register slice and all later ones stay."""
    rng = await _start(dut)
    for _ in range(5):
        kept = int(rng.integers(1, 60))
        beats = b.with_last(b.random_words(rng, kept))
        await channel.send(
            dut.clk_i,
            dut.in_valid_i,
            dut.in_ready_o,
            lambda beat: _drive(dut, beat),
            beats,
            stalls(rng, "none"),
        )
        await ClockCycles(dut.clk_i, 5)
        await FallingEdge(dut.clk_i)
        dut.clear_i.value = 1
        await FallingEdge(dut.clk_i)
        dut.clear_i.value = 0
        assert dut.empty_o.value == 0 and dut.m_axis_tvalid.value == 1
        assert dut.room_o.value.to_unsigned() == int(dut.DEPTH.value)
        beats = beats[:2] + [beat for p in _packets(rng, 2) for beat in p]
        cocotb.start_soon(
            channel.send(
                dut.clk_i,
                dut.in_valid_i,
                dut.in_ready_o,
                lambda beat: _drive(dut, beat),
                beats[min(2, kept) :],
                stalls(rng, "light"),
            )
        )
        assert await _receive(dut, len(beats), stalls(rng, "light")) == [
            _expected(x) for x in beats
        ]
        await ClockCycles(dut.clk_i, 2)
        assert dut.empty_o.value == 1


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clear_beside_a_beat(dut):
    """clear_i in every cycle around the one in which a beat comes in: the beat is dropped or
    delivered, one that was offered is delivered, and the FIFO is empty afterwards."""
    rng = await _start(dut)
    delivered = {}

    async def once(offset: int) -> int:
        beat, offered, got = b.with_last(b.random_words(rng, 1))[0], False, 0
        sent = False
        for cycle in range(-6, 14):
            await FallingEdge(dut.clk_i)
            dut.in_valid_i.value = int(cycle >= 0 and not sent)
            _drive(dut, beat)
            dut.clear_i.value = int(cycle == offset)
            dut.m_axis_tready.value = int(cycle > 8)
            await RisingEdge(dut.clk_i)
            sent |= cycle >= 0 and dut.in_ready_o.value == 1
            if cycle == offset:
                offered = dut.m_axis_tvalid.value == 1
            if cycle == offset + 1:
                assert dut.room_o.value.to_unsigned() == int(dut.DEPTH.value), (
                    f"room_o after a clear {offset} cycles after a beat"
                )
            if dut.m_axis_tvalid.value == 1 and dut.m_axis_tready.value == 1:
                assert dut.m_axis_tdata.value.to_unsigned() == beat.data
                got += 1
        what = f"a clear {offset} cycles after a beat"
        assert got == 1 if offered or offset < 0 else got <= 1, f"{what}: {got} beats"
        assert dut.empty_o.value == 1 and dut.in_ready_o.value == 1, what
        delivered[offset] = got
        return offset

    await meeting.sweep("clear and beat in", range(-3, 7), once)
    assert not delivered[0], "a beat that comes with the clear is delivered"
    packets = [beat for p in _packets(rng, 2) for beat in p]
    cocotb.start_soon(
        channel.send(
            dut.clk_i,
            dut.in_valid_i,
            dut.in_ready_o,
            lambda beat: _drive(dut, beat),
            packets,
            stalls(rng, "light"),
        )
    )
    received = await _receive(dut, len(packets), stalls(rng, "light"))
    assert received == [_expected(x) for x in packets]
