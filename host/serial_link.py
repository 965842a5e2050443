"""The accelerator behind a serial line: registers and streams through the frames of
syn/boards/uart_bridge.sv, which has the protocol.

    accelerator = on_serial(serial.Serial("/dev/ttyUSB0", 2_000_000, timeout=0.2))  # pyserial
    accelerator.load(load_network("x.clipq.npz"))
    print(accelerator.run(images).y)

A frame that is damaged or lost on the way is sent again. Not run on a board here, but against the
RTL in simulation.
"""

from __future__ import annotations

import struct
import time
import zlib
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from host.driver import Accelerator, DriverError, beats

REQUEST, ANSWER = b"\xc5", b"\xca"
WORDS = 64  # of a payload, at most
TRIES = 8  # for one request
NOTHING = np.zeros(0, "<u8")
_HEADER = struct.Struct("<cBBBHH")  # mark, sequence number, operation, words, register or result
_TRAILER = struct.Struct("<Q")
_LAST = 0x80
MOST_BYTES = 4 * (_HEADER.size + 8 * WORDS + _TRAILER.size)  # that are read for one reply


class Operation(IntEnum):
    """What a request asks for."""

    HELLO = 0
    READ = 1
    WRITE = 2
    PROGRAM = 3
    IMAGE = 4
    TAKE = 5


class Port(Protocol):
    """What is needed of serial.Serial. `read` returns less than it was asked for, perhaps nothing,
    after a time-out, which must be longer than GAP_CYCLES of the bridge."""

    def write(self, data: bytes, /) -> Any: ...

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Reply:
    """Answer to a request: result byte, payload as uint64 words, and whether the last word ends a
    packet."""

    result: int
    words: np.ndarray
    last: bool


class Link:
    """Requests over a port, each carried out once. Raises DriverError where nobody answers."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._sequence = 0
        self.channels: list[SendChannel | ReceiveChannel] = []
        if (words := self.request(Operation.HELLO).result) != WORDS:
            raise DriverError(
                f"the bridge takes {words} words a frame, this driver sends {WORDS}; use the "
                "driver that belongs to the bitstream"
            )

    def request(
        self,
        operation: Operation,
        words: np.ndarray = NOTHING,
        *,
        argument: int = 0,
        last: bool = False,
    ) -> Reply:
        """Send a request until its reply comes.

        words     payload, uint64, at most WORDS
        argument  byte offset of a register, or TKEEP of a packet's last word
        last      whether the last word ends a packet
        """
        self._sequence = (self._sequence + 1) % 256
        code = operation | _LAST * last
        frame = _HEADER.pack(REQUEST, self._sequence, code, len(words), argument, 0)
        frame += words.astype("<u8").tobytes()
        for _ in range(TRIES):
            self._port.write(frame + _TRAILER.pack(zlib.crc32(frame)))
            if reply := self._reply():
                return reply
        raise DriverError(
            f"no answer to {operation.name} after {TRIES} tries: check the port, the baud rate and "
            "the bitstream"
        )

    def _reply(self) -> Reply | None:
        """The reply to the last request; None if none comes in time."""
        data, left = b"", MOST_BYTES
        while left > 0:  # a port that talks without an end is no bridge
            data = data[at:] if (at := data.find(ANSWER)) >= 0 else b""
            size = _HEADER.size + 8 * (data[3] if len(data) > 3 else 0) + _TRAILER.size
            if len(data) < size:
                if not (more := self._port.read(size - len(data))):
                    return None
                data, left = data + more, left - len(more)
                continue
            frame, trailer = data[: size - 8], data[size - 8 : size]
            _, sequence, code, _, result, _ = _HEADER.unpack(frame[:8])
            if trailer == _TRAILER.pack(zlib.crc32(frame)) and sequence == self._sequence:
                return Reply(result, np.frombuffer(frame[8:], "<u8"), bool(code & _LAST))
            data = data[1:]
        return None

    def pump(self) -> None:
        """Move all that the streams take and give at once."""
        moved = True
        while moved:
            moved = False
            for channel in self.channels:
                moved |= channel.move()


class Registers:
    """The registers as pynq.MMIO has them. Raises DriverError for one that there is not."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def read(self, offset: int) -> int:
        """Value of the register at a byte offset."""
        self._link.pump()
        return int(self._request(Operation.READ, offset).words[0])

    def write(self, offset: int, value: int) -> None:
        """Write the register at a byte offset."""
        self._request(Operation.WRITE, offset, np.array([value], "<u8"))

    def _request(self, operation: Operation, offset: int, *words: np.ndarray) -> Reply:
        reply = self._link.request(operation, *words, argument=offset)
        if reply.result:
            raise DriverError(
                f"{operation.name} of register {offset:#x} is refused: use the driver that belongs "
                "to the bitstream"
            )
        return reply


class SendChannel:
    """A stream to the accelerator as a channel of pynq.lib.dma."""

    transferred = 0

    def __init__(self, link: Link, operation: Operation) -> None:
        self._link, self._operation = link, operation
        self._words, self._keep = NOTHING, 0
        link.channels.append(self)

    def transfer(self, array: np.ndarray) -> None:
        """Begin to send a buffer; TKEEP marks the bytes of the last word."""
        self._words, self._keep = beats(array)
        self._link.pump()

    def move(self) -> bool:
        """Send up to a frame of words; whether any were taken."""
        if not len(self._words):
            return False
        frame, last = self._words[:WORDS], len(self._words) <= WORDS
        reply = self._link.request(self._operation, frame, argument=self._keep, last=last)
        self._words = self._words[reply.result :]
        return reply.result > 0

    @property
    def idle(self) -> bool:
        """Whether everything has been sent."""
        self._link.pump()
        return not len(self._words)

    def wait(self) -> None:
        """Wait until everything has been sent."""
        while not self.idle:
            pass

    def stop(self) -> None:
        """Send nothing more but the word that is offered."""
        self._words = self._words[:0]

    def start(self) -> None:
        """The stream is always open."""


class ReceiveChannel:
    """The result stream as a channel of pynq.lib.dma."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._buffer, self._words = np.zeros(0), NOTHING
        self._open = False  # a packet is waited for
        self.transferred = 0
        link.channels.append(self)

    def transfer(self, array: np.ndarray) -> None:
        """Name the buffer of the next packet."""
        self._buffer, self._words, self._open = array, NOTHING, True
        self._link.pump()

    def move(self) -> bool:
        """Take up to a frame of the packet that is waited for; whether anything came."""
        if not self._open:
            return False
        reply = self._link.request(Operation.TAKE)
        self._words = np.append(self._words, reply.words)
        self._open = not reply.last
        return len(reply.words) > 0

    @property
    def idle(self) -> bool:
        """Whether the packet has come."""
        self._link.pump()
        return not self._open

    def wait(self) -> None:
        """Copy the packet into the buffer. Raises DriverError if it is too long."""
        while not self.idle:
            pass
        self.transferred = self._words.nbytes
        if self.transferred > self._buffer.nbytes:
            raise DriverError(
                f"a result packet of {self.transferred} bytes for a buffer of "
                f"{self._buffer.nbytes}: load the network again"
            )
        self._buffer[: len(self._words)] = self._words

    def stop(self) -> None:
        """Forget what has come, and what is offered."""
        self._open = False
        while len(self._link.request(Operation.TAKE).words):
            pass

    def start(self) -> None:
        """The stream is always open."""


def on_serial(port: Port, *, clock: Any = time) -> Accelerator:
    """The driver of the accelerator behind an open serial port; clock as the driver's. Raises
    DriverError."""
    link = Link(port)
    weights, images = (SendChannel(link, op) for op in (Operation.PROGRAM, Operation.IMAGE))
    return Accelerator(
        Registers(link),
        SimpleNamespace(sendchannel=weights),
        SimpleNamespace(sendchannel=images),
        SimpleNamespace(recvchannel=ReceiveChannel(link)),
        clock=clock,
    )
