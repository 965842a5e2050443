"""Tests of rtl/conv_unit/pass_sequencer.sv: every window of every pass of random layers against the
definition of the convolution."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.compiler.conv_plan import SUM_DELAY
from model.performance.cycle_model import SETUP
from model.reference.blocks import conv_schedule
from tb.blocks.conv_unit.layers import make_layer, random_layer
from tb.lib.descriptors import random_port
from tb.lib.effort import scaled
from tb.lib.signals import is_high
from tb.lib.stalls import PATTERNS, stalls

MODULES = 4  # counts output channels only
TAG_TO_READ = 1  # a tag leaves one cycle after the read that completes its window
TAIL = 10  # cycles after the end in which nothing may come


class Run:
    """One layer: models weight loader and partial-sum memory, and checks reads, tags and their
    order in every cycle.

    weights, tiles: stall patterns. instant: weights and tiles are always there.
    """

    def __init__(self, dut, rng, layer, pattern="none", instant=False):
        self.dut, self.layer, self.instant = dut, layer, instant
        self.schedule = deque()
        self.passes = deque()
        for tile, positions in conv_schedule(layer.plan, layer.source):
            self.passes.append(bool(positions))
            self.schedule.extend((tile, i == 0, p) for i, p in enumerate(positions))
        self.tiles = layer.plan.tiles * layer.plan.output_groups
        self.remaining = np.bincount([tile for tile, _, _ in self.schedule], minlength=self.tiles)
        self.stall, self.slowness = stalls(rng, pattern), int(rng.choice([1, 10, 100]))
        self.rng = rng
        self.cycle = self.reads = self.tiles_taken = self.tiles_done = self.tiles_freed = 0
        self.history = deque(
            [None] * 6, maxlen=6
        )  # address of each of the last reads, None where there was none
        self.weights_at = 0
        self.take_cycles = deque()
        self.takes = []
        self.free_at = deque()
        self.read_cycles = []
        self.full_late = self.waits = 0  # waits: cycles starved or blocked
        self.blocked = deque([False] * 2, maxlen=2)  # blocked_o in the last cycles
        self.tagged = {}  # (tile, pixel): cycle of its last tag
        self.buffer = None  # of tile 0
        self.ports = {}

    async def run(self):
        dut, layer = self.dut, self.layer
        await clocking.wait_for(dut, lambda: not is_high(dut.busy_o), 2, "idle before the start")
        dut.desc_i.value = random_port(self.rng, layer.values)
        dut.start_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.start_i.value = 0
        tail, limit = TAIL, 5000 + 60 * (layer.plan.slots + 20 * len(self.passes))
        while tail:
            self.offer()
            await RisingEdge(dut.clk_i)
            self.check()
            self.cycle += 1
            if tail < TAIL or not is_high(dut.busy_o):
                assert not is_high(dut.busy_o), f"{layer}: busy again"
                tail -= 1
            assert self.cycle < limit, f"{layer}: hangs with {len(self.schedule)} positions left"
        assert not self.schedule and not self.passes, (
            f"{layer}: {len(self.schedule)} positions, {len(self.passes)} passes missing"
        )
        assert self.tiles_done == self.tiles_taken == self.tiles, (
            f"{layer}: {self.tiles_done} of {self.tiles} tiles done"
        )
        assert self.reads == layer.plan.slots, (
            f"{layer}: {self.reads} reads, the compiler reckons with {layer.plan.slots}"
        )

    def offer(self):
        """Weights and tile buffers in the coming cycle."""
        dut = self.dut
        self.ready = self.instant or self.cycle >= self.weights_at
        self.full = self.instant or self.cycle >= self.weights_at + self.full_late
        while self.free_at and self.free_at[0] <= self.cycle:
            self.free_at.popleft()
            self.tiles_freed += 1
        self.tile_free = self.instant or self.tiles_taken - self.tiles_freed < 2
        for port, value in (
            ("weights_ready_i", self.ready),
            ("weights_full_i", self.full),
            ("tile_free_i", self.tile_free),
        ):
            if self.ports.get(port) != value:
                self.ports[port] = value
                getattr(dut, port).value = int(value)

    def check(self):
        dut, layer = self.dut, self.layer
        if is_high(dut.tag_valid_o):
            self.check_tag()
        if is_high(dut.rd_valid_o):
            self.history.appendleft(dut.rd_addr_o.value.to_unsigned())
            self.read_cycles.append(self.cycle)
            self.reads += 1
        else:
            self.history.appendleft(None)
        taken, dropped = is_high(dut.weights_take_o), is_high(dut.weights_drop_o)
        if taken or dropped:
            assert self.passes and taken != dropped and self.passes.popleft() == taken, (
                f"{layer}: pass taken {taken}, dropped {dropped}"
            )
            wait = 0
            while next(self.stall):
                wait += self.slowness
            self.weights_at = self.cycle + 1 + wait
            self.full_late = self.lateness()
            if taken:
                assert self.ready, "weights taken before they were ready"
                self.take_cycles.append(self.cycle)
                self.takes.append(self.cycle)
            else:
                assert self.full, "weights dropped before they were complete"
        self.waits += is_high(dut.starved_o) or is_high(dut.blocked_o)
        if is_high(dut.starved_o):
            assert not taken and not dropped and not self.full
        if is_high(dut.blocked_o):
            assert not self.tile_free
            assert not self.takes or self.cycle - self.takes[-1] >= SETUP - 1, "not set up yet"
        # blocked_o says that only a tile is missing: two cycles later no pass reads
        assert not (self.blocked[0] and is_high(dut.rd_valid_o)), "blocked while a pass runs"
        self.blocked.append(is_high(dut.blocked_o))
        if is_high(dut.tile_take_o):
            assert self.tile_free and (taken or dropped)
            self.tiles_taken += 1
        if is_high(dut.tag_tile_done_o):
            assert self.tiles_done < self.tiles and self.remaining[self.tiles_done] == 0, (
                f"{layer}: tile {self.tiles_done} done too early"
            )
            self.tiles_done += 1
            wait = 0
            while next(self.stall):
                wait += 3
            self.free_at.append(max(self.cycle + 1 + wait, self.free_at[-1] if self.free_at else 0))

    def lateness(self):
        """Cycles from weights that are ready to complete ones."""
        return int(self.rng.integers(6))

    def check_tag(self):
        dut, layer = self.dut, self.layer
        assert self.schedule, f"{layer}: a tag too many"
        assert is_high(dut.busy_o), f"{layer}: a tag while idle"
        tile, load, want = self.schedule.popleft()
        where = (
            f"{layer}: tile {tile}, pixel {want.pixel}, {len(self.schedule)} positions before "
            "the end"
        )
        window = layer.plan.window
        got = (
            dut.tag_pixel_o.value.to_unsigned(),
            is_high(dut.tag_first_o),
            is_high(dut.tag_load_o),
            str(dut.tag_col_mask_o.value)[-window:],
            dut.tag_row_mask_o.value.to_unsigned(),
        )
        expected = (
            want.pixel,
            want.first,
            load,
            f"{want.col_mask:0{window}b}"[-window:],
            want.row_mask,
        )
        assert got == expected, (
            f"{where}: (pixel, first, load, column mask, row mask) {got}, expected {expected}"
        )
        if self.buffer is None:
            self.buffer = is_high(dut.tag_buf_o)
        assert is_high(dut.tag_buf_o) == (self.buffer ^ bool(tile & 1)), (
            f"{where}: wrong partial-sum buffer"
        )
        for tap, address in enumerate(want.addresses):
            read = self.history[TAG_TO_READ - 1 + tap]
            assert address is None or read == address, (
                f"{where}: tap {tap} read at {read}, expected {address}"
            )
        assert self.tiles_taken > tile and tile >= self.tiles_done, (
            f"{where}: the tile has no buffer"
        )
        since = self.cycle - self.tagged.get((tile, want.pixel), -100)
        assert since > SUM_DELAY, f"{where}: returns after {since} cycles, its sum is not written"
        self.tagged[tile, want.pixel] = self.cycle
        if load:
            assert self.cycle - self.take_cycles.popleft() >= 2, (
                f"{where}: earlier than the weight loader reckons with"
            )
        self.remaining[tile] -= 1


async def _start(dut):
    for port in ("start_i", "desc_i", "weights_ready_i", "weights_full_i", "tile_free_i"):
        getattr(dut, port).value = 0
    await clocking.start(dut)
    for name in (
        "busy_o",
        "rd_valid_o",
        "tag_valid_o",
        "tag_tile_done_o",
        "weights_take_o",
        "weights_drop_o",
        "tile_take_o",
    ):
        assert getattr(dut, name).value == 0, f"{name} after reset"
    return np.random.default_rng(cocotb.RANDOM_SEED)


async def _lost(dut, rng, layer, pattern) -> int:
    """Cycles that a layer takes longer with stalls than without; starved_o or blocked_o was high in
    at least so many."""
    held, free = Run(dut, rng, layer, pattern), Run(dut, rng, layer, instant=True)
    await held.run()
    await free.run()
    lost = held.cycle - free.cycle
    assert lost <= held.waits - free.waits, f"{layer}: {lost} cycles lost, {held.waits} waits"
    return lost


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def random_layers(dut):
    """Reads of unmasked taps, masks, pixels, first flags, buffers, loads and tile ends of every
    pass, with stalls; every cycle that they cost is one of starved_o or blocked_o."""
    rng = await _start(dut)
    for i in range(scaled(16, 80)):
        await _lost(dut, rng, random_layer(rng, MODULES, 3000), PATTERNS[i % len(PATTERNS)])


EDGES = [  # mode, vertical, input, output channels, kernel, pad, stride (1 by default)
    (0, False, (4, 5, 5), 12, (3, 3), (2, 2), (2, 2)),
    (0, False, (4, 1, 1), 12, (11, 11), (10, 10), (2, 2)),
    (0, False, (40, 6, 6), 12, (1, 1), (0, 0), (2, 2)),
    (0, True, (3, 16, 15), 12, (7, 7), (3, 3), (2, 2)),
    (0, True, (3, 15, 16), 12, (11, 3), (5, 1), (2, 2)),
    (0, False, (4, 3, 600), 12, (3, 2), (1, 1), (2, 2)),
    (2, False, (8, 40, 9), 4, (6, 5), (3, 2), (2, 1)),
    (1, True, (4, 9, 9), 4, (3, 3), (1, 1), (2, 1)),
    (1, True, (16, 9, 9), 4, (3, 3), (1, 1), (2, 1)),
    (1, True, (16, 9, 9), 4, (7, 3), (3, 1), (2, 1)),
    (1, True, (9, 5, 6), 4, (4, 5), (3, 2)),
    (0, True, (12, 1, 1), 12, (3, 3), (1, 1), (2, 2)),
    (0, True, (12, 9, 3), 12, (11, 3), (5, 1), (2, 2)),
    (1, True, (5, 2, 300), 4, (11, 3), (10, 1)),
    (0, False, (4, 1, 1), 12, (1, 1), (0, 0)),
    (1, False, (4, 1, 1), 4, (3, 3), (2, 2)),
    (2, False, (24, 1, 1), 4, (11, 11), (10, 10)),
    (2, True, (3, 1, 1), 4, (11, 11), (10, 5)),
    (2, True, (3, 6, 5), 4, (11, 11), (5, 5)),
    (1, True, (1, 9, 3), 4, (9, 3), (8, 2)),
    (2, False, (4, 2, 300), 4, (5, 5), (2, 2)),
    (1, False, (4, 3, 257), 8, (3, 7), (1, 3)),
    (1, True, (4, 2, 513), 4, (3, 3), (1, 1)),
    (0, False, (40, 1, 600), 16, (1, 1), (0, 0)),
    (2, False, (4, 1, 256), 4, (1, 11), (0, 10)),
    (1, False, (4, 40, 7), 4, (1, 2), (0, 1)),
    # the last row of a channel group's last pass is the first one of the next group's first pass
    (2, False, (24, 7, 7), 4, (7, 7), (3, 3)),
    (2, False, (24, 8, 4), 4, (8, 5), (5, 2)),
    (0, False, (36, 6, 10), 12, (6, 1), (4, 0), (1, 2)),
    (1, False, (36, 11, 3), 4, (10, 3), (8, 1)),
    (1, False, (36, 8, 8), 4, (8, 3), (4, 1)),
]


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def edges(dut):
    """Feature maps of one pixel, kernels larger than the feature map, tile columns, padding up to
    the kernel's size."""
    rng, longest = await _start(dut), 0
    for mode, vertical, shape, out_channels, kernel, pad, *stride in EDGES:
        layer = make_layer(
            rng,
            mode,
            vertical,
            MODULES,
            shape,
            out_channels,
            kernel,
            pad,
            stride=stride[0] if stride else (1, 1),
        )
        for pattern in scaled(("heavy",), ("none", "heavy")):
            longest = max(longest, await _lost(dut, rng, layer, pattern))
    assert longest > 100, "nothing was waited for"


# The last three: the shortest passes that still follow each other without bubbles, and pixels that
# return as soon as their sums are written.
SAME = [
    (1, False, (40, 8, 8), 8, (3, 3), (1, 1)),
    (2, False, (24, 7, 9), 8, (5, 5), (2, 2)),
    (0, False, (64, 20, 20), 24, (1, 1), (0, 0)),
    (2, True, (3, 32, 16), 8, (5, 5), (2, 2)),
    (0, False, (256, 3, 4), 24, (1, 1), (0, 0)),
    (1, False, (40, 8, 8), 8, (8, 3), (4, 1)),
    (2, False, (40, 10, 4), 8, (9, 5), (6, 2)),
]


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def no_bubbles(dut):
    """A convolution with wide padding whose weights are always there reads in every cycle from its
    first to its last slot."""
    rng = await _start(dut)
    for mode, vertical, shape, out_channels, kernel, pad in SAME:
        run = Run(
            dut,
            rng,
            make_layer(rng, mode, vertical, MODULES, shape, out_channels, kernel, pad),
            instant=True,
        )
        await run.run()
        bubbles = run.read_cycles[-1] - run.read_cycles[0] + 1 - run.reads
        assert bubbles == 0, f"{run.layer}: {bubbles} cycles without a read"


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def smallest_gaps(dut):
    """Where a pass has a smaller delay than the one before, or begins at one of its last pixels, it
    begins just late enough that tags keep their order and sums are written."""
    rng = await _start(dut)
    for mode, shape, kernel, pad in (
        (1, (8, 12, 12), (3, 7), (1, 3)),
        (2, (8, 9, 12), (3, 9), (1, 4)),
        (1, (40, 2, 300), (1, 3), (0, 1)),
        (1, (40, 7, 7), (7, 3), (3, 1)),  # one row in common
        (2, (24, 11, 3), (10, 5), (8, 2)),  # two rows
        (2, (40, 7, 7), (7, 7), (3, 3)),
    ):
        run = Run(
            dut,
            rng,
            make_layer(rng, mode, False, MODULES, shape, 2 * MODULES, kernel, pad),
            instant=True,
        )
        await run.run()
        plan = run.layer.plan
        passes = [
            p
            for _ in range(plan.output_groups)
            for origin in plan.tile_origins()
            for _ in range(plan.channel_groups)
            for p in plan.tile_passes(*origin)
        ]
        assert all(p.rows * p.length >= SETUP for p in passes), (
            "a pass too short for its successor's set-up"
        )
        size = plan.channel_groups * plan.kr_count * plan.pieces
        pairs = list(zip(passes, passes[1:]))
        waits = [p.wait(before) for i, (before, p) in enumerate(pairs, 1) if i % size]
        expected = sum(max(0, before.delay - p.delay) for before, p in pairs) + sum(waits)
        bubbles = run.read_cycles[-1] - run.read_cycles[0] + 1 - run.reads
        assert expected and bubbles == expected, (
            f"{run.layer}: {bubbles} cycles without a read, expected {expected}"
        )


class LateRun(Run):
    """Weights that are ready long before they are complete: a pass with positions begins, one
    without is dropped only once they are complete and counts as starved until then."""

    LATENESS = 48
    SET_UP = 40  # cycles after which a pass is set up for sure
    waited = 0

    def lateness(self):
        return self.LATENESS

    def check(self):
        waiting = self.passes and not self.passes[0]
        if waiting and self.SET_UP <= self.cycle - self.weights_at < self.LATENESS:
            assert is_high(self.dut.starved_o), f"{self.layer}: a pass waits, not starved"
            self.waited += 1
        super().check()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def starved_without_positions(dut):
    """A pass without a position waits for all of its weights, and that counts as waiting."""
    rng = await _start(dut)
    layer = make_layer(rng, 1, False, MODULES, (4, 1, 1), 4, (3, 3), (2, 2), (1, 3))
    run = LateRun(dut, rng, layer)
    await run.run()
    assert run.waited, f"{layer}: no pass waited"


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def latency(dut):
    """The first read comes 13 cycles after start_i, passes follow each other after 12; a reset
    within a layer leaves nothing behind."""
    rng = await _start(dut)
    for _ in range(3):
        run = Run(
            dut,
            rng,
            make_layer(rng, 1, False, MODULES, (64, 1, 2), 8, (1, 3), (0, 1)),
            instant=True,
        )
        await run.run()
        assert run.read_cycles[0] == 12, f"{run.read_cycles[0] + 1} cycles"
        assert min(np.diff(run.takes)) == 12, f"a pass takes {min(np.diff(run.takes))} cycles"
        dut.start_i.value = 1
        await RisingEdge(dut.clk_i)
        dut.start_i.value = 0
        for _ in range(int(rng.integers(10, 60))):
            await RisingEdge(dut.clk_i)
        await clocking.reset(dut)
        assert (
            dut.busy_o.value == 0
            and dut.rd_valid_o.value == 0
            and dut.tag_valid_o.value == 0
            and dut.tag_tile_done_o.value == 0
        )
