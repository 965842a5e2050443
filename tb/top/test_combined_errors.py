"""Errors together, one behind the other, and beside what they may coincide with: packets behind
each error, errors on both streams, the end of a packet or of an image, a soft reset at any of them.
"""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge

from host.driver import ALL_INTERRUPTS
from host.harness import clocking
from host.register_map import Ctrl, ErrorCode, IrqStatus, Register, Status, field
from model.compiler.program import packet
from model.compiler.program_format import CHUNK, MAGIC_WEIGHTS
from model.compiler.records import decode, encode
from tb.lib import meeting
from tb.lib.accelerator import expected_tensors
from tb.lib.packets import edited, flipped, payload
from tb.top.bench import compare
from tb.top.fault_bench import FaultBench

BEHIND = 3  # packets that a host may have sent before it notices an error
LEAD = 12  # cycles from a sweep's begin to its fixed event
LAST_INTERRUPT = 4  # cycles after the write of SOFT_RESET: a later one does not come


def faults(bench: FaultBench) -> list[tuple]:
    """(code, program or None for the good one, weights, image, START again)."""
    compiled = bench.compiled
    program, weights = compiled.program, compiled.weights
    image = compiled.encode_image(bench.image()[0])
    last = len(bench.net.layers) - 1
    return [
        (ErrorCode.PACKET_CRC, None, flipped(weights, len(weights) - 1, 3), image, False),
        (ErrorCode.IMAGE_OVERLONG, None, weights, np.concatenate([image, image]), False),
        (ErrorCode.PACKET_MAGIC, None, flipped(weights, 0, 1), image, False),
        (ErrorCode.PACKET_TRUNCATED, None, weights[:-1], image, False),
        (ErrorCode.WEIGHTS_SHORT, None, packet(MAGIC_WEIGHTS, payload(weights)[:-1]), image, False),
        (ErrorCode.DESCRIPTOR, edited(compiled, last, {"op": 15}), weights, image, False),
        (ErrorCode.PROGRAM_BUSY, None, program, image, False),
        (ErrorCode.START_BUSY, None, weights, image, True),
    ]


@cocotb.test()
async def packets_behind_an_error(dut):
    """After each error the host sends whole packets on both streams, one after the other: all are
    emptied, the code and the program stay, and the next good run is right."""
    bench = await FaultBench(dut).start()
    cases = faults(bench)
    other = edited(bench.compiled, 0, {"op": 15})
    await bench.good_run()
    for code, program, weights, image, again in cases:
        await bench.load(bench.compiled.program if program is None else program)
        await bench.host.write(Register.CTRL, Ctrl.START)
        if again:
            await bench.host.write(Register.CTRL, Ctrl.START)
            await bench.expect(code)
        await bench.send(prog=weights, image=image)
        await bench.expect(code)
        pixels = bench.compiled.encode_image(bench.image()[0])
        for number in range(BEHIND):
            await bench.idle("prog", "image")
            words = other if number == 1 else bench.compiled.weights
            await bench.send(prog=words, image=pixels)
            await ClockCycles(dut.clk_i, 4)
        await bench.idle("prog", "image")
        await bench.expect(code)
        bench.pending.append(("error_pair", "packets behind"))
        await bench.recover()
        assert await bench.host.read(Register.STATUS) == Status.PROG_VALID, code.name
        await bench.good_run(reload=program is not None)
    assert bench.good_runs == len(cases) + 1 and bench.values_checked


@cocotb.test()
async def more_weights_than_the_buffer_holds(dut):
    """Weights that no layer takes and that fill the weight buffer, so that their packet never ends:
    more of them for a layer than it has, and behind the last layer's. The errors are the same as of
    a packet that ends."""
    bench = await FaultBench(dut).start()
    words, hardware = payload(bench.compiled.weights), bench.hardware
    first = decode(CHUNK, words[:1])
    block = first["n_passes"] * hardware.pass_words
    groups = 2 * hardware.weight_words // block + 2
    taken = 1 + first["n_params"] + first["n_groups"] * block
    filled = np.resize(words[taken:], (groups - first["n_groups"]) * block)
    longer = encode(CHUNK, {"n_groups": groups}, words[:1])
    another = np.concatenate([longer, words[1:taken], filled, words[taken:]])
    await bench.fails(ErrorCode.WEIGHTS_SHORT, weights=packet(MAGIC_WEIGHTS, another), layer=2)
    again = np.resize(words, len(words) + 2 * hardware.weight_words)
    await bench.fails(ErrorCode.WEIGHTS_LONG, weights=packet(MAGIC_WEIGHTS, again))
    assert bench.good_runs == 2 and bench.values_checked


@cocotb.test()
async def keep_at_every_place(dut):
    """TKEEP wrong on the header, in the payload and on the trailer of a program and of weights, and
    on the first, a middle and the last beat of an image."""
    bench = await FaultBench(dut).start()
    compiled, rng = bench.compiled, bench.rng
    streams = {"weights": compiled.weights, "program": compiled.program}
    streams["image"] = compiled.encode_image(bench.image()[0])
    for stream, words in streams.items():
        most = len(words) - 1
        places = (most, int(rng.integers(1, most)), 0)
        names = ("first", "middle", "last") if stream == "image" else PARTS
        for place, name in zip(places, names):
            keep = 0xFF ^ 1 << int(rng.integers(8))
            bench.pending.append(("keep_place", f"{stream} {name}"))
            if stream == "program":
                await bench.send(prog=words, prog_keep=keep, keep_at=place)
                await bench.expect(ErrorCode.PACKET_TKEEP)
                await bench.recover()
                await bench.good_run()
            elif stream == "weights":
                await bench.fails(ErrorCode.PACKET_TKEEP, prog_keep=keep, keep_at=place)
            else:
                await bench.fails(ErrorCode.IMAGE_TKEEP, image_keep=keep, keep_at=place)
    assert bench.good_runs and bench.values_checked


PARTS = ("header", "payload", "trailer")


class Watch:
    """Notes the cycles of what happens at the ports from its begin on."""

    def __init__(self, dut) -> None:
        self.dut, self.cycle = dut, 0
        self.events: dict[str, list[int]] = {}
        self._task = cocotb.start_soon(self._run())

    def end(self) -> dict[str, list[int]]:
        """{event: cycles}: beats and transfers with TLAST by stream, writes of a register, their
        answers, interrupts."""
        self._task.cancel()
        return self.events

    async def _run(self) -> None:
        dut = self.dut
        ports = {
            stream: [getattr(dut, f"axis_{stream}_t{part}") for part in ("valid", "ready", "last")]
            for stream in ("prog", "image", "result")
        }
        ports |= {f"{stream} beat": signals[:2] for stream, signals in ports.items()}
        ports |= {"write": [dut.s_axil_wvalid, dut.s_axil_wready], "interrupt": [dut.irq_o]}
        ports |= {"answer": [dut.s_axil_bvalid, dut.s_axil_bready]}
        while True:
            await RisingEdge(dut.clk_i)
            for name, signals in ports.items():
                if all(int(signal.value) for signal in signals):
                    self.events.setdefault(name, []).append(self.cycle)
            self.cycle += 1


async def begin_run(bench: FaultBench) -> None:
    """START with the program that is loaded, the error interrupt enabled."""
    await bench.host.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
    await bench.host.write(Register.CTRL, Ctrl.START)
    await ClockCycles(bench.dut.clk_i, 40)


async def delayed(bench: FaultBench, cycles: int, engine: str, words: int) -> None:
    """Let an engine begin in so many cycles."""
    await ClockCycles(bench.dut.clk_i, cycles)
    await bench.host.send(engine, 0, words)


async def empty(bench: FaultBench, code: ErrorCode, what: str) -> None:
    """After an error: whole packets on both streams are emptied, and the code stays."""
    for _ in range(2):
        await bench.idle("prog", "image")
        for engine, words in (("prog", bench.compiled.weights), ("image", bench.one_image)):
            await bench.host.send(engine, 0, len(words))
        await ClockCycles(bench.dut.clk_i, 3)
    await bench.idle("prog", "image")
    error = await bench.host.read(Register.ERROR)
    assert field(error, Register.ERROR, "CODE") == code, f"{what}: ERROR {error:#x}, not {code:#x}"
    await bench.recover()


@cocotb.test()
async def image_error_beside_the_weights_end(dut):
    """An image with a wrong TKEEP in every cycle around the last beat of its weights: the error is
    reported, and whole packets behind it do not stand still."""
    bench = await FaultBench(dut).start_one_beat()
    weights, bench.one_image = bench.compiled.weights, bench.compiled.encode_image(bench.image()[0])
    await bench.host.load_files(weights, bench.one_image)
    dut.image_keep_i.value = 0x7F

    async def once(offset: int) -> int:
        dut.image_keep_i.value = 0x7F
        await begin_run(bench)
        watch = Watch(dut)
        cocotb.start_soon(delayed(bench, len(weights) + offset, "image", 1))
        await bench.host.send("prog", 0, len(weights))
        await bench.expect(ErrorCode.IMAGE_TKEEP)
        events = watch.end()
        dut.image_keep_i.value = 0xFF
        await empty(bench, ErrorCode.IMAGE_TKEEP, "packets behind")
        return events["image"][0] - events["prog"][0]

    reach = 5
    await meeting.sweep("packet end and error", range(-reach, reach + 1), once)
    await bench.good_run()
    assert bench.values_checked


@cocotb.test()
async def errors_on_both_streams(dut):
    """A wrong image in every cycle around a wrong weights packet: the first one's code, with the
    weights before the image in one cycle, and nothing of the other is left."""
    bench = await FaultBench(dut).start_one_beat()
    bench.one_image = bench.compiled.encode_image(bench.image()[0])
    bad = flipped(bench.compiled.weights, 0, 5)
    await bench.host.load_files(bad, bench.one_image)
    codes = []
    reach = 6
    for offset in range(-reach, reach + 1):
        dut.image_keep_i.value = 0x7F
        await begin_run(bench)
        cocotb.start_soon(delayed(bench, LEAD + offset, "image", 1))
        await ClockCycles(dut.clk_i, LEAD)
        await bench.host.send("prog", 0, len(bad))
        await clocking.wait_for(dut, lambda: int(dut.irq_o.value), 200, "no interrupt")
        codes.append(field(await bench.host.read(Register.ERROR), Register.ERROR, "CODE"))
        dut.image_keep_i.value = 0xFF
        await empty(bench, codes[-1], f"both streams, {offset}")
    known = [ErrorCode.IMAGE_TKEEP, ErrorCode.PACKET_MAGIC]  # the image first, then the weights
    assert set(codes) == set(known) and codes == sorted(codes, key=known.index), f"codes {codes}"
    bench.pending.append(("error_pair", "two streams"))
    await bench.good_run()
    assert bench.values_checked


@cocotb.test()
async def reset_beside_a_program_end(dut):
    """A soft reset in every cycle around the last beat of a program: it is valid and runs, or it is
    not and START says so."""
    bench = await FaultBench(dut).start_one_beat()
    program = bench.compiled.program
    outcomes = []

    async def once(offset: int) -> int:
        await bench.host.load_files(program, np.zeros(1, "<u8"))
        watch = Watch(dut)
        cocotb.start_soon(write_in(bench, len(program) + offset, Ctrl.SOFT_RESET))
        await bench.host.send("prog", 0, len(program))
        await ClockCycles(dut.clk_i, 12)
        await bench.idle("prog")
        await ClockCycles(dut.clk_i, 12)
        events = watch.end()
        status = await bench.host.read(Register.STATUS)
        what = f"a soft reset {offset} cycles after a program's end, STATUS {status:#x}"
        assert not status & Status.BUSY, what
        if status & Status.ERROR:  # the rest of the packet is none
            code = field(await bench.host.read(Register.ERROR), Register.ERROR, "CODE")
            assert code == ErrorCode.PACKET_MAGIC and not status & Status.PROG_VALID, what
        await bench.recover()
        valid = bool(await bench.host.read(Register.STATUS) & Status.PROG_VALID)
        assert valid == bool(status & Status.PROG_VALID), f"{what}: another reset changes it"
        outcomes.append(valid)
        await bench.host.write(Register.CTRL, Ctrl.START)
        await ClockCycles(dut.clk_i, 30)
        started = await bench.host.read(Register.STATUS)
        assert bool(started & Status.BUSY) == valid, f"{what}: STATUS {started:#x} after START"
        await bench.soft_reset()
        return events["write"][0] - events["prog"][0]

    reach = 7
    await meeting.sweep("soft reset and program", range(-reach, reach + 1), once)
    assert outcomes == sorted(outcomes) and set(outcomes) == {False, True}, f"valid: {outcomes}"
    await bench.good_run()
    assert bench.values_checked


@cocotb.test()
async def reset_beside_the_next_packets(dut):
    """A soft reset after an error in every cycle around the first beats of the next weights and the
    next image: no beat that is taken behind its answer is lost."""
    bench = await FaultBench(dut).start_one_beat()
    image = bench.image()
    packets = {"prog": bench.compiled.weights, "image": bench.compiled.encode_image(image[0])}

    async def once(offset: int) -> int:
        await begin_run(bench)
        await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.expect(ErrorCode.START_BUSY)
        watch = Watch(dut)
        cocotb.start_soon(write_in(bench, LEAD + offset, Ctrl.SOFT_RESET))
        await ClockCycles(dut.clk_i, LEAD)
        for engine, words in packets.items():
            await bench.host.begin(engine, words)
        await ClockCycles(dut.clk_i, len(packets["prog"]) + LEAD)
        events = watch.end()
        answer, first = events["answer"][0], events["prog beat"][0]
        what = f"a soft reset whose answer comes {answer - first} cycles after a packet's begin"
        status = await bench.host.read(Register.STATUS)
        if first <= answer:  # the rest of the packet is none
            assert status & Status.ERROR, f"{what}: STATUS {status:#x}"
            await bench.recover()
            return answer - first
        assert status == Status.PROG_VALID, f"{what}: STATUS {status:#x}"
        assert "image beat" not in events, f"{what}: an image is taken before START"
        await bench.host.write(Register.IRQ_STATUS, ALL_INTERRUPTS)
        await bench.host.start_run()
        await clocking.wait_for(dut, lambda: int(dut.irq_o.value), 1000, f"{what}: no interrupt")
        await bench.host.write(Register.IRQ_STATUS, IrqStatus.DONE)
        await bench.host.stop_run()
        await bench.host.pulse("result_dump_i")
        results = bench.compiled.decode_results(bench.result_words())
        got = {name: tensor[None] for name, tensor in results.items()}
        bench.values_checked += compare(expected_tensors(bench.net, image), got)
        return answer - first

    await meeting.sweep("soft reset and packet", range(-10, 6), once)
    await bench.good_run()
    assert bench.values_checked


async def write_in(bench: FaultBench, cycles: int, value: int) -> None:
    """Write to CTRL, beginning in so many cycles."""
    await ClockCycles(bench.dut.clk_i, cycles)
    await bench.host.write(Register.CTRL, value)


@cocotb.test()
async def reset_beside_an_image_end(dut):
    """A soft reset in every cycle around the interrupt of an image's end: STATUS is clean, an
    interrupt is left only of an image whose results all came, and none comes later."""
    bench = await FaultBench(dut).start_one_beat()
    weights, bench.one_image = bench.compiled.weights, bench.compiled.encode_image(bench.image()[0])
    await bench.host.load_files(weights, bench.one_image)

    async def run(write: int | None) -> dict[str, list[int]]:
        await bench.host.pulse("result_clear_i")
        await begin_run(bench)
        watch = Watch(dut)
        if write is not None:
            cocotb.start_soon(write_in(bench, write, Ctrl.SOFT_RESET))
        await bench.host.send("image", 0, 1)
        await bench.host.send("prog", 0, len(weights))
        await ClockCycles(dut.clk_i, 200)
        return watch.end()

    end = (await run(None))["interrupt"][0]
    await bench.soft_reset()

    async def once(offset: int) -> int:
        events = await run(end + offset)
        what = f"a soft reset {offset} cycles after an image's end"
        cause = await bench.host.read(Register.IRQ_STATUS)
        done = "interrupt" in events
        assert cause == (IrqStatus.DONE if done else 0), f"{what}: interrupts {cause:#x}"
        beats = int(dut.result_beats_o.value)
        assert not done or beats == bench.compiled.total_result_beats, f"{what}: {beats} beats"
        status = await bench.host.read(Register.STATUS)
        assert status == Status.PROG_VALID, f"{what}: STATUS {status:#x}"
        await bench.host.write(Register.IRQ_STATUS, ALL_INTERRUPTS)
        assert not await bench.host.read(Register.IRQ_STATUS), f"{what}: an interrupt comes later"
        await bench.recover()
        return events["write"][0] - end

    reach = 6
    await meeting.sweep("soft reset and interrupt", range(-reach - 3, reach), once)
    await bench.good_run()
    assert bench.values_checked


@cocotb.test()
async def reset_beside_an_error(dut):
    """A soft reset in every cycle around the interrupt of a wrong image: STATUS is clean after it,
    and the interrupt comes before the reset or not at all."""
    bench = await FaultBench(dut).start_one_beat()
    weights, image = bench.compiled.weights, bench.compiled.encode_image(bench.image()[0])
    await bench.host.load_files(weights, image)

    async def run(write: int | None) -> dict[str, list[int]]:
        dut.image_keep_i.value = 0x7F
        await begin_run(bench)
        await bench.host.send("prog", 0, len(weights))
        await bench.idle("prog")
        watch = Watch(dut)
        if write is not None:
            cocotb.start_soon(write_in(bench, write, Ctrl.SOFT_RESET))
        await ClockCycles(dut.clk_i, LEAD)
        await bench.host.send("image", 0, 1)
        await ClockCycles(dut.clk_i, 30)
        return watch.end()

    end = (await run(None))["interrupt"][0]
    await bench.soft_reset()

    async def once(offset: int) -> int:
        events = await run(end + offset)
        what = f"a soft reset {offset} cycles after an error"
        came = end - events["write"][0] <= LAST_INTERRUPT
        assert ("interrupt" in events) == came, f"{what}: an interrupt: {not came}"
        cause = await bench.host.read(Register.IRQ_STATUS)
        assert cause == (IrqStatus.ERROR if came else 0), f"{what}: interrupts {cause:#x}"
        status = await bench.host.read(Register.STATUS)
        assert status == Status.PROG_VALID, f"{what}: STATUS {status:#x}"
        await bench.recover()
        return events["write"][0] - end

    await meeting.sweep("soft reset and interrupt", range(-10, 3), once)
    await bench.good_run()
    assert bench.values_checked
