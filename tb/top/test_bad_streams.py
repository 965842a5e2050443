"""Every fault of the streams and of the host's timing ends in its error code, and the next good run
is right."""

from __future__ import annotations

from dataclasses import replace

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from host.harness.engines import Traffic
from host.register_map import Ctrl, ErrorCode, Register
from model.compiler import compile_network
from model.compiler.hardware import MODULE_COUNTS
from model.compiler.program import packet
from model.compiler.program_format import (
    CHUNK,
    MAGIC_PROGRAM,
    MAGIC_WEIGHTS,
    MAX_LAYERS,
    PACKET,
    PROGRAM_VERSION,
    RECORD_WORDS,
)
from model.compiler.records import encode
from tb.lib.accelerator import on_icarus
from tb.lib.packets import edited, flipped, payload
from tb.top.fault_bench import FaultBench

MOST_WORDS = (MAX_LAYERS + 1) * RECORD_WORDS  # of a program


def swapped(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with two different words of the payload in each other's place."""
    words = words.copy()
    first = int(rng.integers(1, len(words) - 1))
    second = int(rng.choice([i for i in range(1, len(words) - 1) if words[i] != words[first]]))
    words[[first, second]] = words[[second, first]]
    return words


def magic_bit(rng: np.random.Generator) -> int:
    """A bit of the magic in a packet's first word."""
    return PACKET.fields["magic"].low + int(rng.integers(PACKET.fields["magic"].width))


def few(cases: list) -> list:
    """All cases, or for Icarus the first one."""
    return cases[:1] if on_icarus() else cases


@cocotb.test()
async def bad_programs(dut):
    """Truncated, over-long, corrupted, re-ordered, misnamed, empty and too large program packets"""
    bench = await FaultBench(dut).start()
    program, rng = bench.compiled.program, bench.rng
    extra = np.array([rng.integers(2**63)], "<u8")
    cases = [
        (ErrorCode.PACKET_TRUNCATED, program[: int(rng.integers(2, len(program)))]),
        (
            ErrorCode.PACKET_CRC,
            flipped(program, int(rng.integers(1, len(program) - 1)), int(rng.integers(64))),
        ),
        (ErrorCode.PACKET_OVERLONG, np.concatenate([program, extra])),
        (ErrorCode.PACKET_CRC, flipped(program, len(program) - 1, int(rng.integers(64)))),
        (ErrorCode.PACKET_TRUNCATED, program[:1]),
        (ErrorCode.PACKET_CRC, swapped(program, rng)),
        (
            ErrorCode.PACKET_CRC,
            np.concatenate([program[:1], program[-2:0:-1], program[-1:]]),
        ),  # the payload backwards
        (ErrorCode.PACKET_TKEEP, program),
        (ErrorCode.PACKET_MAGIC, flipped(program, 0, magic_bit(rng))),
        (ErrorCode.PROGRAM_LENGTH, packet(MAGIC_PROGRAM, np.zeros(0, "<u8"))),
        (ErrorCode.PROGRAM_LENGTH, packet(MAGIC_PROGRAM, np.zeros(MOST_WORDS + 1, "<u8"))),
    ]
    for code, words in few(cases):
        if code == ErrorCode.PACKET_MAGIC:  # the old program stays when the packet is not even one
            await bench.load(program)
            await bench.send(prog=words)
            await bench.expect(code)
            bench.note_packet(code, "program")
            await bench.recover()
            await bench.good_run(reload=False)
        else:
            await bench.refused(
                code, words, prog_keep=0x7F if code == ErrorCode.PACKET_TKEEP else 0xFF
            )
    assert bench.good_runs == len(few(cases)) and bench.values_checked


def swapped_indices(bench: FaultBench, rng: np.random.Generator) -> np.ndarray:
    """The weights packet with two words of the last pass in each other's place: its length is still
    right, so that only the CRC tells."""
    weights = bench.compiled.weights.copy()
    words = np.arange(len(weights) - 1 - bench.hardware.pass_words, len(weights) - 1)
    first = int(rng.choice(words))
    others = [i for i in words if weights[i] != weights[first]]
    second = int(rng.choice(others))
    weights[[first, second]] = weights[[second, first]]
    return weights


@cocotb.test()
async def bad_weights(dut):
    """Truncated, over-long, corrupted, re-ordered, too short and too long weights packets during a
    run."""
    bench = await FaultBench(dut).start()
    weights, rng = bench.compiled.weights, bench.rng
    words = payload(weights)
    extra = rng.integers(2**63, size=3).astype("<u8")
    # chunks that the loader takes for a layer that is not there
    chunks = [
        np.resize(encode(CHUNK, {"n_params": 1, **passes}), 2 + bench.hardware.pass_words)[:length]
        for passes, length in (({"n_tiles": 1, "n_passes": 1, "n_groups": 1}, None), ({}, 2))
    ]
    cases = [
        (ErrorCode.PACKET_CRC, flipped(weights, len(weights) - 1, 5)),
        (ErrorCode.WEIGHTS_SHORT, packet(MAGIC_WEIGHTS, words[:-1])),
        (ErrorCode.PACKET_TRUNCATED, weights[: int(rng.integers(2, len(weights)))]),
        (ErrorCode.PACKET_OVERLONG, np.concatenate([weights, extra])),
        (ErrorCode.WEIGHTS_SHORT, packet(MAGIC_WEIGHTS, words[:0])),
        (ErrorCode.WEIGHTS_SHORT, packet(MAGIC_WEIGHTS, words[: int(rng.integers(1, len(words)))])),
        (ErrorCode.WEIGHTS_LONG, packet(MAGIC_WEIGHTS, np.concatenate([words, extra]))),
        (ErrorCode.PACKET_MAGIC, flipped(weights, 0, magic_bit(rng))),
        (ErrorCode.PACKET_CRC, swapped_indices(bench, rng)),
        (ErrorCode.PACKET_TKEEP, weights),
        *(
            (ErrorCode.WEIGHTS_LONG, packet(MAGIC_WEIGHTS, np.concatenate([words, chunk])))
            for chunk in chunks
        ),
    ]
    for code, stream in few(cases):
        await bench.fails(
            code, weights=stream, prog_keep=0xFE if code == ErrorCode.PACKET_TKEEP else 0xFF
        )
    # an image whose last layer sends nothing ends at once
    last = len(bench.net.layers) - 1
    await bench.fails(
        ErrorCode.WEIGHTS_LONG,
        program=edited(bench.compiled, last, {"emit": 0}),
        weights=packet(MAGIC_WEIGHTS, np.concatenate([words, chunks[0][:1]])),
    )
    assert bench.good_runs == len(few(cases)) + 1 and bench.values_checked


@cocotb.test()
async def bad_images(dut):
    """Truncated and over-long images."""
    bench = await FaultBench(dut).start()
    image = bench.compiled.encode_image(bench.image()[0])
    cases = [
        (ErrorCode.IMAGE_TRUNCATED, image[:-1]),
        (ErrorCode.IMAGE_OVERLONG, np.concatenate([image, image[:1]])),
        (ErrorCode.IMAGE_TRUNCATED, image[:1]),
        (ErrorCode.IMAGE_OVERLONG, np.concatenate([image, image])),
        (ErrorCode.IMAGE_OVERLONG, np.tile(image, 100)),
        (ErrorCode.IMAGE_TKEEP, image),
    ]
    for code, stream in few(cases):
        await bench.fails(
            code, image=stream, image_keep=0x7F if code == ErrorCode.IMAGE_TKEEP else 0xFF
        )
    assert bench.good_runs == len(few(cases)) and bench.values_checked


@cocotb.test()
async def bad_descriptors(dut):
    """Programs that arrive well and say what cannot be; the layer is named, nothing is written
    outside the layer's region."""
    bench = await FaultBench(dut).start()
    compiled, hardware = bench.compiled, bench.hardware
    last = len(bench.net.layers) - 1
    name = bench.net.layers[last].name
    end = compiled.tensors[name].base + compiled.tensors[name].size
    cases = [
        (ErrorCode.DESCRIPTOR, last, {"op": 15}),
        (ErrorCode.OUT_OF_BOUNDS, last, {"out_end": end - 1}),
        (ErrorCode.DESCRIPTOR, last, {"out_end": hardware.quads + 1}),
        (ErrorCode.DESCRIPTOR, last, {"in_w": 0}),
        (ErrorCode.DESCRIPTOR, last, {"tile_pixels": 0}),
        (ErrorCode.DESCRIPTOR, 0, {"window": 2}),
        (ErrorCode.DESCRIPTOR, 0, {"read_quads": 9}),
        (ErrorCode.DESCRIPTOR, 0, {"out_row_quads": 1}),
        (ErrorCode.DESCRIPTOR, last, {"out_quads": 129}),
        (ErrorCode.DESCRIPTOR, 0, {"out_base": compiled.tensors["input"].base}),  # over the input
        (ErrorCode.DESCRIPTOR, 0, {"kr_count": 15}),  # higher than image and padding
        (ErrorCode.DESCRIPTOR, 0, {"pieces": 15}),  # wider
        (ErrorCode.DESCRIPTOR, 0, {"in_row_stride": 1}),  # rows over each other
        (ErrorCode.DESCRIPTOR, 0, {"in_h": 65535}),  # beyond the buffer
        (ErrorCode.DESCRIPTOR, 0, {"has_params": 0}),
        (ErrorCode.DESCRIPTOR, last, {"raw": 1, "emit": 0}),  # nobody would take the results
        (ErrorCode.PROGRAM_HEADER, None, {"version": PROGRAM_VERSION + 1}),
        (ErrorCode.PROGRAM_HEADER, None, {"n_layers": 0}),
        (ErrorCode.PROGRAM_HEADER, None, {"n_layers": MAX_LAYERS + 1}),
        (ErrorCode.PROGRAM_HEADER, None, {"n_layers": last + 2}),  # more than the packet has
        (ErrorCode.PROGRAM_HEADER, None, {"image_end_addr": hardware.quads + 1}),
        (ErrorCode.PROGRAM_HEADER, None, {"image_rows": 0}),
    ]
    if last > 0:  # the second layer is a max pool
        cases += [
            (ErrorCode.DESCRIPTOR, 1, {"pool_kernel_h": 65535}),  # higher than image and padding
            (ErrorCode.DESCRIPTOR, 1, {"pool_pad_w": 2}),  # as wide as the window
            (ErrorCode.DESCRIPTOR, 4, {"other_base": hardware.quads}),  # beyond the buffer
            (ErrorCode.DESCRIPTOR, 4, {"raw": 1}),  # a sum of tensors has no 32-bit results
        ]
    for code, layer, field in few(cases):
        program = edited(compiled, layer, field)
        if code == ErrorCode.PROGRAM_HEADER:
            await _started_alone(bench, code, program)
        else:
            await bench.fails(code, program=program, layer=layer)
    assert bench.good_runs == len(few(cases)) and bench.values_checked


async def _started_alone(bench, code, program):
    """START on a program that is refused before the first image beat."""
    await bench.load(program)
    await bench.host.write(Register.CTRL, Ctrl.START)
    await bench.expect(code)
    await bench.recover()
    await bench.good_run()


@cocotb.test()
async def other_modules(dut):
    """A program for another number of conv modules is refused at START, and by a build with two
    index planes one for three."""
    bench = await FaultBench(dut).start()
    modules = [m for m in MODULE_COUNTS if m != bench.hardware.num_modules]
    others = [replace(bench.hardware, num_modules=m) for m in few(modules)]
    if bench.hardware.planes == 2:
        others.append(replace(bench.hardware, planes=3))
    for hardware in others:
        foreign = compile_network(bench.net, hardware, debug=True)
        await _started_alone(bench, ErrorCode.NUM_MODULES, foreign.program)
    assert bench.good_runs and bench.values_checked


@cocotb.test()
async def wrong_time(dut):
    """START without a program, START and a program during a run; a program that was loaded survives
    the last two."""
    bench = await FaultBench(dut).start()
    await bench.host.write(Register.CTRL, Ctrl.START)
    await bench.expect(ErrorCode.NO_PROGRAM)
    await bench.soft_reset()
    await bench.good_run()
    for code in (ErrorCode.START_BUSY, ErrorCode.PROGRAM_BUSY):
        await bench.host.write(Register.CTRL, Ctrl.START)
        if code == ErrorCode.START_BUSY:
            await bench.host.write(Register.CTRL, Ctrl.START)
        else:
            await bench.send(prog=flipped(bench.compiled.program, 5, 3))
        await bench.expect(code)
        await bench.recover()
        await bench.good_run(reload=False)
    assert bench.good_runs == 3 and bench.values_checked


@cocotb.test()
async def soft_resets(dut):
    """Soft resets at random moments of a run: the host stops its engines, resets, and the next run
    is right."""
    bench = await FaultBench(dut).start()
    await bench.good_run()
    whole = int(dut.cycles_o.value)
    for _ in range(1 if on_icarus() else 25):
        slow = Traffic(0, int(bench.rng.choice([256, 100])), int(bench.rng.choice([0, 128])))
        bench.host.set_traffic(slow, slow, 0)
        await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.send(
            prog=bench.compiled.weights, image=bench.compiled.encode_image(bench.image()[0])
        )
        moment = int(bench.rng.integers(1, whole))
        await ClockCycles(dut.clk_i, moment)
        dut._log.info("soft reset %d cycles after the first beat", moment)
        await bench.stop_engines()
        bench.pending.append(("run", "after a soft reset in a run"))
        await bench.good_run(reload=bool(bench.rng.integers(2)))
    assert bench.good_runs >= 2 and bench.values_checked


@cocotb.test()
async def reset_inside_packets(dut):
    """Soft resets in the middle of packets whose rest still arrives: the rest is refused with a
    code, then all is well."""
    bench = await FaultBench(dut).start()
    await bench.good_run()
    program, weights = bench.compiled.program, bench.compiled.weights
    rest = ErrorCode.PACKET_MAGIC
    for words in (program, weights):
        bench.host.set_traffic(Traffic(0, 128, 0), Traffic(0, 128, 0), 0)
        if words is weights:
            await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.send(prog=words)
        await ClockCycles(dut.clk_i, 12)
        await bench.host.write(Register.CTRL, Ctrl.SOFT_RESET)
        await bench.expect(rest)
        await bench.recover()
        await bench.good_run()
    if not on_icarus():
        bench.host.set_traffic(Traffic(), Traffic(0, 32, 0), 0)
        await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.send(image=bench.compiled.encode_image(bench.image()[0]))
        await ClockCycles(dut.clk_i, 40)
        await bench.host.write(Register.CTRL, Ctrl.SOFT_RESET)
        await ClockCycles(dut.clk_i, 40)
        await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.expect(ErrorCode.IMAGE_TRUNCATED)
        await bench.recover()
        await bench.good_run()
    assert bench.good_runs >= 3 and bench.values_checked
