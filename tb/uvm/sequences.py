"""Sequences: register accesses, packets, and the virtual sequence that takes a network from its program to its last image."""
from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from pyuvm import uvm_sequence

from model.compiler import Compiled
from tb.accel.host import IDEAL, IRQ_DONE, IRQ_ERROR, IRQ_STOPPED, START, STOP
from tb.common import clocking
from tb.control.register_map import ErrorCode, Register, field
from tb.network.bench import cycle_limit
from tb.uvm.items import RegisterItem, StallItem, StreamItem


class ItemSequence(uvm_sequence):
    """Sends one item and waits until it is done; `item` then holds what came back."""

    def __init__(self, item):
        super().__init__("item_sequence")
        self.item = item

    async def body(self):
        await self.start_item(self.item)
        await self.finish_item(self.item)


class NetworkSequence(uvm_sequence):
    """Virtual sequence: program, START, weights and image for each image, interrupts, STOP.

    env: the environment whose sequencers it uses. images: integers [N, C, H, W]. traffic: (program and weights, image, result stall of 256).
    """

    def __init__(self, env, compiled: Compiled, images: np.ndarray, traffic: tuple = (IDEAL, IDEAL, 0)):
        super().__init__("network_sequence")
        self.env, self.compiled, self.images, self.traffic = env, compiled, images, traffic
        self.dut = env.result.dut
        self.total_cycles: list[int] = []

    async def body(self):
        prog_traffic, image_traffic, stall = self.traffic
        await ItemSequence(StallItem(stall)).start(self.env.result.sequencer)
        assert field(await self.read(Register.ID), Register.ID, "ID") == 0x51504C43
        await self.read(Register.PARAMS)
        await ItemSequence(StreamItem(self.compiled.program, prog_traffic)).start(self.env.program.sequencer)
        await ClockCycles(self.dut.clk_i, 8)
        assert field(await self.read(Register.STATUS), Register.STATUS, "PROG_VALID"), "the program was not accepted"
        await self.write(Register.IRQ_ENABLE, IRQ_DONE | IRQ_ERROR | IRQ_STOPPED)
        await self.read(Register.IRQ_ENABLE)
        await self.write(Register.CTRL, START)
        for image in self.images:
            weights = ItemSequence(StreamItem(self.compiled.weights, prog_traffic))
            pixels = ItemSequence(StreamItem(self.compiled.encode_image(image), image_traffic))
            tasks = [cocotb.start_soon(weights.start(self.env.program.sequencer)), cocotb.start_soon(pixels.start(self.env.image.sequencer))]
            await self.interrupt(IRQ_DONE)
            for task in tasks:
                await task
            self.total_cycles.append(await self.read(Register.TOTAL_CYCLES))
        assert await self.read(Register.IMAGES_DONE) == len(self.images)
        await self.write(Register.CTRL, STOP)
        await self.interrupt(IRQ_STOPPED)
        await ClockCycles(self.dut.clk_i, 8)  # the last packet on its way to the scoreboard

    async def interrupt(self, expected: int):
        """Wait for the interrupt line, check its only cause, clear it."""
        irq, limit = self.dut.irq_o, Timer(cycle_limit(self.compiled) * clocking.PERIOD_NS, "ns")
        if not int(irq.value):
            assert await First(RisingEdge(irq), limit) is not limit, f"no interrupt after {cycle_limit(self.compiled)} cycles"
        cause = await self.read(Register.IRQ_STATUS)
        if cause & IRQ_ERROR:
            code = field(await self.read(Register.ERROR), Register.ERROR, "CODE")
            raise AssertionError(f"accelerator error {code:#04x} ({ErrorCode(code).name if code in set(ErrorCode) else 'unknown'})")
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
        await ItemSequence(RegisterItem(register, value, write=True)).start(self.env.registers.sequencer)
