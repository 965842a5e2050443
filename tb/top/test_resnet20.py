"""The shipped ResNet-20 on real CIFAR-10 images, within the cycles that the product promises."""

import cocotb
import numpy as np

from model.data.images import ZOO
from model.network import load_network
from tb.lib.accelerator import random_generator
from tb.lib.nin import nin_images
from tb.top.bench import Bench

CYCLE_LIMIT = {
    4: 130_000,
    8: 70_000,
    16: 45_000,
}  # total_cycles of an image by number of conv modules
IMAGES = 2


@cocotb.test()
async def resnet20(dut):
    """All tensors of an image, then the logits of others, equal PyTorch's and NumPy's, in the
    cycles of the model."""
    rng = random_generator()
    bench = await Bench(dut).start()
    net = load_network(ZOO / "resnet20-cifar10.clipq.npz")
    images, labels = nin_images(net, 1 + IMAGES, rng)
    whole = await bench.check(net, images[:1])
    summed = whole.compiled.fused_into.values()  # convolutions that end in a sum
    assert list(whole.tensors) == [one.name for one in net.layers if one.name not in summed]
    outcome = await bench.check(net, images[1:], debug=False)
    logits = outcome.tensors[net.output.name]
    assert logits.shape == (IMAGES, 10, 1, 1) and len(np.unique(logits)) > 2
    dut._log.info("classes %s, labels %s", np.argmax(logits[:, :, 0, 0], 1), labels[1:])
    cycles, limit = outcome.total_cycles.max(), CYCLE_LIMIT[bench.hardware.num_modules]
    assert cycles <= limit, f"{cycles} cycles an image, at most {limit} are allowed"
