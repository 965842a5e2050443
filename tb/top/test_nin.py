"""Network-in-Network on real CIFAR-10 images: every layer, and the whole network within its
cycles."""

import cocotb
import numpy as np

from tb.lib.accelerator import random_generator
from tb.lib.nin import load_nin, nin_images
from tb.top.bench import Bench

CYCLE_LIMIT = {
    4: 579_000,
    8: 294_000,
    16: 155_500,
}  # total_cycles of an image by number of conv modules
# Least share of useful multiplications: of the first convolution, of the others but the classifier.
UTILIZATION = {4: (0.70, 0.85), 8: (0.70, 0.85), 16: (0.70, 0.79)}
IMAGES = 2


@cocotb.test()
async def nin_layers(dut):
    """The debug program sends every layer's tensor; all equal PyTorch's."""
    rng = random_generator()
    bench = await Bench(dut).start()
    net = load_nin()
    images, _ = nin_images(net, 1, rng)
    outcome = await bench.check(net, images)
    assert list(outcome.tensors) == [layer.name for layer in net.layers]
    for layer, row in zip(net.layers, outcome.counters[-1]):
        dut._log.info(
            "%-10s %7d cycles %7d stalls %9d reads %8d writes %7d weight words", layer.name, *row
        )
        assert row[0] > 0, f"layer {layer.name!r} counted no cycles"


@cocotb.test()
async def nin_image(dut):
    """Logits of real images equal PyTorch's and NumPy's, within the cycles that the product
    promises."""
    rng = random_generator()
    bench = await Bench(dut).start()
    net = load_nin()
    images, labels = nin_images(net, IMAGES, rng)
    outcome = await bench.check(net, images, debug=False)
    logits = outcome.tensors[net.output.name]
    assert logits.shape == (IMAGES, 10, 1, 1) and len(np.unique(logits)) > 2, (
        f"logits without content: {logits.ravel()}"
    )
    dut._log.info(
        "classes %s, labels %s, cycles %s",
        np.argmax(logits[:, :, 0, 0], 1),
        labels,
        outcome.total_cycles,
    )
    check_utilization(dut, net, outcome)
    limit = CYCLE_LIMIT[bench.hardware.num_modules]
    assert outcome.total_cycles.max() <= limit, (
        f"{outcome.total_cycles.max()} cycles an image, at most {limit} are allowed"
    )


def check_utilization(dut, net, outcome):
    """MACs, padding included, per PE and cycle of every convolution but the classifier, against
    what the product promises."""
    modules = outcome.compiled.hardware.num_modules
    convolutions = [
        (layer, int(cycles))
        for layer, cycles in zip(net.layers, outcome.cycles[-1])
        if layer.op == "conv"
    ]
    for number, (layer, cycles) in enumerate(convolutions[:-1]):
        share = layer.macs / (100 * modules * cycles)
        dut._log.info("%-10s %5.1f %% of the PEs useful", layer.name, 100 * share)
        first, others = UTILIZATION[modules]
        assert share >= (others if number else first), (
            f"layer {layer.name!r}: utilization {100 * share:.1f} %"
        )
