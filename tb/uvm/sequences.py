"""Virtual sequences: random register accesses, whole runs, and runs that a soft reset ends. They
know items and sequencers only, so they run on any kind of driver."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from pyuvm import uvm_sequence, uvm_status_e

from host.driver import ALL_INTERRUPTS
from host.harness import clocking
from host.register_map import Ctrl, ErrorCode, IrqStatus, Register, Status, field
from model.compiler import Compiled
from tb.lib.accelerator import cycle_limit
from tb.uvm.axi_lite import RegisterItem
from tb.uvm.axi_stream import PacketItem, StallItem
from tb.uvm.registers import register_at

RESET_CYCLES = 8  # after a soft reset until STATUS shows what is left
LEFTOVER_READS = 20


class ItemSequence(uvm_sequence):
    """Sends one item and waits until it is done; `item` then holds what came back."""

    def __init__(self, item):
        super().__init__("item_sequence")
        self.item = item

    async def body(self):
        await self.start_item(self.item)
        await self.finish_item(self.item)


class RegisterTraffic(uvm_sequence):
    """Random register accesses until `stop` is set: all that can be read, through the register
    model; LAYER_SEL; what is refused. It leaves alone what would change the run."""

    def __init__(self, seed: int):
        super().__init__("register_traffic")
        self.rng, self.stop = np.random.default_rng(seed), False

    async def body(self):
        self.model = self.sequencer.model
        kinds = (
            *(self.read, self.read, self.select),
            *(self.write_read_only, self.read_write_only, self.unmapped),
        )
        while not self.stop:
            await kinds[self.rng.integers(len(kinds))]()
            await ClockCycles(self.sequencer.dut.clk_i, int(self.rng.integers(0, 40)))

    def pick(self, write: bool, allowed: bool = True):
        """A random register that may (or may not) be accessed in this direction."""
        registers = [
            r
            for r in self.model.get_registers()
            if (register_at(self.model, r.get_offset(), write) is not None) == allowed
        ]
        return registers[self.rng.integers(len(registers))]

    async def read(self):
        """Any readable register, through the model's front door."""
        register = self.pick(write=False)
        status, _ = await register.read()
        assert status == uvm_status_e.UVM_IS_OK, f"{register.get_name()} cannot be read"

    async def select(self):
        """LAYER_SEL, written through the model's front door."""
        await self.model.LAYER_SEL.write(int(self.rng.integers(64)))

    async def write_read_only(self):
        """A write that is refused; the register scoreboard sees that it is."""
        await self.raw(self.pick(write=True, allowed=False).get_offset(), write=True)

    async def read_write_only(self):
        """A read that is refused."""
        await self.raw(self.pick(write=False, allowed=False).get_offset(), write=False)

    async def unmapped(self):
        """An address without a register."""
        address = 4 * int(self.rng.integers(len(Register), 1024))
        await self.raw(address, write=bool(self.rng.integers(2)))

    async def raw(self, address: int, write: bool):
        """An access past the register model."""
        item = RegisterItem(address, 0xFFFFFFFF if write else None, write)
        await ItemSequence(item).start(self.sequencer.registers)


class NetworkSequence(uvm_sequence):
    """Program, START, weights and image for each image, interrupts, STOP.

    images: integers [N, C, H, W]. seed: of the senders' and the receiver's pauses; without one
    there are none.
    """

    def __init__(self, compiled: Compiled, images: np.ndarray, seed: int | None = None):
        super().__init__("network_sequence")
        self.compiled, self.images, self.seed = compiled, images, seed
        self.rng = None if seed is None else np.random.default_rng(seed)

    async def body(self):
        await self.load()
        await self.write(Register.CTRL, Ctrl.START)
        for image in self.images:
            tasks = [self.send(item) for item in self.packets(image)]
            await self.interrupt(IrqStatus.DONE)
            for task in tasks:
                await task
            await self.read(Register.TOTAL_CYCLES)
        assert await self.read(Register.IMAGES_DONE) == len(self.images)
        await self.write(Register.CTRL, Ctrl.STOP)
        await self.interrupt(IrqStatus.STOPPED)
        await ClockCycles(self.sequencer.dut.clk_i, 8)  # the last packet reaches the scoreboard

    async def load(self):
        """The receiver's pauses, the program, the interrupts' enables."""
        self.sequencer.logger.info(
            "network %s, %d layers, %d images, pauses of seed %s",
            self.compiled.net.name,
            len(self.compiled.net.layers),
            len(self.images),
            self.seed,
        )
        await self.send(self.randomized(StallItem()))
        await self.read(Register.ID)  # the register scoreboard knows what it must be
        await self.read(Register.PARAMS)
        await self.send(self.randomized(PacketItem(self.compiled.program)))
        await ClockCycles(self.sequencer.dut.clk_i, 8)
        assert await self.read(Register.STATUS) & Status.PROG_VALID, "the program was not accepted"
        await self.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
        await self.read(Register.IRQ_ENABLE)

    def packets(self, image: np.ndarray) -> list[PacketItem]:
        """Weights and image."""
        words = (self.compiled.weights, self.compiled.encode_image(image))
        return [self.randomized(PacketItem(w)) for w in words]

    def randomized(self, item):
        """The item, with random pauses if the sequence has a seed."""
        if self.rng is not None:
            item.randomize(self.rng)
        return item

    def send(self, item: PacketItem | StallItem) -> cocotb.task.Task:
        """The task that has an item sent by the agent that it is for."""
        if isinstance(item, StallItem):
            sequencer = self.sequencer.result
        else:
            sequencer = self.sequencer.image if item.kind == "image" else self.sequencer.program
        return cocotb.start_soon(ItemSequence(item).start(sequencer))

    async def interrupt(self, expected: int):
        """Wait for the interrupt line, check its only cause, clear it."""
        irq, cycles = self.sequencer.dut.irq_o, cycle_limit(self.compiled)
        limit = Timer(cycles * clocking.PERIOD_NS, "ns")
        if not int(irq.value) and await First(RisingEdge(irq), limit) is limit:
            raise AssertionError(f"no interrupt after {cycles} cycles")
        cause = await self.read(Register.IRQ_STATUS)
        if cause & IrqStatus.ERROR:
            code = field(await self.read(Register.ERROR), Register.ERROR, "CODE")
            name = ErrorCode(code).name if code in set(ErrorCode) else "unknown"
            raise AssertionError(f"accelerator error {code:#04x} ({name})")
        assert cause == expected, f"interrupt status {cause:#x}, expected {expected:#x}"
        await self.write(Register.IRQ_STATUS, expected)
        assert not int(irq.value), "the interrupt line stays high after its cause was cleared"

    async def read(self, register: Register) -> int:
        """Value of a register through the register agent."""
        item = RegisterItem(register)
        await ItemSequence(item).start(self.sequencer.registers)
        return item.value

    async def write(self, register: Register, value: int):
        """Write a register through the register agent."""
        item = RegisterItem(register, value, write=True)
        await ItemSequence(item).start(self.sequencer.registers)


class AbortedSequence(NetworkSequence):
    """As a network's run, but `moment` cycles after START both packets are given up and a soft
    reset ends the run, wherever it is. The program stays loaded; nothing of the run is left."""

    def __init__(self, compiled: Compiled, image: np.ndarray, moment: int, seed: int | None = None):
        super().__init__(compiled, image, seed)
        self.moment = moment

    async def body(self):
        await self.load()
        await self.write(Register.CTRL, Ctrl.START)
        packets = self.packets(self.images[0])
        weights_task, image_task = [self.send(item) for item in packets]
        await ClockCycles(self.sequencer.dut.clk_i, self.moment)
        for item in packets:
            item.give_up.set()
        await image_task
        await self.write(Register.CTRL, Ctrl.SOFT_RESET)  # lets go of a beat that still waits
        await weights_task
        await ClockCycles(self.sequencer.dut.clk_i, RESET_CYCLES)
        await self.write(Register.CTRL, Ctrl.SOFT_RESET)
        await self.take_leftovers()
        await self.write(Register.IRQ_STATUS, ALL_INTERRUPTS)
        status = await self.read(Register.STATUS)
        assert status == Status.PROG_VALID, f"STATUS {status:#x} after a soft reset"
        assert not int(self.sequencer.dut.irq_o.value), "an interrupt after a soft reset"

    async def take_leftovers(self):
        """Wait until the result beats that had been offered are taken."""
        for _ in range(LEFTOVER_READS):
            await ClockCycles(self.sequencer.dut.clk_i, RESET_CYCLES)
            if not await self.read(Register.STATUS) & Status.RESULT:
                return
        raise AssertionError("a result beat is offered long after a soft reset")


class LoadSequence(NetworkSequence):
    """Only the program."""

    def __init__(self, compiled: Compiled):
        super().__init__(compiled, np.zeros((0, *compiled.net.input_shape), int))

    async def body(self):
        await self.load()


class StoppedSequence(NetworkSequence):
    """One image, and STOP `moment` cycles after its packets began; without a moment STOP follows
    the interrupt. `cycles` is then the time from there to the interrupt."""

    def __init__(self, compiled: Compiled, image: np.ndarray, moment: int | None = None):
        super().__init__(compiled, image)
        self.moment, self.cycles = moment, 0

    async def body(self):
        dut, begin = self.sequencer.dut, 40  # cycles in which the program's header is read
        await self.write(Register.IRQ_ENABLE, IrqStatus.DONE)
        await self.write(Register.CTRL, Ctrl.START)
        await ClockCycles(dut.clk_i, begin)
        tasks = [self.send(item) for item in self.packets(self.images[0])]
        if self.moment is not None:
            tasks.append(cocotb.start_soon(self.stop_in(self.moment)))
        while not int(dut.irq_o.value):
            await RisingEdge(dut.clk_i)
            self.cycles += 1
            assert self.cycles < cycle_limit(self.compiled), "no interrupt at an image's end"
        for task in tasks:
            await task
        if self.moment is None:
            await self.write(Register.CTRL, Ctrl.STOP)
        await ClockCycles(dut.clk_i, 8)
        cause, status = await self.read(Register.IRQ_STATUS), await self.read(Register.STATUS)
        what = f"STOP {self.moment} cycles after the begin"
        assert cause == IrqStatus.DONE | IrqStatus.STOPPED, f"{what}: interrupts {cause:#x}"
        assert not status & Status.BUSY, f"{what}: the run goes on"
        assert await self.read(Register.IMAGES_DONE) == 1, f"{what}: images"
        await self.write(Register.IRQ_STATUS, cause)

    async def stop_in(self, cycles: int):
        """Write STOP, beginning in so many cycles."""
        await ClockCycles(self.sequencer.dut.clk_i, cycles)
        await self.write(Register.CTRL, Ctrl.STOP)
