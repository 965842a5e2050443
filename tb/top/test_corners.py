"""Directed networks that hit every coverage point of layers: remainders of the channel groups,
mappings, tiles, clamps, pools, orders."""

import cocotb

from tb.lib.accelerator import random_generator
from tb.top import corner_networks
from tb.top.bench import Bench


@cocotb.test()
async def remainders(dut):
    """Every remainder of input and output channels by the size of the hardware's groups, for each
    window."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for window, chain in corner_networks.remainder_chains(rng, bench.hardware.num_modules):
        outcome = await bench.check(chain.network(), chain.images[:1])
        windows = {plan.window for plan in outcome.compiled.plans.values()}
        assert windows == {window}, f"{chain.name}: mapped to windows {sorted(windows)}"
    assert bench.values_checked


@cocotb.test()
async def corners(dut):
    """Mappings, tiles, paddings, orders, clamps, arithmetic, pools and feature maps, one after the
    other without a reset."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for chain in corner_networks.corner_chains(rng):
        await bench.check(chain.network(), chain.images[:1])
    await bench.check(*corner_networks.all_zero_network(rng))
    assert bench.values_checked


@cocotb.test()
async def images_in_a_row(dut):
    """One, two and four images, of the debug program and of the plain one."""
    rng = random_generator()
    bench = await Bench(dut).start()
    chain = (
        corner_networks.Chain(rng, (3, 5, 4), True, "images in a row")
        .conv(6, (3, 3), (1, 1))
        .maxpool((2, 2), (1, 1))
        .conv(5, (1, 1))
    )
    for count, debug in ((1, True), (2, False), (4, True), (4, False)):
        images = rng.integers(-128, 128, (count, *chain.input_shape)).astype("int32")
        await bench.check(chain.network(), images, debug=debug)
    assert bench.values_checked
