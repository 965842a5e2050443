"""Runs in the UVM environment while registers are read, written and refused all the time, and soft
resets end some of them anywhere.

Environment: UVM_RUNS the number of runs (default 8, on Icarus 2); every other one is aborted.
"""

import os

import cocotb

from host.harness import clocking
from model.compiler import compile_network
from tb.lib import coverage
from tb.lib.accelerator import cycle_limit, hardware_of, on_icarus, random_generator
from tb.lib.chain import Chain
from tb.top.bench import random_streams
from tb.uvm.base_test import AcceleratorTest, run
from tb.uvm.sequences import AbortedSequence, NetworkSequence, RegisterTraffic


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


class DisturbedTest(AcceleratorTest):
    """Register traffic from beginning to end beside runs of changing networks; every other run is
    aborted and must leave nothing behind."""

    async def stimulus(self):
        rng = random_generator()
        traffic = RegisterTraffic(self.env, rng)
        task = cocotb.start_soon(traffic.start())
        runs = int(os.environ.get("UVM_RUNS") or (2 if on_icarus() else 8))
        assert runs > 1, "UVM_RUNS must be at least 2"
        for number in range(runs):
            compiled = self.config.networks[number // 2 % 2]
            low, high = compiled.net.input_range
            images = rng.integers(low, high + 1, (2, *compiled.net.input_shape))
            if number % 2:
                await NetworkSequence(self.env, compiled, images, random_streams(rng)).start()
            else:
                moment = int(rng.integers(1, cycle_limit(compiled) // 20))
                await AbortedSequence(
                    self.env, compiled, images[:1], moment, self.engine_empty, random_streams(rng)
                ).start()
        traffic.stop = True
        await task
        assert self.env.scoreboard.aborted >= runs // 2 and self.env.scoreboard.images >= 2 * (
            runs // 2
        )
        assert self.env.register_scoreboard.refused, "no forbidden access was tried"
        coverage.hit("run", "after a soft reset in a run")

    async def engine_empty(self, engine):
        """Wait until an engine has sent its last beat."""
        busy = getattr(self.config.dut, f"{engine}_busy_o")
        await clocking.wait_for(
            self.config.dut,
            lambda: not int(busy.value),
            4000,
            f"the {engine} stream is not emptied",
        )


@cocotb.test()
async def uvm_disturbed(dut):
    """Results and register answers are right however the runs before were disturbed or ended."""
    await run(
        DisturbedTest,
        dut,
        networks=[
            compile_network(c.network(), hardware_of(dut), debug=True)
            for c in chains(random_generator())
        ],
    )
