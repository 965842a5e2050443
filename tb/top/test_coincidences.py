"""STOP and START in every cycle around what they may coincide with: the end and the first beat of
an image, the first beat of a program."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles
from cocotb.utils import get_sim_time

from host.harness import clocking
from host.harness.engines import RESULT_FILE, read_hex
from host.register_map import Ctrl, ErrorCode, IrqEnable, IrqStatus, Register, Status, field
from tb.lib import coverage
from tb.lib.accelerator import expected_tensors
from tb.lib.effort import scaled
from tb.top.bench import compare
from tb.top.fault_bench import FaultBench

LEAD = 16  # cycles from the begin of a run's count to the image, from there to its weights
PATIENCE = 1000  # cycles in which an interrupt must come; an image takes some 110


async def start(dut) -> FaultBench:
    """A bench whose network is as small as can be: an image is one beat."""
    return await FaultBench(dut).start_one_beat()


def now() -> int:
    """The number of the clock cycle."""
    return int(get_sim_time("ns")) // clocking.PERIOD_NS


async def write_control(bench: FaultBench, delay: int, value: int) -> None:
    """Write to CTRL, beginning `delay` cycles from now."""
    await ClockCycles(bench.dut.clk_i, delay)
    await bench.host.write(Register.CTRL, value)


async def interrupt(bench: FaultBench, what: str) -> int:
    """Wait for the interrupt; returns the cycle in which it came."""
    irq = bench.dut.irq_o
    await clocking.wait_for(bench.dut, lambda: int(irq.value), PATIENCE, f"no interrupt, {what}")
    return now()


async def send(bench: FaultBench, count: int) -> None:
    """Offer images, each before its weights and the next one ahead."""
    beats = bench.image_length()
    for number in range(count):
        if number:
            await bench.idle("prog", "image")
        await bench.host.send("image", number * beats, beats)
        await ClockCycles(bench.dut.clk_i, LEAD)
        await bench.host.send("prog", 0, len(bench.compiled.weights))


async def run(bench: FaultBench, count: int, stop: int | None) -> tuple[int, int]:
    """A run over `count` images; STOP is written `stop` cycles from the begin, or after the first
    image if None.

    Returns the cycles from the begin to the interrupt (of STOPPED, or of the first image) and the
    images done in the run. An image left on the streams is computed after another START; all that
    came back is compared.
    """
    dut, host, compiled = bench.dut, bench.host, bench.compiled
    what = f"STOP {stop} cycles after the begin"
    images = [bench.image() for _ in range(count)]
    pixels = np.concatenate([compiled.encode_image(image[0]) for image in images])
    await host.load_files(compiled.weights, pixels)
    await host.pulse("result_clear_i")
    await host.write(
        Register.IRQ_ENABLE,
        IrqEnable.ERROR | (IrqEnable.DONE if stop is None else IrqEnable.STOPPED),
    )
    await host.write(Register.CTRL, Ctrl.START)
    await ClockCycles(dut.clk_i, 40)
    begin = now()
    if stop is not None:
        cocotb.start_soon(write_control(bench, stop, Ctrl.STOP))
    await ClockCycles(dut.clk_i, LEAD)
    await send(bench, count)
    cycles = await interrupt(bench, what) - begin
    if stop is None:
        await host.write(Register.CTRL, Ctrl.STOP)
    done = await end_of_run(bench, what)
    if done < count:
        await image_left(bench, what)
    await results(bench, images, what)
    return cycles, done


async def end_of_run(bench: FaultBench, what: str) -> int:
    """Check that the run has ended by STOP, and clear the interrupts; returns the images done."""
    host = bench.host
    await ClockCycles(bench.dut.clk_i, 8)
    done, cause = await host.read(Register.IMAGES_DONE), await host.read(Register.IRQ_STATUS)
    assert cause == IrqStatus.STOPPED | (IrqStatus.DONE if done else 0), (
        f"interrupts {cause:#x}, {what}"
    )
    status = await host.read(Register.STATUS)
    assert not status & Status.BUSY, f"the run goes on, {what}"
    await host.write(Register.IRQ_STATUS, cause)
    return done


async def image_left(bench: FaultBench, what: str) -> None:
    """Another run over the image that waits on the streams."""
    host = bench.host
    await host.write(Register.IRQ_ENABLE, IrqEnable.ERROR | IrqEnable.DONE)
    await host.write(Register.CTRL, Ctrl.START)
    await interrupt(bench, f"the image left, {what}")
    await host.write(Register.IRQ_STATUS, IrqStatus.DONE)
    await host.stop_run()


async def results(bench: FaultBench, images: list[np.ndarray], what: str) -> None:
    """Compare all that came back."""
    dut, compiled = bench.dut, bench.compiled
    await bench.host.pulse("result_dump_i")
    beats = int(dut.result_beats_o.value)
    assert beats == len(images) * compiled.total_result_beats, f"{beats} result beats, {what}"
    assert not int(dut.result_errors_o.value), f"protocol errors on the result stream, {what}"
    for image, words in zip(images, read_hex(RESULT_FILE, beats).reshape(len(images), -1)):
        got = {name: tensor[None] for name, tensor in compiled.decode_results(words).items()}
        bench.values_checked += compare(expected_tensors(bench.net, image), got)


async def stop_around_the_end(dut, count: int) -> None:
    """Sweep STOP over the end of the first of `count` images."""
    bench = await start(dut)
    end, _ = await run(bench, 1, None)
    late = []  # cycles between the interrupts of the image and of STOPPED
    for stop in range(end - scaled(9, 24), end + scaled(2, 12)):
        cycles, done = await run(bench, count, stop)
        late.append(cycles - end)
        # Up to the image's last cycle STOP ends the run with it, then with the one begun meanwhile.
        assert done == (count if late[-1] else 1), f"STOP {stop - end}: {done} images, late {late}"
    with_image = late.count(0)
    assert 0 < with_image < len(late) and not any(late[:with_image]), f"the run ended late: {late}"
    coverage.hit("run", "stop with an image's end")
    assert bench.values_checked


@cocotb.test()
async def stop_at_the_end(dut):
    """STOP in every cycle around the end of an image: the run ends, with both interrupts."""
    await stop_around_the_end(dut, 1)


@cocotb.test()
async def stop_at_the_end_with_packets_ahead(dut):
    """The same while weights and pixels of the next image wait on the streams: they are left whole,
    or computed before the run ends."""
    await stop_around_the_end(dut, 2)


@cocotb.test()
async def stop_at_the_first_beat(dut):
    """STOP in every cycle around the only beat of an image: it is left on the stream, or finished
    before the run ends."""
    bench = await start(dut)
    sweep = range(LEAD - scaled(8, 16), LEAD + scaled(6, 12))
    images = [(await run(bench, 1, stop))[1] for stop in sweep]
    assert images == sorted(images) and set(images) == {0, 1}, f"by the cycle of STOP: {images}"
    assert bench.values_checked


@cocotb.test()
async def start_at_the_begin_of_a_program(dut):
    """START in every cycle around the first beat of another program: one of the two is refused."""
    bench = await start(dut)
    sweep = range(LEAD - scaled(8, 14), LEAD + scaled(6, 10))
    codes = [await start_beside_a_program(bench, delay) for delay in sweep]
    known = (ErrorCode.PROGRAM_BUSY, ErrorCode.NO_PROGRAM)  # what came second is refused
    assert set(codes) == set(known), f"error codes {codes}"
    assert codes == sorted(codes, key=known.index), f"error codes {codes}"
    await bench.good_run()
    assert bench.values_checked


async def start_beside_a_program(bench: FaultBench, delay: int) -> int:
    """Send a program in LEAD cycles and write START in `delay`; returns the error code."""
    host, program = bench.host, bench.compiled.program
    await host.write(Register.IRQ_ENABLE, IrqEnable.ERROR)
    await host.load_files(program, np.zeros(1, "<u8"))
    cocotb.start_soon(write_control(bench, delay, Ctrl.START))
    await ClockCycles(bench.dut.clk_i, LEAD)
    await host.send("prog", 0, len(program))
    await interrupt(bench, f"START {delay - LEAD} cycles after a program")
    code = field(await host.read(Register.ERROR), Register.ERROR, "CODE")
    await bench.recover()
    status = await host.read(Register.STATUS)
    assert status & Status.PROG_VALID, f"no program is loaded after {code:#x}"
    return code
