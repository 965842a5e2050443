"""Sequences: register accesses, packets, and virtual sequences of runs: whole ones, disturbed ones,
and ones that a soft reset ends."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from pyuvm import uvm_sequence, uvm_status_e

from host.driver import ALL_INTERRUPTS, IDEAL
from host.harness import clocking
from host.register_map import FIELDS, Ctrl, ErrorCode, IrqStatus, Register, Status, field
from model.compiler import Compiled
from tb.lib.accelerator import cycle_limit
from tb.uvm.items import RegisterItem, StallItem, StreamItem
from tb.uvm.register_access import register_at


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
    model; LAYER_SEL; what is refused.

    It leaves alone what would change the run. done: kinds of access that were finished, for
    coverage.
    """

    def __init__(self, env, rng: np.random.Generator):
        super().__init__("register_traffic")
        self.env, self.rng, self.stop, self.done = env, rng, False, set()
        self.model = env.registers.config.registers

    async def body(self):
        kinds = (
            self.read,
            self.read,
            self.select,
            self.write_read_only,
            self.read_write_only,
            self.unmapped,
        )
        while not self.stop:
            await kinds[self.rng.integers(len(kinds))]()
            await ClockCycles(self.env.registers.dut.clk_i, int(self.rng.integers(0, 40)))

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
        self.done.add(f"{register.get_name()} read")

    async def select(self):
        """LAYER_SEL, written through the model's front door."""
        await self.model.LAYER_SEL.write(int(self.rng.integers(64)))

    async def write_read_only(self):
        """A write that is refused; the register scoreboard sees that it is."""
        await self.raw(self.pick(write=True, allowed=False).get_offset(), True, "read-only written")

    async def read_write_only(self):
        """A read that is refused."""
        await self.raw(self.pick(write=False, allowed=False).get_offset(), False, "write-only read")

    async def unmapped(self):
        """An address without a register."""
        address, write = 4 * int(self.rng.integers(len(Register), 1024)), bool(self.rng.integers(2))
        await self.raw(address, write, "unmapped written" if write else "unmapped read")

    async def raw(self, address: int, write: bool, kind: str):
        """An access past the register model."""
        await ItemSequence(RegisterItem(address, 0xFFFFFFFF if write else None, write)).start(
            self.env.registers.sequencer
        )
        self.done.add(kind)


class NetworkSequence(uvm_sequence):
    """Virtual sequence: program, START, weights and image for each image, interrupts, STOP.

    env: the environment whose sequencers it uses. images: integers [N, C, H, W]. traffic: (program
    and weights, image, result stall of 256).
    """

    def __init__(
        self, env, compiled: Compiled, images: np.ndarray, traffic: tuple = (IDEAL, IDEAL, 0)
    ):
        super().__init__("network_sequence")
        self.env, self.compiled, self.images, self.traffic = env, compiled, images, traffic
        self.dut = env.result.dut
        self.total_cycles: list[int] = []

    async def load(self):
        """Stalls of the results, program, interrupts."""
        prog_traffic, _, stall = self.traffic
        await ItemSequence(StallItem(stall)).start(self.env.result.sequencer)
        assert field(await self.read(Register.ID), Register.ID, "ID") == 0x51504C43
        await self.read(Register.PARAMS)
        await ItemSequence(StreamItem(self.compiled.program, prog_traffic)).start(
            self.env.program.sequencer
        )
        await ClockCycles(self.dut.clk_i, 8)
        assert await self.read(Register.STATUS) & Status.PROG_VALID, "the program was not accepted"
        await self.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
        await self.read(Register.IRQ_ENABLE)

    def send(self, image: np.ndarray) -> list:
        """Tasks that send weights and an image at once."""
        prog_traffic, image_traffic, _ = self.traffic
        weights = ItemSequence(StreamItem(self.compiled.weights, prog_traffic))
        pixels = ItemSequence(StreamItem(self.compiled.encode_image(image), image_traffic))
        return [
            cocotb.start_soon(weights.start(self.env.program.sequencer)),
            cocotb.start_soon(pixels.start(self.env.image.sequencer)),
        ]

    async def body(self):
        await self.load()
        await self.write(Register.CTRL, Ctrl.START)
        for image in self.images:
            tasks = self.send(image)
            await self.interrupt(IrqStatus.DONE)
            for task in tasks:
                await task
            self.total_cycles.append(await self.read(Register.TOTAL_CYCLES))
        assert await self.read(Register.IMAGES_DONE) == len(self.images)
        await self.write(Register.CTRL, Ctrl.STOP)
        await self.interrupt(IrqStatus.STOPPED)
        await ClockCycles(self.dut.clk_i, 8)  # the last packet on its way to the scoreboard

    async def interrupt(self, expected: int):
        """Wait for the interrupt line, check its only cause, clear it."""
        irq, limit = self.dut.irq_o, Timer(cycle_limit(self.compiled) * clocking.PERIOD_NS, "ns")
        if not int(irq.value):
            assert await First(RisingEdge(irq), limit) is not limit, (
                f"no interrupt after {cycle_limit(self.compiled)} cycles"
            )
        cause = await self.read(Register.IRQ_STATUS)
        if cause & IrqStatus.ERROR:
            code = field(await self.read(Register.ERROR), Register.ERROR, "CODE")
            raise AssertionError(
                f"accelerator error {code:#04x} "
                f"({ErrorCode(code).name if code in set(ErrorCode) else 'unknown'})"
            )
        assert cause == expected, f"interrupt status {cause:#x}, expected {expected:#x}"
        await self.write(Register.IRQ_STATUS, expected)
        assert not int(irq.value), "the interrupt line stays high after its cause was cleared"

    async def read(self, register: Register) -> int:
        """Value of a register through the register agent."""
        item = RegisterItem(register)
        await ItemSequence(item).start(self.env.registers.sequencer)
        return item.value

    async def write(self, register: Register, value: int):
        """Write a register through the register agent."""
        await ItemSequence(RegisterItem(register, value, write=True)).start(
            self.env.registers.sequencer
        )


class AbortedSequence(NetworkSequence):
    """As a network's run, but a soft reset comes `moment` cycles after START, wherever the run is
    then.

    The program stays loaded; nothing of the run is left. engines_empty(engine): waits until an
    engine has sent its last beat.
    """

    def __init__(
        self,
        env,
        compiled: Compiled,
        image: np.ndarray,
        moment: int,
        engines_empty,
        traffic: tuple = (IDEAL, IDEAL, 0),
    ):
        super().__init__(env, compiled, image, traffic)
        self.moment, self.engines_empty = moment, engines_empty

    async def body(self):
        await self.load()
        await self.write(Register.CTRL, Ctrl.START)
        tasks = self.send(self.images[0])
        await ClockCycles(self.dut.clk_i, self.moment)
        await self.env.result.config.host.abort(self.engines_empty)
        for task in tasks:
            await task
        status = await self.read(Register.STATUS)
        assert status == 1 << FIELDS[Register.STATUS]["PROG_VALID"][1], (
            f"STATUS {status:#x} after a soft reset"
        )
        assert not int(self.dut.irq_o.value), "an interrupt after a soft reset"
