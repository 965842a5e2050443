"""Random networks with random traffic on every stream, one after the other in one simulation.

Environment: NETWORKS how many (default 16; a network that does not fit the memories does not
count).
"""

import os

import cocotb
import numpy as np

from model.compiler import CompileError, compile_network
from model.network.random_networks import affine, random_input, random_network
from tb.lib.accelerator import on_icarus, random_generator
from tb.top.bench import IDEAL_TRAFFIC, Bench, random_streams

SMALL = dict(
    sizes=((3, 4), (1, 1), (5, 2)),
    channels=(1, 3, 4, 6),
    kernels=(1, 2, 3, 5),
    max_layers=2,
    max_macs=4_000,
)


def draw(seed: int, hardware):
    """(network, images) of a seed, or (None, reason) if the accelerator's memories cannot hold
    it."""
    rng = np.random.default_rng(seed)
    limits = SMALL if on_icarus() else dict(max_macs=1_000_000)
    net = random_network(rng, name=f"random network {seed}", **limits)
    if hardware.planes == 2:
        net = affine(net, rng)
    try:
        compile_network(net, hardware, debug=True)
    except CompileError as error:
        return None, str(error)
    return net, random_input(rng, net, 1 if on_icarus() else int(rng.integers(1, 4)))


@cocotb.test()
async def random_networks(dut):
    """Every layer of every network equals PyTorch, whatever the streams do; with and without the
    debug program."""
    rng = random_generator()
    bench = await Bench(dut).start()
    wanted = int(os.environ.get("NETWORKS") or (2 if on_icarus() else 16))
    assert wanted > 0, "NETWORKS must be at least 1"
    done = skipped = 0
    while done < wanted:
        seed = int(rng.integers(2**31))
        net, images = draw(seed, bench.hardware)
        if net is None:
            skipped += 1
            assert skipped <= 10 + wanted, f"hardly any network fits; the last one: {images}"
            continue
        debug = on_icarus() or bool(rng.random() < 0.8)
        traffic = (
            IDEAL_TRAFFIC if done % 4 == 3 else random_streams(rng)
        )  # with ideal streams the cycle model is checked too
        dut._log.info(
            "network %d of %d: seed %d, %d layers, %d images, debug %s, traffic %s",
            done + 1,
            wanted,
            seed,
            len(net.layers),
            len(images),
            debug,
            traffic,
        )
        await bench.check(net, images, debug=debug, traffic=traffic)
        done += 1
    dut._log.info(
        "%d networks, %d values compared, %d networks did not fit",
        done,
        bench.values_checked,
        skipped,
    )
    assert bench.values_checked >= done
