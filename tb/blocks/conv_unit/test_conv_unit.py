"""Tests of rtl/conv_unit/conv_unit.sv: every partial sum of random layers, its destination and
order; weights as late and as short as the loader may give them."""

from collections import deque
from itertools import cycle as repeat

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.compiler.program_format import ARRAYS, PES
from model.compiler.weights import pe_indices
from model.network import Layer, Network
from model.performance.cycle_model import END_TO_DRAIN, START_DELAY
from model.performance.pool_cycles import READ_LATENCY
from model.reference.blocks import FeatureBuffer, conv_schedule, drain_schedule
from model.reference.integer import run_integer
from tb.blocks.conv_unit.layers import MAX_QUADS, make_layer, random_layer
from tb.blocks.conv_unit.streams import pack_rows, unpack_rows
from tb.lib import meeting
from tb.lib.descriptors import random_port
from tb.lib.effort import scaled
from tb.lib.signals import is_high
from tb.lib.stalls import PATTERNS, stalls

LEAD = 10  # weights count as ready so many cycles before their last word counts as read
IN_PLACE = 2  # cycles from there to the word's being in place
# cycles that the loader adds to its words from the switch to the next complete set, without
# START_DELAY
RELOAD = 4
END_TO_RESULT = END_TO_DRAIN + 4  # last slot of a tile to its first result
TAIL = 60  # cycles after the end in which nothing may come: longer than the pipeline


class Weights:
    """The weight loader's side: the indices of pass after pass on idx_i, never longer and never
    earlier than the loader may show them.

    Array a keeps a pass's indices until its last stage has taken them over, 5a + 4 cycles after the
    switch, and gets the next ones so that the last of all words is in place LEAD +
    IN_PLACE cycles after `ready`; in between they are random.
    """

    def __init__(self, dut, rng, passes, pattern):
        """passes: for each, its indices uint8 [ARRAYS, modules, PES], or None where it has no
        position."""
        self.dut, self.rng, self.passes, self.wait = dut, rng, deque(passes), stalls(rng, pattern)
        self.modules = int(dut.NUM_MODULES.value)
        self.words = -(-2 * ARRAYS * self.modules * PES // 64)
        self.last_word = [
            -(-2 * (a + 1) * self.modules * PES // 64) for a in range(ARRAYS)
        ]  # that array a needs, from 1
        self.shown = [self._random() for _ in range(ARRAYS)]
        self.changes = deque()  # (cycle, array, indices or None for random ones)
        self.taken = False
        self._begin(0)

    def _random(self):
        return (
            int.from_bytes(self.rng.bytes(-(-2 * self.modules * PES // 8)), "little")
            & (1 << 2 * self.modules * PES) - 1
        )

    def _begin(self, cycle):
        """Load the next pass, complete in `cycle` at the earliest."""
        wait = 0
        while next(self.wait):
            wait += 1
        self.complete = cycle + wait
        if self.passes and self.passes[0] is not None:
            for array, rows in enumerate(self.passes[0]):
                self.changes.append(
                    (
                        self.complete - self.words + self.last_word[array] + IN_PLACE,
                        array,
                        pack_rows(rows.reshape(1, -1), 2)[0],
                    )
                )

    def offer(self, cycle):
        """Drive the ports for `cycle`."""
        due = [change for change in self.changes if change[0] <= cycle]
        for change in due:
            self.changes.remove(change)
            self.shown[change[1]] = self._random() if change[2] is None else change[2]
        if due or cycle == 0:
            self.dut.idx_i.value = sum(
                bits << 2 * self.modules * PES * array for array, bits in enumerate(self.shown)
            )
        there = bool(self.passes) and not self.taken
        self.dut.weights_ready_i.value = int(there and cycle >= self.complete - LEAD)
        self.dut.weights_full_i.value = int(there and cycle >= self.complete)

    def check(self, cycle):
        """Follow the handshake of `cycle`."""
        if is_high(self.dut.weights_take_o):
            assert (
                self.passes
                and self.passes[0] is not None
                and not self.taken
                and cycle >= self.complete - LEAD
            ), "a pass taken that is not there"
            self.taken = True
        if is_high(self.dut.weights_drop_o):
            assert self.passes and self.passes.popleft() is None and cycle >= self.complete, (
                "a pass dropped that has positions or is not there"
            )
            self._begin(cycle + self.words + 2)
        if is_high(self.dut.weights_switch_o):
            assert self.taken, "a switch without a pass"
            self.taken = False
            self.passes.popleft()
            self.changes.extend((cycle + 5 * array + 5, array, None) for array in range(ARRAYS))
            self._begin(cycle + self.words + START_DELAY[self.modules] + RELOAD)


class Run:
    """One layer with random data: models weight loader, feature buffer and output stage, and checks
    every result.

    weights, room: stall patterns; room "always": results never stall, and the unit is told so.
    fused: with a sum in the write-back, for which results come in every second cycle.
    """

    def __init__(self, dut, rng, layer, weights="none", room="always", extreme=False, fused=False):
        self.dut, self.rng, self.layer, plan = dut, rng, layer, layer.plan
        self.signed = bool(rng.integers(2))
        low, high = (-128, 127) if self.signed else (0, 255)
        shape = plan.out_shape[0], plan.in_shape[0], *plan.kernel
        self.codebook = np.array(
            [0, -128, 127, -128] if extreme else [0, *rng.integers(-128, 128, 3)], np.int8
        )
        if int(dut.PLANES.value) == 2:
            self.codebook[1:] //= 2
            self.codebook[3] = self.codebook[1] + self.codebook[2]
        index = rng.integers(1 if extreme else 0, 4, shape).astype(np.uint8)
        image = (
            rng.choice((low, high), plan.in_shape)
            if extreme
            else rng.integers(low, high + 1, plan.in_shape)
        )
        conv = Layer(
            name="conv",
            op="conv",
            inputs=("input",),
            stride=plan.stride,
            pad=plan.pad,
            index=index,
            codebook=self.codebook,
            bias=np.zeros(shape[0], np.int32),
            out="int32",
        )
        net = Network(
            name="layer", input_shape=plan.in_shape, input_signed=self.signed, layers=(conv,)
        )
        sums = run_integer(net, image[None].astype(np.int32))[0].reshape(plan.out_shape)
        self.steps = deque(self._steps(sums))
        self._fill(rng, image)
        indices = pe_indices(index, plan).reshape(
            plan.output_groups, plan.passes, ARRAYS, plan.num_modules, PES
        )
        self.weights = Weights(
            dut,
            rng,
            [
                indices[tile // plan.tiles, number] if positions else None
                for number, (tile, positions) in zip(
                    repeat(range(plan.passes)), conv_schedule(plan, layer.source)
                )
            ],
            weights,
        )
        self.always, self.fused = room == "always", fused
        self.room = stalls(rng, "none" if self.always else room)
        self.reads = deque([None] * (READ_LATENCY - 1))
        self.read_count = 0

    def _steps(self, sums):
        """(DrainStep, its results int64 [NUM_MODULES])."""
        plan = self.layer.plan
        origins, modules = plan.tile_origins(), plan.num_modules
        padded = np.zeros((plan.output_groups * plan.group_channels, *sums.shape[1:]), np.int64)
        padded[: len(sums)] = sums
        for step in drain_schedule(plan, self.layer.target):
            y0, x0 = origins[step.tile % plan.tiles]
            y, x = divmod(step.pixel, plan.tile_size(y0, x0)[1])
            yield step, padded[step.word * modules : (step.word + 1) * modules, y0 + y, x0 + x]

    def _fill(self, rng, image):
        """Random bytes everywhere, and the feature map in its place."""
        source = self.layer.source
        self.buffer = FeatureBuffer(MAX_QUADS // 8)
        self.buffer.quads[:] = rng.integers(0, 1 << 32, MAX_QUADS)
        channels, height, width = image.shape
        quads = rng.integers(0, 256, (height, width, 4 * source.quads)).astype(
            np.uint8
        )  # what fills up the last quad has index 0
        quads[..., :channels] = image.transpose(1, 2, 0).astype(np.uint8)
        for y, row in enumerate(quads.reshape(height, -1).view("<u4")):
            self.buffer.quads[source.base + y * source.row_stride :][: source.row_quads] = row
        self.vstep = source.row_stride // 8 if self.layer.plan.vertical else 0

    def _read(self, address):
        quads = self.buffer.quads[
            self.buffer.addresses(address, self.vstep, self.layer.plan.pair) % MAX_QUADS
        ]
        return int.from_bytes(quads.astype("<u4").tobytes(), "little")

    async def run(self):
        """Returns (cycle of the first read, of the last result)."""
        dut, layer, plan = self.dut, self.layer, self.layer.plan
        codebook = {f"codebook_{k}": self.codebook[k] for k in (1, 2, 3)}
        values = layer.values | codebook | {"in_signed": self.signed, "raw": not self.always}
        values["fused"] = self.fused
        dut.desc_i.value = random_port(self.rng, values)
        for _ in range(2):  # the codebook is registered
            await RisingEdge(dut.clk_i)
        dut.start_i.value = 1
        first = last = None
        parities = set()  # of the cycles with results
        tail, cycle, limit = TAIL, 0, 5000 + 60 * (plan.slots + 40 * len(self.weights.passes))
        while tail:
            self.weights.offer(cycle)
            dut.room_i.value = int(not next(self.room))
            await RisingEdge(dut.clk_i)
            dut.start_i.value = 0
            self.weights.check(cycle)
            if self.read():
                first = cycle if first is None else first
            if is_high(dut.acc_valid_o):
                self.check_result()
                parities.add(cycle % 2)
                last = cycle
                assert is_high(dut.busy_o), f"{layer}: a result while idle"
            if cycle > 2 and not is_high(dut.busy_o):
                tail -= 1
            else:
                assert tail == TAIL, f"{layer}: busy again"
            cycle += 1
            assert cycle < limit, f"{layer}: hangs with {len(self.steps)} results left"
        assert not self.steps and not self.weights.passes, (
            f"{layer}: {len(self.steps)} results, {len(self.weights.passes)} passes missing"
        )
        assert not self.fused or len(parities) == 1, f"{layer}: results in all cycles"
        assert self.read_count == plan.slots, (
            f"{layer}: {self.read_count} reads, the compiler reckons with {plan.slots}"
        )
        return first, last

    def read(self):
        """Play the feature buffer in the cycle that ended; returns whether something was read."""
        valid = is_high(self.dut.rd_valid_o)
        self.reads.append(self._read(self.dut.rd_addr_o.value.to_unsigned()) if valid else None)
        self.read_count += valid
        data = self.reads.popleft()
        if data is not None:
            self.dut.rd_data_i.value = data
        return valid

    def check_result(self):
        dut, layer = self.dut, self.layer
        assert self.steps, f"{layer}: a result too many"
        step, want = self.steps.popleft()
        got = tuple(
            int(str(port.value), 2) for port in (dut.acc_word_o, dut.acc_addr_o, dut.acc_mask_o)
        )
        assert got == (step.word, step.address, step.mask), (
            f"{layer}: (word, address, mask) {got}, expected {step}"
        )
        bits = dut.acc_o.value
        assert bits.is_resolvable, f"{layer}: {step}: X"
        sums = unpack_rows([int(str(bits), 2)], layer.plan.num_modules, 32, signed=True)[0]
        assert (sums == want).all(), f"{layer}: {step}: sums {sums}, expected {want}"


async def _start(dut):
    for port in dut:
        if port._name.endswith("_i") and port._name not in ("clk_i", "rst_ni"):
            port.value = 0
    await clocking.start(dut)
    for name in (
        "busy_o",
        "rd_valid_o",
        "acc_valid_o",
        "weights_take_o",
        "weights_drop_o",
        "weights_switch_o",
    ):
        assert getattr(dut, name).value == 0, f"{name} after reset"
    return np.random.default_rng(cocotb.RANDOM_SEED)


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def random_layers(dut):
    """Random layers of all modes and shapes one after the other, late weights, results held up,
    extreme values."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)
    for i in range(scaled(8, 40)):
        layer = random_layer(rng, modules, scaled(200, 2500))
        room = ("always", *PATTERNS[1:])[i // 4 % 4]
        fused = room == "always" and i % 2 == 1
        await Run(dut, rng, layer, PATTERNS[i % 4], room, i % 5 == 4, fused).run()


BUFFERS = [  # input, kernel, pad, tile, output groups, room
    (
        (32, 30, 20),
        (1, 3),
        (0, 1),
        None,
        1,
        "heavy",
    ),  # tiles of a single pass, drained more slowly than the one after next is summed up
    (
        (8, 3, 20),
        (11, 3),
        (10, 1),
        (12, 20),
        3,
        "always",
    ),  # after a short tile, a first kernel row that begins far into a tile still being drained
    (
        (4, 1, 48),
        (2, 1),
        (1, 0),
        None,
        32,
        "always",
    ),  # each drain falls two cycles further behind its tile
]


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def buffers(dut):
    """A partial-sum buffer is not taken again before its sums have left it, whichever comes first
    in the next tile; also where a sum in the write-back halves the pace."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)
    for shape, kernel, pad, tile, groups, room in BUFFERS[: scaled(1, 3)]:
        layer = make_layer(rng, 1, False, modules, shape, groups * modules, kernel, pad, tile)
        assert layer.plan.tiles * groups > 2
        await Run(dut, rng, layer, "none", room).run()
    shape, kernel, pad, tile, groups, _ = BUFFERS[0]
    layer = make_layer(rng, 1, False, modules, shape, groups * modules, kernel, pad, tile)
    await Run(dut, rng, layer, fused=True).run()


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def throughput(dut):
    """With weights and room always there: a position a cycle, and the last result follows the last
    read at the latency that the cycle model reckons with."""
    rng = await _start(dut)
    modules = int(dut.NUM_MODULES.value)
    height = scaled(5, 16)
    for mode, kernel, channels, lanes in (
        (0, (1, 1), 64, 3),
        (1, (3, 3), 40, 1),
        (2, (5, 5), 24, 1),
    )[: scaled(1, 3)]:
        layer = make_layer(
            rng,
            mode,
            False,
            modules,
            (channels, height, 15),
            lanes * modules,
            kernel,
            [k // 2 for k in kernel],
            (height, 15),
        )
        first, last = await Run(dut, rng, layer).run()
        results = lanes * height * 15
        assert last - first == layer.plan.slots + END_TO_RESULT + results - 2, (
            f"{layer}: {last - first} cycles from the first read to the last result"
        )


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def tile_taken_beside_a_freed_one(dut):
    """The weights of a tile's pass come in every cycle around the one in which the buffer before is
    handed back, at the begin of its drain and at its end: all sums are right and the unit ends."""
    rng = await _start(dut)
    modules, events = int(dut.NUM_MODULES.value), {"take": [], "freed": []}

    async def watch():
        cycle = 0
        while True:
            await RisingEdge(dut.clk_i)
            for name, cycles in events.items():
                if getattr(dut, f"tile_{name}").value == 1:
                    cycles.append(cycle)
            cycle += 1

    cocotb.start_soon(watch())

    async def third_tile(wait, room):
        """A layer of four tiles of one pass; the third's weights are `wait` cycles late. Returns
        the cycles from the hand-over of each buffer to the third tile's begin."""
        layer = make_layer(rng, 1, False, modules, (8, 8, 9), modules, (1, 3), (0, 1), (2, 9))
        assert layer.plan.tiles == 4 and layer.plan.passes == 1
        for cycles in events.values():
            cycles.clear()
        run = Run(dut, rng, layer, "none", room)
        run.weights.wait = iter([False, *[True] * wait, *[False] * 9])
        await run.run()
        return [events["take"][2] - cycle for cycle in events["freed"]]

    late = 64  # the third tile then begins after the second has been drained
    usual = {room: (await third_tile(late, room))[1] for room in ("always", "none")}

    async def once(offset):
        for room, distance in usual.items():
            assert 0 < distance < late, f"the third tile begins {distance} cycles after the drain"
            found = (await third_tile(late - distance + offset, room))[1]
            assert found == offset, f"wanted {offset} cycles, got {found}"
        return offset

    await meeting.sweep("tile taken and freed", range(-2, 3), once)
