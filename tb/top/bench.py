"""Runs networks on the harness inside a simulation and compares every tensor that comes back with
PyTorch and NumPy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from cocotb.task import bridge, resume

from host.driver import Results
from host.harness import clocking
from host.harness.engines import IDEAL, Host, Traffic, random_traffic
from host.harness.port_flow import Flow
from host.rtl_backend import first_mismatch
from model.compiler import Compiled, compile_network
from model.performance.cycle_model import ImageCycles, predict
from tb.lib import coverage, field_coverage, layer_coverage
from tb.lib.accelerator import cycle_limit, expected_tensors, hardware_of
from tb.lib.chain import alive

IDEAL_TRAFFIC = (IDEAL, IDEAL, 0)


@dataclass(frozen=True)
class Outcome(Results):
    """What came back, the compiled network, and how each stream port flowed."""

    compiled: Compiled
    flows: list[tuple[str, Flow]]


def compare(expected: dict, got: dict) -> int:
    """Compare tensors {layer: [N, C, H, W]} in the order of `got`; returns the number of values
    compared.

    Raises AssertionError for the first layer that differs: layer, image, channel, row, column,
    expected, got.
    """
    assert got, "nothing came back to compare"
    for name, tensor in got.items():
        if problem := first_mismatch(name, expected[name], tensor):
            raise AssertionError(problem)
    return sum(tensor.size for tensor in got.values())


def compare_cycles(outcome: Outcome, prediction: ImageCycles) -> None:
    """Hold the cycle model against the counters of a run with ideal streams: each layer of each
    image, and the image, to the cycle."""
    names = [*(layer.name for layer in prediction.layers), "image"]
    predicted = [*(layer.cycles for layer in prediction.layers), prediction.total_cycles]
    for number, (cycles, total) in enumerate(
        zip(outcome.cycles.tolist(), outcome.total_cycles.tolist(), strict=True)
    ):
        for name, want, measured in zip(names, predicted, [*cycles, total], strict=True):
            assert measured == want, (
                f"image {number}, {name}: {measured} cycles in the RTL, {want} predicted"
            )


def compare_traffic(outcome: Outcome, prediction: ImageCycles) -> None:
    """Hold each layer's words read from and written to the feature buffer, and an image's words
    out of the weight buffer, against the model's, for each image.

    No stall changes them; but weights are fetched ahead, some of a layer's while the one before
    still counts.
    """
    layers = prediction.layers
    predicted = sum(layer.weight_words for layer in layers)
    assert len(outcome.counters), "no image was counted"
    for number, counters in enumerate(outcome.counters):
        for layer, (_, _, reads, writes, _) in zip(layers, counters, strict=True):
            assert (reads, writes) == (layer.reads, layer.writes), (
                f"image {number}, {layer.name}: {reads} words read and {writes} written in the "
                f"RTL, {layer.reads} and {layer.writes} predicted"
            )
        fetched = int(counters[:, 4].sum())
        assert fetched == predicted, (
            f"image {number}: {fetched} weight words left the buffer in the RTL, {predicted} "
            "predicted"
        )


class Bench:
    """One harness and its host; networks are run one after the other without a reset in between."""

    def __init__(self, dut):
        self.dut = dut
        self.host = Host(dut)
        self.hardware = hardware_of(dut)
        self.values_checked = 0
        self.last_network = None

    async def start(self) -> Bench:
        """Clock, reset, register master."""
        await self.host.start()
        self.accelerator = await bridge(self.host.accelerator)()
        return self

    async def run(
        self, net, images: np.ndarray, *, debug: bool = True, traffic: tuple = IDEAL_TRAFFIC
    ) -> Outcome:
        """Load a network's program, run the images (integers [N, C, H, W]), stop.

        debug: every layer's tensor is sent. traffic: (program and weights engine, image engine,
        result stall of 256).
        """
        compiled = compile_network(net, self.hardware, debug)
        self.host.set_traffic(*traffic)
        await bridge(self.accelerator.load)(compiled)
        self.host.flows = [("program", Flow.read(self.dut.prog_monitor_o))]
        results = await self.run_loaded(compiled, images)
        return Outcome(**vars(results), compiled=compiled, flows=self.host.flows)

    async def run_loaded(self, compiled: Compiled, images: np.ndarray) -> Results:
        """Run the images with the program that is loaded; total_cycles are the harness's."""
        totals = []

        async def note(_: int) -> None:
            totals.append(await self.host.measure())

        limit = cycle_limit(compiled) * clocking.PERIOD_NS / 1e9
        drive = bridge(self.accelerator.run)
        results = await drive(images, timeout=limit, done=resume(note))
        return replace(results, total_cycles=np.array(totals))

    async def check(self, net, images: np.ndarray, **options) -> Outcome:
        """Run and compare all that comes back with PyTorch; `options` as for `run`."""
        expected = expected_tensors(net, images)
        outcome = await self.run(net, images, **options)
        compared = compare(expected, outcome.tensors)
        assert compared, f"{net.name}: nothing was compared"
        self.values_checked += compared
        self._sample(net, images, outcome)
        prediction = predict(outcome.compiled)
        compare_traffic(outcome, prediction)
        if options.get("traffic", IDEAL_TRAFFIC) == IDEAL_TRAFFIC:
            compare_cycles(outcome, prediction)
        self.dut._log.info(
            "%s: %s equal, %s cycles",
            net.name,
            ", ".join(f"{name} {list(expected[name].shape[1:])}" for name in outcome.tensors),
            outcome.total_cycles.tolist(),
        )
        return outcome

    def _sample(self, net, images: np.ndarray, outcome: Outcome) -> None:
        """Coverage of a run whose results were equal."""
        layer_coverage.sample(outcome.compiled, outcome.tensors)
        field_coverage.sample(outcome.compiled)
        coverage.hit("run", f"{layer_coverage.amount(len(images))} images")
        sample_flows(outcome.flows)
        if self.last_network not in (None, net):
            coverage.hit("run", "other program")
        self.last_network = net

    async def check_alive(self, net, images: np.ndarray, **options) -> Outcome:
        """As `check`, for hand-made networks: also refuses tensors in which nothing varies, since
        they would prove nothing."""
        outcome = await self.check(net, images, **options)
        for name, tensor in outcome.tensors.items():
            if not alive(tensor):
                raise AssertionError(
                    f"layer {name!r} of {net.name!r} is all but constant: a test without content"
                )
        return outcome


def sample_flows(flows: list[tuple[str, Flow]]) -> None:
    """Coverage of the stalls that the monitors measured while results came back equal."""
    weights = "none"
    for port, flow in flows:
        stalls = flow.receiver if port == "result" else flow.sender
        coverage.hit("stall", f"{port} {stalls}")
        if port in ("weights", "image") and flow.held:
            coverage.hit("stall", f"{port} held")
        if port == "weights":
            weights = stalls
        elif port == "result":
            coverage.hit("stall_cross", f"weights {weights} result {stalls}")


def random_streams(rng: np.random.Generator) -> tuple[Traffic, Traffic, int]:
    """Random behaviour of the weights engine, the image engine and the receiver of the results."""
    return random_traffic(rng), random_traffic(rng), int(rng.choice([0, 20, 128, 230]))
