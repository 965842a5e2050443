"""Random networks in the UVM environment until every kind of layer was seen.

Environment: UVM_NETWORKS the least number of networks (default 10).
"""

import os

import numpy as np
import pyuvm

from model.compiler import CompileError, compile_network
from model.network.random_networks import random_input, random_network
from tb.lib.accelerator import random_generator
from tb.lib.cover_groups import GROUPS
from tb.lib.layer_coverage import mapping_points
from tb.uvm.dma import use_dma
from tb.uvm.env import AcceleratorTest
from tb.uvm.sequences import NetworkSequence

LIMIT = 300  # networks drawn
ALL_KINDS = frozenset(
    f"{group}.{point}" for group in ("layer_op", "layer_mapping") for point in GROUPS[group]
)


def draw_networks(rng, hardware, least):
    """At least `least` random compiled networks which together have every kind of layer; those that
    add nothing are few."""
    networks, missing = [], set(ALL_KINDS)
    for _ in range(LIMIT):
        seed = int(rng.integers(2**31))
        net = random_network(np.random.default_rng(seed), max_macs=600_000, name=f"seed {seed}")
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


@pyuvm.test()
class RandomTest(AcceleratorTest):
    """All images of all networks equal the predictor's, and every kind of layer was among them."""

    coverage_goal = ALL_KINDS

    def networks(self):
        least = int(os.environ.get("UVM_NETWORKS") or 10)
        return draw_networks(random_generator(), self.hardware, least)

    def build_phase(self):
        use_dma()
        super().build_phase()

    async def stimulus(self):
        rng = random_generator()
        for compiled in self.compiled:
            images = random_input(rng, compiled.net, int(rng.integers(1, 3)))
            await self.start(NetworkSequence(compiled, images, int(rng.integers(2**31))))
