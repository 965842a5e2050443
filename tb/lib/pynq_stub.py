"""A stub of the parts of PYNQ 3.0 that host/board.py uses, in front of the behavioural model.

It keeps to what a board enforces: registers are words at aligned offsets, a transfer needs a
channel that runs and is idle, and the engines see memory, not the processor's cache. Allocated
memory that nobody freed is counted in `live`.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from host.driver import beats
from host.fake import FakeAccelerator

MAX_BYTES = (1 << 26) - 1  # buffer length register of 26 bits
live: set[int] = set()  # buffers that are allocated


class PynqBuffer(np.ndarray):
    """The processor's view of a buffer; `memory` is the engines'."""

    memory: np.ndarray

    def flush(self) -> None:
        """Cache to memory."""
        self.memory[:] = np.asarray(self)

    def invalidate(self) -> None:
        """Memory to cache."""
        np.asarray(self)[:] = self.memory

    def freebuffer(self) -> None:
        """Give the memory back; it must be there."""
        live.remove(id(self))


def allocate(shape, dtype="u4", target=None, **kwargs) -> PynqBuffer:
    """As pynq.allocate: what the memory holds is not defined."""
    buffer = np.full(shape, 0xA5, dtype).view(PynqBuffer)
    buffer.memory = np.full(shape, 0x5A, dtype)
    live.add(id(buffer))
    return buffer


class MMIO:
    """As pynq.MMIO, with the model's registers behind it."""

    def __init__(self, fake: FakeAccelerator) -> None:
        self._fake = fake

    def read(self, offset: int = 0, length: int = 4, word_order: str = "little") -> int:
        self._check(offset)
        return self._fake.read(offset)

    def write(self, offset: int, data: int) -> None:
        self._check(offset)
        if not isinstance(data, int):
            raise ValueError("Data type must be int or bytes.")
        self._fake.write(offset, int(data))

    @staticmethod
    def _check(offset: int) -> None:
        if offset % 4:
            raise MemoryError("Unaligned access: offset must be multiple of 4.")


class Channel:
    """As pynq.lib.dma._SDMAChannel over the registers DMACR and DMASR of an AXI DMA."""

    def __init__(self, fake: FakeAccelerator, stream: str) -> None:
        self._fake, self._stream = fake, stream
        self.stuck = False  # a test's
        self.transferred = 0
        self._busy = False
        self.start()

    @property
    def running(self) -> bool:
        """DMASR.Halted is 0."""
        return self._run

    @property
    def idle(self) -> bool:
        """DMASR.Idle, which is 0 before the first transfer."""
        self._move()
        return self._run and not self._busy and not self._first_transfer

    def _move(self) -> None:
        """What the engine does by itself."""
        if not self._busy or self.stuck:
            return
        if self._stream != "results":
            self._fake.send(self._stream, *beats(self._buffer.memory))
            self._received = self._buffer.nbytes
        elif (packet := self._fake.take()) is not None:
            self._buffer.memory[: len(packet)] = packet[: len(self._buffer)]
            self._received = packet.nbytes
        else:
            return
        self._busy = False

    @property
    def error(self) -> bool:
        return False

    def start(self) -> None:
        self._run, self._first_transfer = True, True

    def stop(self) -> None:
        """Aborts the current transfer."""
        self._run = self._busy = False

    def transfer(self, array: PynqBuffer, start: int = 0, nbytes: int = 0) -> None:
        if not self.running:
            raise RuntimeError("DMA channel not started")
        if not self.idle and not self._first_transfer:
            raise RuntimeError("DMA channel not idle")
        if not 0 < array.nbytes <= MAX_BYTES:
            raise ValueError(f"Transfer size is {array.nbytes} bytes")
        if id(array) not in live:
            raise RuntimeError("the buffer was freed or is not PYNQ's")
        self._buffer, self._first_transfer, self._busy = array, False, True
        if self._stream != "results":
            array.flush()
        self._move()

    def wait(self) -> None:
        if not self.running:
            raise RuntimeError("DMA channel not started")
        if not self.idle:
            raise RuntimeError("the channel never ends: pynq would wait forever")
        if self._stream == "results":
            self._buffer.invalidate()
        self.transferred = self._received


def overlay(fake: FakeAccelerator) -> SimpleNamespace:
    """As pynq.Overlay of the block design that host/board.py describes."""
    return SimpleNamespace(
        clipq_accel=SimpleNamespace(mmio=MMIO(fake)),
        weights_dma=SimpleNamespace(sendchannel=Channel(fake, "weights")),
        images_dma=SimpleNamespace(sendchannel=Channel(fake, "images")),
        results_dma=SimpleNamespace(recvchannel=Channel(fake, "results")),
    )
