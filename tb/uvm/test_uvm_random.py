"""Random networks in the UVM environment until every kind of layer was seen.

Environment: UVM_NETWORKS the least number of networks (default 10).
"""

import os

import cocotb
import numpy as np

from model.compiler import CompileError, compile_network
from model.network.random_networks import random_input, random_network
from tb.lib.accelerator import hardware_of, random_generator
from tb.lib.layer_coverage import mapping_points
from tb.top.bench import random_streams
from tb.uvm.base_test import AcceleratorTest, run
from tb.uvm.coverage import ALL_KINDS
from tb.uvm.sequences import NetworkSequence

LIMIT = 300  # networks drawn


def draw_networks(rng, hardware, least):
    """At least `least` random compiled networks which together have every kind of layer; those that
    add nothing are few."""
    networks, missing = [], set(ALL_KINDS)
    for _ in range(LIMIT):
        seed = int(rng.integers(2**31))
        net = random_network(
            np.random.default_rng(seed),
            stride=(1,),
            ops=("conv", "maxpool", "avgpool"),
            max_macs=600_000,
            name=f"seed {seed}",
        )
        try:
            compiled = compile_network(net, hardware, debug=True)
        except CompileError:
            continue
        kinds = mapping_points(compiled)
        if len(networks) < least or missing & kinds:
            networks.append(compiled)
            missing -= kinds
        if len(networks) >= least and not missing:
            return networks
    raise AssertionError(f"{LIMIT} random networks leave holes: {sorted(missing)}")


class RandomTest(AcceleratorTest):
    """Every network of the configuration with its own images and traffic."""

    async def stimulus(self):
        rng = random_generator()
        for compiled in self.config.networks:
            images = random_input(rng, compiled.net, int(rng.integers(1, 3)))
            self.logger.info(
                "network %s, %d layers, %d images",
                compiled.net.name,
                len(compiled.net.layers),
                len(images),
            )
            await NetworkSequence(self.env, compiled, images, random_streams(rng)).start()


@cocotb.test()
async def uvm_random(dut):
    """All images of all networks equal the predictor's, and every kind of layer was among them."""
    networks = draw_networks(
        random_generator(), hardware_of(dut), int(os.environ.get("UVM_NETWORKS") or 10)
    )
    await run(RandomTest, dut, networks=networks, coverage_goal=ALL_KINDS)
