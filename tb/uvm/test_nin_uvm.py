"""Network-in-Network on a real image in the UVM environment."""

import cocotb

from model.compiler import compile_network
from tb.lib.accelerator import hardware_of, random_generator
from tb.lib.nin import load_nin, nin_images
from tb.uvm.base_test import AcceleratorTest, run
from tb.uvm.sequences import NetworkSequence


class NinTest(AcceleratorTest):
    """The whole network on one bundled test image, every layer emitted."""

    async def stimulus(self):
        (compiled,) = self.config.networks
        images, _ = nin_images(compiled.net, 1, random_generator())
        await NetworkSequence(self.env, compiled, images).start()


@cocotb.test()
async def nin_uvm(dut):
    """Every layer of the network equals the predictor's."""
    net = load_nin()
    await run(
        NinTest,
        dut,
        networks=[compile_network(net, hardware_of(dut), debug=True)],
        coverage_goal=_goal(net),
    )


def _goal(net):
    """What the network consists of: a whole image must have hit it."""
    sign = "signed" if net.input_signed else "unsigned"
    return frozenset(
        {
            f"layer_mapping.conv 5 wide {sign}",
            f"layer_mapping.conv vertical taps {sign}",
            f"layer_mapping.conv several tiles {sign}",
            "layer_mapping.conv 1 wide unsigned",
            "layer_mapping.conv 3 wide unsigned",
            "layer_op.maxpool unsigned",
        }
    )
