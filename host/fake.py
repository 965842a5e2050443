"""A behavioural model of the accelerator, for tests of software without a simulator: registers and
streams as docs/registers.md and docs/program-format.md say, results of the integer model, cycles of
the cycle model.

It computes nothing from a program's words: it knows the programs of the networks it is given, and
applies the accelerator's checks to all others.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from host.driver import COUNTERS, Accelerator, beats
from host.register_map import FIELDS, Ctrl, ErrorCode, IrqStatus, Register, Status
from model.common.errors import UserError
from model.compiler import Compiled, compile_network, geometry
from model.compiler.conv_plan import CHANNEL_QUADS, WINDOW, ceil_div
from model.compiler.hardware import Hardware
from model.compiler.program_format import (
    CHUNK,
    HEADER,
    MAGIC_PROGRAM,
    MAGIC_WEIGHTS,
    MAX_CHANNELS,
    MAX_LAYERS,
    MODE_5,
    OP_ADD,
    OP_AVGPOOL,
    OP_CONV,
    OP_MAXPOOL,
    PACKET,
    PROGRAM_VERSION,
    RECORD_WORDS,
    TILE_PIXELS,
    TRAILER,
)
from model.compiler.records import decode
from model.network import Layer, Network
from model.performance.cycle_model import predict
from model.reference.integer import run_integer

WHOLE = 0xFF  # TKEEP of a beat with eight bytes
HALF = 0x0F
_RESETS = {
    register: sum((reset or 0) << low for _, low, _, reset in fields.values())
    for register, fields in FIELDS.items()
}
_ACCESS = {
    register: "".join(
        {"w1c": "rw", "w1p": "w"}.get(access, access) for _, _, access, _ in fields.values()
    )
    for register, fields in FIELDS.items()
}


class _Refused(Exception):
    """An error code, and the number of the layer."""

    def __init__(self, code: ErrorCode, layer: int = 0) -> None:
        super().__init__(code.name)
        self.code, self.layer = code, layer


class FakeAccelerator:
    """The accelerator with the programs of `networks`; `driver` gives an Accelerator on it."""

    def __init__(self, networks: Sequence[Network], hardware: Hardware = Hardware()) -> None:
        compiled = [
            compile_network(n, hardware, debug) for n in networks for debug in (False, True)
        ]
        self._known = {c.program[1:-1].tobytes(): c for c in compiled}
        self.hardware = hardware
        self.power_up()

    def power_up(self) -> None:
        """Forget everything, the program too."""
        self._program: np.ndarray | None = None  # payload
        self.results: list[np.ndarray] = []  # packets that nobody has taken, uint64
        self._irq = self._enable = self._layer = 0
        self._soft_reset()

    def driver(self) -> Accelerator:
        """A driver of this accelerator."""
        return Accelerator(
            self,
            FakeEngine(self, "weights"),
            FakeEngine(self, "images"),
            FakeEngine(self, "results"),
            clock=FakeTime(),
        )

    def _soft_reset(self) -> None:
        self._running = self._stopping = self._done = False
        self._error = _Refused(ErrorCode.NONE)
        self._weights: np.ndarray | None = None
        self._image: tuple[np.ndarray, int] | None = None
        self._busy = False  # an image is computed
        self._count_nothing()
        self._total = 0
        self.results = [packet[:2] for packet in self.results[:1]]

    def _count_nothing(self) -> None:
        self._images_done = 0
        self._counters = np.zeros((0, len(COUNTERS)), np.int64)

    # ------------------------------------------------------------------------------- registers

    def read(self, offset: int) -> int:
        """Value of a register. Raises OSError where the accelerator answers with SLVERR."""
        register = _register(offset, "r")
        if register in COUNTERS:
            row = self._counters[self._layer : self._layer + 1].ravel()
            return int(row[COUNTERS.index(register)]) if len(row) else 0
        live = {
            Register.PARAMS: self.hardware.num_modules
            | (self.hardware.planes == 2) << 7
            | TILE_PIXELS << 8
            | self.hardware.bank_words // 32 << 20,
            Register.STATUS: Status.BUSY * self._running
            | Status.DONE * self._done
            | Status.ERROR * bool(self._error.code)
            | Status.PROG_VALID * (self._program is not None)
            | Status.RESULT * bool(self.results),
            Register.ERROR: self._error.code | self._error.layer << 8,
            Register.IRQ_STATUS: self._irq,
            Register.IRQ_ENABLE: self._enable,
            Register.LAYER_SEL: self._layer,
            Register.TOTAL_CYCLES: self._total,
            Register.IMAGES_DONE: self._images_done,
        }
        return int(live.get(register, _RESETS[register]))

    def write(self, offset: int, value: int) -> None:
        """Write to a register. Raises OSError where the accelerator answers with SLVERR."""
        register = _register(offset, "w")
        if register == Register.IRQ_STATUS:
            self._irq &= ~value
        elif register == Register.IRQ_ENABLE:
            self._enable = value & 7
        elif register == Register.LAYER_SEL:
            self._layer = value & 63
        elif value & Ctrl.SOFT_RESET:
            self._soft_reset()
        elif not self._error.code:
            self._guarded(self._control, value)

    def _control(self, value: int) -> None:
        if value & Ctrl.START:  # a STOP beside it is ignored
            self._start()
        elif value & Ctrl.STOP and self._running:
            self._stopping = True
            self._end_run()
        self._compute()

    def _start(self) -> None:
        if self._running:
            raise _Refused(ErrorCode.START_BUSY)
        if self._program is None:
            raise _Refused(ErrorCode.NO_PROGRAM)
        self._count_nothing()
        self._done = False
        if len(self._program) < 2 * RECORD_WORDS:
            raise _Refused(ErrorCode.PROGRAM_HEADER)
        header = decode(HEADER, self._program.tolist())
        end = header["image_end_addr"]
        if (
            header["version"] != PROGRAM_VERSION
            or not 1 <= header["n_layers"] <= MAX_LAYERS
            or end > self.hardware.quads
            or (header["n_layers"] + 1) * RECORD_WORDS > len(self._program)
            or not header["image_rows"] * header["image_row_quads"]
        ):
            raise _Refused(ErrorCode.PROGRAM_HEADER)
        foreign = header["num_modules"] != self.hardware.num_modules
        if foreign or (self.hardware.planes == 2 and not header["two_planes"]):
            raise _Refused(ErrorCode.NUM_MODULES)
        self._running, self._stopping = True, False

    def _end_run(self) -> None:
        if self._stopping and not self._busy:
            self._running, self._stopping = False, False
            self._irq |= IrqStatus.STOPPED

    # ------------------------------------------------------------------------------- streams

    def send(self, stream: str, words: np.ndarray, keep: int = WHOLE) -> None:
        """A whole packet on the stream of programs and "weights" or on that of "images": uint64,
        and TKEEP of the last word. After an error it is dropped."""
        if not self._error.code:
            self._guarded(self._packet if stream == "weights" else self._pixels, words, keep)

    def take(self) -> np.ndarray | None:
        """The next packet of results, uint64; None if there is none."""
        if not self.results:
            return None
        packet = self.results.pop(0)
        if self._busy and not self.results:
            self._busy, self._done = False, True
            self._irq |= IrqStatus.DONE
            self._images_done += 1
            self._end_run()
        return packet

    def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except _Refused as error:
            self._error, self._running, self._busy = error, False, False
            self._irq |= IrqStatus.ERROR

    def _packet(self, words: np.ndarray, keep: int) -> None:
        header = decode(PACKET, words.tolist())
        payload, length = words[1:-1], header["length"]
        is_program = header["magic"] == MAGIC_PROGRAM
        if not is_program and header["magic"] != MAGIC_WEIGHTS:
            raise _Refused(ErrorCode.PACKET_MAGIC)
        if is_program and self._running:
            raise _Refused(ErrorCode.PROGRAM_BUSY)
        if is_program:
            self._program = None
            if not 0 < length <= (MAX_LAYERS + 1) * RECORD_WORDS:
                raise _Refused(ErrorCode.PROGRAM_LENGTH)
        if len(words) < length + 2:
            raise _Refused(ErrorCode.PACKET_TRUNCATED)
        if len(words) > length + 2:
            raise _Refused(ErrorCode.PACKET_OVERLONG)
        if keep != WHOLE:
            raise _Refused(ErrorCode.PACKET_TKEEP)
        if int(words[-1]) != zlib.crc32(payload.tobytes()) << TRAILER.fields["crc"].low:
            raise _Refused(ErrorCode.PACKET_CRC)
        if is_program:
            self._program = payload
        else:
            self._weights = payload
            self._compute()

    def _pixels(self, words: np.ndarray, keep: int) -> None:
        self._image = (words, keep)
        self._compute()

    def _compute(self) -> None:
        """An image, once everything has come for it."""
        if not self._running or self._image is None:
            return
        assert self._program is not None
        self._check_image(self._program, *self._image)
        if self._weights is None:
            return
        count = decode(HEADER, self._program.tolist())["n_layers"]
        layers = self._program[RECORD_WORDS:][: count * RECORD_WORDS].reshape(-1, RECORD_WORDS)
        self._check_layers(layers, self._weights)
        compiled = self._known.get(self._program.tobytes())
        if compiled is None or not np.array_equal(self._weights, compiled.weights[1:-1]):
            raise UserError("the fake accelerator was not given this network")
        tensors = run_integer(compiled.net, _decode_image(compiled, self._image[0]), keep=True)
        self.results += [_encode(compiled, x, tensors[x.name][0]) for x in compiled.emitted]
        cycles = predict(compiled)
        counts = {x.name: (x.cycles, 0, x.reads, x.writes, x.weight_words) for x in cycles.layers}
        self._counters = np.array([counts[entry.layer.name] for entry in compiled.entries])
        self._total = cycles.total_cycles
        self._busy, self._image, self._weights = True, None, None

    def _check_image(self, program: np.ndarray, words: np.ndarray, keep: int) -> None:
        header = decode(HEADER, program.tolist())
        quads = header["image_rows"] * header["image_row_quads"]
        if len(words) < ceil_div(quads, 2):
            raise _Refused(ErrorCode.IMAGE_TRUNCATED)
        if len(words) > ceil_div(quads, 2):
            raise _Refused(ErrorCode.IMAGE_OVERLONG)
        if keep != WHOLE and not (keep == HALF and quads % 2):
            raise _Refused(ErrorCode.IMAGE_TKEEP)

    def _check_layers(self, layers: np.ndarray, weights: np.ndarray) -> None:
        """In the order of the layers: descriptor, weights, region of the output."""
        at = 0
        for number, words in enumerate(layers):
            d = geometry.sizes(words)
            wrong_raw = d.raw and (
                d.op in (OP_MAXPOOL, OP_ADD) or not d.emit or number + 1 < len(layers)
            )
            if wrong_raw or _has_no_size(d, self.hardware) or geometry.problems(d, self.hardware):
                raise _Refused(ErrorCode.DESCRIPTOR, number)
            if d.has_params:
                if at < len(weights):
                    chunk = decode(CHUNK, weights[at : at + 1].tolist())
                    blocks = chunk["n_groups"] * chunk["n_passes"]
                    at += chunk["n_params"] + blocks * self.hardware.pass_words
                at += 1
                if at > len(weights):
                    raise _Refused(ErrorCode.WEIGHTS_SHORT, number)
            last = d.out_base + (d.out_h - 1) * d.out_row_stride + d.out_row_quads
            if not d.raw and last > d.out_end:
                raise _Refused(ErrorCode.OUT_OF_BOUNDS, number)
        if at < len(weights):
            raise _Refused(ErrorCode.WEIGHTS_LONG, len(layers) - 1)


def _register(offset: int, access: str) -> Register:
    if offset not in set(Register) or access not in _ACCESS[Register(offset)]:
        raise OSError(f"register {offset:#x}: SLVERR")
    return Register(offset)


def _has_no_size(d: SimpleNamespace, hardware: Hardware) -> bool:
    """Whether a single field of a descriptor cannot be."""
    sizes = [d.in_w, d.in_h, d.in_quads, d.out_quads, d.out_w, d.out_h]
    tile = [d.tile_rows, d.tile_cols, d.tile_pixels]
    if d.op == OP_CONV:
        sizes += [d.kr_count, d.pieces, d.channel_groups, d.output_groups, *tile]
    elif d.op in (OP_MAXPOOL, OP_AVGPOOL, OP_ADD):
        sizes += [d.pool_kernel_h, d.pool_kernel_w, d.pool_stride_h, d.pool_stride_w]
    else:
        return True
    rows = 1 if not d.vertical else 2 if d.pair else d.read_quads  # of the kernel in a pass
    wrong_sum = d.fused and (d.op != OP_CONV or d.raw)
    wrong_mode = d.op == OP_CONV and (
        d.mode > MODE_5 or d.window != WINDOW[d.mode] or d.read_quads > CHANNEL_QUADS[d.mode]
    )
    too_many = d.has_params and d.out_quads > MAX_CHANNELS // 4
    no_region = d.out_end > hardware.quads or d.out_base >= d.out_end
    return (
        not all(sizes)
        or wrong_sum
        or wrong_mode
        or too_many
        or (not d.raw and no_region)  # 32-bit results go to the stream
        or d.has_params == (d.op == OP_MAXPOOL)
        or (d.op == OP_CONV and (max(tile) > TILE_PIXELS or d.kr_step != rows))
    )


def _decode_image(compiled: Compiled, words: np.ndarray) -> np.ndarray:
    tensor = compiled.tensors["input"]
    channels, height, width = tensor.shape
    data = words.view(np.int8 if tensor.signed else np.uint8)[: height * width * 4 * tensor.quads]
    return data.reshape(1, height, width, -1)[..., :channels].transpose(0, 3, 1, 2).astype(np.int32)


def _encode(compiled: Compiled, layer: Layer, tensor: np.ndarray) -> np.ndarray:
    """Result packet of a tensor [C, H, W]; `Compiled.decode_results` reads it."""
    channels, height, width = tensor.shape
    modules = compiled.hardware.num_modules
    lanes, dtype = (modules, "<i4") if layer.out == "int32" else (4, np.uint8)
    words = ceil_div(channels, lanes)
    padded = np.zeros((words * lanes, height, width), np.int64)
    padded[:channels] = tensor
    if layer.out == "int32":
        word, y, x = np.array(compiled.raw_order(layer)).T
        data = padded.reshape(words, lanes, height, width)[word, :, y, x].astype(dtype).tobytes()
    else:
        data = padded.transpose(1, 2, 0).astype(np.int8).tobytes()
    return np.frombuffer(data + bytes(-len(data) % 8), "<u8")


class FakeEngine:
    """A DMA engine with the channels of pynq.lib.dma. While `stuck` it sends and takes nothing."""

    def __init__(self, fake: FakeAccelerator, stream: str) -> None:
        self._fake, self._stream = fake, stream
        self.sendchannel = self.recvchannel = self
        self.stuck = False
        self.transferred = 0
        self._buffer: np.ndarray | None = None

    def transfer(self, array: np.ndarray) -> None:
        """Send a buffer, or name that of the next packet."""
        self._buffer = array
        self._move()

    @property
    def idle(self) -> bool:
        """Whether the buffer has been sent or filled."""
        self._move()
        return self._buffer is None

    def _move(self) -> None:
        if self._buffer is None or self.stuck:
            return
        if self._stream != "results":
            self._fake.send(self._stream, *beats(self._buffer))
        elif (packet := self._fake.take()) is not None:
            self._buffer[: len(packet)] = packet[: len(self._buffer)]
            self.transferred = packet.nbytes
        else:
            return
        self._buffer = None

    def wait(self) -> None:
        """Raises RuntimeError where a real engine would wait forever."""
        if not self.idle:
            raise RuntimeError(f"the {self._stream} engine never ends")

    def stop(self) -> None:
        """Forget the buffer."""
        self._buffer = None

    def start(self) -> None:
        """The engine always runs."""


class FakeTime:
    """`sleep` and `monotonic` of the module `time`; time passes only in `sleep`."""

    def __init__(self) -> None:
        self._now = 0.0

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._now += seconds

    def monotonic(self) -> float:
        """Seconds."""
        return self._now
