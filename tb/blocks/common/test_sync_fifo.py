"""sync_fifo: order, level, capacity, throughput and latency, for depths in distributed and in block
RAM."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from host.harness import clocking
from tb.blocks.common import ports
from tb.lib.stalls import PATTERNS, stalls


async def _start(dut) -> np.random.Generator:
    rng = await ports.start(dut)
    await RisingEdge(dut.clk_i)  # ready rises
    return rng


def _depth(dut) -> int:
    return int(dut.DEPTH.value)


def _latency(dut) -> int:
    return 1 if _depth(dut) <= int(dut.LUTRAM_MAX.value) else 3


async def _check_level(dut):
    """The level is the number of words that went in and did not come out, and ready is low exactly
    when it is DEPTH."""
    level = 0
    while True:
        await RisingEdge(dut.clk_i)
        assert dut.level_o.value.to_unsigned() == level
        assert (dut.in_ready_o.value == 1) == (level < _depth(dut)), f"ready at level {level}"
        level += int(dut.in_valid_i.value == 1 and dut.in_ready_o.value == 1)
        level -= int(dut.out_valid_o.value == 1 and dut.out_ready_i.value == 1)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def order_and_level(dut):
    """Every word arrives once, in order, and the level is exact, whatever the stalls."""
    rng = await _start(dut)
    cocotb.start_soon(_check_level(dut))
    for source in PATTERNS:
        for sink in PATTERNS:
            words = ports.words(rng, dut, 60 + int(rng.integers(60)))
            ports.send(dut, words, stalls(rng, source))
            assert await ports.receive(dut, len(words), stalls(rng, sink)) == words, (
                f"source {source}, sink {sink}"
            )


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def capacity(dut):
    """Takes exactly DEPTH words while nobody reads, several times over so that the pointers wrap"""
    rng = await _start(dut)
    cocotb.start_soon(_check_level(dut))
    for _ in range(3):
        words = ports.words(rng, dut, _depth(dut) + 1)
        sender = ports.send(dut, words, stalls(rng, "none"))
        for _ in range(_depth(dut) + 5):
            await RisingEdge(dut.clk_i)
        assert dut.level_o.value.to_unsigned() == _depth(dut) and not sender.done()
        assert await ports.receive(dut, len(words), stalls(rng, "none")) == words
        await _receive_nothing(dut)


async def _receive_nothing(dut):
    dut.out_ready_i.value = 1
    for _ in range(5):
        await RisingEdge(dut.clk_i)
        assert dut.out_valid_o.value == 0
    dut.out_ready_i.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def throughput_and_latency(dut):
    """A word comes out `latency` cycles after it went in, and then one a cycle."""
    rng = await _start(dut)
    words = ports.words(rng, dut, 100)
    dut.out_ready_i.value = 1
    ports.send(dut, words, stalls(rng, "none"))
    received = []
    for cycle in range(len(words) + _latency(dut) + 1):
        await RisingEdge(dut.clk_i)
        if dut.out_valid_o.value == 1:
            received.append((cycle, dut.out_data_o.value.to_unsigned()))
    # the first word is sampled at the first edge
    assert [w for _, w in received] == words
    assert [c for c, _ in received] == list(range(_latency(dut), _latency(dut) + len(words)))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reset_empties(dut):
    """A reset drops everything inside."""
    rng = await _start(dut)
    for _ in range(5):
        sender = ports.send(dut, ports.words(rng, dut, 20), stalls(rng, "light"))
        for _ in range(int(rng.integers(3, 20))):
            await RisingEdge(dut.clk_i)
        sender.cancel()
        dut.in_valid_i.value = 0
        await clocking.reset(dut)
        await FallingEdge(dut.clk_i)
        assert dut.level_o.value == 0 and dut.out_valid_o.value == 0
        words = ports.words(rng, dut, 20)
        ports.send(dut, words, stalls(rng, "light"))
        assert await ports.receive(dut, len(words), stalls(rng, "light")) == words
