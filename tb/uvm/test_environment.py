"""The environment itself: it must fail when it saw nothing, a tensor differs, a part of it is
disabled, or coverage has holes."""

from unittest import mock

import cocotb
from cocotb.triggers import ClockCycles
from pyuvm import uvm_factory

from model.compiler import compile_network
from tb.lib.accelerator import hardware_of, random_generator
from tb.lib.chain import Chain
from tb.top import bench as network_bench
from tb.top.bench import Bench
from tb.uvm.agents import RegisterMonitor, ResultMonitor, StreamMonitor
from tb.uvm.base_test import AcceleratorTest, run
from tb.uvm.config import PASSIVE
from tb.uvm.coverage import LayerCoverage
from tb.uvm.predictor import Predictor
from tb.uvm.scoreboards import ResultScoreboard
from tb.uvm.sequences import NetworkSequence


def small_chain():
    """Two layers that even Icarus simulates in seconds."""
    return (
        Chain(random_generator(), (3, 3, 2), True, "small")
        .conv(5, (1, 3), (0, 1))
        .maxpool((2, 1), (1, 1))
    )


def small_network(dut):
    """The chain, compiled with the debug bit."""
    return compile_network(small_chain().network(), hardware_of(dut), debug=True)


class OneImage(AcceleratorTest):
    """One image of the only network."""

    async def stimulus(self):
        (compiled,) = self.config.networks
        await NetworkSequence(self.env, compiled, small_chain().images[:1]).start()


class Silent(AcceleratorTest):
    """Sends nothing."""

    async def stimulus(self):
        await ClockCycles(self.config.dut.clk_i, 10)


class LyingPredictor(Predictor):
    """Changes one expected value: channel 4, row 2, column 1 of the first layer."""

    def expected(self, compiled, image):
        tensors = super().expected(compiled, image)
        name = compiled.net.layers[0].name
        tensors[name] = tensors[name].copy()
        tensors[name][0, 4, 2, 1] += 1
        return tensors


class Corrupted(OneImage):
    """Uses the lying predictor."""

    def build_phase(self):
        uvm_factory().set_type_override_by_type(Predictor, LyingPredictor)
        super().build_phase()


class DeafScoreboard(ResultScoreboard):
    """Never takes anything out of its fifos."""

    async def run_phase(self):
        pass


class Deaf(OneImage):
    """Uses the deaf scoreboard."""

    def build_phase(self):
        uvm_factory().set_type_override_by_type(ResultScoreboard, DeafScoreboard)
        super().build_phase()


class Mute:
    """Mixin of a monitor that sees nothing."""

    async def run_phase(self):
        pass


class MuteResultMonitor(Mute, ResultMonitor):
    """Publishes no result packet."""


class MuteStreamMonitor(Mute, StreamMonitor):
    """Publishes no packet that was sent."""


class MuteRegisterMonitor(Mute, RegisterMonitor):
    """Publishes no access."""


class LazyPredictor(Predictor):
    """Expects nothing of an image."""

    def expected(self, compiled, image):
        return {}


class BlindScoreboard(ResultScoreboard):
    """Takes everything and compares nothing."""

    def _compare(self, expected, packets):
        pass


class SilentCoverage(LayerCoverage):
    """Samples nothing."""

    def write(self, tt):
        pass


def disabled(original, replacement):
    """The one-image test with a part replaced."""

    class Disabled(OneImage):
        """One image with a part that does not work."""

        def build_phase(self):
            uvm_factory().set_type_override_by_type(original, replacement)
            super().build_phase()

    return Disabled


class Watching(AcceleratorTest):
    """A passive environment beside another test bench that does the work."""

    async def stimulus(self):
        (compiled,) = self.config.networks
        bench = Bench(self.config.dut)
        bench.host = self.config.host
        await bench.check(compiled.net, small_chain().images[:2])
        await bench.host.read(0)
        assert not hasattr(self.env.program, "driver"), "a passive agent has a driver"
        await ClockCycles(self.config.dut.clk_i, 10)


async def must_fail(test, dut, *words, **options):
    """Run a test that has to fail with a message that holds all `words`."""
    try:
        await run(test, dut, networks=[small_network(dut)], **options)
    except AssertionError as error:
        message = str(error)
        assert all(word in message for word in words), (
            f"{test.__name__} failed with another message: {message}"
        )
        dut._log.info("%s failed as it must: %s", test.__name__, message.splitlines()[0])
        return
    raise AssertionError(f"{test.__name__} passed although it must fail")


@cocotb.test()
async def good_run_passes(dut):
    """The control: the same network, predictor and scoreboard without any sabotage."""
    await run(OneImage, dut, networks=[small_network(dut)])


@cocotb.test()
async def nothing_seen_fails(dut):
    """No stimulus: scoreboards that checked nothing fail."""
    await must_fail(Silent, dut, "checked nothing")


@cocotb.test()
async def corrupted_expectation_is_reported(dut):
    """One wrong value is found and located."""
    layer = small_network(dut).net.layers[0].name
    await must_fail(
        Corrupted, dut, f"layer {layer!r}", "1 of ", "channel 4, row 2, column 1", "expected", "got"
    )


@cocotb.test()
async def unread_results_fail(dut):
    """Results that the scoreboard never looked at do not pass."""
    await must_fail(Deaf, dut, "problems")


@cocotb.test()
async def coverage_hole_fails(dut):
    """A kind of layer that was never run is named."""
    await must_fail(
        OneImage,
        dut,
        "coverage holes",
        "layer_op.avgpool signed",
        coverage_goal=frozenset({"layer_op.avgpool signed"}),
    )


@cocotb.test()
async def disabled_monitors_fail(dut):
    """Each monitor that sees nothing turns the run red."""
    await must_fail(
        disabled(ResultMonitor, MuteResultMonitor), dut, "an expected image never came back"
    )
    await must_fail(disabled(StreamMonitor, MuteStreamMonitor), dut, "no image calls for")
    await must_fail(
        disabled(RegisterMonitor, MuteRegisterMonitor),
        dut,
        "the register scoreboard checked nothing",
    )


@cocotb.test()
async def disabled_reference_fails(dut):
    """A predictor that expects nothing of an image."""
    await must_fail(disabled(Predictor, LazyPredictor), dut, "checked nothing")


@cocotb.test()
async def disabled_comparison_fails(dut):
    """A scoreboard that takes everything and compares nothing."""
    await must_fail(
        disabled(ResultScoreboard, BlindScoreboard), dut, "the scoreboard checked nothing"
    )


@cocotb.test()
async def disabled_bench_fails(dut):
    """The bench of the tests without UVM: a reference that knows nothing, or a comparison that
    compares nothing."""
    bench = await Bench(dut).start()
    for part, replacement in (
        ("expected_tensors", lambda net, images: {}),
        ("compare", lambda expected, got: 0),
    ):
        with mock.patch.object(network_bench, part, replacement):
            try:
                await bench.check(small_network(dut).net, small_chain().images[:1])
            except (AssertionError, KeyError) as error:
                dut._log.info("without %s the bench failed as it must: %r", part, error)
            else:
                raise AssertionError(f"the bench passed without {part}")
    assert not bench.values_checked


@cocotb.test()
async def disabled_coverage_fails(dut):
    """A collector that samples nothing leaves holes; the same goal is reached with it."""
    goal = frozenset(
        f"layer_op.{layer.op} {'signed' if layer.in_signed else 'unsigned'}"
        for layer in small_network(dut).net.layers
    )
    await must_fail(
        disabled(LayerCoverage, SilentCoverage), dut, "coverage holes", *goal, coverage_goal=goal
    )
    await run(OneImage, dut, networks=[small_network(dut)], coverage_goal=goal)


@cocotb.test()
async def passive_environment_checks(dut):
    """Passive agents drive nothing, yet the scoreboard checks what another test bench does."""
    await run(Watching, dut, networks=[small_network(dut)], is_active=PASSIVE)
