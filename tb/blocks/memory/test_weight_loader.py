"""Tests of rtl/memory/weight_loader.sv behind the weight buffer: parameters, replay, timing of the
shadow registers."""

from collections import deque
from dataclasses import dataclass

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from host.harness import clocking
from model.compiler import weights
from model.compiler.hardware import Hardware
from model.compiler.program_format import ARRAYS, MAX_CHANNELS, PES
from tb.lib import field_coverage, meeting
from tb.lib.effort import scaled
from tb.lib.stalls import PATTERNS, stalls

LEAD = 10  # cycles from ready_o to full_o
SWITCH = 9  # cycles from take_i to the earliest switch_i
HANGS = 2000  # cycles without any progress, beside those that a test asks for
MOST_PASSES = 24  # of a group: more of them in a large buffer would only take longer


@dataclass
class Chunk:
    """parameters: uint64 [n]; passes: indices uint8 [groups, passes, ARRAYS, modules, PES]; tiles:
    replays of a group."""

    parameters: np.ndarray
    passes: np.ndarray
    tiles: int

    @property
    def words(self):
        shape = self.passes.shape
        if not shape[0]:
            return weights.chunk(self.parameters)
        return weights.chunk(
            self.parameters,
            weights.pack_passes(self.passes.reshape(shape[0], shape[1], 1, 1, *shape[2:])),
            self.tiles,
        )

    @property
    def order(self):
        """Indices of the passes in the order of their use."""
        return [p for group in self.passes for _ in range(self.tiles) for p in group]


def random_chunk(rng, modules, depth):
    """Conv chunk, or one of parameters only (average pool) in a quarter of the cases; groups may
    exceed the buffer if used once.

    In a quarter of the cases the parameters alone exceed a small buffer.
    """
    groups = 0 if rng.random() < 0.25 else int(rng.integers(1, 4))
    fits = min(depth // Hardware(modules).pass_words, MOST_PASSES)
    tiles = int(rng.integers(1, 4))
    passes = int(rng.integers(1, fits + 1 if tiles > 1 else fits + 3))
    count = min(
        int(rng.integers(1, 4)) * modules + (depth if rng.random() < 0.25 else 0), MAX_CHANNELS
    )
    index = rng.integers(0, 4, (groups, passes, ARRAYS, modules, PES)).astype(np.uint8)
    return Chunk(rng.integers(0, 2**64, count, dtype=np.uint64), index, tiles)


class Bench:
    """Models the conv unit and the controller, and checks every cycle; one call of `step` is one
    cycle, between two rising edges.

    eager: take every pass at once and switch as early as allowed. Otherwise passes are taken late,
    switched up to four cycles later, and some are dropped.
    """

    def __init__(self, dut, rng, chunks, source, eager=False):
        self.dut, self.rng, self.eager = dut, rng, eager
        self.words = deque(int(w) for c in chunks for w in c.words)
        self.stall = stalls(rng, source)
        self.parameters = deque(
            (i & 1, channel, int(w), i)
            for i, c in enumerate(chunks)
            for channel, w in enumerate(c.parameters)
        )
        self.layers = deque(deque(c.order) for c in chunks)
        self.cycle = self.finished = self.dropped = 0
        self.sending = self.started = self.ready = False  # ready: ready_o in the cycle before
        self.switch_at, self.pause, self.done_in = None, 0, None
        self.current, self.waves = None, []
        self.switches = []  # cycles
        modules = int(dut.NUM_MODULES.value)
        stage_of = (
            np.array([[0 if pe == 24 else 1 + pe % 8 // 2 for pe in range(PES)]] * ARRAYS)
            + 5 * np.arange(ARRAYS)[:, None]
        )
        self.stages = np.broadcast_to(stage_of[:, None], (ARRAYS, modules, PES))

    async def run(self):
        """All chunks from the first word to the last layer's end."""
        left, since, patience = None, 0, HANGS + self.pause + (self.done_in or 0)
        while self.layers or self.waves:
            await FallingEdge(self.dut.clk_i)
            self.step()
            self.cycle += 1
            now = (
                len(self.words),
                len(self.parameters),
                sum(len(passes) for passes in self.layers),
                len(self.layers),
                len(self.waves),
            )
            left, since = now, 0 if now != left else since + 1
            assert since < patience, (
                f"hangs in layer {self.finished}: (words, parameters, passes, layers, waves) left "
                f"{now}"
            )
        assert not self.words and not self.parameters, (
            f"{len(self.words)} words and {len(self.parameters)} parameters left over"
        )
        for _ in range(5):
            await FallingEdge(self.dut.clk_i)
            self.quiet()
        assert (
            self.dut.idle_o.value == 1
            and self.dut.level_o.value == 0
            and self.dut.params_ready_o.value == 0
        )

    def quiet(self):
        for name in ("in_valid_i", "take_i", "drop_i", "switch_i", "layer_done_i"):
            getattr(self.dut, name).value = 0

    def step(self):
        self.quiet()
        self.send_word()
        self.check_parameters()
        self.follow_waves()
        ready = self.dut.ready_o.value == 1
        if self.layers and self.consume():
            ready = False
        self.ready = ready

    def send_word(self):
        dut = self.dut
        self.sending = bool(self.words) and (self.sending or not next(self.stall))
        if self.sending:
            dut.in_valid_i.value, dut.in_data_i.value = 1, self.words[0]
            if dut.in_ready_o.value == 1:
                self.words.popleft()
                self.sending = False

    def check_parameters(self):
        dut = self.dut
        if dut.param_we_o.value != 1:
            assert dut.param_we_o.value == 0
            return
        assert self.parameters, "more parameters than the chunks have"
        bank, channel, word, chunk = self.parameters.popleft()
        got = (
            int(dut.param_bank_o.value),
            dut.param_channel_o.value.to_unsigned(),
            dut.param_data_o.value.to_unsigned(),
        )
        assert got == (bank, channel, word), (
            f"chunk {chunk}: parameter (bank, channel, word) {got}, expected "
            f"{(bank, channel, word)}"
        )
        assert chunk < self.finished + 2, (
            f"chunk {chunk} overwrites the parameters of layer {chunk - 2}, which has not finished"
        )

    def follow_waves(self):
        """Stage n of the chain takes its indices n cycles after the switch: they must be the pass's
        until then."""
        dut = self.dut
        if self.switch_at == self.cycle:
            dut.switch_i.value = 1
            self.switches.append(self.cycle)
            self.waves.append((self.cycle, self.current))
            self.switch_at = None
        if not self.waves:
            return
        got = None
        for at, index in self.waves:
            bits = str(dut.idx_o.value)[::-1] if got is None else got
            got = bits
            here = self.stages == self.cycle - at
            for position in np.flatnonzero(here):
                pair = bits[2 * position + 1] + bits[2 * position]
                assert pair == f"{index.flat[position]:02b}", (
                    f"stage {self.cycle - at} of pass {len(self.switches)} takes {pair} for PE "
                    f"{position} (array, module, PE), expected {index.flat[position]}"
                )
        self.waves = [w for w in self.waves if self.cycle - w[0] < 19]

    def consume(self):
        """Take or drop the next pass of the current layer, or finish the layer; returns whether a
        pass was taken or dropped."""
        dut, passes = self.dut, self.layers[0]
        if not self.started:
            self.started = dut.params_ready_o.value == 1
            if not self.started:
                return False
            assert not self.parameters or self.parameters[0][3] > self.finished, (
                "params_ready_o before the parameters are in place"
            )
        if self.switch_at is not None:
            assert (
                dut.ready_o.value == 0 and dut.full_o.value == 0
            ) or self.switch_at == self.cycle, "ready_o while a pass is being taken"
            return False
        if passes and self.pause:
            self.pause -= 1
        elif passes and self.ready:
            if (
                dut.full_o.value == 1
                and not self.eager
                and self.rng.random() < (0.6 if len(passes) == 1 else 0.25)
            ):
                dut.drop_i.value = 1
                passes.popleft()
                self.dropped += 1
            else:
                dut.take_i.value = 1
                self.current = passes.popleft()
                self.switch_at = (
                    self.cycle + SWITCH + (0 if self.eager else int(self.rng.integers(5)))
                )
            self.pause = 0 if self.eager or self.rng.random() < 0.5 else int(self.rng.integers(100))
            return True
        elif not passes:
            self.finish_layer()
        return False

    def finish_layer(self):
        if self.done_in is None:
            self.done_in = 0 if self.eager else int(self.rng.integers(0, 200))
        if self.done_in == 0:
            self.dut.layer_done_i.value = 1
            self.layers.popleft()
            self.finished += 1
            self.started, self.done_in = False, None
        else:
            self.done_in -= 1


async def _start(dut):
    for name in ("in_valid_i", "in_data_i", "layer_done_i", "take_i", "drop_i", "switch_i"):
        getattr(dut, name).value = 0
    await clocking.start(dut)
    assert (
        dut.idle_o.value == 1
        and dut.ready_o.value == 0
        and dut.full_o.value == 0
        and dut.params_ready_o.value == 0
    )
    return np.random.default_rng(cocotb.RANDOM_SEED)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def random_chunks(dut):
    """Every parameter reaches its bank and channel, and every stage takes the right indices, under
    all stalls, replays and drops."""
    rng = await _start(dut)
    modules, depth = int(dut.NUM_MODULES.value), int(dut.DEPTH.value)
    dropped = switches = 0
    for source in PATTERNS:
        await clocking.reset(dut)
        bench = Bench(
            dut, rng, [random_chunk(rng, modules, depth) for _ in range(scaled(3, 8))], source
        )
        await bench.run()
        switches += len(bench.switches)
        dropped += bench.dropped
    assert dropped and switches, "no pass was dropped, or none was used"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def shortest_pass(dut):
    """Without stalls the passes follow each other at exactly the interval that the header of the
    module states."""
    rng = await _start(dut)
    modules, depth = int(dut.NUM_MODULES.value), int(dut.DEPTH.value)
    pass_words = Hardware(modules).pass_words
    index = rng.integers(
        0, 4, (2, min(depth // pass_words, MOST_PASSES), ARRAYS, modules, PES)
    ).astype(np.uint8)
    bench = Bench(dut, rng, [Chunk(np.zeros(modules, np.uint64), index, 3)], "none", eager=True)
    await bench.run()
    gaps = np.diff(bench.switches)
    start_delay = 4 if modules == 4 else 0
    group_start = (
        np.arange(1, len(gaps) + 1) % (3 * index.shape[1]) == 0
    )  # the buffer is full of the group before: words must come first
    assert (gaps[~group_start] == pass_words + start_delay + 4).all(), (
        f"passes last {sorted(set(gaps[~group_start]))} cycles"
    )


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def two_chunks_ahead(dut):
    """With no layer finished, the parameters of two chunks are fetched and not one of the third;
    each finished layer lets one more in."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)
    empty = np.zeros((0, 0, ARRAYS, modules, PES), np.uint8)
    chunks = [
        Chunk(rng.integers(0, 2**64, 2 * modules, dtype=np.uint64), empty, 1) for _ in range(5)
    ]
    bench = Bench(dut, rng, chunks, "none")
    bench.layers.clear()
    for finished in range(6):
        for _ in range(20 + 4 * modules * (2 if finished == 0 else 1)):
            await FallingEdge(dut.clk_i)
            bench.step()
        assert len(bench.parameters) == 2 * modules * max(0, 3 - finished)
        assert dut.params_ready_o.value == (finished < 5)
        if finished < 5:
            await FallingEdge(dut.clk_i)
            bench.step()
            dut.layer_done_i.value = 1
            bench.finished += 1
    assert dut.idle_o.value == 1


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def last_word_late(dut):
    """No word of a pass is read while one of its words is missing, however late that one is."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)
    index = rng.integers(0, 4, (1, 2, ARRAYS, modules, PES)).astype(np.uint8)
    bench = Bench(dut, rng, [Chunk(np.zeros(modules, np.uint64), index, 1)], "none", eager=True)
    pass_words, waited = Hardware(modules).pass_words, {1: 0, 1 + Hardware(modules).pass_words: 0}

    def late():
        while True:
            left = len(bench.words)
            stalled = left in waited and waited[left] < 80
            if stalled:
                waited[left] += 1
                assert waited[left] < 40 or dut.level_o.value.to_unsigned() == pass_words - 1, (
                    "words are read although the last one is missing"
                )
            yield stalled

    bench.stall = late()
    await bench.run()
    assert list(waited.values()) == [80, 80] and len(bench.switches) == 2


def _parameters(rng, modules, count):
    """A chunk of parameters only."""
    empty = np.zeros((0, 0, ARRAYS, modules, PES), np.uint8)
    return Chunk(rng.integers(0, 2**64, count, dtype=np.uint64), empty, 1)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def parameters_end_beside_a_layer_end(dut):
    """A layer that ends in every cycle around the last parameter of a chunk: the loader then holds
    one chunk, takes one more and not a third."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)
    # Without an end the second chunk's last parameter shows in this cycle.
    bench = Bench(dut, rng, [_parameters(rng, modules, 2 * modules) for _ in range(2)], "none")
    written, last = 0, None
    for cycle in range(40 + 6 * modules):
        await FallingEdge(dut.clk_i)
        written += int(dut.param_we_o.value)
        last = cycle if written == 4 * modules and last is None else last
        bench.quiet()
        bench.send_word()
    assert last is not None, "two chunks are not taken"

    async def once(offset):
        await clocking.reset(dut)
        chunks = [_parameters(rng, modules, 2 * modules) for _ in range(4)]
        bench = Bench(dut, rng, chunks, "none")
        bench.layers.clear()
        for cycle in range(60 + 10 * modules):
            await FallingEdge(dut.clk_i)
            bench.step()
            if cycle == last + offset:
                dut.layer_done_i.value = 1
                bench.finished += 1
        what = f"a layer's end {offset} cycles after the last parameter"
        taken = 4 - len(bench.parameters) / (2 * modules)
        assert taken == 3, f"{what}: {taken} chunks are taken, not 3"
        for finished in range(2, 5):
            assert dut.params_ready_o.value == 1, f"{what}: no parameters for layer {finished}"
            await FallingEdge(dut.clk_i)
            bench.step()
            dut.layer_done_i.value = 1
            bench.finished += 1
            for _ in range(10 + 4 * modules):
                await FallingEdge(dut.clk_i)
                bench.step()
            assert not bench.parameters, f"{what}: the last chunk is not taken"
        assert dut.params_ready_o.value == 0, f"{what}: parameters of a layer that is not there"
        return offset

    await meeting.sweep("parameters and layer end", range(-4, 5), once)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def passes_taken_beside_their_last_word(dut):
    """A pass taken in every cycle from the first in which it may be to long after its last word:
    its switch follows, and the next pass is the right one."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)

    async def once(offset):
        await clocking.reset(dut)
        index = rng.integers(0, 4, (1, 2, ARRAYS, modules, PES)).astype(np.uint8)
        bench = Bench(dut, rng, [Chunk(np.zeros(modules, np.uint64), index, 1)], "none", eager=True)
        ready, complete = None, None
        for _ in range(HANGS):
            await FallingEdge(dut.clk_i)
            if ready is None and dut.ready_o.value == 1:
                ready = bench.cycle
                bench.pause = LEAD + offset
            if complete is None and dut.full_o.value == 1:
                complete = bench.cycle
            bench.step()
            bench.cycle += 1
            if not (bench.layers or bench.waves):
                break
        assert len(bench.switches) == 2, f"{len(bench.switches)} passes of 2 were switched to"
        assert complete is None or complete == ready + LEAD, f"full {complete}, ready {ready}"
        return offset

    # A pass that is ready is complete LEAD cycles later.
    await meeting.sweep("pass taken and complete", range(-LEAD, 5), once)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def many_replays(dut):
    """257 tiles, passes and groups (17 on Icarus, and of larger arrays), and 256 tiles twice."""
    rng = await _start(dut)
    modules, depth = int(dut.NUM_MODULES.value), int(dut.DEPTH.value)
    many = scaled(17, 257 if (modules, depth) == (4, 64) else 17)
    sizes = [(1, 1, many), (1, many, 1), (many, 1, 1), (2, 1, many - 1)]
    for groups, passes, tiles in sizes:
        await clocking.reset(dut)
        index = rng.integers(0, 4, (groups, passes, ARRAYS, modules, PES)).astype(np.uint8)
        chunk = Chunk(np.zeros(modules, np.uint64), index, tiles)
        bench = Bench(dut, rng, [chunk, _parameters(rng, modules, modules)], "none", eager=True)
        await bench.run()
        assert len(bench.switches) == groups * passes * tiles, f"{groups, passes, tiles}"
        field_coverage.hit("chunk", {"n_groups": groups, "n_passes": passes, "n_tiles": tiles})


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def chunks_out_of_a_full_buffer(dut):
    """A chunk's header, and the parameters of another, are the first words that leave a buffer full
    to the last word."""
    rng = await _start(dut)
    modules, depth = int(dut.NUM_MODULES.value), int(dut.DEPTH.value)
    index = rng.integers(0, 4, (1, 1, ARRAYS, modules, PES)).astype(np.uint8)
    long = min(depth, MAX_CHANNELS)
    chunks = [Chunk(np.zeros(modules, np.uint64), index, 1), _parameters(rng, modules, modules)]
    chunks += [_parameters(rng, modules, long) for _ in range(2 * depth // long)]
    bench = Bench(dut, rng, chunks, "none", eager=True)
    bench.pause = bench.done_in = 2 * depth  # cycles to the first pass, then to its layer's end
    states = []  # of the loader, while the buffer is full: between chunks, or in one

    async def watch():
        while True:
            await FallingEdge(dut.clk_i)
            if dut.level_o.value.to_unsigned() == depth:
                states.append(int(dut.idle_o.value))

    watching = cocotb.start_soon(watch())
    await bench.run()
    watching.cancel()
    assert set(states) == {0, 1}, f"full in states {set(states)}"
    assert states[-1] == 0
