"""The simulated accelerator: registers over AXI4-Lite, streams through the DMA engines of the
harness, and both in the form that the driver takes (`Host.accelerator`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.task import Task, resume
from cocotb.triggers import (
    ClockCycles,
    FallingEdge,
    First,
    Lock,
    NullTrigger,
    RisingEdge,
    Timer,
    ValueChange,
)
from cocotb.utils import get_sim_time
from cocotb_bus.drivers.amba import AXI4LiteMaster

from host.driver import ALL_INTERRUPTS, PATIENCE, Accelerator, beats
from host.harness import clocking
from host.harness.port_flow import Flow
from host.register_map import Ctrl, IrqStatus, Register, Status

RESULT_FILE = Path("result.hex")  # written by the receiving engine
FULL_RATE = 256  # of 256 beats a cycle
STOP_LIMIT = 4000  # cycles in which a beat that an engine offers is taken
INPUTS = {  # of the harness besides clock and reset, by prefix
    "": "pins_i arm_i result_clear_i result_dump_i result_stall_i counted_layer_i",
    "prog_": "load_i go_i base_i beats_i latency_i rate_i stall_i keep_i keep_at_i",
    "image_": "load_i go_i base_i beats_i latency_i rate_i stall_i keep_i keep_at_i",
    "s_axil_": "awprot awvalid awaddr wvalid wdata wstrb bready arprot arvalid araddr rready",
    "s_axis_prog_": "tdata tkeep tvalid tlast",
    "s_axis_image_": "tdata tkeep tvalid tlast",
    "m_axis_result_": "tready",
}


@dataclass(frozen=True)
class Traffic:
    """Behaviour of a DMA engine: first beat after `latency` cycles, `rate`/256 beats a cycle,
    pauses with `stall`/256."""

    latency: int = 0
    rate: int = FULL_RATE
    stall: int = 0


IDEAL = Traffic()


def random_traffic(rng: np.random.Generator) -> Traffic:
    """Anything from an ideal engine to one that mostly stalls."""
    return Traffic(
        int(rng.choice([0, 3, 200])),
        int(rng.choice([256, 200, 64])),
        int(rng.choice([0, 30, 128, 240])),
    )


def write_hex(path: Path, words: np.ndarray) -> None:
    """64-bit words to a file that $readmemh reads."""
    Path(path).write_text("\n".join(f"{int(word):016x}" for word in words) + "\n")


def read_beats(path: Path, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Beats begin .. end - 1 of a file that the receiving engine wrote: words, and whether TLAST
    was set."""
    lines = [
        line
        for line in Path(path).read_text().splitlines()
        if line and not line.startswith(("//", "@"))
    ][begin:end]
    if any("x" in line for line in lines):
        raise AssertionError("unknown (X) bits in the result stream")
    words = np.array([int(line[-16:], 16) for line in lines], "<u8")
    return words, np.array([line[-17] == "1" for line in lines], bool)


def read_hex(path: Path, count: int) -> np.ndarray:
    """The words of the first `count` beats, as `read_beats`."""
    return read_beats(path, 0, count)[0]


def rest(dut: Any) -> None:
    """Drive all inputs of the harness so that nothing happens; to be called before the reset."""
    for prefix, names in INPUTS.items():
        for name in names.split():
            getattr(dut, prefix + name).value = 0
    dut.prog_rate_i.value = dut.image_rate_i.value = FULL_RATE
    dut.prog_keep_i.value = dut.image_keep_i.value = 0xFF
    dut.seed_i.value = cocotb.RANDOM_SEED & 0xFFFFFFFF


class Host:
    """Drives one harness. Call `start` once; `accelerator` gives the driver, the other methods
    everything that a driver would not do."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.master: AXI4LiteMaster  # from `start` on
        self._registers = Lock()
        self._memory: dict[str, np.ndarray] = {}  # words that the engines have loaded
        self.taken = (0, 0)  # result packets and their beats that were read since result_clear_i
        self.flows: list[tuple[str, Flow]] = []  # (port, how it flowed), see `measure`

    def accelerator(self) -> Accelerator:
        """The driver. Its methods run in functions that `cocotb.task.bridge` has converted."""
        return Accelerator(
            Registers(self),
            Engine(SendChannel(self, "prog")),
            Engine(SendChannel(self, "image")),
            Engine(ReceiveChannel(self)),
            clock=SimulatedTime(self.dut),
        )

    async def start(self) -> None:
        """Drive all inputs of the harness, start clock and reset, and connect the register
        master."""
        dut = self.dut
        rest(dut)
        await clocking.start(dut)
        self.master = AXI4LiteMaster(dut, "s_axil", dut.clk_i, case_insensitive=True)
        await RisingEdge(dut.clk_i)

    def set_traffic(self, prog: Traffic, image: Traffic, result_stall: int) -> None:
        """Behaviour of the two sending engines; the result engine stalls with result_stall/256."""
        for name, traffic in (("prog", prog), ("image", image)):
            getattr(self.dut, f"{name}_latency_i").value = traffic.latency
            getattr(self.dut, f"{name}_rate_i").value = traffic.rate
            getattr(self.dut, f"{name}_stall_i").value = traffic.stall
        self.dut.result_stall_i.value = result_stall

    async def read(self, register: int) -> int:
        """Value at a byte offset. Raises AXIProtocolError. Accesses are serialized: the master
        confuses the answers of simultaneous ones."""
        async with self._registers:
            return int(await self.master.read(int(register)))

    async def write(self, register: int, value: int) -> None:
        """Write to a byte offset, as `read`."""
        async with self._registers:
            await self.master.write(int(register), value)

    async def pulse(self, *names: str) -> None:
        """One-cycle pulses on harness inputs, together."""
        await FallingEdge(self.dut.clk_i)
        for name in names:
            getattr(self.dut, name).value = 1
        await FallingEdge(self.dut.clk_i)
        for name in names:
            getattr(self.dut, name).value = 0

    async def load_files(self, prog: np.ndarray, images: np.ndarray) -> None:
        """Words of the program and weights stream, and of the image stream, into the engines'
        memories."""
        loads = [*self._write("prog", prog), *self._write("image", images)]
        await self.pulse(*loads)

    def _write(self, engine: str, words: np.ndarray) -> list[str]:
        """The input that loads these words; none if the engine has them."""
        if np.array_equal(self._memory.get(engine, np.zeros(0)), words):
            return []
        self._memory[engine] = np.array(words)
        write_hex(Path(f"{engine}.hex"), words)
        return [f"{engine}_load_i"]

    async def send(self, engine: str, base: int, beats: int) -> None:
        """Start an engine ("prog", "image"): `beats` words of its memory from word `base` on."""
        getattr(self.dut, f"{engine}_base_i").value = base
        getattr(self.dut, f"{engine}_beats_i").value = beats
        await self.pulse(f"{engine}_go_i")

    async def begin(self, engine: str, words: np.ndarray, keep: int = 0xFF) -> Task:
        """Send words, the last with this TKEEP; takes no time, so that engines begin together.

        An image begins the count of its cycles, and empties the memory of the results.
        """
        pulses = [*self._write(engine, words), f"{engine}_go_i"]
        for name, value in (("base", 0), ("beats", len(words)), ("keep", keep)):
            getattr(self.dut, f"{engine}_{name}_i").value = value
        if engine == "image":
            pulses += ["result_clear_i", "arm_i"]
            self.taken = (1 << 32, 0)  # until the memory is empty nothing has come
        return cocotb.start_soon(self._begin(engine, pulses))

    async def _begin(self, engine: str, pulses: list[str]) -> None:
        await self.pulse(*pulses)
        if engine == "image":
            self.taken = (0, 0)

    async def rested(self, engine: str, seconds: float) -> None:
        """Wait for the end of an engine's packet. Raises RuntimeError if it does not come."""
        busy = getattr(self.dut, f"{engine}_busy_o")
        late = Timer(round(1e9 * seconds), "ns")
        if int(busy.value) and await First(FallingEdge(busy), late) is late:
            raise RuntimeError(f"the {engine} stream is not taken")

    async def stop(self, engine: str) -> None:
        """Send nothing more but the beat that is offered."""
        if int(getattr(self.dut, f"{engine}_busy_o").value):
            await self.send(engine, 0, 0)
            await self.rested(engine, STOP_LIMIT * clocking.PERIOD_NS / 1e9)

    async def clear_results(self) -> None:
        """Forget what has come back."""
        await self.pulse("result_clear_i")
        self.taken = (0, 0)

    async def packet(self) -> np.ndarray:
        """The words of the next result packet; it must have come."""
        packets, taken = self.taken
        beats = int(self.dut.result_beats_o.value)
        await self.pulse("result_dump_i")
        words, last = read_beats(RESULT_FILE, taken, beats)
        length = int(np.argmax(last)) + 1
        self.taken = (packets + 1, taken + length)
        return words[:length]

    async def measure(self) -> int:
        """At the end of an image: note how its packets flowed, check that the results kept to the
        protocol, that nothing came behind them, and TOTAL_CYCLES against the harness's count.
        Returns the latter."""
        dut = self.dut
        self.flows += [
            ("weights", Flow.read(dut.prog_monitor_o)),
            ("image", Flow.read(dut.image_monitor_o)),
            ("result", Flow.read(dut.result_monitor_o)),
        ]
        errors, total = int(dut.result_errors_o.value), int(dut.cycles_o.value)
        assert errors == 0, f"{errors} protocol errors on the result stream"
        counted = await self.read(Register.TOTAL_CYCLES)
        assert counted == total, f"TOTAL_CYCLES {counted}, the harness counted {total}"
        came = int(dut.result_packets_o.value), int(dut.result_beats_o.value)
        assert came == self.taken, f"results (packets, beats): {came} came, {self.taken} expected"
        return total

    async def start_run(self) -> None:
        """Enable all interrupts and START; returns when the program's header has been read."""
        await self.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
        await self.write(Register.CTRL, Ctrl.START)
        await ClockCycles(self.dut.clk_i, 40)

    async def stop_run(self) -> None:
        """STOP between images: check that the run ends at once, and clear the interrupt."""
        await self.write(Register.CTRL, Ctrl.STOP)
        await ClockCycles(self.dut.clk_i, 4)
        assert not await self.read(Register.STATUS) & Status.BUSY, (
            "the accelerator is busy after STOP between images"
        )
        await self.write(Register.IRQ_STATUS, IrqStatus.STOPPED)

    async def take_leftovers(self, limit_cycles: int = 400) -> None:
        """After a soft reset: accept the result beats that are still offered, and discard them."""
        await ClockCycles(self.dut.clk_i, 4)
        for _ in range(limit_cycles // 20):
            if not await self.read(Register.STATUS) & Status.RESULT:
                break
            await ClockCycles(self.dut.clk_i, 20)
        else:
            raise AssertionError(
                f"a result beat is offered {limit_cycles} cycles after a soft reset"
            )
        await self.pulse("result_clear_i")


class Registers:
    """The registers as pynq.MMIO has them."""

    def __init__(self, host: Host) -> None:
        self.read, self.write = resume(host.read), resume(host.write)


class SendChannel:
    """A sending engine of the harness as a channel of pynq.lib.dma."""

    transferred = 0

    def __init__(self, host: Host, engine: str) -> None:
        self._host, self._engine = host, engine
        self._begun: Task | None = None

    def transfer(self, array: np.ndarray) -> None:
        """Begin to send a buffer; TKEEP marks the bytes of the last word."""
        self._begun = resume(self._host.begin)(self._engine, *beats(array))

    @property
    def idle(self) -> bool:
        """Whether everything has been sent."""
        return resume(self._idle)()

    def wait(self) -> None:
        """Wait until everything has been sent."""
        resume(self._wait)()

    def stop(self) -> None:
        """Send nothing more but the beat that is offered."""
        resume(self._stop)()

    def start(self) -> None:
        """The engine always runs."""

    async def _idle(self) -> bool:
        begun = self._begun is None or self._begun.done()
        return begun and not int(getattr(self._host.dut, f"{self._engine}_busy_o").value)

    async def _wait(self) -> None:
        await (self._begun or NullTrigger())
        await self._host.rested(self._engine, PATIENCE)

    async def _stop(self) -> None:
        await (self._begun or NullTrigger())
        await self._host.stop(self._engine)


class ReceiveChannel:
    """The receiving engine as a channel of pynq.lib.dma. It takes beats at any time, also those of
    packets for which no buffer has been named yet."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._buffer = np.zeros(0)
        self.transferred = 0

    def transfer(self, array: np.ndarray) -> None:
        """Name the buffer of the next packet."""
        self._buffer = array

    @property
    def idle(self) -> bool:
        """Whether the packet has come."""
        return resume(self._idle)()

    def wait(self) -> None:
        """Copy the packet into the buffer. Raises RuntimeError if it is too long."""
        words = resume(self._host.packet)()
        self.transferred = words.nbytes
        if words.nbytes > self._buffer.nbytes:
            raise RuntimeError("DMA Internal Error: the packet is longer than its buffer")
        self._buffer[: len(words)] = words

    def stop(self) -> None:
        """Forget what has come."""
        resume(self._host.clear_results)()

    def start(self) -> None:
        """The engine always runs."""

    async def _idle(self) -> bool:
        return int(self._host.dut.result_packets_o.value) > self._host.taken[0]


class Engine:
    """A DMA engine with the one channel that is used."""

    def __init__(self, channel: SendChannel | ReceiveChannel) -> None:
        self.sendchannel = self.recvchannel = channel


class SimulatedTime:
    """`sleep` and `monotonic` of the module `time`, in the time of the simulation."""

    def __init__(self, dut: Any) -> None:
        self._dut = dut
        self.sleep = resume(self._sleep)

    def monotonic(self) -> float:
        """Seconds."""
        return get_sim_time("ns") / 1e9

    async def _sleep(self, seconds: float) -> None:
        """Until something has happened, or so many seconds have passed."""
        dut = self._dut
        await First(
            RisingEdge(dut.irq_o),
            ValueChange(dut.result_packets_o),
            FallingEdge(dut.prog_busy_o),
            FallingEdge(dut.image_busy_o),
            Timer(max(1, round(1e9 * seconds)), "ns"),
        )
