"""`make perf` on the fake accelerator: its table and its record name every layer."""

import numpy as np
from rich.console import Console

from host import perf, rtl_backend
from host.fake import FakeAccelerator
from model.compiler.hardware import Hardware
from tb.lib.chain import Chain


def test_both_layers_of_a_fused_sum_are_named(monkeypatch):
    chain = Chain(np.random.default_rng(4), (5, 4, 3), True, "block")
    chain.conv(5, (1, 1)).conv(5, (3, 3), (1, 1)).add("input", "conv2_3x3", clamp=(-100, 90))
    net = chain.conv(3, (1, 1)).network()

    def run_rtl(net, images, hardware, *, compiled, show):
        accelerator = FakeAccelerator([net], hardware).driver()
        accelerator.load(compiled)
        return accelerator.run(images)

    monkeypatch.setattr(rtl_backend, "run_rtl", run_rtl)
    report = perf.measure(net, Hardware(), chain.images[:1])
    cycles = {record["layer"]: record["measured"]["cycles"] for record in report["layers"]}
    assert list(cycles) == [layer.name for layer in net.layers]
    assert [name for name, count in cycles.items() if not count] == ["add3"]
    assert [record.get("fused_into") for record in report["layers"]] == [None] * 2 + [
        "conv2_3x3",
        None,
    ]
    assert all(
        record["measured"]["cycles"] == record["predicted"]["cycles"] for record in report["layers"]
    )
    console = Console(width=170, record=True)
    perf.show(report, console)
    assert "add3 (in conv2_3x3)" in console.export_text()
