"""Runs in the UVM environment while registers are read, written and refused all the time, and soft
resets end some of them anywhere.

Environment: UVM_RUNS the number of runs (default 8, on Icarus 2); every other one is aborted.
"""

import os

import cocotb
import pyuvm

from model.compiler import compile_network
from tb.lib import coverage
from tb.lib.accelerator import cycle_limit, on_icarus, random_generator
from tb.lib.chain import Chain
from tb.lib.effort import scaled
from tb.uvm.dma import use_dma
from tb.uvm.env import AcceleratorTest
from tb.uvm.sequences import (
    AbortedSequence,
    LoadSequence,
    NetworkSequence,
    RegisterTraffic,
    StoppedSequence,
)


def chains(rng):
    """Two small networks that differ in all but the input's sign."""
    if on_icarus():
        return [
            Chain(rng, (3, 3, 2), True, "first").conv(5, (1, 3), (0, 1)),
            Chain(rng, (2, 2, 4), True, "second").maxpool((2, 1), (1, 1)),
        ]
    return [
        Chain(rng, (3, 9, 7), True, "first")
        .conv(9, (3, 3), (1, 1))
        .maxpool((2, 2), (2, 2))
        .conv(12, (5, 5), (2, 2)),
        Chain(rng, (21, 5, 6), True, "second")
        .conv(30, (1, 1))
        .avgpool((2, 2), (2, 2))
        .conv(7, (1, 1), raw=True),
    ]


@pyuvm.test()
class DisturbedTest(AcceleratorTest):
    """Register traffic from beginning to end beside runs of changing networks; every other run is
    aborted and must leave nothing behind."""

    def networks(self):
        return [
            compile_network(chain.network(), self.hardware, debug=True)
            for chain in chains(random_generator())
        ]

    async def stimulus(self):
        rng = random_generator()
        traffic = RegisterTraffic(int(rng.integers(2**31)))
        task = cocotb.start_soon(self.start(traffic))
        runs = int(os.environ.get("UVM_RUNS") or scaled(icarus=2, verilator=8))
        assert runs > 1, "UVM_RUNS must be at least 2"
        for number in range(runs):
            compiled = self.compiled[number // 2 % 2]
            low, high = compiled.net.input_range
            images = rng.integers(low, high + 1, (2, *compiled.net.input_shape))
            seed = int(rng.integers(2**31))
            if number % 2:
                await self.start(NetworkSequence(compiled, images, seed))
            else:
                longest = scaled(icarus=500, verilator=cycle_limit(compiled) // 20)
                moment = int(rng.integers(1, longest))
                await self.start(AbortedSequence(compiled, images, moment, seed))
        traffic.stop = True
        await task
        scoreboard = self.env.scoreboard
        assert scoreboard.aborted >= runs // 2 and scoreboard.images >= 2 * (runs // 2)
        assert self.env.register_scoreboard.refused, "no forbidden access was tried"
        coverage.hit("run", "after a soft reset in a run")


@pyuvm.test()
class DisturbedEnginesTest(DisturbedTest):
    """The same through the harness's engines."""

    def build_phase(self):
        use_dma()
        super().build_phase()


@pyuvm.test()
class StoppedTest(AcceleratorTest):
    """STOP in every cycle around an image's end, on the pins: the run ends with that image."""

    def networks(self):
        chain = Chain(random_generator(), (3, 1, 2), True, "one beat").conv(5, (1, 1))
        return [compile_network(chain.network(), self.hardware, debug=True)]

    async def stimulus(self):
        rng, (compiled,) = random_generator(), self.compiled
        low, high = compiled.net.input_range
        await self.start(LoadSequence(compiled))
        usual = StoppedSequence(compiled, self.image(rng, low, high))
        await self.start(usual)
        for offset in scaled(range(-3, 0), range(-12, 4)):
            moment = usual.cycles + offset
            await self.start(StoppedSequence(compiled, self.image(rng, low, high), moment))

    def image(self, rng, low: int, high: int):
        """Integers [1, C, H, W]."""
        return rng.integers(low, high + 1, (1, *self.compiled[0].net.input_shape))
