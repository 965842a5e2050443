"""A network of 60 layers with what networks of others have: large first kernels, strides,
shortcuts, sums of mixed signs, rectangular kernels, overlapping average pools, odd sizes."""

import cocotb

from model.compiler import compile_network
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench

LAYERS = 60


def block(chain, channels, stride):
    """A residual block whose first convolution may have a stride; then its shortcut is one, too."""
    shortcut, before = chain.layers[-1].name, chain.shape
    chain.conv(channels, (3, 3), (1, 1), stride=stride).conv(channels, (3, 3), (1, 1))
    inner, after, number = chain.layers[-1].name, chain.shape, len(chain.layers)
    if after != before:
        chain.branch(shortcut).conv(channels, (1, 1), stride=stride)
        shortcut = chain.layers[-1].name
    names = (inner, shortcut) if number % 3 else (shortcut, inner)
    clamp = (0, 255) if number % 2 else (-128, 127)
    return chain.add(*names, mult=(5, 3), shift=3, clamp=clamp)


def any_cnn(rng):
    """The chain of LAYERS layers."""
    chain = Chain(rng, (3, 37, 35), True, "any CNN")
    chain.conv(12, (7, 7), (3, 3), stride=(2, 2)).maxpool((3, 3), (2, 2), (1, 1))
    chain.conv(13, (11, 11), (5, 5)).conv(16, (2, 4), (1, 2))
    chain.avgpool((3, 3), (1, 1), (1, 1))
    while len(chain.layers) < LAYERS - 7:
        number = len(chain.layers)
        wider = number // 15 > (number - 4) // 15
        block(chain, 16 + 9 * (number // 15), (2, 1 + number % 2) if wider else (1, 1))
    chain.avgpool((3, 3), (2, 2), (1, 1))
    while len(chain.layers) < LAYERS - 1:
        chain.conv(21, (1, 1))
    return chain.conv(10, chain.shape[1:], raw=True)


@cocotb.test()
async def sixty_layers(dut):
    """Every tensor that is written, with the debug program and the plain one."""
    rng = random_generator()
    bench = await Bench(dut).start()
    chain = any_cnn(rng)
    net = chain.network()
    assert len(net.layers) == LAYERS
    fused = compile_network(net, bench.hardware).fused_into
    assert len(fused) > 8, f"only {len(fused)} sums in the write-back"
    await bench.check_alive(net, chain.images[:1])
    await bench.check(net, chain.images, debug=False)
    assert bench.values_checked
