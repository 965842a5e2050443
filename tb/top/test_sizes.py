"""Networks at the borders of the memories: rows longer than a partial-sum tile, weights larger than
the weight buffer."""

import cocotb

from model.compiler.weights import replayed
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench


def wide_chains(rng):
    """Images, or only their padded outputs, wider than the 256 pixels of a tile."""
    yield (
        Chain(rng, (3, 4, 300), False, "300 wide")
        .conv(9, (3, 3), (1, 1))
        .maxpool((2, 2), (1, 2))
        .conv(5, (1, 1), raw=True)
    )
    yield (
        Chain(rng, (1, 2, 700), True, "700 wide")
        .conv(4, (2, 11), (1, 5))
        .conv(7, (1, 7), (0, 3))
        .avgpool((2, 5), (1, 3), (1, 4))
    )
    yield (
        Chain(rng, (5, 3, 257), False, "257 wide").conv(6, (5, 5), (2, 2)).conv(21, (3, 3), (0, 1))
    )
    yield (
        Chain(rng, (2, 12, 250), True, "wider output")
        .conv(3, (11, 11), (10, 10))
        .conv(3, (1, 5), (0, 0))
    )
    yield Chain(rng, (4, 300, 2), False, "300 high").conv(6, (3, 3), (1, 1)).conv(5, (5, 2), (0, 1))


@cocotb.test()
async def wide_image(dut):
    """Tiles that are parts of a row, their seams included."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for chain in wide_chains(rng):
        await bench.check_alive(chain.network(), chain.images[:1])
    assert bench.values_checked > 0


@cocotb.test()
async def big_weights(dut):
    """663,552 weights of one layer stream through the weight buffer."""
    rng = random_generator()
    bench = await Bench(dut).start()
    chain = (
        Chain(rng, (192, 5, 4), False, "663,552 weights")
        .conv(384, (3, 3), (1, 1))
        .conv(10, (1, 1), raw=True)
    )
    net = chain.network()
    assert net.layers[0].index.size == 663_552
    outcome = await bench.check_alive(net, chain.images[:2])
    assert len(outcome.compiled.weights) > 4 * bench.hardware.weight_words


@cocotb.test()
async def group_beyond_buffer(dut):
    """A group of passes that the weight buffer cannot keep for the next tile, so that the stream
    repeats it."""
    rng = random_generator()
    bench = await Bench(dut).start()
    channels = (
        bench.hardware.weight_words // bench.hardware.pass_words * 100 // 121 + 8
    )  # a pass takes at most 100 of the 121 taps' channels
    chain = (
        Chain(rng, (channels, 17, 17), True, "group beyond the buffer")
        .conv(6, (11, 11), (5, 5))
        .conv(5, (3, 3), (1, 1))
    )
    net = chain.network()
    outcome = await bench.check_alive(net, chain.images[:1])
    plan = outcome.compiled.plans[net.layers[0].name]
    assert plan.tiles > 1 and not replayed(plan, bench.hardware), (
        "the group fits the weight buffer: this tests nothing"
    )
