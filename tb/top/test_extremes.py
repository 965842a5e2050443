"""Networks and programs with numbers at 2^k - 1, 2^k and 2^k + 1: layers, rows, columns, strides,
windows, tiles, channels, words of a packet."""

from __future__ import annotations

from dataclasses import replace

import cocotb
import numpy as np
from cocotb.task import bridge

from host.register_map import Ctrl, ErrorCode, Register
from model.compiler import Compiled
from model.compiler.program import packet
from model.compiler.program_format import (
    DESCRIPTOR,
    HEADER,
    MAGIC_PROGRAM,
    MAX_CHANNELS,
    MAX_LAYERS,
    QUAD_ADDR_W,
    RECORD_WORDS,
)
from model.compiler.records import Layout, decode, encode
from tb.lib import field_coverage
from tb.lib.accelerator import expected_tensors, random_generator
from tb.lib.chain import Chain
from tb.lib.packets import edited, payload
from tb.top.bench import Bench, compare
from tb.top.fault_bench import FaultBench


def around(*bits: int) -> list[int]:
    """2^k - 1, 2^k, 2^k + 1."""
    return [(1 << bit) + step for bit in bits for step in (-1, 0, 1)]


def long_sides(rng):
    """Feature maps with many rows or columns."""
    for many in (*around(8, 9, 12), 45055, 65535):
        step = 3 if many == 65535 else 1
        yield Chain(rng, (1, many, 1), True, f"{many} rows").maxpool((2, 1), (step, 1))
        yield Chain(rng, (1, 1, many), False, f"{many} columns").maxpool((1, 2), (1, step))


def strides_and_windows(rng):
    """Pools with long strides and large windows, each with two outputs."""
    for many in around(8, 9):
        yield Chain(rng, (2, many + 1, 1), True, f"stride {many}").maxpool((1, 1), (many, 1))
        yield Chain(rng, (2, 1, many + 2), False, f"stride {many}").avgpool((1, 2), (1, many))
        yield Chain(rng, (3, 1, many + 1), True, f"window {many}").avgpool((1, many), (1, 1))
        yield Chain(rng, (3, many + 1, 1), False, f"window {many}").maxpool((many, 1), (1, 1))


def longest_pools(rng):
    """Windows, strides and padding of 65,535 on each axis: two outputs that see the map's first
    pixel, and the others."""
    far = (65535, 65534)
    yield Chain(rng, (3, 3, 1), True, "high").avgpool((far[0], 1), (far[0], 1), (far[1], 0))
    yield Chain(rng, (3, 1, 3), False, "wide").avgpool((1, far[0]), (1, far[0]), (0, far[1]))


def wide_steps(rng):
    """Rows and tiles whose addresses are far apart, in the input and in the output."""
    for channels, width, stride in ((508, 257, 1), (512, 257, 2), (512, 513, 2)):
        name = f"{channels} channels, {width} columns"
        chain = Chain(rng, (channels, 1, width), True, f"from {name}")
        yield chain.conv(3, (1, 1), stride=(1, stride))
        yield Chain(rng, (3, 1, width), False, f"to {name}").conv(channels, (1, 1))
    yield Chain(rng, (508, 2, 257), False, "two long rows").conv(2, (2, 3))
    yield Chain(rng, (1, 9, 8193), True, "nine long rows").conv(3, (9, 1))
    for rows in (255, 256):
        chain = Chain(rng, (2, rows, 1), True, f"a tile of {rows} rows")
        yield chain.conv(4, (3, 1), (1, 0), raw=True)
    yield Chain(rng, (2, 1, 127), False, "a tile of 127 columns").conv(4, (1, 3), (0, 1))
    yield Chain(rng, (512, 1, 1), False, "many passes").conv(3, (11, 11), (5, 5))
    yield Chain(rng, (1, 1, 3), False, "most padding").conv(3, (1, 11), (0, 10))
    yield Chain(rng, (2, 1, 3), True, "127 groups").conv(508, (1, 5), (0, 2))
    yield Chain(rng, (128, 1, 3), True, "4 groups in").conv(3, (1, 1))
    for width in (32761, 32769):  # 4,095 and 4,096 steps of eight quads between vertical taps
        chain = Chain(rng, (1, 2, width), True, f"{width} quads a row")
        yield chain.conv(1, (2, 1), stride=(1, 2), raw=True)


def fused_numbers(rng):
    """Clamps and shift of a fused sum: those bits that tb/top/corner_networks.py does not set."""
    chain = Chain(rng, (6, 3, 4), True, "fused sum below zero").centred_conv(
        6, (1, 1), (0, 0), 0, (-128, 127)
    )
    names = (chain.layers[-1].name, "input")
    yield chain.add(*names, mult=(5000, 6000), shift=14, clamp=(-119, -3))


@cocotb.test()
async def sizes_around_powers_of_two(dut):
    """Rows, columns, strides, windows, padding, steps between tiles and kernel rows."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for chains in (long_sides, strides_and_windows, longest_pools, wide_steps, fused_numbers):
        for chain in chains(rng):
            await bench.check(chain.network(), chain.images[:1])
    assert bench.values_checked


@cocotb.test()
async def layers_around_powers_of_two(dut):
    """Programs of 31 to 33, of 62 and of 63 layers run; the header of one with more is refused,
    also where its low bits are those of a legal one."""
    rng = random_generator()
    bench = await FaultBench(dut).start()
    for count in (31, 32, 33, MAX_LAYERS - 1, MAX_LAYERS):
        chain = Chain(rng, (2, 2, 2), True, f"{count} layers")
        for layer in range(count):
            chain = chain.maxpool((1, 1), (1, 1)) if layer % 8 else chain.conv(3, (1, 1))
        await bench.check(chain.network(), chain.images[:1])
    illegal = {MAX_LAYERS + 1, 259, *(n for n in around(6, 7, 8, 12, 15) if n > MAX_LAYERS)}
    illegal |= {2 | 1 << bit for bit in range(6, 16)}
    for count in sorted(illegal):
        await bench.load(edited(bench.compiled, None, {"n_layers": count}))
        await bench.host.write(Register.CTRL, Ctrl.START)
        await bench.expect(ErrorCode.PROGRAM_HEADER)
        field_coverage.hit("header", {"n_layers": count})
        await bench.recover()
    await bench.good_run()
    assert bench.values_checked


TENSORS = {  # fields that hold an address, and the one that tells which tensor it is of
    "image_base": "image_base",
    "image_end_addr": "image_end_addr",
    "in_base": "in_base",
    "row_base0": "in_base",
    "out_base": "out_base",
    "out_end": "out_end",
    "other_base": "other_base",
}


def moved(compiled: Compiled, quads: int) -> Compiled:
    """The same with the tensors at the feature buffer's begin so many quads further on; half of
    them lie at its end."""

    def record(layout: Layout, words: np.ndarray) -> np.ndarray:
        old, fields = decode(layout, words.tolist()), layout.fields
        new = {
            name: (old[name] + quads) & fields[name].mask
            for name in TENSORS.keys() & old.keys()
            if old[TENSORS[name]] < compiled.hardware.quads // 2
        }
        return encode(layout, new, words.tolist())

    records = payload(compiled.program).reshape(-1, RECORD_WORDS)
    words = [record(DESCRIPTOR if number else HEADER, r) for number, r in enumerate(records)]
    return replace(compiled, program=packet(MAGIC_PROGRAM, np.concatenate(words)))


@cocotb.test()
async def tensors_everywhere(dut):
    """A network half of whose tensors lie 1, 2, 4, ... 65,536 quads further on."""
    bench = await FaultBench(dut).start()
    for quads in (1 << bit for bit in range(QUAD_ADDR_W)):
        compiled, image = moved(bench.compiled, quads), bench.image()
        await bridge(bench.accelerator.load)(compiled)
        results = await bench.run_loaded(compiled, image)
        bench.values_checked += compare(expected_tensors(bench.net, image), results.tensors)
        field_coverage.sample(compiled)
    assert bench.values_checked


@cocotb.test()
async def more_than_256_tiles(dut):
    """Convolutions of 255 to 257 tiles, whose weights are replayed as often."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for rows in (255, 256, 257):
        chain = Chain(rng, (3, rows, 130), True, f"{rows} tiles").conv(4, (1, 1))
        outcome = await bench.check(chain.network(), chain.images[:1])
        (plan,) = outcome.compiled.plans.values()
        assert plan.tiles == rows, f"{plan.tiles} tiles"
    assert bench.values_checked


@cocotb.test()
async def packet_beyond_16_bits(dut):
    """512 channels to 512 channels: the weights packet has more than 65,536 words, and a channel's
    number all of its bits."""
    rng = random_generator()
    bench = await Bench(dut).start()
    chain = Chain(rng, (MAX_CHANNELS, 1, 1), False, "longest packet")
    chain = chain.conv(MAX_CHANNELS, (3, 3), (1, 1))
    outcome = await bench.check(chain.network(), chain.images[:1])
    words = len(outcome.compiled.weights)
    assert words > 1 << 16 or bench.hardware.num_modules > 4, f"{words} words"
    assert bench.values_checked
