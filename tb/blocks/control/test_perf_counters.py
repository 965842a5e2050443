"""Tests of rtl/control/perf_counters.sv: counters of random layers and images against counts in
Python."""

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, Timer

from host.harness import clocking
from tb.lib import cover_groups, coverage, meeting

INPUTS = (
    "start_i",
    "layer_active_i",
    "layer_end_i",
    "layer_i",
    "stall_i",
    "reads_i",
    "writes_i",
    "weight_i",
    "first_beat_i",
    "results_done_i",
    "image_end_i",
    "sel_i",
)
OUTPUTS = ("cycles_o", "stalls_o", "reads_o", "writes_o", "weights_o")


class Bench:
    """Drives random events and counts them."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.now = dict.fromkeys(OUTPUTS, 0)
        self.image_cycles = None

    async def cycle(
        self, active=False, end=False, first=False, results_done=False, image_end=False
    ):
        """One clock cycle with random events."""
        dut, rng = self.dut, self.rng
        stall, weight = int(rng.integers(2)), int(rng.integers(2))
        reads, writes = (int(n) for n in rng.integers(0, 9, 2))
        for port, value in (
            ("layer_active_i", active),
            ("layer_end_i", end),
            ("stall_i", stall),
            ("weight_i", weight),
            ("reads_i", reads),
            ("writes_i", writes),
            ("first_beat_i", first),
            ("results_done_i", results_done),
            ("image_end_i", image_end),
        ):
            getattr(dut, port).value = int(value)
        if active:
            for port, amount in (
                ("cycles_o", 1),
                ("stalls_o", stall),
                ("reads_o", reads),
                ("writes_o", writes),
            ):
                self.now[port] += (
                    0 if end and port != "cycles_o" else amount
                )  # a unit has nothing to do in the last cycle
        self.next_weights = (
            weight if end else 0
        )  # a word fetched in the last cycle counts to the next layer
        self.now["weights_o"] += weight - self.next_weights
        if self.image_cycles is not None:
            self.image_cycles += 1
        elif first:
            self.image_cycles = 0
        await RisingEdge(dut.clk_i)


async def _start(dut):
    for name in INPUTS:
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    assert dut.total_cycles_o.value == 0 and dut.images_o.value == 0
    return np.random.default_rng(cocotb.RANDOM_SEED)


async def _read(dut, layer):
    dut.sel_i.value = layer
    await ClockCycles(dut.clk_i, 3)
    return {port: getattr(dut, port).value.to_unsigned() for port in OUTPUTS}


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def layers_and_images(dut):
    """All layers of several images, the sums of each readable afterwards; cycles count the layer's
    last one, traffic comes before it."""
    rng = await _start(dut)
    bench = Bench(dut, rng)
    layers = int(dut.MAX_LAYERS.value)
    assert await _read(dut, int(rng.integers(layers))) == dict.fromkeys(OUTPUTS, 0), (
        "a layer that never ran has counts"
    )
    beyond = range(layers, 1 << len(dut.sel_i))
    assert not beyond or await _read(dut, beyond[-1]) == dict.fromkeys(OUTPUTS, 0)
    ended = set()
    for image in range(1, 4):
        stored = {}
        await bench.cycle()
        await bench.cycle(first=True)
        for _ in range(int(rng.integers(1, 30))):
            await bench.cycle(first=bool(rng.integers(2)))
        for layer in rng.permutation(layers)[: 6 if image < 3 else layers]:
            layer = int(layer)
            for _ in range(int(rng.integers(3, 60))):
                await bench.cycle(active=True)
            dut.layer_i.value = layer
            await bench.cycle(active=True, end=True)
            stored[layer], bench.now = (
                bench.now,
                {**dict.fromkeys(OUTPUTS, 0), "weights_o": bench.next_weights},
            )
            for _ in range(int(rng.integers(0, 5))):
                await bench.cycle()
        # The weights packet may end long after the last result: these cycles are not the image's.
        late = int(rng.choice([0, 1, 30]))
        for _ in range(late):
            await bench.cycle(results_done=True)
        await bench.cycle(results_done=True, image_end=True)
        dut.first_beat_i.value = dut.results_done_i.value = dut.image_end_i.value = (
            dut.weight_i.value
        ) = 0
        # The first beat is seen a cycle after it was accepted; both cycles and the one of the last
        # result beat count.
        total, bench.image_cycles = bench.image_cycles + 1 - late, None
        await RisingEdge(dut.clk_i)
        assert dut.images_o.value.to_unsigned() == image
        assert dut.total_cycles_o.value.to_unsigned() == total, (
            f"{dut.total_cycles_o.value.to_unsigned()} cycles, expected {total}"
        )
        for layer, want in stored.items():
            got = await _read(dut, layer)
            assert got == want, f"image {image}, layer {layer}: {got}, expected {want}"
        ended |= set(stored)
        for layer in set(range(layers)) - ended:
            assert await _read(dut, layer) == dict.fromkeys(OUTPUTS, 0), (
                f"image {image}: layer {layer} has counts and never ran"
            )


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def start_counts_anew(dut):
    """START clears the layers' counts and the number of images, also in the cycle of an image's
    end; images are counted again from there."""
    rng = await _start(dut)
    bench, layer = Bench(dut, rng), int(rng.integers(int(dut.MAX_LAYERS.value)))
    dut.layer_i.value = layer
    await bench.cycle(active=True, end=True)
    await bench.cycle()
    assert (await _read(dut, layer))["cycles_o"] == 1
    dut.start_i.value = 1
    await bench.cycle()
    dut.start_i.value = dut.weight_i.value = 0
    assert await _read(dut, layer) == dict.fromkeys(OUTPUTS, 0), "START left the counts of a layer"
    images = 0
    for _ in range(40):
        start, end = bool(rng.random() < 0.2), bool(rng.integers(2))
        dut.start_i.value, dut.image_end_i.value, dut.first_beat_i.value = (
            int(start),
            int(end),
            int(not end),
        )
        await RisingEdge(dut.clk_i)
        images = 0 if start else images + int(end)
        dut.start_i.value = dut.image_end_i.value = 0
        await RisingEdge(dut.clk_i)
        assert dut.images_o.value.to_unsigned() == images


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def weight_word_beside_a_layer_end(dut):
    """A word that leaves the weight buffer before, in and after a layer's last cycle counts once,
    to the layer or to the next one."""
    await _start(dut)

    async def once(offset):
        for layer in (3, 4):
            for step in range(-4, 5 if layer == 3 else 1):
                dut.layer_i.value = layer
                dut.layer_active_i.value = 1
                dut.weight_i.value = int(layer == 3 and step == offset)
                dut.layer_end_i.value = int(step == 0)
                await RisingEdge(dut.clk_i)
            dut.layer_end_i.value = dut.layer_active_i.value = dut.weight_i.value = 0
        await RisingEdge(dut.clk_i)
        counts = [(await _read(dut, layer))["weights_o"] for layer in (3, 4)]
        expected = [1, 0] if offset < 0 else [0, 1]
        assert counts == expected, f"a word {offset} cycles after a layer's end: {counts}"
        return offset

    await meeting.sweep("weight word and layer end", range(-3, 4), once)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def start_beside_an_image_end(dut):
    """START in every cycle around an image's end: the image counts to the run before, or to the
    new one if it ends later."""
    await _start(dut)

    async def once(offset):
        for step in range(-4, 5):
            dut.start_i.value, dut.image_end_i.value = int(step == offset), int(step == 0)
            await RisingEdge(dut.clk_i)
        dut.start_i.value = dut.image_end_i.value = 0
        await RisingEdge(dut.clk_i)
        images = dut.images_o.value.to_unsigned()
        assert images == int(offset < 0), f"{images} images, START {offset} cycles after the end"
        return offset

    await meeting.sweep("START and image end", range(-3, 4), once)


async def _hold(dut, cycles):
    """Let the inputs be for so many cycles, from a falling edge to another, without Python."""
    await Timer(cycles * clocking.PERIOD_NS - clocking.PERIOD_NS // 2, "ns")
    await FallingEdge(dut.clk_i)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def beyond_16_bits(dut):
    """Every counter of a layer and of an image beyond 65,535, and as many images."""
    await _start(dut)
    cycles = (1 << 16) + 5
    dut.layer_i.value = 2
    await FallingEdge(dut.clk_i)
    dut.first_beat_i.value = dut.layer_active_i.value = dut.stall_i.value = dut.weight_i.value = 1
    dut.reads_i.value, dut.writes_i.value = 8, 5
    await _hold(dut, cycles)
    dut.stall_i.value = dut.weight_i.value = dut.reads_i.value = dut.writes_i.value = 0
    dut.layer_end_i.value = 1
    await FallingEdge(dut.clk_i)
    dut.layer_end_i.value = dut.layer_active_i.value = dut.first_beat_i.value = 0
    dut.image_end_i.value = 1
    await _hold(dut, cycles)
    dut.image_end_i.value = 0
    total, images = (port.value.to_unsigned() for port in (dut.total_cycles_o, dut.images_o))
    expected = dict(zip(OUTPUTS, (cycles + 1, cycles, 8 * cycles, 5 * cycles, cycles)))
    assert await _read(dut, 2) == expected
    assert images == cycles, f"{images} images, expected {cycles}"
    assert total == 2, f"an image that ends as soon as it may has {total} cycles"
    await FallingEdge(dut.clk_i)
    dut.first_beat_i.value = 1
    await _hold(dut, cycles)
    dut.first_beat_i.value, dut.image_end_i.value = 0, 1
    await RisingEdge(dut.clk_i)
    dut.image_end_i.value = 0
    await RisingEdge(dut.clk_i)
    total = dut.total_cycles_o.value.to_unsigned()
    assert total == cycles + 1, f"{total} cycles of an image, expected {cycles + 1}"
    coverage.hit("counter_range", *cover_groups.GROUPS["counter_range"])
