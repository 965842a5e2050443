"""Pooling layers alone, after each other and between convolutions."""

import cocotb

from tb.lib.accelerator import on_icarus, random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench


def maxpools(rng):
    """Chains of max pools: windows, strides, padding, channels, both signs."""
    yield (
        Chain(rng, (7, 13, 9), True, "max 2x2")
        .maxpool((2, 2), (2, 2))
        .maxpool((3, 3), (1, 1), (1, 1))
    )
    yield (
        Chain(rng, (70, 12, 17), False, "max overlapping")
        .maxpool((3, 3), (2, 2), (1, 1))
        .maxpool((5, 4), (1, 3), (2, 2))
        .maxpool((1, 2), (2, 1))
    )
    yield (
        Chain(rng, (1, 5, 17), True, "max stride beyond window")
        .maxpool((1, 1), (1, 3))
        .maxpool((2, 3), (3, 2), (1, 0))
    )
    yield Chain(rng, (33, 8, 8), False, "max whole map").maxpool((8, 8), (1, 1))
    yield Chain(rng, (4, 1, 1), True, "max single pixel").maxpool((3, 3), (1, 1), (1, 1))
    yield (
        Chain(rng, (3, 20, 30), True, "max between convolutions")
        .conv(20, (3, 3), (1, 1))
        .maxpool((2, 2), (2, 2))
        .conv(33, (5, 5), (2, 2))
        .maxpool((3, 3), (2, 2), (1, 1))
        .conv(9, (1, 1))
    )


def tiny_maxpools(rng):
    yield (
        Chain(rng, (5, 5, 4), True, "tiny max")
        .maxpool((3, 3), (1, 1), (1, 1))
        .maxpool((2, 2), (2, 2))
        .conv(3, (1, 1))
    )


def avgpools(rng):
    """Chains of average pools: overlapping, padded (padding counts as zeros), int32 at the end."""
    yield (
        Chain(rng, (7, 13, 9), True, "avg 2x2")
        .avgpool((2, 2), (2, 2))
        .avgpool((3, 3), (1, 1), (1, 1), raw=True)
    )
    yield (
        Chain(rng, (70, 12, 17), False, "avg overlapping")
        .avgpool((3, 3), (2, 2), (2, 2), clamp=(0, 255))
        .avgpool((5, 4), (1, 3), (4, 3), clamp=(0, 255))
    )
    yield (
        Chain(rng, (1, 5, 17), True, "avg stride beyond window")
        .avgpool((1, 1), (1, 3))
        .avgpool((2, 3), (3, 2), (1, 2), raw=True)
    )
    yield Chain(rng, (33, 8, 8), False, "avg whole map").avgpool((8, 8), (8, 8), raw=True)
    yield Chain(rng, (101, 2, 2), True, "avg most padding").avgpool((4, 5), (1, 2), (3, 4))
    yield (
        Chain(rng, (3, 20, 30), True, "avg between convolutions")
        .conv(20, (3, 3), (1, 1))
        .avgpool((3, 3), (2, 2), (1, 1))
        .conv(33, (3, 3), (1, 1))
        .avgpool((2, 2), (2, 2))
        .conv(10, (1, 1))
        .avgpool((5, 7), (1, 1), raw=True)
    )


def tiny_avgpools(rng):
    yield (
        Chain(rng, (5, 5, 4), True, "tiny avg")
        .avgpool((3, 3), (2, 1), (2, 2))
        .conv(3, (1, 1))
        .avgpool((2, 2), (2, 2), (1, 0), raw=True)
    )


async def _check(dut, chains):
    rng = random_generator()
    bench = await Bench(dut).start()
    for chain in chains(rng):
        await bench.check_alive(chain.network(), chain.images[: 1 if on_icarus() else 2])
    assert bench.values_checked > 0


@cocotb.test()
async def maxpool(dut):
    """Every chain of max pools, every layer compared."""
    await _check(dut, tiny_maxpools if on_icarus() else maxpools)


@cocotb.test()
async def avgpool(dut):
    """Every chain of average pools, every layer compared."""
    await _check(dut, tiny_avgpools if on_icarus() else avgpools)
