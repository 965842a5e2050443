"""skid_buffer: order, stability, full throughput, registered handshake, reset. Both with and
without stalls."""

from __future__ import annotations

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge

from host.harness import clocking
from tb.blocks.common import ports
from tb.lib.stalls import PATTERNS, stalls


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def order_and_stability(dut):
    """Every word arrives once, in order, whatever the stalls on both sides."""
    rng = await ports.start(dut)
    for source in PATTERNS:
        for sink in PATTERNS:
            words = ports.words(rng, dut, 100)
            ports.send(dut, words, stalls(rng, source))
            assert await ports.receive(dut, len(words), stalls(rng, sink)) == words, (
                f"source {source}, sink {sink}"
            )


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def full_throughput(dut):
    """One word a cycle, latency one cycle, also right after a stall of the receiver."""
    rng = await ports.start(dut)
    words = ports.words(rng, dut, 64)
    ports.send(dut, words, stalls(rng, "none"))
    cycles = 0
    pauses = {20, 21, 22, 40}

    async def count():
        nonlocal cycles
        while True:
            await RisingEdge(dut.clk_i)
            cycles += 1

    counter = cocotb.start_soon(count())
    received = await ports.receive(dut, len(words), (cycle in pauses for cycle in range(10_000)))
    counter.cancel()
    assert received == words
    # the first word is sampled at edge 0 and comes out at edge 1
    assert cycles - 1 == len(words) + len(pauses), (
        f"{cycles - 1} cycles for {len(words)} words and {len(pauses)} pauses"
    )


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def both_directions_registered(dut):
    """Neither output reacts within a cycle to an input of the other side."""
    rng = await ports.start(dut)
    for _ in range(200):
        await RisingEdge(dut.clk_i)
        dut.in_valid_i.value = int(rng.integers(2))
        dut.out_ready_i.value = int(rng.integers(2))
        dut.in_data_i.value = ports.words(rng, dut, 1)[0]
        await FallingEdge(dut.clk_i)
        before = (dut.in_ready_o.value, dut.out_valid_o.value)
        saved = (dut.in_valid_i.value, dut.out_ready_i.value)
        dut.in_valid_i.value = 1 - int(dut.in_valid_i.value)
        dut.out_ready_i.value = 1 - int(dut.out_ready_i.value)
        await cocotb.triggers.Timer(1, unit="ns")
        assert before == (dut.in_ready_o.value, dut.out_valid_o.value), (
            "combinational path through the slice"
        )
        dut.in_valid_i.value, dut.out_ready_i.value = saved


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reset_drops_content(dut):
    """After a reset in the middle of traffic nothing old comes out, and in reset nothing is
    accepted."""
    rng = await ports.start(dut)
    for _ in range(10):
        sender = ports.send(dut, ports.words(rng, dut, 10), stalls(rng, "none"))
        await ports.receive(dut, int(rng.integers(1, 5)), stalls(rng, "light"))
        sender.cancel()
        dut.rst_ni.value = 0
        await RisingEdge(dut.clk_i)
        await FallingEdge(dut.clk_i)
        assert dut.in_ready_o.value == 0 and dut.out_valid_o.value == 0
        dut.in_valid_i.value = 0
        await clocking.reset(dut)
        words = ports.words(rng, dut, 5)
        ports.send(dut, words, stalls(rng, "light"))
        assert await ports.receive(dut, len(words), stalls(rng, "light")) == words
