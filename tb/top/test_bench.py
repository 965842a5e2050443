"""The bench of whole networks itself: it must fail when a part of it is disabled."""

from unittest import mock

import cocotb

from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.top import bench as network_bench
from tb.top.bench import Bench


@cocotb.test()
async def disabled_bench_fails(dut):
    """A reference that knows nothing, or a comparison that compares nothing."""
    chain = Chain(random_generator(), (3, 3, 2), True, "small").conv(5, (1, 3), (0, 1))
    bench = await Bench(dut).start()
    for part, replacement in (
        ("expected_tensors", lambda net, images: {}),
        ("compare", lambda expected, got: 0),
    ):
        with mock.patch.object(network_bench, part, replacement):
            try:
                await bench.check(chain.network(), chain.images[:1])
            except (AssertionError, KeyError) as error:
                dut._log.info("without %s the bench failed as it must: %r", part, error)
            else:
                raise AssertionError(f"the bench passed without {part}")
    assert not bench.values_checked
