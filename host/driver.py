"""The driver of the accelerator, in the manner of PYNQ's: registers through `mmio`, streams through
DMA engines.

The same class drives the RTL in simulation (host/harness/engines.py), a behavioural model
(host/fake.py) and a PYNQ board (host/board.py). What it needs of them is PYNQ's interface:

    mmio.read(offset) -> int, mmio.write(offset, value)
    dma.sendchannel, dma.recvchannel: transfer(buffer), wait(), stop(), start(), idle, and of the
        receiving one transferred, in bytes
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from host.register_map import Ctrl, ErrorCode, IrqEnable, IrqStatus, Register, Status, field
from model.common.errors import UserError, printable
from model.compiler import Compiled, compile_network
from model.compiler.hardware import Hardware
from model.data.images import ImageError
from model.network import Network, check_input

ACCELERATOR_ID = 0x51504C43
MAJOR_VERSION = 1
ALL_INTERRUPTS = IrqEnable.DONE | IrqEnable.ERROR | IrqEnable.STOPPED
SETTLE = 1e-6  # seconds in which START or STOP has been obeyed, or a program been taken over
POLL = 1e-4  # seconds between two looks at the registers
PATIENCE = 10.0  # seconds for a program, an image or a soft reset
LEFT_BEATS = 2  # that the result stream keeps over a soft reset
COUNTERS = (
    Register.LAYER_CYCLES,
    Register.LAYER_STALLS,
    Register.LAYER_READS,
    Register.LAYER_WRITES,
    Register.LAYER_WEIGHTS,
)

# Errors that name a layer; with others ERROR.LAYER is just the one that ran.
LAYER_ERRORS = (ErrorCode.DESCRIPTOR, ErrorCode.OUT_OF_BOUNDS, ErrorCode.WEIGHTS_SHORT)
_DAMAGED = "what arrived is not what the host sent: check the DMA engine and its buffers, try again"
_NOT_COMPILED = "compile the network again with this version, for the parameters in PARAMS"
REMEDIES = {
    ErrorCode.PACKET_MAGIC: _DAMAGED,
    ErrorCode.PACKET_TRUNCATED: _DAMAGED,
    ErrorCode.PACKET_OVERLONG: _DAMAGED,
    ErrorCode.PACKET_CRC: _DAMAGED,
    ErrorCode.PACKET_TKEEP: "transfer whole words of 8 bytes",
    ErrorCode.PROGRAM_LENGTH: _NOT_COMPILED,
    ErrorCode.PROGRAM_BUSY: "load a network between runs",
    ErrorCode.IMAGE_TRUNCATED: "transfer a whole image at once",
    ErrorCode.IMAGE_OVERLONG: "transfer one image at a time",
    ErrorCode.IMAGE_TKEEP: "transfer whole words of 8 bytes",
    ErrorCode.NO_PROGRAM: "load a network first",
    ErrorCode.START_BUSY: "let nobody else write CTRL.START; try again",
    ErrorCode.PROGRAM_HEADER: _NOT_COMPILED,
    ErrorCode.NUM_MODULES: "compile the network for NUM_MODULES and TWO_PLANES in PARAMS",
    ErrorCode.DESCRIPTOR: _NOT_COMPILED,
    ErrorCode.OUT_OF_BOUNDS: _NOT_COMPILED,
    ErrorCode.WEIGHTS_SHORT: "send the weights of the loaded network: load it again",
    ErrorCode.WEIGHTS_LONG: "send the weights of the loaded network: load it again",
}


def beats(buffer: np.ndarray) -> tuple[np.ndarray, int]:
    """What an engine sends of a buffer: uint64 words, and TKEEP of the last one."""
    data = buffer.tobytes()
    keep = (1 << (len(data) - 1) % 8 + 1) - 1
    return np.frombuffer(data + bytes(-len(data) % 8), "<u8"), keep


class DriverError(UserError):
    """The accelerator did not do what it was asked; the message ends with the remedy.

    The driver has reset it, so the next call may succeed.
    """


class AcceleratorError(DriverError):
    """The accelerator reported an error.

    code: of its ERROR register. layer: the name of the layer at fault, or None. remedy: what to do.
    """

    def __init__(self, code: int, layer: str | None) -> None:
        self.code: int = code
        self.layer = layer
        self.remedy = "reset the hardware: this driver does not know the code"
        name = "unknown"
        if code in set(ErrorCode):
            self.code = ErrorCode(code)
            name, self.remedy = ErrorCode(code).name, REMEDIES[ErrorCode(code)]
        at = f" at layer '{printable(layer)}'" if layer is not None else ""
        super().__init__(f"accelerator error {code:#04x} {name}{at}: {self.remedy}")

    def __reduce__(self) -> tuple:
        return type(self), (self.code, self.layer)


class AcceleratorTimeout(DriverError):
    """Something did not happen in time; the message says what, and what STATUS was."""


class Channel(Protocol):
    """One direction of a DMA engine, as pynq.lib.dma has it."""

    transferred: int

    @property
    def idle(self) -> bool: ...

    def transfer(self, array: Any) -> None: ...

    def wait(self) -> None: ...

    def stop(self) -> None: ...

    def start(self) -> None: ...


@dataclass(frozen=True)
class Results:
    """A batch of N images.

    tensors       {layer: int32 [N, C, H, W]} of the emitted layers; the last one is the network's
                  output
    total_cycles  int64 [N], of TOTAL_CYCLES
    counters      int64 [N, layers, 5]: cycles, stalls, words of 32 bits read from and written to
                  the feature buffer, weight words of 64 bits
    seconds       float64 [N], wall time
    """

    tensors: dict[str, np.ndarray]
    total_cycles: np.ndarray
    counters: np.ndarray
    seconds: np.ndarray

    @property
    def y(self) -> np.ndarray:
        """int32 [N, C, H, W] of the last layer."""
        return list(self.tensors.values())[-1]

    @property
    def cycles(self) -> np.ndarray:
        """int64 [N, layers]"""
        return self.counters[:, :, 0]


class Accelerator:
    """One accelerator.

    mmio, weights_dma, images_dma, results_dma  as PYNQ's; the first engine also sends the program
    allocate  (shape, dtype) -> buffer that the engines can reach, such as pynq.allocate
    clock     sleep(seconds), which may end before, at an interrupt, and monotonic() -> seconds
    A new driver brings the accelerator to rest, whatever it was left in. Raises DriverError where
    there is no accelerator, one of another version, or one that does not come to rest.
    """

    def __init__(
        self,
        mmio: Any,
        weights_dma: Any,
        images_dma: Any,
        results_dma: Any,
        *,
        allocate: Callable[..., Any] = np.zeros,
        clock: Any = time,
    ) -> None:
        self.mmio = mmio
        self._weights: Channel = weights_dma.sendchannel
        self._images: Channel = images_dma.sendchannel
        self._results: Channel = results_dma.recvchannel
        self._allocate, self._clock = allocate, clock
        self._compiled: Compiled | None = None
        identity, version = mmio.read(Register.ID), mmio.read(Register.VERSION)
        if identity != ACCELERATOR_ID:
            raise DriverError(
                f"no accelerator: ID is {identity:#010x}, not {ACCELERATOR_ID:#010x}; check the "
                "base address and the bitstream"
            )
        if field(version, Register.VERSION, "MAJOR") != MAJOR_VERSION:
            raise DriverError(
                f"VERSION is {version:#010x}, this driver is for {MAJOR_VERSION}.x; use the driver "
                "that belongs to the bitstream"
            )
        self.soft_reset()

    @property
    def hardware(self) -> Hardware:
        """The parameters of this build."""
        params = self.mmio.read(Register.PARAMS)
        modules, kilobytes, two_planes = (
            field(params, Register.PARAMS, name)
            for name in ("NUM_MODULES", "FEATURE_KB", "TWO_PLANES")
        )
        return Hardware(modules, 32 * kilobytes, planes=2 if two_planes else 3)

    def load(self, network: Network | Compiled, *, timeout: float = PATIENCE) -> Compiled:
        """Send a network's program and keep its weights for the images to come.

        timeout: seconds. Raises CompileError for a network that does not fit, DriverError if it is
        not accepted.
        """
        compiled = (
            compile_network(network, self.hardware) if isinstance(network, Network) else network
        )
        self._compiled = None
        with self._recovering():
            self._rest()
            with self.buffer(compiled.program) as program:
                self._weights.transfer(program)
                self._await(lambda: self._weights.idle, "the program to be taken", timeout)
                self._weights.wait()
            self._clock.sleep(SETTLE)
            self._await(
                lambda: bool(self._status() & Status.PROG_VALID),
                "the program to be accepted",
                timeout,
            )
        self._compiled = compiled
        return compiled

    def run(
        self,
        images: np.ndarray,
        *,
        timeout: float = PATIENCE,
        done: Callable[[int], None] | None = None,
    ) -> Results:
        """Run the loaded network on integer images [N, C, H, W] in the range of its input.

        timeout  seconds for an image
        done     called after each image with the number of those that are done
        Raises ImageError for images of another shape, dtype or range, AcceleratorError,
        AcceleratorTimeout.
        """
        if (compiled := self._compiled) is None:
            raise DriverError("no network is loaded: call load first")
        try:
            images = check_input(compiled.net, images)
        except ValueError as error:
            raise ImageError(str(error)) from None
        seconds, rows, tensors = [], [], []
        with self._recovering(), self._buffers(compiled) as buffers:
            self._start()
            for number, image in enumerate(images):
                begin = time.perf_counter()
                beats = self._run_image(compiled.encode_image(image), *buffers, timeout)
                tensors.append(compiled.decode_results(beats))
                rows.append((self.mmio.read(Register.TOTAL_CYCLES), self.counters()))
                seconds.append(time.perf_counter() - begin)
                if done:
                    done(number + 1)
            self._stop()
        layers = len(compiled.net.layers)
        return Results(
            {
                layer.name: np.array([image[layer.name] for image in tensors], np.int32).reshape(
                    -1, *layer.out_shape
                )
                for layer in compiled.emitted
            },
            np.array([total for total, _ in rows], np.int64),
            np.array([table for _, table in rows], np.int64).reshape(-1, layers, len(COUNTERS)),
            np.array(seconds),
        )

    def counters(self) -> np.ndarray:
        """int64 [layers, 5] of the last image, as in Results."""
        if self._compiled is None:
            return np.zeros((0, len(COUNTERS)), np.int64)
        table = []
        for number in range(len(self._compiled.entries)):
            self.mmio.write(Register.LAYER_SEL, number)
            table.append([self.mmio.read(register) for register in COUNTERS])
        return self._compiled.by_layer(np.array(table, np.int64))

    def soft_reset(self) -> None:
        """Abort everything, at any time, and forget what is on the streams. A loaded network stays.

        Raises DriverError if the accelerator cannot be brought to rest.
        """
        self._images.stop()  # a run or an error takes the pixels that are offered
        self.mmio.write(Register.CTRL, Ctrl.SOFT_RESET)
        self._weights.stop()  # what was offered is now a packet without a header
        self._clock.sleep(SETTLE)
        self.mmio.write(Register.CTRL, Ctrl.SOFT_RESET)
        self._results.stop()
        for channel in (self._images, self._weights, self._results):
            channel.start()
        if self._status() & Status.RESULT:
            self._drop_results()
        self.mmio.write(Register.IRQ_STATUS, ALL_INTERRUPTS)
        if status := self._status() & ~Status.PROG_VALID:
            raise DriverError(
                f"STATUS is {status:#x} after a soft reset: check that the results' DMA engine "
                "takes them, or reset the hardware"
            )

    def _drop_results(self) -> None:
        """Take the beats that the result stream still offers."""
        with self.buffer(np.zeros(LEFT_BEATS, np.uint64)) as rest:
            self._results.transfer(rest)
            self._clock.sleep(POLL)
            self._results.stop()
            self._results.start()

    def _rest(self) -> None:
        """Clear what an error has left where the soft reset behind it failed."""
        if self._status() & (Status.ERROR | Status.RESULT):
            self.soft_reset()

    def _start(self) -> None:
        self._rest()
        self.mmio.write(Register.IRQ_STATUS, ALL_INTERRUPTS)
        self.mmio.write(Register.IRQ_ENABLE, ALL_INTERRUPTS)
        self.mmio.write(Register.CTRL, Ctrl.START)
        self._clock.sleep(SETTLE)
        self._raise_error()

    def _stop(self) -> None:
        self.mmio.write(Register.CTRL, Ctrl.STOP)
        self._clock.sleep(SETTLE)
        self._await(lambda: not self._status() & Status.BUSY, "the run to end", PATIENCE)
        self.mmio.write(Register.IRQ_STATUS, IrqStatus.STOPPED)

    def _run_image(
        self, pixels: np.ndarray, weights: Any, packets: list[Any], timeout: float
    ) -> np.ndarray:
        """Result beats of one image, uint64."""
        beats: list[np.ndarray] = []
        with self.buffer(pixels) as image:
            for packet in packets:
                self._results.transfer(packet)
                if not beats:
                    self._weights.transfer(weights)
                    self._images.transfer(image)
                self._await(lambda: self._results.idle, "a result packet", timeout)
                self._results.wait()
                if self._results.transferred != packet.nbytes:
                    raise DriverError(
                        f"a result packet of {self._results.transferred} bytes instead of "
                        f"{packet.nbytes}: load the network again"
                    )
                beats.append(np.array(packet))
            self._await(
                lambda: bool(self.mmio.read(Register.IRQ_STATUS) & IrqStatus.DONE),
                "the end of the image",
                timeout,
            )
            self.mmio.write(Register.IRQ_STATUS, IrqStatus.DONE)
            self._weights.wait()
            self._images.wait()
        return np.concatenate(beats)

    def _await(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        limit = self._clock.monotonic() + timeout
        while not condition():
            self._raise_error()
            if self._clock.monotonic() > limit:
                raise AcceleratorTimeout(
                    f"{timeout:g} s without {what} (STATUS {self._status():#x}): check that the "
                    "DMA engines are connected and their clock runs, or allow more time"
                )
            self._clock.sleep(POLL)
        self._raise_error()

    def _status(self) -> int:
        return self.mmio.read(Register.STATUS)

    def _raise_error(self) -> None:
        if not self._status() & Status.ERROR:
            return
        value = self.mmio.read(Register.ERROR)
        code, number = (field(value, Register.ERROR, name) for name in ("CODE", "LAYER"))
        entries = self._compiled.entries if self._compiled and code in LAYER_ERRORS else []
        raise AcceleratorError(code, entries[number].name if number < len(entries) else None)

    @contextlib.contextmanager
    def _recovering(self) -> Iterator[None]:
        """A soft reset after whatever ends the block early."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(DriverError):  # what happened first says more
                self.soft_reset()
            raise

    @contextlib.contextmanager
    def _buffers(self, compiled: Compiled) -> Iterator[tuple[Any, list[Any]]]:
        """The weights, and a packet of results for each emitted layer."""
        with contextlib.ExitStack() as stack:
            weights, *packets = (
                stack.enter_context(self.buffer(words))
                for words in (
                    compiled.weights,
                    *(np.zeros(compiled.result_beats(x), np.uint64) for x in compiled.emitted),
                )
            )
            yield weights, packets

    @contextlib.contextmanager
    def buffer(self, words: np.ndarray) -> Iterator[Any]:
        """A buffer of the engines with a copy of `words`."""
        buffer = self._allocate(words.shape, words.dtype)
        try:
            buffer[:] = words
            yield buffer
        finally:
            if hasattr(buffer, "freebuffer"):
                buffer.freebuffer()
