"""The bench of whole networks itself: it must fail when a part of it is disabled."""

from unittest import mock

import cocotb

from host.harness.engines import Host
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.top import bench as network_bench
from tb.top.bench import Bench


@cocotb.test()
async def disabled_bench_fails(dut):
    """A reference that knows nothing, a comparison that compares nothing, or a packet that came and
    was not read."""
    chain = Chain(random_generator(), (3, 3, 2), True, "small").conv(5, (1, 3), (0, 1))
    bench = await Bench(dut).start()
    packet = Host.packet

    async def unread(host: Host):
        words = await packet(host)
        host.taken = (0, 0)
        return words

    for owner, part, replacement in (
        (network_bench, "expected_tensors", lambda net, images: {}),
        (network_bench, "compare", lambda expected, got: 0),
        (Host, "packet", unread),
    ):
        with mock.patch.object(owner, part, replacement):
            try:
                await bench.check(chain.network(), chain.images[:1])
            except (AssertionError, KeyError) as error:
                dut._log.info("without %s the bench failed as it must: %r", part, error)
            else:
                raise AssertionError(f"the bench passed without {part}")
    assert not bench.values_checked
