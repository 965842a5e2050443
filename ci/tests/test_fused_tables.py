"""The tables of `make perf` and `make demo` name both layers of a fused sum; on the fake
accelerator."""

import numpy as np
import pytest
from rich.console import Console

from host import demo, perf, rtl_backend
from host.fake import FakeAccelerator
from model.compiler.hardware import Hardware
from tb.lib.chain import Chain

WRONG = "add3"


@pytest.fixture
def block(monkeypatch):
    """(network, images) of a block; where `run` is given a wrong value, it is one of WRONG."""
    chain = Chain(np.random.default_rng(4), (5, 4, 3), True, "block")
    chain.conv(5, (1, 1)).conv(5, (3, 3), (1, 1)).add("input", "conv2_3x3", clamp=(-100, 90))
    net = chain.conv(3, (1, 1)).network()

    def run_rtl(net, images, hardware, *, compiled, show=False):
        accelerator = FakeAccelerator([net], hardware).driver()
        accelerator.load(compiled)
        return accelerator.run(images)

    monkeypatch.setattr(rtl_backend, "run_rtl", run_rtl)
    return net, chain.images


def printed(console):
    return {
        line.split()[1]: line for line in console.export_text().splitlines() if "\u2502" in line
    }


def test_perf_counts_both_in_the_convolution(block):
    net, images = block
    report, console = perf.measure(net, Hardware(), images[:1]), Console(width=170, record=True)
    records = {record["layer"]: record for record in report["layers"]}
    assert list(records) == [layer.name for layer in net.layers]
    for name, record in records.items():
        assert record["measured"]["cycles"] == record["predicted"]["cycles"]
        assert (record["measured"]["cycles"] == 0) == (name == "add3")
        assert record.get("fused_into") == ("conv2_3x3" if name == "add3" else None)
    perf.show(report, console)
    assert "add3 (in conv2_3x3)" in printed(console)["add3"]
    assert perf.differences(report) == []
    for where, name in (
        (report["total_cycles"], "image"),
        (records["conv1_1x1"]["measured"], "conv1_1x1: reads"),
        (records["conv1_1x1"]["measured"], "weight words"),
    ):
        key = {"image": "measured", "weight words": "weight_words"}.get(name, "reads")
        where[key] += 1
        assert perf.differences(report) == [name]
        where[key] -= 1


@pytest.mark.parametrize("wrong", [0, 1])
def test_demo_compares_what_is_written(block, wrong, monkeypatch):
    net, images = block
    run_rtl, console = rtl_backend.run_rtl, Console(width=170, record=True)

    def planted(*arguments, **options):
        run = run_rtl(*arguments, **options)
        run.tensors[WRONG][0, 4, 3, 2] += wrong
        return run

    monkeypatch.setattr(rtl_backend, "run_rtl", planted)
    assert demo.compare_layers(net, images, Hardware(), console) == (not wrong)
    rows = printed(console)
    assert "in add3" in rows["conv2_3x3"] and "all" in rows["conv1_1x1"]
    assert ("all" in rows[WRONG].split()) != bool(wrong)
