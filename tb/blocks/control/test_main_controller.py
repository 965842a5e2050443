"""Tests of rtl/control/main_controller.sv with models of the units: order of starts, every error
code, STOP, reset, counters' events."""

from itertools import permutations

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge, RisingEdge

from host.harness import clocking
from model.compiler.program_format import HEADER, MAX_LAYERS, QUAD_ADDR_W, RECORD_WORDS
from model.compiler.records import decode
from model.performance.cycle_model import FUSED_SETTLE
from tb.blocks.control import programs
from tb.lib import coverage, field_coverage, meeting
from tb.lib.cover_groups import STATES
from tb.lib.effort import scaled

SETTLE = 16
SHORT_LIMIT = 4095
(
    NO_PROGRAM,
    START_BUSY,
    PROGRAM_HEADER,
    NUM_MODULES,
    DESCRIPTOR,
    OUT_OF_BOUNDS,
    WEIGHTS_SHORT,
    WEIGHTS_LONG,
) = range(0x10, 0x18)
INPUTS = (
    "start_i",
    "stop_i",
    "parser_error_i",
    "parser_code_i",
    "image_error_i",
    "image_code_i",
    "oob_i",
    "prog_valid_i",
    "prog_last_i",
    "prog_data_i",
    "image_first_i",
    "image_done_i",
    "weights_first_i",
    "weights_done_i",
    "weights_empty_i",
    "buffer_full_i",
    "starved_i",
    "params_ready_i",
    "conv_busy_i",
    "pool_done_i",
    "emit_done_i",
    "results_empty_i",
    "check_bad_i",
)
EVENTS = (
    "conv_start_o",
    "pool_start_o",
    "emit_start_o",
    "raw_flush_o",
    "params_done_o",
    "layer_end_o",
    "image_end_o",
    "done_o",
    "stopped_o",
    "error_pulse_o",
)


class Bench:
    """The controller's surroundings. `cycle` plays one clock cycle and appends (event, cycle,
    layer) to `events`.

    It also watches the states: a step that tb/lib/cover_groups.py does not list is an error.

    pace: longest random wait of a unit. Switches: send_image, send_weights, starve, params,
    leftover (weights that nobody takes), spare (parameters that nobody takes), full
    (the weights packet stands still).
    """

    def __init__(self, dut, rng, header, layers, pace=20):
        self.dut, self.rng, self.pace = dut, rng, pace
        self.load(header, layers)
        self.now, self.events = 0, []
        self.pulses = {}  # cycle: [input port]
        self.image_sent = self.send_image = self.send_weights = True
        self.image_pending = False
        self.starve = self.leftover = self.full = self.spare = False
        self.params = self.results = True
        self.conv_until = 0
        self.descs = []
        self.driven = {}  # input port: its value
        self.weights_sent = False
        self.state, self.began = None, 0  # in the cycle before

    def load(self, header, layers):
        self.header, self.layers = header, layers
        words = header.encoded() + [w for layer in layers for w in layer.encoded()]
        self.memory = words
        self.dut.prog_last_i.value = len(words) - 1
        self.word = 0  # the memory's, before its output register

    def after(self, port, longest=None):
        at = self.now + 1 + int(self.rng.integers(0, (longest or self.pace) + 1))
        self.pulses.setdefault(at, []).append(port)
        return at

    def drive(self, port, value):
        """Writes only what changes: every access costs simulation time."""
        if self.driven.get(port) != value:
            self.driven[port] = value
            getattr(self.dut, port).value = value

    async def reset(self, at_once=False):
        """A reset from the next clock edge on, or at_once: from the one that `reach` has stopped in
        front of."""
        if not at_once:
            await FallingEdge(self.dut.clk_i)
        before = self.state_now()
        for port in ("start_i", "stop_i", "oob_i", "image_first_i", "weights_first_i"):
            self.drive(port, 0)
        await clocking.reset(self.dut)
        await RisingEdge(self.dut.clk_i)
        assert self.state_now() == "IDLE", f"state {self.state_now()} after a reset in {before}"
        coverage.hit("controller_transition", f"reset in {before}")
        self.state, self.began = "IDLE", 0
        self.pulses, self.events, self.conv_until, self.image_pending, self.weights_sent = (
            {},
            [],
            0,
            False,
            False,
        )
        self.descs = []

    async def cycle(self, **pulse):
        """One cycle; pulse: values of inputs for this cycle."""
        dut, rng = self.dut, self.rng
        due = self.pulses.pop(self.now, [])
        for port in (
            "start_i",
            "stop_i",
            "parser_error_i",
            "image_error_i",
            "oob_i",
            "image_first_i",
            "image_done_i",
            "weights_first_i",
            "weights_done_i",
            "pool_done_i",
            "emit_done_i",
            "check_bad_i",
        ):
            self.drive(port, int(pulse.get(port, port in due)))
        for port in ("parser_code_i", "image_code_i"):
            self.drive(port, pulse.get(port, 0x5A))
        self.drive("conv_busy_i", int(self.now < self.conv_until))
        self.drive("starved_i", int(self.starve))
        # between layers no parameters are in place, but at an image's end those that are left over
        params = self.params and rng.random() < 0.7 and self.state not in ("LAYER_END", "FINISH")
        self.drive("params_ready_i", int(params or (self.spare and self.state == "FINISH")))
        self.drive("weights_empty_i", int(not self.leftover))
        self.drive("buffer_full_i", int(self.full))
        results = self.results and rng.random() < 0.3
        self.drive("results_empty_i", int(pulse.get("results_empty_i", results)))
        await RisingEdge(dut.clk_i)
        address = dut.prog_addr_o.value
        address = address.to_unsigned() if address.is_resolvable else 0
        self.drive("prog_data_i", self.word)
        self.word = self.memory[address] if address < len(self.memory) else 0
        self.observe()
        self.now += 1

    def state_now(self):
        return STATES[self.dut.state_q.value.to_unsigned()]

    async def reach(self, state, limit=3000):
        """Cycles until the controller is in `state`; then its next clock edge has not come yet."""
        for _ in range(limit):
            await FallingEdge(self.dut.clk_i)
            if self.state_now() == state:
                return
            await self.cycle()
        raise AssertionError(f"state {state} was not reached in {limit} cycles")

    def observe_state(self):
        state = self.state_now()
        assert self.dut.check_start_o.value == (state == "CHECK"), f"check_start_o in {state}"
        all_sent = state == "FINISH" and self.driven["results_empty_i"] == 1
        assert self.dut.results_done_o.value == all_sent, (
            f"results_done_o {self.dut.results_done_o.value} in {state}, all sent: {all_sent}"
        )
        began = self.state == "IDLE" and state == "HEADER"
        assert self.began == began, f"begin_o {self.began} from {self.state} to {state}"
        if self.state not in (None, state):
            coverage.hit("controller_transition", f"{self.state} -> {state}")
        self.state = state

    def observe(self):
        dut = self.dut
        self.observe_state()
        self.began = int(dut.begin_o.value)
        for name in EVENTS:
            value = int(getattr(dut, name).value)
            if value:
                self.events.append(
                    (
                        name,
                        self.now,
                        dut.layer_o.value.to_unsigned()
                        if dut.layer_o.value.is_resolvable
                        else None,
                    )
                )
        if dut.conv_start_o.value == 1 or dut.pool_start_o.value == 1:
            desc = dut.desc_o.value.to_unsigned()
            self.descs.append(
                (
                    [desc >> 64 * i & (1 << 64) - 1 for i in range(RECORD_WORDS)],
                    int(dut.params_bank_o.value),
                )
            )
        if dut.conv_start_o.value == 1:
            self.conv_until = (
                self.now + 2 + int(self.rng.integers(self.pace + 1)) + (10**9 if self.starve else 0)
            )
        if dut.pool_start_o.value == 1:
            self.pulses.setdefault(self.now + 2 + int(self.rng.integers(self.pace + 1)), []).append(
                "pool_done_i"
            )
        if dut.emit_start_o.value == 1:
            self.after("emit_done_i")
        if dut.image_enable_o.value == 1 and self.send_image and not self.image_pending:
            self.image_pending = True
            at = self.after("image_first_i")
            self.pulses.setdefault(at + 1 + int(self.rng.integers(self.pace + 1)), []).append(
                "image_done_i"
            )
            self.check_image_ports()
        if self.image_pending and self.send_weights and not self.weights_sent:
            self.weights_sent = True
            at = self.after("weights_first_i", 5 * self.pace)
            self.pulses.setdefault(at + 1 + int(self.rng.integers(5 * self.pace)), []).append(
                "weights_done_i"
            )
        if dut.image_end_o.value == 1:
            self.image_pending = self.weights_sent = False

    def check_image_ports(self):
        header = decode(HEADER, self.header.encoded())
        for name in (
            "image_base",
            "image_row_stride",
            "image_row_quads",
            "image_rows",
            "image_end_addr",
        ):
            got = getattr(self.dut, f"{name}_o").value.to_unsigned()
            assert got == header[name], f"{name}_o {got}, expected {header[name]}"

    async def until(self, event, limit=20_000):
        """Cycles until `event` is seen, the event's cycle included."""
        for _ in range(limit):
            await self.cycle()
            if any(name == event and at == self.now - 1 for name, at, _ in self.events):
                return
        raise AssertionError(
            f"no {event} after {limit} cycles; the last events: {self.events[-3:]}"
        )

    async def expect_error(self, code, layer=None, limit=20_000):
        """An error with this code (and layer) comes once, the level stays, and no unit is started
        any more."""
        dut = self.dut
        await self.until("error_pulse_o", limit)
        assert dut.error_code_o.value.to_unsigned() == code, (
            f"error {dut.error_code_o.value.to_unsigned():#x}, expected {code:#x}"
        )
        assert layer is None or dut.error_layer_o.value.to_unsigned() == layer, (
            f"layer {dut.error_layer_o.value}, expected {layer}"
        )
        count = len(self.events)
        for i in range(10):
            await self.cycle(start_i=i == 3, oob_i=i == 5)
            assert (
                dut.error_o.value == 1
                and dut.busy_o.value == 0
                and dut.error_code_o.value.to_unsigned() == code
            )
        assert len(self.events) == count, f"after the error: {self.events[count:]}"
        await self.reset()
        assert dut.error_o.value == 0 and dut.busy_o.value == 0

    def check_image(self, number=0):
        """The events of one image against the program; returns them. Removes them from `events`."""
        end = next(i for i, e in enumerate(self.events) if e[0] == "image_end_o")
        events, self.events = self.events[:end], self.events[end + 1 :]
        names = [(name, layer) for name, _, layer in events]
        want = []
        for layer, desc in enumerate(self.layers):
            want.append(
                ("conv_start_o" if desc["op"] == programs.OP_CONV else "pool_start_o", layer)
            )
            want += (
                [("raw_flush_o" if desc["raw"] else "emit_start_o", layer)] if desc["emit"] else []
            )
            want += [("params_done_o", layer)] if desc["has_params"] else []
            want.append(("layer_end_o", layer))
        assert names == want, f"events {names}, expected {want}"
        for (words, _), desc in zip(self.descs, self.layers):
            assert words == desc.encoded(), "desc_o is not the program's descriptor"
        assert len(self.descs) == len(self.layers)
        self.descs = []
        return events


def _program(rng, dut, count=None):
    capacity = 8 * int(dut.BANK_WORDS.value)
    count = count or int(rng.integers(1, 9))
    layers = [programs.descriptor(rng, capacity, raw=False) for _ in range(count - 1)]
    header = programs.header(rng, count, int(dut.NUM_MODULES.value), capacity)
    return header, [*layers, programs.descriptor(rng, capacity)]


async def _start(dut, count=None, pace=20):
    for name in INPUTS:
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    for name in (*EVENTS, "busy_o", "error_o", "image_enable_o", "layer_active_o"):
        assert getattr(dut, name).value == 0, f"{name} after reset"
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    dut.prog_valid_i.value = 1
    return rng, Bench(dut, rng, *_program(rng, dut, count), pace)


async def _stop_now(bench):
    """STOP while the controller waits for an image of which nothing has come."""
    bench.send_image = False
    await bench.cycle(stop_i=1)
    await bench.until("stopped_o", 20)
    await bench.cycle()
    assert bench.dut.busy_o.value == 0
    bench.events, bench.send_image = [], True


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def programs_run(dut):
    """Random programs over several images: starts, descriptors, flushes, parameter banks, layer
    ends in order; settling time."""
    rng, bench = await _start(dut)
    for count in scaled((1, 5, 17), (1, 2, 5, 17, 32, 33, MAX_LAYERS - 1, MAX_LAYERS)):
        bench.load(*_program(rng, dut, count))
        await bench.reset()
        await bench.cycle(start_i=1)
        bank = 0
        for _ in range(2):
            await bench.until("image_end_o", 50_000)
            expected = []
            for desc in bench.layers:
                expected.append(bank)
                bank ^= desc["has_params"]
            assert [b for _, b in bench.descs] == expected, "parameter banks"
            bench.check_image()
            bench.events = [e for e in bench.events if e[0] != "done_o"]
        bench.send_image = False
        for _ in range(3):
            await bench.cycle()
        await _stop_now(bench)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def settling(dut):
    """Nothing is read or declared finished before the results in flight are written; layer_active_o
    spans the layer."""
    rng, bench = await _start(dut, 6)
    conv = programs.descriptor(rng, 8 * int(dut.BANK_WORDS.value), programs.OP_CONV, False)
    bench.load(bench.header, [conv.changed(fused=1), *bench.layers[1:]])
    await bench.cycle(start_i=1)
    active = 0
    finished = None
    while not any(e[0] == "image_end_o" for e in bench.events):
        before = bench.now
        busy = before < bench.conv_until
        pool_done = "pool_done_i" in bench.pulses.get(before, [])
        await bench.cycle()
        if busy or pool_done:
            finished = before
        for name, at, layer in bench.events:
            if at == before and name in ("emit_start_o", "raw_flush_o", "layer_end_o"):
                settle = SETTLE + FUSED_SETTLE * bench.layers[layer]["fused"]
                assert before - finished > settle, (
                    f"{name} {before - finished} cycles after the unit"
                )
        active += dut.layer_active_o.value == 1
    ends = [e for e in bench.events if e[0] == "layer_end_o"]
    assert len(ends) == 6 and active > 6 * (RECORD_WORDS + SETTLE)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def header_errors(dut):
    """Every rule of the program header, another number of conv modules, and both: the rule
    counts."""
    rng, bench = await _start(dut)
    capacity, built_for = 8 * int(dut.BANK_WORDS.value), int(dut.NUM_MODULES.value)
    for what, header in programs.bad_headers(bench.header, capacity):
        for both in (header, header.changed(num_modules=built_for ^ 1)):
            bench.load(both, bench.layers)
            dut.prog_last_i.value = 2047  # as many layers as the header says
            await bench.cycle(start_i=1)
            dut._log.info(what)
            await bench.expect_error(PROGRAM_HEADER, limit=100)
            assert not bench.image_pending
        field_coverage.hit("header", header.values)
    good = programs.header(rng, 1, built_for, capacity)
    others = {0, 4, 8, 16, 255, *(built_for ^ 1 << bit for bit in range(8))}
    for modules in sorted(others - {built_for}):
        bench.load(good.changed(num_modules=modules), bench.layers)
        await bench.cycle(start_i=1)
        await bench.expect_error(NUM_MODULES, limit=100)
        field_coverage.hit("header", {"num_modules": modules})


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def descriptor_errors(dut):
    """Every rule of a descriptor, in the first or a later layer: the layer is named and its unit
    not started."""
    rng, bench = await _start(dut, pace=2)
    capacity = 8 * int(dut.BANK_WORDS.value)
    for what, desc in programs.bad_descriptors(rng, capacity):
        at = 2 if desc["raw"] else int(rng.integers(3))  # 32-bit results come from the last layer
        header, layers = _program(rng, dut, 3)
        layers[at] = desc
        bench.load(header, layers)
        dut._log.info(what)
        await bench.cycle(start_i=1)
        await bench.until("error_pulse_o", 1000)
        assert not any(
            name in ("conv_start_o", "pool_start_o") and layer == at
            for name, _, layer in bench.events
        ), f"{what}: unit started"
        assert (dut.error_code_o.value.to_unsigned(), dut.error_layer_o.value.to_unsigned()) == (
            DESCRIPTOR,
            at,
        ), what
        field_coverage.hit("descriptor", {name: desc[name] for name in ("op", "out_end")})
        await bench.reset()
    for op in (programs.OP_CONV, programs.OP_AVGPOOL):
        header, layers = _program(rng, dut, 3)
        for at in range(2):
            raw = programs.descriptor(rng, capacity, op, True)
            bench.load(header, [*layers[:at], raw, *layers[at + 1 :]])
            await bench.cycle(start_i=1)
            await bench.expect_error(DESCRIPTOR, layer=at, limit=1000)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def layers_that_a_program_does_not_have(dut):
    """A header of more layers than the packet had words for is refused; more words are not."""
    rng, bench = await _start(dut, pace=2)
    for count in (1, 2, 31, 32, MAX_LAYERS):
        bench.load(*_program(rng, dut, count))
        whole = len(bench.memory)
        for words, good in ((1, False), (whole - 1, False), (whole, True), (whole + 16, True)):
            dut.prog_last_i.value = words - 1
            await bench.cycle(start_i=1)
            if good:
                await bench.until(
                    "conv_start_o" if bench.layers[0]["op"] == programs.OP_CONV else "pool_start_o",
                    300,
                )
                await bench.reset()
            else:
                await bench.expect_error(PROGRAM_HEADER, limit=100)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def one_bit_of_a_number(dut):
    """Numbers that may not be zero, with each single bit set: they are not zero, reach their ports,
    and the unit is started."""
    rng, bench = await _start(dut, pace=1)
    capacity, modules = 8 * int(dut.BANK_WORDS.value), int(dut.NUM_MODULES.value)
    for bit in range(QUAD_ADDR_W):
        for op in (programs.OP_CONV, programs.OP_MAXPOOL):
            header, layer = programs.one_bit(rng, modules, capacity, op, bit)
            bench.load(header, [layer])
            await bench.cycle(start_i=1)
            started = "conv_start_o" if op == programs.OP_CONV else "pool_start_o"
            await bench.until(started, 150)
            assert bench.image_pending and dut.error_o.value == 0, f"bit {bit}: refused"
            assert bench.descs[-1][0] == layer.encoded(), f"bit {bit}: descriptor"
            await bench.reset()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def start_errors(dut):
    """START without a program, in the cycle in which another one begins, at any time of a run."""
    rng, bench = await _start(dut)
    for replaced in (False, True):
        dut.prog_valid_i.value = int(replaced)
        await bench.cycle(start_i=1)
        dut.prog_valid_i.value = 0
        await bench.expect_error(NO_PROGRAM, limit=5)
    dut.prog_valid_i.value = 1
    for _ in range(scaled(8, 30)):
        await bench.cycle(start_i=1)
        for _ in range(int(rng.integers(1, 400))):
            await bench.cycle()
        assert dut.busy_o.value == 1
        await bench.cycle(start_i=1)
        await bench.expect_error(START_BUSY, limit=5)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def unit_errors(dut):
    """Errors of parser, image loader and feature buffer, also in the same cycle, idle and running:
    the first of them is reported."""
    rng, bench = await _start(dut)
    for run in range(scaled(6, 24)):
        parser, image, oob = (bool(rng.integers(2)) for _ in range(3))
        if not (parser or image or oob):
            continue
        if run % 3:
            await bench.cycle(start_i=1)
            for _ in range(int(rng.integers(1, 300))):
                await bench.cycle()
        code = int(rng.integers(1, 16)), int(rng.integers(1, 16))
        await bench.cycle(
            parser_error_i=parser,
            parser_code_i=code[0],
            image_error_i=image,
            image_code_i=code[1],
            oob_i=oob,
        )
        await bench.expect_error(
            code[0] if parser else code[1] if image else OUT_OF_BOUNDS, limit=5
        )


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def error_pairs(dut):
    """Every two errors one cycle after the other, and in the same one: the first that is seen is
    reported, START at once and others a cycle later; of those seen in one cycle the streams go
    before the buffer, that before START, and that before a descriptor."""
    _, bench = await _start(dut, pace=2)
    codes = {
        "parser_error_i": 0x35,
        "image_error_i": 0x0A,
        "oob_i": OUT_OF_BOUNDS,
        "start_i": START_BUSY,
        "check_bad_i": DESCRIPTOR,
    }
    rank = list(codes)

    async def once(offset):
        for first, second in permutations(codes, 2):
            await _enter(bench, "RUN")
            for step in range(-1, 3):
                now = {first: int(step == 0), second: int(step == offset)}
                await bench.cycle(parser_code_i=0x35, image_code_i=0x0A, **now)
            seen = [
                (at + (name != "start_i"), rank.index(name))
                for name, at in ((first, 0), (second, offset))
            ]
            winner = rank[min(seen)[1]]
            got = dut.error_code_o.value.to_unsigned()
            assert got == codes[winner], (
                f"{first}, {second} {offset} cycles later: code {got:#x}, not {winner}'s"
            )
            await bench.cycle()
            pulses = sum(name == "error_pulse_o" for name, _, _ in bench.events)
            assert pulses == 1, f"{first}, {second} {offset} cycles later: {pulses} pulses"
            await bench.reset()
        return offset

    await meeting.sweep("two errors", range(-1, 2), once)


async def _enter(bench, state):
    """From IDLE into `state`, with a program that passes through all of them."""
    rng, capacity = bench.rng, 8 * int(bench.dut.BANK_WORDS.value)
    header = programs.header(rng, 2, int(bench.dut.NUM_MODULES.value), capacity)
    layer = programs.descriptor(rng, capacity, programs.OP_CONV, False).changed(emit=1)
    bench.load(header, [layer, layer])
    if state == "IDLE":
        return
    await bench.cycle(start_i=1)
    if state == "STOPPING":
        bench.send_image = False
        await bench.reach("IMAGE")
        await bench.cycle(stop_i=1)
    await bench.reach(state)
    bench.send_image = True


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def errors_in_every_state(dut):
    """A write out of bounds in each state ends in ERROR at the edge after the next one."""
    _, bench = await _start(dut, pace=2)
    for state in STATES:
        if state == "ERROR":
            continue
        await _enter(bench, state)
        await bench.cycle(oob_i=1)
        await bench.cycle()
        await FallingEdge(dut.clk_i)
        assert bench.state_now() == "ERROR", f"{bench.state_now()} after an error in {state}"
        await bench.expect_error(OUT_OF_BOUNDS, limit=3)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def sizes_that_do_not_fit(dut):
    """A descriptor that the check refuses while its layer runs is an error of that layer."""
    _, bench = await _start(dut, pace=2)
    for state in ("WAIT_PARAMS", "RUN", "DRAIN"):
        await _enter(bench, state)
        await bench.cycle(check_bad_i=1)
        await bench.expect_error(DESCRIPTOR, layer=0, limit=3)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def resets_in_every_state(dut):
    """A reset in each state leads to IDLE, from where a whole image is computed."""
    _, bench = await _start(dut, pace=2)
    for state in STATES:
        if state == "ERROR":
            await bench.cycle(oob_i=1)
            await bench.cycle()
        else:
            await _enter(bench, state)
        await bench.reset(at_once=state not in ("IDLE", "ERROR"))
        dut._log.info("reset in %s", state)
        await bench.cycle(start_i=1)
        await bench.until("image_end_o", 5000)
        bench.check_image()
        await bench.reset()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def image_begins_while_stopping(dut):
    """The first beat of an image that arrives with STOP: the image is finished, then the run
    ends."""
    _, bench = await _start(dut, pace=2)
    for wait in range(3):
        await _enter(bench, "STOPPING")
        bench.send_image = False
        for _ in range(wait):
            await bench.cycle()
        await bench.cycle(image_first_i=1)
        await bench.reach("IMAGE")
        bench.send_image = True
        await bench.until("image_end_o", 5000)
        await bench.cycle()
        assert dut.busy_o.value == 0 and any(e[0] == "stopped_o" for e in bench.events), (
            "the run goes on after STOP"
        )
        await bench.reset()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def stop_around_the_first_beat(dut):
    """STOP in every cycle around the first beat of an image or of its weights: the image is
    finished and the run ends with it, or the run ends and the next one takes what has come."""
    _, bench = await _start(dut, 1, pace=2)
    for first in ("image_first_i", "weights_first_i"):

        async def once(offset, first=first):
            await _first_beat_beside_stop(bench, first, offset)
            return offset

        # An image loader that STOP has closed shows a beat two cycles later at the latest.
        await meeting.sweep("STOP and first beat", range(-4, 3 if first[0] == "i" else 9), once)


async def _first_beat_beside_stop(bench, first, offset):
    """A run whose first beat comes `offset` cycles after STOP."""
    what, dut = f"{first} {offset} cycles after STOP", bench.dut
    bench.send_image = False
    await bench.cycle(start_i=1)
    await bench.reach("IMAGE")
    for step in range(-5, 10):
        if first == "image_first_i" and step == max(0, offset) + 1:
            bench.send_image = True  # from here on the bench plays the rest of the image
        if step == offset:
            bench.weights_sent = first == "weights_first_i"
        await bench.cycle(stop_i=int(step == 0), **{first: int(step == offset)})
    if first == "weights_first_i":
        bench.after("weights_done_i")
    bench.send_image = True
    ends = [name for name, _, _ in bench.events if name in ("image_end_o", "stopped_o")]
    if ends == ["stopped_o"]:
        assert offset > 0 and dut.busy_o.value == 0, f"{what}: stopped, {bench.state_now()}"
        bench.events = []
        await bench.cycle(start_i=1)
        await bench.until("image_end_o", 5000)
        assert dut.stopped_o.value == 0, f"{what}: the next run is stopped, too"
    else:
        if "image_end_o" not in ends:
            await bench.until("image_end_o", 5000)
        await bench.cycle()
        assert dut.busy_o.value == 0, f"{what}: the run goes on"
        stopped = sum(name == "stopped_o" for name, _, _ in bench.events)
        assert stopped == 1, f"{what}: stopped {stopped} times"
    bench.check_image()
    await bench.reset()


async def _play_the_end(bench, port, offset, cycles):
    """An image's end, with a pulse of `port` so many cycles after it, and no next image; the end's
    cycle."""
    bench.results = False
    await bench.cycle(start_i=1)
    await bench.reach("FINISH")
    bench.send_image = False
    end = bench.now + 6
    for step in range(-6, cycles):
        await bench.cycle(**{port: step == offset}, results_empty_i=step >= 0)
    bench.results = bench.send_image = True
    return end


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def stop_around_the_end(dut):
    """STOP in every cycle around an image's end: that image is the last, the run ends once."""
    _, bench = await _start(dut, 2, pace=2)
    ends_of_runs = ("image_end_o", "stopped_o")
    for offset in range(-6, 7):
        end = await _play_the_end(bench, "stop_i", offset, 13)
        what = f"STOP {offset} cycles after an image's end"
        ends = [(name, at - end) for name, at, _ in bench.events if name in ends_of_runs]
        # between images: two cycles until the image loader is closed, three to see a beat of before
        stopped = 0 if offset <= 0 else offset + 5
        assert ends == [("image_end_o", 0), ("stopped_o", stopped)], f"{what}: {ends}"
        assert dut.busy_o.value == 0, f"{what}: the run goes on"
        bench.check_image()
        moment = "before" if offset < 0 else "after" if offset else "with"
        coverage.hit("stop_moment", f"{moment} the end")
        coverage.hit("meeting", f"STOP and image end {moment}")
        bench.events = []


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def error_around_the_end(dut):
    """An error in every cycle around an image's end: an image that ends with it does not count."""
    _, bench = await _start(dut, 2, pace=2)
    watched = ("image_end_o", "done_o", "error_pulse_o")
    for port, delay in (("oob_i", 1), ("start_i", 0)):  # cycles until the controller sees it
        for offset in range(-4, 5):
            end = await _play_the_end(bench, port, offset, 9)
            ends = [("image_end_o", 0), ("done_o", 0)] if offset + delay > 0 else []
            want = [*ends, ("error_pulse_o", offset + delay + 1)]
            got = [(name, at - end) for name, at, _ in bench.events if name in watched]
            assert got == want, f"{port} {offset} cycles after an image's end: {got}"
            await bench.reset()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def stop_when_idle(dut):
    """STOP in the cycles before START and in START's own does nothing: image follows image."""
    _, bench = await _start(dut, 1, pace=2)
    for before in range(4):
        for step in range(-before, 1):
            await bench.cycle(stop_i=step == -before, start_i=step == 0)
        for _ in range(2):
            await bench.until("image_end_o", 3000)
        await bench.cycle()
        stopped = any(name == "stopped_o" for name, _, _ in bench.events)
        assert dut.busy_o.value == 1 and not stopped, f"STOP {before} cycles before START"
        coverage.hit("stop_moment", "idle")
        await bench.reset()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def error_while_stopping(dut):
    """An error in any cycle after STOP: a run that it ends is not reported as stopped."""
    _, bench = await _start(dut, pace=2)
    states = set()
    for wait in range(8):
        await _enter(bench, "STOPPING")
        bench.send_image = False
        for _ in range(wait):
            await bench.cycle()
        await bench.cycle(oob_i=1)
        await bench.cycle()  # in which it is seen
        states.add(bench.state)
        stopped = sum(name == "stopped_o" for name, _, _ in bench.events)
        what = f"error in {bench.state}, {wait} cycles after STOP"
        assert stopped == (bench.state == "IDLE"), f"{what}: stopped {stopped} times"
        await bench.expect_error(OUT_OF_BOUNDS, limit=3)
        bench.send_image = True
    assert states == {"STOPPING", "IDLE"}, f"errors in {states} only"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def weights_short(dut):
    """Waiting for indices or parameters is an error 4,095 cycles after it began, and only once the
    weights packet is complete, or stands still because the buffer is full of others."""
    rng, bench = await _start(dut, pace=2)
    capacity = 8 * int(dut.BANK_WORDS.value)
    header = programs.header(rng, 2, int(dut.NUM_MODULES.value), capacity)
    bench.load(
        header,
        [
            programs.descriptor(rng, capacity, programs.OP_MAXPOOL),
            programs.descriptor(rng, capacity, programs.OP_CONV, False),
        ],
    )
    for starving, full in ((True, False), (False, False), (True, True), (False, True)):
        bench.send_weights = bench.full = False
        bench.starve, bench.params = starving, starving
        await bench.cycle(start_i=1)
        await bench.until("layer_end_o", 300)
        for _ in range(300 if full else SHORT_LIMIT + 300):
            await bench.cycle()
        assert dut.error_o.value == 0, "error although weights may still come"
        bench.full = full
        await bench.cycle(weights_done_i=not full)
        for _ in range(SHORT_LIMIT - 10):
            await bench.cycle()
        assert dut.error_o.value == 0
        if starving:  # one cycle with weights: the count starts again
            bench.starve = False
            await bench.cycle()
            bench.starve = True
            for _ in range(SHORT_LIMIT - 10):
                await bench.cycle()
            assert dut.error_o.value == 0, "the count did not start again"
        await bench.expect_error(WEIGHTS_SHORT, 1, limit=20)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def weights_long(dut):
    """Weights left over at the end of an image are an error, also where they fill the buffer and
    their packet does not end, or are parameters only; an image does not end before its weights
    packet."""
    rng, bench = await _start(dut, 2, pace=2)
    for ends, words in ((True, True), (False, True), (True, False)):
        bench.send_weights, bench.full = ends, not ends
        bench.leftover, bench.spare = words, not words
        await bench.cycle(start_i=1)
        await bench.expect_error(WEIGHTS_LONG, layer=1, limit=3000)
        assert not any(e[0] == "image_end_o" for e in bench.events)
    bench.spare = bench.leftover = bench.send_weights = bench.full = False
    await bench.cycle(start_i=1)
    for _ in range(600):
        await bench.cycle()
    assert sum(e[0] == "layer_end_o" for e in bench.events) == 2 and not any(
        e[0] == "image_end_o" for e in bench.events
    )
    await bench.cycle(weights_done_i=1)
    await bench.until("image_end_o", 50)
    await bench.reset()


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def stop(dut):
    """STOP between images stops at once, STOP during one after it, also one whose weights only have
    begun, after START or before; STOP when idle does nothing."""
    rng, bench = await _start(dut, 3, pace=5)
    await bench.cycle(stop_i=1)
    for _ in range(5):
        await bench.cycle()
    assert not bench.events
    for run in range(scaled(4, 12)):
        await bench.cycle(start_i=1)
        for _ in range(RECORD_WORDS + 6):
            bench.send_image = False
            await bench.cycle()
        await _stop_now(bench)  # nothing of an image has come
        early = run % 4 == 3  # weights that begin before START
        if early:
            await bench.cycle(weights_first_i=1)
        await bench.cycle(start_i=1)
        if run % 2:  # weights only
            bench.send_image = False
            for _ in range(RECORD_WORDS + 6):
                await bench.cycle()
            bench.weights_sent = True
            await bench.cycle(weights_first_i=int(not early))
            bench.after("weights_done_i")
            await bench.cycle(stop_i=1)
            for _ in range(50):
                await bench.cycle()
            assert dut.busy_o.value == 1 and not bench.events, (
                "stopped although the image's weights are on their way"
            )
            bench.send_image = True
        else:
            for _ in range(int(rng.integers(60, 150))):
                await bench.cycle()
            assert dut.busy_o.value == 1
            if not any(e[0] == "image_end_o" for e in bench.events):
                await bench.cycle(stop_i=1)
            else:
                await bench.reset()
                continue
        await bench.until("stopped_o", 5000)
        names = [name for name, at, _ in bench.events if at == bench.now - 1]
        assert set(names) == {"image_end_o", "done_o", "stopped_o"}, names
        bench.check_image()
        await bench.cycle()
        assert dut.busy_o.value == 0 and sum(e[0] == "stopped_o" for e in bench.events) == 1
        bench.events = []


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def soft_reset(dut):
    """A reset at any time brings the controller back to idle, and the next run is complete."""
    rng, bench = await _start(dut, 3, pace=5)
    for _ in range(scaled(5, 20)):
        await bench.cycle(start_i=1)
        for _ in range(int(rng.integers(1, 300))):
            await bench.cycle(stop_i=int(rng.random() < 0.01))
        await bench.reset()
        for name in (*EVENTS, "busy_o", "error_o", "image_enable_o", "layer_active_o"):
            assert getattr(dut, name).value == 0, f"{name} after reset"
        await bench.cycle(start_i=1)
        await bench.until("image_end_o", 5000)
        bench.check_image()
        assert dut.stopped_o.value == 0, "a STOP from before the reset"
        await bench.reset()
