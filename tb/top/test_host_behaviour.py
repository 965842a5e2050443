"""A host that does unusual but legal things, or gives up: streams that stop, results nobody takes,
STOP and register accesses in a run."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotb_bus.drivers.amba import AXIProtocolError, AXIxRESP

from host.harness import clocking
from host.harness.engines import RESULT_FILE, Traffic, read_hex
from host.register_map import FIELDS, Ctrl, ErrorCode, IrqStatus, Register, Status, field
from model.compiler.program import packet
from model.compiler.program_format import DESCRIPTOR, MAGIC_PROGRAM, RECORD_WORDS, TILE_PIXELS
from model.compiler.records import decode, encode
from tb.lib import coverage
from tb.lib.accelerator import cycle_limit, expected_tensors
from tb.top.bench import compare, random_streams
from tb.top.fault_bench import FaultBench

PATIENCE = 20_000  # cycles for which a stream that stands still, or a run, is watched
READ_ONLY = [r for r in Register if all(access == "r" for _, _, access, _ in FIELDS[r].values())]
WRITE_ONLY = [
    r for r in Register if all(access in ("w", "w1p") for _, _, access, _ in FIELDS[r].values())
]
UNMAPPED = (0x40, 0x7C, 0x80, 0x100, 0x418, 0x800, 0xFFC)


async def begin(bench: FaultBench) -> tuple[np.ndarray, dict]:
    """Load the program and START; returns an image and what must come back for it."""
    image = bench.image()
    await bench.load(bench.compiled.program)
    await bench.host.start_run()
    assert not await bench.host.read(Register.STATUS) & Status.DONE, "DONE of the run before"
    await bench.host.pulse("result_clear_i")
    return image, expected_tensors(bench.net, image)


async def done(bench: FaultBench) -> None:
    """Wait for the interrupt of an image's end and clear it."""
    dut, host = bench.dut, bench.host
    await clocking.wait_for(
        dut,
        lambda: int(dut.irq_o.value),
        cycle_limit(bench.compiled),
        "no interrupt at the end of the image",
    )
    cause = await host.read(Register.IRQ_STATUS)
    assert cause & IrqStatus.DONE, f"interrupt status {cause:#x}"
    await host.write(Register.IRQ_STATUS, IrqStatus.DONE)
    assert await host.read(Register.STATUS) & Status.DONE, (
        "an image is done, and STATUS does not say so"
    )


async def results(bench: FaultBench, expected: dict) -> None:
    """Wait for the interrupt of the image and compare all that came back."""
    dut, host = bench.dut, bench.host
    await done(bench)
    await host.pulse("result_dump_i")
    words = bench.result_words()
    bench.values_checked += compare(
        expected, {name: t[None] for name, t in bench.compiled.decode_results(words).items()}
    )
    assert int(dut.result_errors_o.value) == 0, "protocol errors on the result stream"


async def assert_waits(bench: FaultBench, what: str) -> None:
    """The accelerator stays busy, without error and without an interrupt."""
    await ClockCycles(bench.dut.clk_i, PATIENCE)
    status = await bench.host.read(Register.STATUS)
    assert status & Status.BUSY and not status & Status.ERROR, f"STATUS {status:#x} while {what}"
    assert not int(bench.dut.irq_o.value), f"an interrupt while {what}"


@cocotb.test()
async def stopped_streams(dut):
    """The accelerator waits for the rest of a packet or an image; a soft reset recovers."""
    bench = await FaultBench(dut).start()
    compiled = bench.compiled
    for which in ("program", "weights", "image"):
        if which == "program":
            await bench.host.load_files(compiled.program, np.zeros(1, "<u8"))
            await stop_after(bench, "prog", len(compiled.program))
            await ClockCycles(dut.clk_i, PATIENCE)
            assert not await bench.host.read(Register.STATUS) & ~Status.RESULT, (
                "half a program is valid, or an error"
            )
        else:
            image, _ = await begin(bench)
            await bench.host.load_files(compiled.weights, compiled.encode_image(image[0]))
            for engine, kind, count in (
                ("prog", "weights", len(compiled.weights)),
                ("image", "image", bench.image_length()),
            ):
                await (
                    stop_after(bench, engine, count)
                    if which == kind
                    else bench.host.send(engine, 0, count)
                )
            await assert_waits(bench, f"the {which} stream stands still")
        await bench.stop_engines()
        bench.pending.append(("run", "after a stopped stream"))
        await bench.good_run()
    assert bench.good_runs == 3 and bench.values_checked


async def stop_after(bench: FaultBench, engine: str, count: int) -> None:
    """Send a packet slowly and stop it somewhere inside, without TLAST."""
    bench.host.set_traffic(Traffic(0, 64, 0), Traffic(0, 64, 0), 0)
    await bench.host.send(engine, 0, count)
    await ClockCycles(bench.dut.clk_i, int(bench.rng.integers(8, 4 * count - 12)))
    await bench.host.send(engine, 0, 0)


@cocotb.test()
async def blocked_results(dut):
    """Results wait until the receiver takes them, and are then complete; a soft reset drops all but
    those offered."""
    bench = await FaultBench(dut).start()
    for released in (True, False):
        image, expected = await begin(bench)
        dut.result_stall_i.value = 256
        await bench.send(prog=bench.compiled.weights, image=bench.compiled.encode_image(image[0]))
        await assert_waits(bench, "the results are not taken")
        assert int(dut.result_beats_o.value) == 0
        if released:
            dut.result_stall_i.value = 0
            await results(bench, expected)
            await bench.host.stop_run()
        else:
            await bench.host.write(Register.CTRL, Ctrl.SOFT_RESET)
            await ClockCycles(dut.clk_i, 4)
            assert await bench.host.read(Register.STATUS) & Status.RESULT, (
                "the beat that was offered is gone"
            )
            dut.result_stall_i.value = 0
            await ClockCycles(dut.clk_i, 100)
            assert 1 <= int(dut.result_beats_o.value) <= 2, (
                "not the beats of the register slice came out after a soft reset"
            )
            assert not await bench.host.read(Register.STATUS) & Status.RESULT
            await bench.stop_engines()
        bench.pending.append(("run", "after a blocked result stream"))
        await bench.good_run()
    assert bench.good_runs == 2 and bench.values_checked


@cocotb.test()
async def packets_sent_ahead(dut):
    """Weights and pixels of the next image are offered while one is computed: they wait, nothing is
    lost, and every image is right."""
    bench = await FaultBench(dut).start()
    compiled, images = bench.compiled, [bench.image() for _ in range(4)]
    await bench.load(compiled.program)
    await bench.host.start_run()
    await bench.host.pulse("result_clear_i")
    encoded = [compiled.encode_image(image[0]) for image in images]
    await bench.host.load_files(compiled.weights, np.concatenate(encoded))
    for number, pixels in enumerate(encoded):
        assert not int(dut.irq_o.value), "the image before is finished: nothing is sent ahead"
        await bench.host.send("prog", 0, len(compiled.weights))
        await bench.host.send("image", number * len(pixels), len(pixels))
        if number:
            await done(bench)
        await bench.idle("prog", "image")
    await done(bench)
    await bench.host.stop_run()
    await bench.host.pulse("result_dump_i")
    beats = int(dut.result_beats_o.value)
    assert beats == len(images) * compiled.total_result_beats and not int(dut.result_errors_o.value)
    for image, words in zip(images, read_hex(RESULT_FILE, beats).reshape(len(images), -1)):
        bench.values_checked += compare(
            expected_tensors(bench.net, image),
            {name: t[None] for name, t in compiled.decode_results(words).items()},
        )
    assert bench.values_checked


@cocotb.test()
async def packets_after_an_error(dut):
    """An image that ends early after all its weights have come: what the host sends before it has
    noticed is emptied, on both streams."""
    bench = await FaultBench(dut).start()
    image, _ = await begin(bench)
    pixels = bench.compiled.encode_image(image[0])
    await bench.host.load_files(bench.compiled.weights, pixels)
    await bench.host.send("prog", 0, len(bench.compiled.weights))
    await bench.idle("prog")
    await bench.host.send("image", 0, len(pixels) - 1)
    await bench.expect(ErrorCode.IMAGE_TRUNCATED)
    for engine, words in (("prog", bench.compiled.weights), ("image", pixels)):
        await bench.host.send(engine, 0, len(words))
    await ClockCycles(dut.clk_i, 3)
    await bench.recover()
    await bench.good_run()
    assert bench.good_runs == 1 and bench.values_checked


@cocotb.test()
async def stop_in_an_image(dut):
    """STOP at any time of an image lets it be finished; the run ends with both interrupts, and STOP
    between images ends it at once."""
    bench = await FaultBench(dut).start()
    await bench.good_run()
    whole = int(dut.cycles_o.value)
    for _ in range(6):
        image, expected = await begin(bench)
        await bench.send(prog=bench.compiled.weights, image=bench.compiled.encode_image(image[0]))
        await ClockCycles(dut.clk_i, int(bench.rng.integers(20, whole - 100)))
        await bench.host.write(Register.CTRL, Ctrl.STOP)
        await results(bench, expected)
        await ClockCycles(dut.clk_i, 4)
        assert await bench.host.read(Register.IRQ_STATUS) == IrqStatus.STOPPED
        await bench.host.write(Register.IRQ_STATUS, IrqStatus.STOPPED)
        assert not await bench.host.read(Register.STATUS) & Status.BUSY, "busy after STOP"
        coverage.hit("run", "stop in an image")
    await begin(bench)
    await bench.host.stop_run()
    await bench.good_run()
    coverage.hit("run", "stop between images")
    assert bench.values_checked


@cocotb.test()
async def registers_in_a_run(dut):
    """Reads of every register and forbidden accesses, idle and in a run with random stalls: right
    answers, undisturbed results."""
    bench = await FaultBench(dut).start()
    for _ in range(3):
        await access_all(bench, "idle")
        bench.host.set_traffic(*random_streams(bench.rng))
        image, expected = await begin(bench)
        await bench.send(
            image=bench.compiled.encode_image(image[0])
        )  # without weights: the run lasts until all is accessed
        await access_all(bench, "running")
        await send_weights(bench, image)
        await results(bench, expected)
        bench.host.set_traffic(Traffic(), Traffic(), 0)
        await bench.host.stop_run()
        await bench.good_run()
    assert bench.values_checked


async def send_weights(bench: FaultBench, image: np.ndarray) -> None:
    """Weights of an image that has been sent; register reads go on meanwhile."""
    await bench.host.load_files(bench.compiled.weights, bench.compiled.encode_image(image[0]))
    await bench.host.send("prog", 0, len(bench.compiled.weights))
    for _ in range(30):
        register = READ_ONLY[bench.rng.integers(len(READ_ONLY))]
        check_constants(bench, register, await bench.host.read(register))


async def access_all(bench: FaultBench, state: str) -> None:
    """Read every readable register, then every kind of access that is answered with SLVERR."""
    host, rng = bench.host, bench.rng
    layer, enable = int(rng.integers(64)), int(rng.integers(8))
    await host.write(Register.LAYER_SEL, layer)
    await host.write(Register.IRQ_ENABLE, enable)
    for register in Register:
        if register in WRITE_ONLY:
            continue
        value = await host.read(register)
        check_constants(bench, register, value)
        assert register != Register.LAYER_SEL or value == layer, (
            f"LAYER_SEL {value}, written {layer}"
        )
        assert register != Register.IRQ_ENABLE or value == enable, (
            f"IRQ_ENABLE {value}, written {enable}"
        )
        assert register != Register.STATUS or value & Status.BUSY == (state == "running"), (
            f"STATUS {value:#x} while {state}"
        )
        coverage.hit("register_access", f"{register.name} read {state}")
    for register in READ_ONLY:
        await refused(host.master.write(int(register), 0xFFFFFFFF))
    coverage.hit("register_access", f"read-only written {state}")
    for register in WRITE_ONLY:
        await refused(host.master.read(int(register)))
    coverage.hit("register_access", f"write-only read {state}")
    for address in UNMAPPED:
        await refused(host.master.write(address, 0xFFFFFFFF))
        await refused(host.master.read(address))
    coverage.hit("register_access", f"unmapped written {state}", f"unmapped read {state}")
    await host.write(Register.IRQ_ENABLE, 7)


def check_constants(bench: FaultBench, register: Register, value: int) -> None:
    """Fields that never change, and the build's parameters."""
    hardware = bench.hardware
    known = {
        (Register.PARAMS, "NUM_MODULES"): hardware.num_modules,
        (Register.PARAMS, "TWO_PLANES"): int(hardware.planes == 2),
        (Register.PARAMS, "TILE_PIXELS"): TILE_PIXELS,
        (Register.PARAMS, "FEATURE_KB"): hardware.bank_words // 32,
    }
    for name, (_, _, access, reset) in FIELDS[register].items():
        expected = known.get((register, name), reset if access == "r" else None)
        assert expected is None or field(value, register, name) == expected, (
            f"{register.name}.{name} is {field(value, register, name):#x}"
        )


async def refused(access) -> None:
    """The access must be answered with SLVERR."""
    try:
        await access
    except AXIProtocolError as error:
        assert error.xresp == AXIxRESP.SLVERR, f"answered with {error.xresp}"
        return
    raise AssertionError("an access that is not allowed was answered with OKAY")


@cocotb.test()
async def weights_before_start(dut):
    """Weights and image may be sent before START; the weights of the next image wait behind this
    one's."""
    bench = await FaultBench(dut).start()
    image = bench.image()
    expected = expected_tensors(bench.net, image)
    await bench.load(bench.compiled.program)
    await bench.host.pulse("result_clear_i")
    await bench.send(prog=bench.compiled.weights, image=bench.compiled.encode_image(image[0]))
    await ClockCycles(dut.clk_i, 200)
    await bench.host.write(Register.CTRL, Ctrl.START)
    await results(bench, expected)
    await bench.host.stop_run()
    await bench.good_run()
    assert bench.values_checked


@cocotb.test()
async def random_descriptors(dut):
    """Programs with random bits of descriptors inverted and a CRC that fits: done, refused or still
    computing after a bounded time, and the next good run is right. Overlapping regions are among
    them, and kernels larger than feature map and padding."""
    bench = await FaultBench(dut).start()
    outcomes = {"done": 0, "error": 0, "computing": 0}
    for number in range(24):
        program = (
            overlapping(bench)
            if number == 0
            else large_kernel(bench)
            if number == 1
            else inverted(bench)
        )
        bench.host.set_traffic(Traffic(), Traffic(), 0)
        await bench.load(program)
        await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.send(
            prog=bench.compiled.weights, image=bench.compiled.encode_image(bench.image()[0])
        )
        if not int(dut.irq_o.value):
            await First(RisingEdge(dut.irq_o), ClockCycles(dut.clk_i, PATIENCE))
        status = await bench.host.read(Register.STATUS)
        outcomes[
            "error" if status & Status.ERROR else "done" if status & Status.DONE else "computing"
        ] += 1
        await bench.stop_engines()
        await bench.good_run()
    dut._log.info("random descriptors: %s", outcomes)
    assert bench.good_runs == sum(outcomes.values()) and bench.values_checked
    assert outcomes["error"], f"no program was refused: {outcomes}"


def inverted(bench: FaultBench) -> np.ndarray:
    """The program with one to three bits of its descriptors inverted."""
    words = bench.compiled.program[1:-1].copy()
    for _ in range(int(bench.rng.integers(1, 4))):
        words[int(bench.rng.integers(RECORD_WORDS, len(words)))] ^= np.uint64(1) << np.uint64(
            bench.rng.integers(64)
        )
    return packet(MAGIC_PROGRAM, words)


def overlapping(bench: FaultBench) -> np.ndarray:
    """The program whose first layer writes over its own input."""
    return first_layer_with(bench, lambda values: {"out_base": values["in_base"]})


def large_kernel(bench: FaultBench) -> np.ndarray:
    """The program whose first layer has fifteen kernel-row steps and pieces: more than feature map
    and padding together."""
    return first_layer_with(bench, lambda values: {"kr_count": 15, "pieces": 15})


def first_layer_with(bench: FaultBench, change) -> np.ndarray:
    """The program whose first descriptor has the fields that `change` makes of its own."""
    records = bench.compiled.program[1:-1].copy().reshape(-1, RECORD_WORDS)
    records[1] = encode(DESCRIPTOR, change(decode(DESCRIPTOR, records[1])), records[1])
    return packet(MAGIC_PROGRAM, records.reshape(-1))
