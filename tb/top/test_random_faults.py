"""Random faults in random places of every stream, under random stalls: each ends in its error code,
and the next run is right.

Environment: FAULTS how many (default 24, on Icarus 1).
"""

from __future__ import annotations

import os
from collections import Counter

import cocotb
import numpy as np
from cocotb.task import bridge

from host.harness.engines import Traffic
from host.register_map import ErrorCode
from model.compiler.program_format import PACKET, TRAILER
from tb.lib.accelerator import on_icarus
from tb.top.fault_bench import FaultBench

MAGIC, LENGTH, CRC = PACKET.fields["magic"], PACKET.fields["length"], TRAILER.fields["crc"]
WORD_BITS = 64
TKEEPS = [keep for keep in range(0xFF) if keep != 0x0F]  # half a beat may end an odd image


def flip(words: np.ndarray, at: int, bit: int) -> np.ndarray:
    """A copy with one bit of word `at` inverted."""
    words = words.copy()
    words[at] ^= np.uint64(1 << bit)
    return words


def flipped_magic(words, rng):
    """One bit of the packet's name."""
    return flip(words, 0, MAGIC.low + int(rng.integers(MAGIC.width))), ErrorCode.PACKET_MAGIC, 0xFF


def flipped_length(words, rng):
    """One of the low bits of the header's length: the packet ends too early or too late for it."""
    bit = LENGTH.low + int(rng.integers(8))
    code = ErrorCode.PACKET_OVERLONG if int(words[0]) >> bit & 1 else ErrorCode.PACKET_TRUNCATED
    return flip(words, 0, bit), code, 0xFF


def flipped_payload(words, rng):
    """One bit of the payload or of the 32 bits of the CRC."""
    at = int(rng.integers(1, len(words)))
    low, width = (CRC.low, CRC.width) if at == len(words) - 1 else (0, WORD_BITS)
    bit = low + int(rng.integers(width))
    return flip(words, at, bit), ErrorCode.PACKET_CRC, 0xFF


def truncated(words, rng):
    """Any number of beats at the end missing, with TLAST on what is then the last."""
    return words[: int(rng.integers(1, len(words)))], ErrorCode.PACKET_TRUNCATED, 0xFF


def lost_beat(words, rng):
    """One beat after the header missing."""
    return np.delete(words, int(rng.integers(1, len(words)))), ErrorCode.PACKET_TRUNCATED, 0xFF


def repeated_beat(words, rng):
    """One beat after the header twice."""
    at = int(rng.integers(1, len(words)))
    return np.insert(words, at, words[at]), ErrorCode.PACKET_OVERLONG, 0xFF


def prolonged(words, rng):
    """Up to 40 beats more."""
    return (
        np.concatenate([words, rng.integers(2**63, size=int(rng.integers(1, 41))).astype("<u8")]),
        ErrorCode.PACKET_OVERLONG,
        0xFF,
    )


def reordered(words, rng):
    """Payload beats in a random order, which is another one."""
    order = rng.permutation(np.arange(1, len(words) - 1))
    mixed = np.concatenate([words[:1], words[order], words[-1:]])
    return (
        (mixed, ErrorCode.PACKET_CRC, 0xFF)
        if not np.array_equal(mixed, words)
        else flipped_payload(words, rng)
    )


def bad_keep(words, rng):
    """TKEEP of the last beat: no whole beat."""
    return words, ErrorCode.PACKET_TKEEP, int(rng.choice(TKEEPS))


def image_truncated(words, rng):
    """An image that ends early."""
    return words[: int(rng.integers(1, len(words)))], ErrorCode.IMAGE_TRUNCATED, 0xFF


def image_prolonged(words, rng):
    """An image that goes on."""
    return (
        np.concatenate([words, words[: int(rng.integers(1, len(words) + 1))]]),
        ErrorCode.IMAGE_OVERLONG,
        0xFF,
    )


def image_keep(words, rng):
    """TKEEP of the image's last beat."""
    return words, ErrorCode.IMAGE_TKEEP, int(rng.choice(TKEEPS))


PACKET_FAULTS = (
    flipped_magic,
    flipped_length,
    flipped_payload,
    truncated,
    lost_beat,
    repeated_beat,
    prolonged,
    reordered,
    bad_keep,
)
IMAGE_FAULTS = (image_truncated, image_prolonged, image_keep)


def _traffic(rng) -> Traffic:
    """Stalls of a stream; at most four cycles a beat on average, so that the error comes within the
    limit of `expect`."""
    return Traffic(int(rng.choice([0, 30])), int(rng.choice([256, 150])), int(rng.choice([0, 100])))


async def one_fault(bench: FaultBench) -> str:
    """Draw a stream and a fault, run it and recover; returns what it was."""
    rng = bench.rng
    stream = str(rng.choice(["program", "weights", "image"]))
    fault = (
        IMAGE_FAULTS[int(rng.integers(len(IMAGE_FAULTS)))]
        if stream == "image"
        else PACKET_FAULTS[int(rng.integers(len(PACKET_FAULTS)))]
    )
    words = {"program": bench.compiled.program, "weights": bench.compiled.weights}.get(stream)
    if words is None:
        words = bench.compiled.encode_image(bench.image()[0])
    bad, code, keep = fault(words, rng)
    bench.host.set_traffic(_traffic(rng), _traffic(rng), int(rng.choice([0, 128])))
    if (
        stream == "program" and fault is flipped_magic
    ):  # not even a program: the one before it stays
        await bridge(bench.accelerator.load)(bench.compiled)
        await bench.send(prog=bad)
        await bench.expect(code)
        await bench.recover()
        await bench.good_run(reload=False)
    elif stream == "program":
        await bench.refused(code, bad, prog_keep=keep)
    else:
        await bench.fails(
            code, **{stream: bad, "image_keep" if stream == "image" else "prog_keep": keep}
        )
    return f"{stream} {fault.__name__}"


@cocotb.test()
async def random_faults(dut):
    """Draw faults one after the other; the code of each, a soft reset, a run that is right."""
    bench = await FaultBench(dut).start()
    wanted = int(os.environ.get("FAULTS") or (1 if on_icarus() else 24))
    assert wanted > 0, "FAULTS must be at least 1"
    seen: Counter = Counter()
    for number in range(wanted):
        seen[await one_fault(bench)] += 1
        dut._log.info("fault %d of %d", number + 1, wanted)
    dut._log.info(
        "%d bad streams, each followed by a good run: %s", wanted, dict(sorted(seen.items()))
    )
    assert bench.good_runs == wanted and bench.values_checked
