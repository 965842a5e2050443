"""clipq_axi: the driver on the ports of the block for IP integrator, over AXI models of another
project; and how often the memories inside are read and written."""

from __future__ import annotations

from types import SimpleNamespace

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, FallingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from host.driver import Accelerator
from host.harness.clocking import PERIOD_NS
from host.harness.engines import SimulatedTime
from host.register_map import ErrorCode
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.network import Network
from model.performance import energy
from model.reference.integer import run_integer
from tb.lib.chain import Chain
from tb.lib.effort import scaled
from tb.top.test_driver import OTHER, SMALL, Platform, error, good_run, images


class Time(SimulatedTime):
    """Time of the simulation; `sleep` takes a microsecond."""

    async def _sleep(self, seconds: float) -> None:
        await ClockCycles(self._dut.aclk, 100)


class Send:
    """A sending channel of pynq.lib.dma on an AxiStreamSource."""

    def __init__(self, source: AxiStreamSource) -> None:
        self.source, self.transferred = source, 0
        self.transfer = lambda array: source.send_nowait(AxiStreamFrame(array.tobytes()))
        self.stop = source.clear

    @property
    def idle(self) -> bool:
        """Whether all has been sent."""
        return self.source.idle()

    def wait(self) -> None:
        """Everything has been sent when the driver asks."""
        assert self.idle

    def start(self) -> None:
        """The engine always runs."""


class Receive:
    """A receiving channel of pynq.lib.dma on an AxiStreamSink."""

    def __init__(self, sink: AxiStreamSink) -> None:
        self.sink, self.transferred = sink, 0
        self.stop = sink.clear

    def transfer(self, array: np.ndarray) -> None:
        """Name the buffer of the next packet."""
        self._buffer = array

    @property
    def idle(self) -> bool:
        """Whether the packet has come."""
        return not self.sink.empty()

    def wait(self) -> None:
        """Copy the packet into the buffer, every byte that TKEEP marks."""
        words = np.frombuffer(bytes(self.sink.recv_nowait().tdata), "<u8")
        self.transferred = words.nbytes
        self._buffer[: len(words)] = words

    def start(self) -> None:
        """The engine always runs."""


class Ports(Platform):
    """The accelerator at the ports of the block."""

    def __init__(self, dut) -> None:
        def stream(kind, prefix):
            bus = AxiStreamBus.from_prefix(dut, prefix)
            return kind(bus, dut.aclk, dut.aresetn, reset_active_level=False)

        bus = AxiLiteBus.from_prefix(dut, "s_axil")
        master = AxiLiteMaster(bus, dut.aclk, dut.aresetn, reset_active_level=False)

        async def read(offset: int) -> int:
            return await master.read_dword(int(offset))

        async def write(offset: int, value: int) -> None:
            await master.write_dword(int(offset), int(value))

        mmio = SimpleNamespace(read=resume(read), write=resume(write))
        weights, images = (
            SimpleNamespace(sendchannel=Send(stream(AxiStreamSource, f"s_axis_{name}")))
            for name in ("prog", "image")
        )
        results = SimpleNamespace(recvchannel=Receive(stream(AxiStreamSink, "m_axis_result")))
        self.driver = lambda: Accelerator(mmio, weights, images, results, clock=Time(dut))


async def power_up(dut) -> Ports:
    """Clock and reset; the models of the other side begin when the block's outputs are known."""
    dut.aresetn.value = 0
    Clock(dut.aclk, PERIOD_NS, unit="ns", impl="gpi").start()
    await ClockCycles(dut.aclk, 8)
    ports = Ports(dut)
    await ClockCycles(dut.aclk, 8)
    dut.aresetn.value = 1
    await ClockCycles(dut.aclk, 2)
    return ports


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def networks(dut):
    """What the driver computes through the ports is right, and an error comes back with its code
    and layer."""
    ports = await power_up(dut)

    @bridge
    def run() -> None:
        accelerator = ports.driver()
        for network in scaled([OTHER], [SMALL, OTHER]):
            good_run(accelerator, network)
        for code in scaled([], [ErrorCode.WEIGHTS_SHORT]):
            error(ports, code)

    await run()
    assert int(dut.irq.value) == 0


def tiled() -> Network:
    """Layers of several tiles whose weights are replayed, a 1x1 convolution, a sum by the pooling
    unit, an average pool of 8 bits."""
    chain = Chain(np.random.default_rng(7), (3, 18, 20), True, "tiled")
    chain.conv(9, (3, 3), (1, 1)).maxpool((2, 2), (2, 2)).avgpool((2, 2), (1, 1))
    return chain.conv(40, (1, 1)).conv(12, (1, 1)).add().conv(7, (3, 3), (1, 1)).network()


class Accesses:
    """Counts the accesses of the memories, at their ports, from now on."""

    def __init__(self, dut) -> None:
        self.counts = dict.fromkeys(
            ("feature buffer", "weight buffer", "partial sums", "parameters"), (0, 0)
        )
        cocotb.start_soon(self._count(dut))

    async def _count(self, dut) -> None:
        accel = dut.u_accel
        conv, stage = accel.u_conv_unit, accel.u_output_stage
        while True:
            await FallingEdge(dut.aclk)
            quads = int(accel.rd_valid.value) and int(accel.rd_count.value)
            quads += int(accel.wr_read.value) * int(dut.NUM_MODULES.value) // 4
            written = int(accel.wr_valid.value) and int(accel.wr_mask.value).bit_count()
            position = int(conv.acc_ren.value)
            first = position and int(conv.acc_first.value)
            arrives = int(accel.weights_valid.value) and int(accel.weights_ready.value)
            self._add("feature buffer", quads, written)
            self._add("weight buffer", int(accel.weight_re.value), arrives)
            self._add("partial sums", position - first + int(conv.drain_valid.value), 2 * position)
            self._add("parameters", int(stage.valid_i.value), int(stage.param_we_i.value))

    def _add(self, memory: str, reads: int, writes: int) -> None:
        before = self.counts[memory]
        self.counts[memory] = before[0] + reads, before[1] + writes


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def accesses(dut):
    """The memories are read and written as often as model/performance/energy.py says."""
    ports = await power_up(dut)
    names = ("NUM_MODULES", "BANK_WORDS", "WEIGHT_WORDS")
    hardware = Hardware(*(int(getattr(dut, name).value) for name in names))

    @bridge
    def run(network: Network) -> energy.Work:
        compiled = compile_network(network, hardware)
        accelerator = ports.driver()
        accelerator.load(compiled)
        x = images(network, 1)
        assert np.array_equal(accelerator.run(x).y, run_integer(network, x))
        return energy.accelerator(compiled)

    counted = Accesses(dut)
    for network in scaled([OTHER], [SMALL, OTHER, tiled()]):
        before = dict(counted.counts)
        work = await run(network)
        for name, memory in work.memories.items():
            got = tuple(now - then for now, then in zip(counted.counts[name], before[name]))
            assert got == (memory.reads, memory.writes), f"{network.name}, {name}: {got}"
