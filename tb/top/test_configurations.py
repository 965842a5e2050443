"""A short run on an accelerator with other parameters: random networks, and networks that fill the
feature and the weight buffer."""

import cocotb

from model.compiler import compile_network
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench
from tb.top.test_random_networks import random_networks  # noqa: F401  cocotb runs it

WIDTH = 16


@cocotb.test()
async def full_buffer(dut):
    """Input and output of a convolution take the whole feature buffer, its last quad included."""
    rng = random_generator()
    bench = await Bench(dut).start()
    rows = bench.hardware.quads // (2 * WIDTH)
    assert bench.hardware.quads == 2 * WIDTH * rows, "BANK_WORDS must be a multiple of 4"
    chain = Chain(rng, (3, rows, WIDTH), False, "full buffer").conv(4, (1, 1))
    compiled = compile_network(chain.network(), bench.hardware, debug=True)
    assert max(t.base + t.size for t in compiled.tensors.values()) == bench.hardware.quads, (
        "the tensors do not fill the buffer"
    )
    await bench.check_alive(chain.network(), chain.images[:1])
    assert bench.values_checked > 0


@cocotb.test()
async def full_weight_buffer(dut):
    """More weights of one layer than the weight buffer holds."""
    rng = random_generator()
    bench = await Bench(dut).start()
    channels, outputs = (40, 192) if bench.hardware.weight_words <= 1024 else (192, 384)
    chain = (
        Chain(rng, (channels, 3, 2), True, "many weights")
        .conv(outputs, (3, 3), (1, 1))
        .conv(5, (1, 1), raw=True)
    )
    outcome = await bench.check_alive(chain.network(), chain.images[:1])
    words = len(outcome.compiled.weights)
    assert words > bench.hardware.weight_words, (
        f"{words} words of weights fit the buffer: this tests nothing"
    )
    assert bench.values_checked > 0
