"""AXI-Stream beats and packets of the accelerator as Python values, and their transfer by
cocotbext-axi."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from model.compiler.program_format import PACKET, TRAILER
from model.compiler.records import decode, encode
from tb.blocks.stream import channel

MASK_32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Beat:
    """One 64-bit beat. `last` is TLAST."""

    data: int
    keep: int = 0xFF
    last: bool = False


def with_last(words: Sequence[int]) -> list[Beat]:
    """Full beats with TLAST on the last one."""
    return [Beat(int(w), last=i == len(words) - 1) for i, w in enumerate(words)]


def packet(
    magic: int, payload: Sequence[int], *, length: int | None = None, crc: int | None = None
) -> list[Beat]:
    """Header, payload of 64-bit words, trailer.

    `length` and `crc` (the whole trailer) override the right values.
    """
    if crc is None:
        crc = int(encode(TRAILER, {"crc": zlib.crc32(np.array(payload, dtype="<u8").tobytes())})[0])
    length = len(payload) if length is None else length
    return with_last([header(magic, length), *payload, crc])


def header(magic: int, length: int) -> int:
    """The first beat of a packet."""
    return int(encode(PACKET, {"magic": magic, "length": length})[0])


def fields(beat: Beat) -> dict[str, int]:
    """magic and length in the first beat of a packet."""
    return decode(PACKET, [beat.data])


def random_words(rng: np.random.Generator, count: int) -> list[int]:
    """64-bit words."""
    return [int(w) for w in rng.integers(0, 2**64, count, dtype=np.uint64)]


def truncated(beats: Sequence[Beat], count: int) -> list[Beat]:
    """The first `count` beats, TLAST on the last of them."""
    return [*beats[: count - 1], replace(beats[count - 1], last=True)]


def with_keep(beats: Sequence[Beat], index: int, keep: int) -> list[Beat]:
    """The same beats with another TKEEP in one of them."""
    return [replace(b, keep=keep) if i == index else b for i, b in enumerate(beats)]


async def send_by_hand(
    dut, beats: Sequence[Beat], stall: Iterator[bool], prefix: str = "s_axis"
) -> None:
    """Send beats with TLAST wherever it is set, packets without a pause between them (cocotbext-axi
    can do neither).

    Only for a port without a `source`. Returns right after the last handshake.
    """

    def drive(beat: Beat) -> None:
        getattr(dut, f"{prefix}_tdata").value = beat.data
        getattr(dut, f"{prefix}_tkeep").value = beat.keep
        getattr(dut, f"{prefix}_tlast").value = int(beat.last)

    await channel.send(
        dut.clk_i,
        getattr(dut, f"{prefix}_tvalid"),
        getattr(dut, f"{prefix}_tready"),
        drive,
        beats,
        stall,
    )


def idle(dut, prefix: str = "s_axis") -> None:
    """Drive the slave port `prefix` with nothing, for the time before there is a source."""
    for signal in ("tdata", "tkeep", "tvalid", "tlast"):
        getattr(dut, f"{prefix}_{signal}").value = 0


def source(dut, prefix: str = "s_axis") -> AxiStreamSource:
    """cocotbext-axi source on the slave port `prefix` of the design, with its log messages off."""
    return _quiet(
        AxiStreamSource(
            AxiStreamBus.from_prefix(dut, prefix), dut.clk_i, dut.rst_ni, reset_active_level=False
        )
    )


def sink(dut, prefix: str = "m_axis") -> AxiStreamSink:
    """cocotbext-axi sink on the master port `prefix` of the design, with its log messages off."""
    return _quiet(
        AxiStreamSink(
            AxiStreamBus.from_prefix(dut, prefix), dut.clk_i, dut.rst_ni, reset_active_level=False
        )
    )


def _quiet(endpoint):
    endpoint.log.setLevel("WARNING")
    return endpoint


def frame(beats: Sequence[Beat]) -> AxiStreamFrame:
    """The frame that a source sends as these beats; only the last one may carry TLAST, and it
    must."""
    assert [b.last for b in beats] == [False] * (len(beats) - 1) + [True], (
        "a frame ends with its only TLAST"
    )
    data = b"".join(b.data.to_bytes(8, "little") for b in beats)
    return AxiStreamFrame(data, tkeep=[b.keep >> lane & 1 for b in beats for lane in range(8)])
