"""Every stall pattern on every stream port, those of weights against those of results, while a
network computes the right values."""

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge

from host.harness.engines import IDEAL, Traffic
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench

SENDERS = {
    "none": IDEAL,
    "light": Traffic(0, 256, 40),
    "heavy": Traffic(3, 64, 0),
    "bursts": Traffic(50, 200, 253),
}
RECEIVERS = {"none": 0, "light": 40, "heavy": 165, "bursts": 253}


@cocotb.test()
async def patterns(dut):
    """All pairs of patterns of weights and results, each with one of the image; the ports' monitors
    must have seen them."""
    rng = random_generator()
    bench = await Bench(dut).start()
    chain = (
        Chain(rng, (8, 8, 7), True, "traffic")
        .conv(9, (3, 3), (1, 1))
        .maxpool((2, 2), (1, 1))
        .conv(7, (1, 1))
    )
    net = chain.network()
    for number, weights in enumerate(SENDERS):
        for other, result in enumerate(RECEIVERS):
            image = list(SENDERS)[(number + other) % len(SENDERS)]
            outcome = await bench.check(
                net, chain.images[:1], traffic=(SENDERS[weights], SENDERS[image], RECEIVERS[result])
            )
            flows = dict(outcome.flows)
            seen = (
                flows["program"].sender,
                flows["weights"].sender,
                flows["image"].sender,
                flows["result"].receiver,
            )
            assert seen == (weights, weights, image, result), (
                f"program, weights, image and result flowed as {seen}: {flows}"
            )
    assert bench.values_checked


@cocotb.test()
async def trailer_at_every_place(dut):
    """A weights packet that fills the weight buffer before its image comes, and whose trailer waits
    at the port behind any number of the words that a pass takes."""
    rng = random_generator()
    bench = await Bench(dut).start()
    waited = []  # of a program's, then its weights' trailer: whether it waits at the port

    async def watch():
        while True:
            await RisingEdge(dut.axis_prog_tlast)
            await FallingEdge(dut.clk_i)
            waited.append(not int(dut.axis_prog_tready.value))

    cocotb.start_soon(watch())
    for layers in range(1, bench.hardware.pass_words + 1):  # each has 5 words more than a pass
        chain = Chain(rng, (4, 3, 1), True, f"{layers} layers behind").conv(256, (1, 11), (0, 5))
        for _ in range(layers):
            chain = chain.conv(4, (1, 1))
        late = Traffic(latency=2 * bench.hardware.weight_words)
        outcome = await bench.check(chain.network(), chain.images[:1], traffic=(IDEAL, late, 0))
        words = len(outcome.compiled.weights)
        assert words > bench.hardware.weight_words + 40 * layers, f"{words} words fit the buffer"
    weights = waited[1::2]  # the buffer is freed by passes: one of as many places is a full one
    assert len(weights) == bench.hardware.pass_words and any(weights), f"no trailer waits: {waited}"
    assert bench.values_checked


@cocotb.test()
async def raw_tiles(dut):
    """32-bit results of several tiles while the receiver is slow: a tile's sums wait in their
    buffer, and the next ones must not overwrite them."""
    rng = random_generator()
    bench = await Bench(dut).start()
    for kernel in ((3, 3), (5, 5)):
        chain = Chain(rng, (4, 30, 30), True, "raw").conv(
            8, kernel, tuple(k // 2 for k in kernel), raw=True
        )
        net = chain.network()
        for result in ("heavy", "bursts"):
            outcome = await bench.check(
                net, chain.images[:1], traffic=(IDEAL, IDEAL, RECEIVERS[result])
            )
            assert dict(outcome.flows)["result"].receiver == result
