"""Convolutions of one kernel size (environment variable KERNEL): chains of layers, run without a
reset between them."""

import os

import cocotb

from tb.lib.accelerator import on_icarus, random_generator
from tb.lib.chain import EXTREME_CODEBOOKS, Chain
from tb.top.bench import Bench

KERNEL = int(os.environ.get("KERNEL", 3))


def kernel():
    return KERNEL, KERNEL


def same():
    return KERNEL // 2, KERNEL // 2


def channel_counts(rng):
    """1, 3, 7, 20, 33 and 70 channels on a feature map of odd size."""
    chain = Chain(rng, (1, 13, 9), True, "channel counts")
    for channels in (3, 7, 20, 33, 70, 1):
        chain.conv(channels, kernel(), same())
    return chain


def paddings(rng):
    """No, one and the most padding, on a feature map just larger than the kernel."""
    chain = Chain(rng, (3, KERNEL + 4, KERNEL + 2), False, "paddings")
    for channels, pad in ((7, 0), (5, KERNEL - 1), (12, min(1, KERNEL - 1))):
        chain.conv(channels, kernel(), (pad, pad))
    return chain.conv(6, kernel(), (KERNEL - 1, KERNEL // 2), raw=True)


def single_pixel(rng):
    """A feature map of one pixel, which also makes fully connected layers of the larger maps."""
    return (
        Chain(rng, (20, 1, 1), False, "single pixel")
        .conv(33, kernel(), same())
        .conv(7, kernel(), (KERNEL - 1, KERNEL - 1))
        .conv(70, kernel(), (0, 0), raw=True)
    )


def several_tiles(rng):
    """630 pixels: three tiles of the 256-pixel partial-sum memory, the last one smaller."""
    return (
        Chain(rng, (4, 30, 21), True, "several tiles")
        .conv(8, kernel(), same())
        .conv(20, kernel(), same())
        .conv(5, kernel(), same(), raw=True)
    )


def extreme_codebooks(rng):
    """The largest codebook entries, all of one sign or mixed, and every weight the same entry."""
    chain = Chain(rng, (5, 8, 10), False, "extreme codebooks")
    for number, codebook in enumerate(EXTREME_CODEBOOKS):
        chain.conv(
            (9, 24, 3, 14)[number],
            kernel(),
            same(),
            codebook=codebook,
            index=3 if number == 2 else None,
        )
    return chain


def stale_indices(rng):
    """Layers of other kernel widths around this one: PEs that it leaves idle still hold their
    weights."""
    chain = Chain(rng, (8, 6, 7), True, "stale indices").conv(
        12, (5, 5), (2, 2), codebook=(-128, 127, 127), index=3
    )
    for other in (3, 1, 5):
        chain.conv(12, kernel(), same()).conv(
            12, (other, other), (other // 2, other // 2), codebook=(127, -128, 99)
        )
    return chain.conv(12, kernel(), same())


def tiny(rng):
    """What Icarus can simulate in a few seconds."""
    return (
        Chain(rng, (3, 4, 3), False, "tiny")
        .conv(5, kernel(), same(), codebook=(-128, 127, 90))
        .conv(3, kernel(), same(), raw=True)
    )


def tiny_stale(rng):
    """A layer that fills every PE before one that does not."""
    return (
        Chain(rng, (2, 3, 4), True, "tiny stale")
        .conv(4, (5, 5), (2, 2), codebook=(1, 127, 127), index=3)
        .conv(6, kernel(), same())
    )


CASES = (channel_counts, paddings, single_pixel, several_tiles, extreme_codebooks, stale_indices)


@cocotb.test()
async def layers(dut):
    """Every chain, two images each, every layer compared."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for case in (tiny, tiny_stale) if on_icarus() else CASES:
        chain = case(rng)
        await bench.check_alive(chain.network(), chain.images[: 1 if on_icarus() else 2])
    assert bench.values_checked > 0
