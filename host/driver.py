"""The driver of the simulated accelerator: registers over AXI4-Lite, streams through the DMA
engines of the harness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, First, Lock, RisingEdge, Timer
from cocotb_bus.drivers.amba import AXI4LiteMaster

from host.harness import clocking
from host.harness.port_flow import Flow
from host.register_map import Ctrl, ErrorCode, IrqEnable, IrqStatus, Register, Status, field
from model.compiler import Compiled

ALL_INTERRUPTS = IrqEnable.DONE | IrqEnable.ERROR | IrqEnable.STOPPED
RESULT_FILE = Path("result.hex")  # written by the receiving engine
FULL_RATE = 256  # of 256 beats a cycle
COUNTERS = (
    Register.LAYER_CYCLES,
    Register.LAYER_STALLS,
    Register.LAYER_READS,
    Register.LAYER_WRITES,
    Register.LAYER_WEIGHTS,
)

INPUTS = {  # of the harness besides clock and reset, by prefix
    "": "pins_i arm_i result_clear_i result_dump_i result_stall_i",
    "prog_": "load_i go_i base_i beats_i latency_i rate_i stall_i keep_i",
    "image_": "load_i go_i base_i beats_i latency_i rate_i stall_i keep_i",
    "s_axil_": "awprot awvalid awaddr wvalid wdata wstrb bready arprot arvalid araddr rready",
    "s_axis_prog_": "tdata tkeep tvalid tlast",
    "s_axis_image_": "tdata tkeep tvalid tlast",
    "m_axis_result_": "tready",
}


class AcceleratorError(AssertionError):
    """The accelerator reported an error; the message gives its code and layer."""


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


def read_hex(path: Path, count: int) -> np.ndarray:
    """First `count` words of a file that $writememh wrote."""
    lines = [
        line
        for line in Path(path).read_text().splitlines()
        if line and not line.startswith(("//", "@"))
    ]
    if count and any("x" in line for line in lines[:count]):
        raise AssertionError("unknown (X) bits in the result stream")
    return np.array([int(line, 16) for line in lines[:count]], "<u8")


def rest(dut: Any) -> None:
    """Drive all inputs of the harness so that nothing happens; to be called before the reset."""
    for prefix, names in INPUTS.items():
        for name in names.split():
            getattr(dut, prefix + name).value = 0
    dut.prog_rate_i.value = dut.image_rate_i.value = FULL_RATE
    dut.prog_keep_i.value = dut.image_keep_i.value = 0xFF


class Host:
    """Drives one harness. Call `start` once, `load_network` for a compiled network and its images,
    `start_run`, and `run_image` for each image."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.master: AXI4LiteMaster  # from `start` on
        self._registers = Lock()
        self.flows: list[
            tuple[str, Flow]
        ] = []  # (port, how it flowed) of the loaded program and its images

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
        write_hex(Path("prog.hex"), prog)
        write_hex(Path("image.hex"), images)
        await self.pulse("prog_load_i", "image_load_i")

    async def send(self, engine: str, base: int, beats: int) -> None:
        """Start an engine ("prog", "image"): `beats` words of its memory from word `base` on."""
        getattr(self.dut, f"{engine}_base_i").value = base
        getattr(self.dut, f"{engine}_beats_i").value = beats
        await self.pulse(f"{engine}_go_i")

    async def load_network(self, compiled: Compiled, images: np.ndarray) -> None:
        """Compiled network and integer images [N, C, H, W]: fill the engines, send the program,
        check that it is accepted."""
        encoded = [compiled.encode_image(image) for image in images]
        self.image_beats = len(encoded[0])
        self.program_beats, self.weight_beats = len(compiled.program), len(compiled.weights)
        self.result_beats = compiled.total_result_beats
        await self.load_files(
            np.concatenate([compiled.program, compiled.weights]), np.concatenate(encoded)
        )
        await self.send("prog", 0, self.program_beats)
        for _ in range(1000):
            await ClockCycles(self.dut.clk_i, 50)
            status = await self.read(Register.STATUS)
            if status & Status.ERROR:
                await self.raise_error()
            if not int(self.dut.prog_busy_o.value):
                break
        status = await self.read(Register.STATUS)
        assert status & Status.PROG_VALID, f"the program was not accepted: STATUS {status:#x}"
        self.flows = [("program", Flow.read(self.dut.prog_monitor_o))]

    async def raise_error(self) -> None:
        """Raise AcceleratorError with the code and layer of the ERROR register."""
        value = await self.read(Register.ERROR)
        code, layer = (field(value, Register.ERROR, name) for name in ("CODE", "LAYER"))
        name = ErrorCode(code).name if code in set(ErrorCode) else "unknown"
        raise AcceleratorError(f"accelerator error {code:#04x} ({name}) at layer {layer}")

    async def start_run(self) -> None:
        """Enable all interrupts and START; returns when the program's header has been read."""
        await self.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
        await self.write(Register.CTRL, Ctrl.START)
        await ClockCycles(
            self.dut.clk_i, 40
        )  # the program's header is read: not part of an image's cycles

    async def stop_run(self) -> None:
        """STOP between images: check that the run ends at once, and clear the interrupt."""
        await self.write(Register.CTRL, Ctrl.STOP)
        await ClockCycles(self.dut.clk_i, 4)
        assert not await self.read(Register.STATUS) & Status.BUSY, (
            "the accelerator is busy after STOP between images"
        )
        await self.write(Register.IRQ_STATUS, IrqStatus.STOPPED)

    async def run_image(self, number: int, limit_cycles: int) -> tuple[np.ndarray, int]:
        """Send weights and image `number`, wait for the interrupt; returns (result beats,
        total_cycles)."""
        dut = self.dut
        dut.prog_base_i.value = self.program_beats
        dut.prog_beats_i.value = self.weight_beats
        dut.image_base_i.value = number * self.image_beats
        dut.image_beats_i.value = self.image_beats
        await self.pulse("result_clear_i", "arm_i")
        await self.pulse("prog_go_i", "image_go_i")
        interrupt, timeout = RisingEdge(dut.irq_o), Timer(limit_cycles * clocking.PERIOD_NS, "ns")
        if not int(dut.irq_o.value) and await First(interrupt, timeout) is timeout:
            raise AssertionError(
                f"image {number}: no interrupt after {limit_cycles} cycles (STATUS "
                f"{await self.read(Register.STATUS):#x})"
            )
        cause = await self.read(Register.IRQ_STATUS)
        if cause & IrqStatus.ERROR:
            await self.raise_error()
        assert cause == IrqStatus.DONE, f"interrupt status {cause:#x}"
        await self.write(Register.IRQ_STATUS, IrqStatus.DONE)
        beats, errors = int(dut.result_beats_o.value), int(dut.result_errors_o.value)
        assert errors == 0, f"{errors} protocol errors on the result stream"
        assert beats == self.result_beats, (
            f"image {number}: {beats} result beats, expected {self.result_beats}"
        )
        total = int(dut.cycles_o.value)
        counted = await self.read(Register.TOTAL_CYCLES)
        assert abs(counted - total) <= 4, f"TOTAL_CYCLES {counted}, the harness counted {total}"
        self.flows += [
            ("weights", Flow.read(dut.prog_monitor_o)),
            ("image", Flow.read(dut.image_monitor_o)),
            ("result", Flow.read(dut.result_monitor_o)),
        ]
        await self.pulse("result_dump_i")
        return read_hex(RESULT_FILE, beats), total

    async def abort(self, wait: Callable[[str], Awaitable[object]]) -> None:
        """Abort at any point. The engines stop, but a beat that is offered is not withdrawn: a soft
        reset comes before and after it.

        wait(engine): waits until an engine ("prog", "image") has sent its last beat. The loaded
        program stays.
        """
        for engine in ("prog", "image"):
            if int(getattr(self.dut, f"{engine}_busy_o").value):
                await self.send(engine, 0, 0)
        await wait("image")
        await self.write(Register.CTRL, Ctrl.SOFT_RESET)
        await wait("prog")
        await ClockCycles(self.dut.clk_i, 6)
        await self.write(Register.CTRL, Ctrl.SOFT_RESET)
        await self.take_leftovers()
        await self.write(Register.IRQ_STATUS, ALL_INTERRUPTS)

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

    async def layer_counters(self, n_layers: int) -> np.ndarray:
        """int64 [layers, 5]: cycles, stalls, reads, writes (32-bit words), weight words (64 bits)
        of the last image."""
        table = np.zeros((n_layers, len(COUNTERS)), np.int64)
        for layer in range(n_layers):
            await self.write(Register.LAYER_SEL, layer)
            for column, register in enumerate(COUNTERS):
                table[layer, column] = await self.read(register)
        return table
