"""Tests of rtl/conv_unit/drain_sequencer.sv: every step of random layers in order, with stalls,
partial tiles and partial words."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from host.harness import clocking
from model.compiler.program_format import TILE_PIXELS
from model.reference.blocks import DrainStep, drain_schedule
from tb.blocks.conv_unit.layers import make_layer
from tb.lib import meeting
from tb.lib.descriptors import random_port
from tb.lib.effort import scaled
from tb.lib.stalls import PATTERNS, random_pattern, stalls

INPUTS = ("start_i", "tile_done_i", "room_i", "early_i", "desc_i")


async def _start(dut):
    for port in INPUTS:
        getattr(dut, port).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    for name in ("valid_o", "busy_o", "tile_freed_o"):
        assert getattr(dut, name).value == 0, f"{name} after reset"
    return np.random.default_rng(cocotb.RANDOM_SEED)


def _random_layer(rng, modules):
    mode = int(rng.integers(2))
    size = (
        [int(rng.integers(1, 24)), int(rng.integers(1, 24))]
        if rng.random() < 0.8
        else [int(rng.integers(1, 4)), int(rng.integers(250, 520))]
    )
    if rng.random() < 0.5:
        size.reverse()
    kernel = (3, 3) if mode else (1, 1)
    tile = None
    if (
        rng.random() < 0.4
    ):  # any rectangle: the drain takes more of them than the descriptor check lets through
        rows = int(rng.integers(1, min(size[0], TILE_PIXELS) + 1))
        tile = rows, int(rng.integers(1, min(size[1], TILE_PIXELS // rows) + 1))
    return make_layer(
        rng,
        mode,
        False,
        modules,
        (4, *size),
        int(rng.integers(1, 6 * modules)),
        kernel,
        (mode, mode),
        tile,
    )


async def _run(dut, rng, layer, buffer, room, late, early=False, fused=False):
    """One layer; returns the cycles of its steps. late: stall pattern of tile_done_i; early:
    buffers are handed back when their drain begins; fused: with a sum."""
    steps = deque(drain_schedule(layer.plan, layer.target))
    sizes = deque(np.bincount([s.tile for s in steps]).tolist())
    tiles, sent, freed = len(sizes), 0, 0
    fresh = True  # before a tile's first step
    handed_back = None  # cycle of the last early tile_freed_o
    values = layer.values | {"fused": int(fused)}
    dut.desc_i.value, dut.early_i.value = random_port(rng, values), int(early)
    dut.start_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.start_i.value = 0
    cycles, cycle, tail = [], 0, 5
    while tail:
        has_room = not next(room)
        finish = sent < tiles and sent - freed < 2 and not next(late)
        sent += finish
        dut.room_i.value, dut.tile_done_i.value = int(has_room), int(finish)
        await RisingEdge(dut.clk_i)
        cycle += 1
        assert cycle < 200_000, f"{layer}: hangs, {len(steps)} steps left"
        if dut.valid_o.value == 1:
            assert has_room, "a step without room"
            assert steps, f"{layer}: a step too many"
            want = steps.popleft()
            got = DrainStep(
                freed,
                int(dut.lane_o.value),
                dut.pixel_o.value.to_unsigned(),
                dut.word_o.value.to_unsigned(),
                dut.addr_o.value.to_unsigned(),
                int(str(dut.mask_o.value), 2),
            )
            assert got == want, f"{layer}: step {got}, expected {want}"
            assert int(dut.buf_o.value) == buffer, (
                f"{layer}: tile {freed} drained from the wrong buffer"
            )
            assert sent - finish > freed, f"{layer}: tile {freed} drained before it was finished"
            assert not (early and fresh) or handed_back == cycle - 1, (
                f"{layer}: tile {freed} not handed back just before its first step"
            )
            fresh = False
            sizes[0] -= 1
            cycles.append(cycle)
        else:
            assert dut.valid_o.value == 0
        if not early:
            assert dut.tile_freed_o.value == (bool(sizes) and sizes[0] == 0), (
                f"{layer}: tile {freed} freed at the wrong step"
            )
        elif dut.tile_freed_o.value == 1:
            assert fresh and handed_back != cycle - 1, (
                f"{layer}: tile {freed} handed back twice or late"
            )
            handed_back = cycle
        if sizes and sizes[0] == 0:
            sizes.popleft()
            fresh = True
            freed += 1
            buffer ^= 1
        if freed == tiles:
            tail -= 1
            assert tail == 4 or dut.busy_o.value == 0
    assert not steps
    return cycles, buffer


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def random_layers(dut):
    """Address, mask, parameter word, lane, pixel and buffer of every step; a tile is freed with its
    last one."""
    rng = await _start(dut)
    buffer = 0
    for i in range(scaled(10, 32)):
        layer = _random_layer(rng, int(dut.NUM_MODULES.value))
        early = layer.plan.mode != 0 and i % 2 == 0
        room = stalls(rng, "none" if early else PATTERNS[i % 4])
        _, buffer = await _run(
            dut, rng, layer, buffer, room, stalls(rng, random_pattern(rng)), early
        )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def throughput(dut):
    """One step a cycle, two idle cycles between tiles, the first step three cycles after its tile
    was finished."""
    rng = await _start(dut)
    layer = make_layer(rng, 1, False, int(dut.NUM_MODULES.value), (4, 40, 20), 4, (3, 3), (1, 1))
    cycles, _ = await _run(dut, rng, layer, 0, stalls(rng, "none"), stalls(rng, "none"))
    tile = layer.plan.tile[0] * layer.plan.tile[1]
    assert (
        cycles[0] == 4 and set(np.diff(cycles)) == {1, 3} and cycles[tile] - cycles[tile - 1] == 3
    )


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def tile_finished_beside_the_end_of_a_drain(dut):
    """A tile that is finished in every cycle around the end of the drain before it: each is drained
    once, and the unit comes to rest."""
    rng = await _start(dut)
    modules, buffer = int(dut.NUM_MODULES.value), 0
    shape = (4, 6, 5)
    layer = make_layer(rng, 1, False, modules, shape, 4, (3, 3), (1, 1), (2, 5))
    assert layer.plan.tiles == 3

    async def once(offset):
        nonlocal buffer
        finished, now = [], 0
        first_end = 12 + offset  # ten pixels, two cycles later

        def late():
            nonlocal now
            while True:
                wait = len(finished) == 1 and now < first_end
                if not wait:
                    finished.append(now)
                now += 1
                yield wait

        cycles, buffer = await _run(dut, rng, layer, buffer, stalls(rng, "none"), late())
        return finished[1] + 1 - cycles[9]

    await meeting.sweep("tile finished and drained", range(-6, 7), once)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def fused_sums(dut):
    """With a sum all steps of a layer come in cycles of one parity after its start, one in two
    cycles; addresses and the rest stay as they are."""
    rng = await _start(dut)
    buffer, gaps = 0, set()
    for i in range(scaled(6, 24)):
        layer = _random_layer(rng, int(dut.NUM_MODULES.value))
        late = stalls(rng, PATTERNS[i % 4])
        await ClockCycles(dut.clk_i, 1 + i % 2)  # an idle time of either parity
        cycles, buffer = await _run(dut, rng, layer, buffer, stalls(rng, "none"), late, fused=True)
        gaps |= set(np.diff(cycles))
        assert {cycle % 2 for cycle in cycles} == {1}, f"{layer}: steps in even cycles"
    assert min(gaps) == 2, "the pace is not a half in any layer"
