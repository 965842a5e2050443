"""The host's end of a simulated UART, with the interface of serial.Serial, on a line that may be
noisy."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.task import resume
from cocotb.triggers import Event, FallingEdge, First, Timer

from host.harness.clocking import PERIOD_NS


class Uart:
    """`write` and `read` for functions that `cocotb.task.bridge` has converted.

    to_dut, from_dut  the two wires
    clocks_per_bit    as the design's
    silence           cycles without a byte after which `read` returns what there is
    noise             probability of each trouble of a frame: bytes before it, a wrong byte, a lost
                      byte, a long pause in it; and of a wrong byte that is received, a hundredth of
                      it
    """

    def __init__(
        self,
        to_dut: Any,
        from_dut: Any,
        clocks_per_bit: int,
        silence: int,
        rng: np.random.Generator,
        noise: float = 0.0,
    ) -> None:
        self._to, self._from, self._rng, self._noise = to_dut, from_dut, rng, noise
        self._bit = clocks_per_bit * PERIOD_NS
        self._silence = silence * PERIOD_NS
        self._received = bytearray()
        self._came = Event()
        self.troubles = 0
        self.write, self.read = resume(self._write), resume(self._read)
        to_dut.value = 1
        cocotb.start_soon(self._receive())

    def _trouble(self, share: float = 1.0) -> bool:
        happens = bool(self._rng.random() < self._noise * share)
        self.troubles += happens
        return happens

    async def _write(self, data: bytes) -> None:
        sent = bytearray(data)
        if self._trouble():
            sent[self._rng.integers(len(sent))] ^= 1 << int(self._rng.integers(8))
        if self._trouble():
            del sent[self._rng.integers(len(sent))]
        pause = int(self._rng.integers(len(sent))) if self._trouble() else -1
        if self._trouble():
            sent[:0] = self._rng.bytes(int(self._rng.integers(1, 20)))
        for number, byte in enumerate(sent):
            if number == pause:
                await Timer(self._silence // 3, "ns")
            await self.send_byte(byte)

    async def send_byte(self, byte: int) -> None:
        """One byte with start and stop bit."""
        for bit in (0, *(byte >> place & 1 for place in range(8)), 1):
            self._to.value = bit
            await Timer(self._bit, "ns")

    async def _receive(self) -> None:
        while True:
            await FallingEdge(self._from)
            await Timer(self._bit // 2, "ns")
            byte = 0
            for place in range(8):
                await Timer(self._bit, "ns")
                byte |= int(self._from.value) << place
            await Timer(self._bit, "ns")
            assert int(self._from.value) == 1, "no stop bit"
            self._received.append(byte ^ 0x10 if self._trouble(0.01) else byte)
            self._came.set()

    async def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            self._came.clear()
            late = Timer(self._silence, "ns")
            if await First(self._came.wait(), late) is late:
                break
        data = bytes(self._received[:size])
        del self._received[:size]
        return data
