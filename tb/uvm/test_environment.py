"""The environment itself: the same sequence on both kinds of drivers, passive use, and failure when
it saw nothing, a tensor differs, a monitor drops a beat, a part is disabled, coverage has holes."""

from __future__ import annotations

import cocotb
import pytest
import pyuvm
from cocotb.task import bridge
from cocotb.triggers import ClockCycles, FallingEdge
from pyuvm import uvm_active_passive_enum, uvm_factory, uvm_root

from host.harness import clocking
from host.harness.engines import Host, rest
from model.compiler import compile_network
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.lib.handshake import ProtocolError, transfer
from tb.uvm.axi_lite import RegisterMonitor
from tb.uvm.axi_stream import FULL_BEAT, StreamMonitor
from tb.uvm.dma import DmaPacketDriver, DmaReadyDriver, use_dma
from tb.uvm.env import AcceleratorTest
from tb.uvm.predictor import Predictor
from tb.uvm.scoreboard import LayerCoverage, ResultScoreboard
from tb.uvm.sequences import NetworkSequence


class OneImage(AcceleratorTest):
    """One image of a network that even Icarus simulates in seconds.

    pauses: random ones of senders and receiver. replaced: what the factory makes of a class. at:
    only at this path.
    """

    pauses = False
    replaced: dict[type, type] = {}
    at: str | None = None

    def networks(self):
        self.chain = Chain(random_generator(), (3, 3, 2), True, "small")
        self.chain.conv(5, (1, 3), (0, 1)).maxpool((2, 1), (1, 1))
        return [compile_network(self.chain.network(), self.hardware, debug=True)]

    def build_phase(self):
        factory = uvm_factory()
        for original, replacement in self.replaced.items():
            if self.at:
                factory.set_inst_override_by_type(original, replacement, self.at)
            else:
                factory.set_type_override_by_type(original, replacement)
        super().build_phase()

    async def stimulus(self):
        (compiled,) = self.compiled
        seed = int(random_generator().integers(2**31)) if self.pauses else None
        await self.start(NetworkSequence(compiled, self.chain.images[:1], seed))


def must_fail(pattern: str):
    """A UVM test that has to fail with a message in which the pattern is found."""
    return pyuvm.test(expect_error=(pytest.RaisesExc(AssertionError, match=pattern),))


# ---------------------------------------------------------------------------- both kinds of drivers


class Witness(ResultScoreboard):
    """Writes down what reaches the scoreboard, in its order."""

    def build_phase(self):
        super().build_phase()
        self.seen = []

    def control(self, item):
        self.seen.append(item)
        super().control(item)

    def packet(self, packet):
        self.seen.append((packet.words.tolist(), packet.keep))
        super().packet(packet)

    def compare(self, expected, packets):
        self.seen.append({name: tensor.tolist() for name, tensor in expected.tensors.items()})
        super().compare(expected, packets)


class OnPins(OneImage):
    """The usual drivers, on the pins; the clock runs."""

    pauses = True
    replaced = {ResultScoreboard: Witness}

    async def reset(self):
        rest(self.dut)
        await clocking.reset(self.dut)


class OnEngines(OnPins):
    """The harness's engines."""

    def build_phase(self):
        use_dma()
        super().build_phase()


@cocotb.test()
async def same_sequence_on_both_drivers(dut):
    """One sequence on the pins and through the engines: the scoreboards saw the same."""
    seen = []
    rest(dut)
    await clocking.start(dut)
    for test in (OnPins, OnEngines):
        await uvm_root().run_test(test)
        env = uvm_root().uvm_test_top.env
        engines = isinstance(env.program.driver, DmaPacketDriver)
        assert engines == isinstance(env.result.driver, DmaReadyDriver) == (test is OnEngines)
        seen.append((list(env.scoreboard.seen), env.scoreboard.values))
    assert seen[0] == seen[1] and len(seen[0][0]) >= 4, "the scoreboards saw different things"


# ---------------------------------------------------------------------------------------- good runs


@pyuvm.test()
class GoodRun(OneImage):
    """The control: the same network, predictor and scoreboard without any sabotage."""

    pauses = True


@pyuvm.test()
class Passive(OneImage):
    """Passive agents drive nothing, yet the scoreboard checks what somebody else does."""

    is_active = uvm_active_passive_enum.UVM_PASSIVE

    async def reset(self):
        self.host = Host(self.dut)
        await self.host.start()

    async def stimulus(self):
        (compiled,) = self.compiled
        accelerator = await bridge(self.host.accelerator)()
        await bridge(accelerator.load)(compiled)
        await bridge(accelerator.run)(self.chain.images[:2])
        await self.host.read(0)
        await ClockCycles(self.dut.clk_i, 10)
        assert not hasattr(self.env.program, "driver"), "a passive agent has a driver"
        assert self.env.scoreboard.images == 2


@pyuvm.test()
class CoverageReached(OneImage):
    """A goal that the network reaches: its kinds of layers."""

    @property
    def coverage_goal(self):
        return frozenset(
            f"layer_op.{layer.op} {'signed' if layer.in_signed else 'unsigned'}"
            for layer in self.compiled[0].net.layers
        )


@cocotb.test()
@cocotb.parametrize(
    (
        ("steps", "problem"),
        [
            (((1, 0, 5), (1, 0, 5), (1, 1, 5)), None),
            (((1, 0, 5), (0, 0, 5)), "fell before its offer was taken"),
            (((1, 0, 5), (1, 1, 6)), "changed before it was taken"),
            (((1, 0, 5), (1, 0, 6), (1, 0, 5), (1, 1, 5)), "changed before it was taken"),
        ],
    )
)
async def handshakes_are_checked(dut, steps, problem):
    """What the monitors stand on: an offer (valid, ready, data) stays until it is taken. The pins
    are without effect here."""
    valid, ready, data = dut.s_axis_prog_tvalid, dut.s_axis_prog_tlast, dut.s_axis_prog_tdata
    rest(dut)
    await clocking.start(dut)

    async def drive():
        for valid.value, ready.value, data.value in steps:
            await FallingEdge(dut.clk_i)

    cocotb.start_soon(drive())
    taken = transfer(dut.clk_i, valid, ready, [data])
    if problem is None:
        assert await taken == (5,)
    else:
        with pytest.raises(ProtocolError, match=problem):
            await taken


# ----------------------------------------------------------------------------------- planted errors


@must_fail("checked nothing")
class Silent(OneImage):
    """No stimulus: scoreboards that checked nothing fail."""

    async def stimulus(self):
        await ClockCycles(self.dut.clk_i, 10)


class LyingPredictor(Predictor):
    """Changes one expected value: channel 4, row 2, column 1 of the first layer."""

    def expected(self, compiled, image):
        tensors = super().expected(compiled, image)
        name = compiled.net.layers[0].name
        tensors[name] = tensors[name].copy()
        tensors[name][0, 4, 2, 1] += 1
        return tensors


@must_fail(r"layer '\w+': 1 of .* channel 4, row 2, column 1: expected -?\d+, got")
class WrongValue(OneImage):
    """One wrong value is found and located."""

    replaced = {Predictor: LyingPredictor}


class DroppingMonitor(StreamMonitor):
    """Does not see the second beat."""

    beats = 0

    def beat(self, word, keep, last):
        self.beats += 1
        if self.beats != 2:
            super().beat(word, keep, last)


class BeatDropped(OneImage):
    """The monitor of one stream drops a beat."""

    replaced = {StreamMonitor: DroppingMonitor}


@must_fail("a program was sent that is of none of the test's networks")
class ProgramBeatDropped(BeatDropped):
    """On the stream of programs and weights."""

    at = "uvm_test_top.env.program.monitor"


@must_fail(r"image 1: \d+ beats, an image of 'small' has \d+")
class ImageBeatDropped(BeatDropped):
    """On the stream of images."""

    at = "uvm_test_top.env.image.monitor"


@must_fail(r"a packet of \d+ beats, the last with TKEEP \w+, expected \d+")
class ResultBeatDropped(BeatDropped):
    """On the stream of results."""

    at = "uvm_test_top.env.result.monitor"


class TrailingMonitor(StreamMonitor):
    """Sees one more beat behind the second packet."""

    packets = 0

    def beat(self, word, keep, last):
        super().beat(word, keep, last)
        self.packets += last
        if last and self.packets == 2:
            super().beat(word, FULL_BEAT, False)


@must_fail("1 beats without TLAST were left over")
class ResultBeatLeft(OneImage):
    """A beat that belongs to no packet behind the last result."""

    replaced, at = {StreamMonitor: TrailingMonitor}, "uvm_test_top.env.result.monitor"


class FlippingMonitor(StreamMonitor):
    """Reads one bit of the first beat wrongly."""

    def beat(self, word, keep, last):
        super().beat(word if self.words else word ^ 1, keep, last)


@must_fail("1 of .* values differ")
class ResultBitFlipped(OneImage):
    """What the result monitor reads is what is compared."""

    replaced, at = {StreamMonitor: FlippingMonitor}, "uvm_test_top.env.result.monitor"


# ----------------------------------------------------------------------------------- disabled parts


class Mute:
    """Mixin of a part that does nothing."""

    async def run_phase(self):
        pass


class MuteStreamMonitor(Mute, StreamMonitor):
    """Publishes no packet."""


class MuteRegisterMonitor(Mute, RegisterMonitor):
    """Publishes no access."""


class DeafScoreboard(Mute, ResultScoreboard):
    """Never takes anything out of its fifos."""


class ForgetfulPredictor(Predictor):
    """Expects nothing of the last layer."""

    def expected(self, compiled, image):
        tensors = super().expected(compiled, image)
        tensors.popitem()
        return tensors


class LazyPredictor(Predictor):
    """Expects nothing of an image."""

    def expected(self, compiled, image):
        return {}


class BlindScoreboard(ResultScoreboard):
    """Takes everything and compares nothing."""

    def compare(self, expected, packets):
        pass


class SilentCoverage(LayerCoverage):
    """Samples nothing."""

    def write(self, tt):
        pass


@must_fail("an expected image never came back")
class NoResultMonitor(OneImage):
    """Results that nobody saw."""

    replaced, at = {StreamMonitor: MuteStreamMonitor}, "uvm_test_top.env.result.monitor"


@must_fail("images but")
class NoImageMonitor(OneImage):
    """Images that nobody saw."""

    replaced, at = {StreamMonitor: MuteStreamMonitor}, "uvm_test_top.env.image.monitor"


@must_fail("image 1 was sent without a program")
class NoProgramMonitor(OneImage):
    """A program that nobody saw."""

    replaced, at = {StreamMonitor: MuteStreamMonitor}, "uvm_test_top.env.program.monitor"


@must_fail("the register scoreboard checked nothing")
class NoRegisterMonitor(OneImage):
    """Accesses that nobody saw."""

    replaced = {RegisterMonitor: MuteRegisterMonitor}


@must_fail("an expected image never came back")
class Deaf(OneImage):
    """Results that the scoreboard never looked at."""

    replaced = {ResultScoreboard: DeafScoreboard}


@must_fail(r"\[\] predicted of \['\w+', '\w+'\]")
class NoReference(OneImage):
    """A predictor that expects nothing of an image."""

    replaced = {Predictor: LazyPredictor}


@must_fail(r"\['\w+'\] predicted of \['\w+', '\w+'\]")
class LayerForgotten(OneImage):
    """A predictor that leaves out a layer."""

    replaced = {Predictor: ForgetfulPredictor}


@must_fail("the scoreboard checked nothing")
class NoComparison(OneImage):
    """A scoreboard that takes everything and compares nothing."""

    replaced = {ResultScoreboard: BlindScoreboard}


@must_fail(r"coverage holes: layer_op\.avgpool signed")
class CoverageHole(OneImage):
    """A kind of layer that was never run is named."""

    coverage_goal = frozenset({"layer_op.avgpool signed"})


@must_fail(r"coverage holes: layer_op\.conv signed, layer_op\.maxpool")
class NoCoverage(CoverageReached):
    """A collector that samples nothing leaves holes."""

    replaced = {LayerCoverage: SilentCoverage}
