"""Network-in-Network on a real image in the UVM environment."""

import pyuvm

from model.compiler import compile_network
from tb.lib.accelerator import random_generator
from tb.lib.nin import load_nin, nin_images
from tb.uvm.dma import use_dma
from tb.uvm.env import AcceleratorTest
from tb.uvm.sequences import NetworkSequence

SIGN = "signed" if load_nin().input_signed else "unsigned"


@pyuvm.test()
class NinTest(AcceleratorTest):
    """The whole network on one bundled test image: every layer equals the predictor's."""

    coverage_goal = frozenset(
        {
            f"layer_mapping.conv 5 wide {SIGN}",
            f"layer_mapping.conv vertical taps {SIGN}",
            f"layer_mapping.conv several tiles {SIGN}",
            "layer_mapping.conv 1 wide unsigned",
            "layer_mapping.conv 3 wide unsigned",
            "layer_op.maxpool unsigned",
        }
    )

    def networks(self):
        return [compile_network(load_nin(), self.hardware, debug=True)]

    def build_phase(self):
        use_dma()
        super().build_phase()

    async def stimulus(self):
        (compiled,) = self.compiled
        images, _ = nin_images(compiled.net, 1, random_generator())
        await self.start(NetworkSequence(compiled, images))
