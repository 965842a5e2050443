"""stream_parser against a model of the packet format: good traffic, every error, recovery, exact
latencies."""

from __future__ import annotations

import zlib
from itertools import product

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, Timer
from cocotb.utils import get_sim_time

from host.harness import clocking
from host.register_map import ErrorCode
from model.compiler.program_format import MAGIC_PROGRAM, MAGIC_WEIGHTS
from tb.blocks.stream import beats as b
from tb.lib import coverage, field_coverage, meeting
from tb.lib.effort import scaled
from tb.lib.stalls import PATTERNS, stalls

PROG_WORDS = 1024
KINDS = {MAGIC_PROGRAM: "program", MAGIC_WEIGHTS: "weights"}
CONTROL = (
    "s_axis_tready",
    "prog_we_o",
    "prog_valid_o",
    "prog_start_o",
    "prog_done_o",
    "weights_valid_o",
    "weights_done_o",
    "first_beat_o",
    "err_valid_o",
)
# cycles after the last beat in which everything has come out, also through bursts of stalls
FLUSH = 100


class Bench:
    """Drives one parser, with cocotbext-axi or by hand, and records what comes out of it."""

    def __init__(self, dut, by_hand: bool = False):
        self.dut = dut
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self.by_hand = by_hand
        self.source = None  # cocotbext-axi reads tready at once: not before the reset
        self.program: dict[int, int] = {}
        self.weights: list[int] = []
        self.events: list[str] = []
        self.errors: list[int] = []
        self.times: dict[str, list[int]] = {}  # edge numbers of every event and handshake
        self.sink_stall = stalls(self.rng, "none")

    async def start(self) -> None:
        self.dut.clear_i.value = 0
        self.dut.busy_i.value = 0
        self.dut.weights_ready_i.value = 0
        b.idle(self.dut)
        await clocking.start(self.dut)
        if not self.by_hand:
            self.source = b.source(self.dut)
        cocotb.start_soon(self._record())
        await RisingEdge(self.dut.clk_i)

    async def _record(self) -> None:
        dut = self.dut
        while True:
            dut.weights_ready_i.value = int(not next(self.sink_stall))
            await RisingEdge(dut.clk_i)
            if dut.rst_ni.value != 1:
                continue
            now = int(get_sim_time("ns")) // clocking.PERIOD_NS
            for name in CONTROL:
                assert str(getattr(dut, name).value) in "01", (
                    f"{name} is {getattr(dut, name).value}"
                )
            for name in (
                "prog_done",
                "weights_done",
                "prog_start",
                "first_beat",
                "err_valid",
                "prog_we",
            ):
                if getattr(dut, f"{name}_o").value == 1:
                    self.times.setdefault(name, []).append(now)
                    if name in ("prog_start", "prog_done", "weights_done"):
                        self.events.append(name)
            if dut.prog_we_o.value == 1:
                self.program[dut.prog_addr_o.value.to_unsigned()] = (
                    dut.prog_data_o.value.to_unsigned()
                )
            if dut.err_valid_o.value == 1:
                self.errors.append(dut.err_code_o.value.to_unsigned())
            if dut.weights_valid_o.value == 1 and dut.weights_ready_i.value == 1:
                self.weights.append(dut.weights_data_o.value.to_unsigned())
            if dut.s_axis_tvalid.value == 1 and dut.s_axis_tready.value == 1:
                self.times.setdefault("beat", []).append(now)

    async def send(self, *packets) -> None:
        """Send packets back to back and wait until the last one is through."""
        if self.by_hand:
            beats = [beat for p in packets for beat in p]
            await b.send_by_hand(self.dut, beats, stalls(self.rng, "none"))
        else:
            for beats in packets:
                await self.source.send(b.frame(beats))
            await self.source.wait()
        await ClockCycles(self.dut.clk_i, FLUSH)

    def forget(self) -> None:
        self.program, self.weights, self.events, self.errors, self.times = {}, [], [], [], {}

    async def clear(self) -> None:
        await FallingEdge(self.dut.clk_i)
        self.dut.clear_i.value = 1
        await FallingEdge(self.dut.clk_i)
        self.dut.clear_i.value = 0
        await RisingEdge(self.dut.clk_i)

    def _payload(self, count: int) -> list[int]:
        """Random words, some of which look like headers."""
        words = b.random_words(self.rng, count)
        for i in np.flatnonzero(self.rng.random(count) < 0.2):
            length, kind = (int(self.rng.integers(most)) for most in (9, 2))
            words[i] = b.header([MAGIC_PROGRAM, MAGIC_WEIGHTS][kind], length)
        return words

    async def check_good(self, n_packets: int) -> None:
        """Send good packets of both kinds in random order and compare everything that comes out."""
        self.forget()
        packets, weights, program, events = [], [], {}, []
        for _ in range(n_packets):
            if self.rng.random() < 0.5:
                words = self._payload(int(self.rng.integers(1, 40)))
                packets.append(b.packet(MAGIC_PROGRAM, words))
                program.update(enumerate(words))
                events += ["prog_start", "prog_done"]
            else:
                words = self._payload(int(self.rng.integers(0, 60)))
                packets.append(b.packet(MAGIC_WEIGHTS, words))
                weights += words
                events += ["weights_done"]
        await self.send(*packets)
        assert (self.errors, self.events) == ([], events)
        assert self.weights == weights and self.program == program
        assert len(self.times.get("first_beat", [])) == events.count("weights_done")
        if program:
            assert self.dut.prog_valid_o.value == 1


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def good_packets(dut):
    """Random programs and weights back to back, with stalls on both sides."""
    bench = Bench(dut)
    await bench.start()
    for source in PATTERNS:
        for sink in PATTERNS:
            bench.source.set_pause_generator(stalls(bench.rng, source))
            bench.sink_stall = stalls(bench.rng, sink)
            await bench.check_good(6)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def longest_program(dut):
    """A program that fills the memory is accepted; one with another word is refused."""
    bench = Bench(dut)
    await bench.start()
    words = b.random_words(bench.rng, PROG_WORDS)
    await bench.send(b.packet(MAGIC_PROGRAM, words))
    assert (
        bench.program == dict(enumerate(words))
        and bench.errors == []
        and dut.prog_valid_o.value == 1
    )
    bench.forget()
    await bench.send(b.packet(MAGIC_PROGRAM, [*words, 1]))
    assert (
        bench.errors == [ErrorCode.PROGRAM_LENGTH]
        and bench.program == {}
        and dut.prog_valid_o.value == 0
    )


def _bad_packets(rng: np.random.Generator) -> dict[str, tuple[list[b.Beat], ErrorCode]]:
    words = b.random_words(rng, int(rng.integers(3, 20)))
    magic = [MAGIC_PROGRAM, MAGIC_WEIGHTS][rng.integers(2)]
    good = b.packet(magic, words)
    crc = good[-1].data
    swapped = list(words)
    swapped[0], swapped[1] = swapped[1], swapped[0]
    position = int(rng.integers(len(good)))
    return {
        "magic of zero": (b.packet(0, words), ErrorCode.PACKET_MAGIC),
        "magic one bit off": (
            b.packet(magic ^ 1 << int(rng.integers(32)), words),
            ErrorCode.PACKET_MAGIC,
        ),
        "TLAST on the header": (b.truncated(good, 1), ErrorCode.PACKET_TRUNCATED),
        "TLAST in the payload": (
            b.truncated(good, int(rng.integers(2, len(words)))),
            ErrorCode.PACKET_TRUNCATED,
        ),
        "TLAST on the last payload word": (
            b.truncated(good, len(good) - 1),
            ErrorCode.PACKET_TRUNCATED,
        ),
        "header longer than the packet": (
            b.packet(magic, words, length=len(words) + 1, crc=crc),
            ErrorCode.PACKET_TRUNCATED,
        ),
        "one beat too many": (b.with_last([*(x.data for x in good), 0]), ErrorCode.PACKET_OVERLONG),
        "header shorter than the packet": (
            b.packet(magic, words, length=len(words) - 1),
            ErrorCode.PACKET_OVERLONG,
        ),
        "CRC one bit off": (
            b.packet(magic, words, crc=crc ^ 1 << int(rng.integers(32))),
            ErrorCode.PACKET_CRC,
        ),
        "CRC word with upper bits": (
            b.packet(magic, words, crc=crc | 1 << int(rng.integers(32, 64))),
            ErrorCode.PACKET_CRC,
        ),
        "payload words swapped": (b.packet(magic, swapped, crc=crc), ErrorCode.PACKET_CRC),
        "payload bit flipped": (
            b.packet(magic, [words[0] ^ 1 << int(rng.integers(64)), *words[1:]], crc=crc),
            ErrorCode.PACKET_CRC,
        ),
        "TKEEP with a hole": (
            b.with_keep(good, position, 0xFF ^ 1 << int(rng.integers(8))),
            ErrorCode.PACKET_TKEEP,
        ),
        "empty program": (b.packet(MAGIC_PROGRAM, []), ErrorCode.PROGRAM_LENGTH),
        "program of 4096 + 3 words": (
            b.packet(MAGIC_PROGRAM, words, length=4099),
            ErrorCode.PROGRAM_LENGTH,
        ),
        "program of 2^32 - 1 words": (
            b.packet(MAGIC_PROGRAM, words, length=b.MASK_32),
            ErrorCode.PROGRAM_LENGTH,
        ),
    }


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def every_error(dut):
    """Each kind of bad packet: one error with its code, everything is dropped until clear_i, and
    later packets pass."""
    bench = Bench(dut)
    await bench.start()
    for name in _bad_packets(bench.rng):
        bench.source.set_pause_generator(stalls(bench.rng, PATTERNS[bench.rng.integers(4)]))
        bench.sink_stall = stalls(bench.rng, PATTERNS[bench.rng.integers(3)])
        await bench.check_good(2)
        await bench.send(b.packet(MAGIC_PROGRAM, [1, 2, 3]))
        bench.forget()
        beats, code = _bad_packets(bench.rng)[name]
        await bench.send(beats)
        assert bench.errors == [code], f"{name}: {bench.errors}"
        assert dut.err_code_o.value.to_unsigned() == code
        program_began = "prog_start" in bench.events
        is_program = b.fields(beats[0])["magic"] == MAGIC_PROGRAM and beats[0].keep == 0xFF
        assert program_began == is_program, name
        payload = _payload_before_error(beats, code)
        assert bench.program == (dict(enumerate(payload)) if is_program else {}), (
            f"{name}: a bad beat was written"
        )
        assert bench.weights == ([] if is_program else payload), f"{name}: a bad beat was handed on"
        assert dut.prog_valid_o.value == (not program_began), name
        assert "prog_done" not in bench.events and "weights_done" not in bench.events, name
        await _nothing_comes_out(bench, name)
        await bench.clear()
        await bench.check_good(3)


def _payload_before_error(beats: list[b.Beat], code: ErrorCode) -> list[int]:
    """The payload words in front of the beat that is wrong."""
    if (
        code in (ErrorCode.PACKET_MAGIC, ErrorCode.PROGRAM_LENGTH)
        or beats[0].last
        or beats[0].keep != 0xFF
    ):
        return []
    words = []
    for beat in beats[1 : 1 + b.fields(beats[0])["length"]]:
        if beat.last or beat.keep != 0xFF:
            break
        words.append(beat.data)
    return words


async def _nothing_comes_out(bench: Bench, name: str) -> None:
    """Good packets after an error are accepted without effect."""
    bench.forget()
    valid = bench.dut.prog_valid_o.value
    await bench.send(
        b.packet(MAGIC_PROGRAM, b.random_words(bench.rng, 5)), b.packet(MAGIC_WEIGHTS, [1, 2])
    )
    assert (bench.errors, bench.events, bench.program, bench.weights) == ([], [], {}, []), name
    assert bench.dut.prog_valid_o.value == valid


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def program_while_busy(dut):
    """During a run weights are accepted; a program is an error, and the loaded one stays."""
    bench = Bench(dut)
    await bench.start()
    await bench.send(b.packet(MAGIC_PROGRAM, [5, 6]))
    dut.busy_i.value = 1
    bench.forget()
    await bench.send(b.packet(MAGIC_WEIGHTS, [7, 8]))
    assert bench.errors == [] and bench.weights == [7, 8]
    await bench.send(b.packet(MAGIC_PROGRAM, [9, 9, 9]))
    assert bench.errors == [ErrorCode.PROGRAM_BUSY]
    assert bench.program == {} and dut.prog_valid_o.value == 1 and "prog_start" not in bench.events
    dut.busy_i.value = 0
    await bench.clear()
    assert dut.prog_valid_o.value == 1, "soft reset must keep the program"
    await bench.check_good(4)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clear_in_the_middle(dut):
    """The parser waits for the rest of a packet; clear_i makes the next beat a header."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for _ in range(20):
        magic = [MAGIC_PROGRAM, MAGIC_WEIGHTS][bench.rng.integers(2)]
        await bench.send(b.packet(MAGIC_PROGRAM, [1]))
        bench.forget()
        whole = b.packet(magic, b.random_words(bench.rng, 20))
        await bench.send(whole[: int(bench.rng.integers(1, 21))])
        assert (
            bench.errors == []
            and "prog_done" not in bench.events
            and "weights_done" not in bench.events
        )
        await bench.clear()
        assert dut.prog_valid_o.value == (magic == MAGIC_WEIGHTS)
        await bench.check_good(2)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def throughput_and_latency(dut):
    """Without stalls: one beat a cycle over packet borders, and the latencies that the header
    comment promises."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    packets = [
        b.packet(MAGIC_WEIGHTS, b.random_words(bench.rng, 30)),
        b.packet(MAGIC_PROGRAM, [1, 2, 3]),
        b.packet(MAGIC_WEIGHTS, [4]),
        b.packet(MAGIC_WEIGHTS, [5], crc=0),
    ]
    await bench.send(*packets)
    beats = bench.times["beat"]
    assert beats == list(range(beats[0], beats[0] + sum(map(len, packets)))), "the stream was held"
    assert bench.times["first_beat"] == [beats[0] + 1, beats[37] + 1, beats[40] + 1]
    assert bench.times["weights_done"] == [beats[31] + 3, beats[39] + 3]
    assert bench.times["prog_start"] == [beats[32] + 2]
    assert bench.times["prog_we"] == [t + 2 for t in beats[33:36]]
    assert bench.times["prog_done"] == [beats[36] + 3]
    assert bench.times["err_valid"] == [beats[42] + 3]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def error_before_next_packet(dut):
    """A packet directly behind a bad one has no effect; it does not even start."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for name in _bad_packets(bench.rng):
        await bench.send(b.packet(MAGIC_PROGRAM, [1, 2]))
        bench.forget()
        beats, code = _bad_packets(bench.rng)[name]
        last_start = int(b.fields(beats[0])["magic"] == MAGIC_PROGRAM and beats[0].keep == 0xFF)
        await bench.send(beats, b.packet(MAGIC_PROGRAM, [3, 4]), b.packet(0, [5]))
        assert bench.errors == [code], f"{name}: {bench.errors}"
        assert bench.events == ["prog_start"] * last_start, f"{name}: {bench.events}"
        assert dut.prog_valid_o.value == (not last_start), name
        await bench.clear()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reset_forgets_program(dut):
    """rst_ni, unlike clear_i, drops the program; weights are none."""
    bench = Bench(dut)
    await bench.start()
    await bench.send(b.packet(MAGIC_PROGRAM, [1, 2]))
    assert dut.prog_valid_o.value == 1
    await clocking.reset(dut)
    await RisingEdge(dut.clk_i)
    assert dut.prog_valid_o.value == 0
    await bench.send(b.packet(MAGIC_WEIGHTS, [1, 2]))
    assert dut.prog_valid_o.value == 0
    await bench.check_good(4)


async def _lean(bench: Bench, *packets, busy: int = 0) -> tuple[list[int], list[str]]:
    """Send packets back to back by hand; the errors and events until all is through, after which
    the parser is cleared."""
    bench.forget()
    bench.dut.busy_i.value = busy
    beats = [beat for p in packets for beat in p]
    await b.send_by_hand(bench.dut, beats, stalls(bench.rng, "none"))
    await ClockCycles(bench.dut.clk_i, 8)
    bench.dut.busy_i.value = 0
    found = bench.errors, bench.events
    await bench.clear()
    return found


async def _play(dut, beats: list[b.Beat], **pulses: range) -> int:
    """Send beats as fast as they are taken, with inputs at 1 in ranges of the edges counted from
    the first one; returns the edge of the last handshake."""
    left, last = list(beats), -1
    for edge in range(len(beats) + 12):
        for name, edges in pulses.items():
            getattr(dut, name).value = int(edge in edges)
        dut.s_axis_tvalid.value = int(bool(left))
        if left:
            dut.s_axis_tdata.value, dut.s_axis_tkeep.value = left[0].data, left[0].keep
            dut.s_axis_tlast.value = int(left[0].last)
        await RisingEdge(dut.clk_i)
        if left and dut.s_axis_tready.value == 1:
            left.pop(0)
            last = edge
    for name in pulses:
        getattr(dut, name).value = 0
    assert not left, f"{len(left)} beats were not taken"
    return last


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clear_beside_the_verdict(dut):
    """clear_i around the verdict on a packet: either it came out, with all that belongs to it, or
    nothing of the packet has an effect."""
    bench = Bench(dut, by_hand=True)
    await bench.start()

    async def once(offset: int) -> int:
        for magic in (MAGIC_PROGRAM, MAGIC_WEIGHTS):
            for good in (True, False):
                beats = b.packet(magic, [1, 2, 3])
                if not good:
                    beats = b.packet(magic, [1, 2, 3], crc=beats[-1].data ^ 1)
                await _lean(bench, b.packet(0, [7]))  # leaves another code
                bench.forget()
                verdict = len(beats) + 1  # two edges after the last handshake
                clear = verdict + offset
                await _play(dut, beats, clear_i=range(clear, clear + 1))
                what = f"{magic:#x}, right CRC {good}, clear {offset} edges after the verdict"
                out = offset > 0
                done = {MAGIC_PROGRAM: "prog_done", MAGIC_WEIGHTS: "weights_done"}[magic]
                assert (done in bench.events) == (out and good), f"{what}: {bench.events}"
                wrong = out and not good
                assert bench.errors == [ErrorCode.PACKET_CRC] * wrong, f"{what}: {bench.errors}"
                code = ErrorCode.PACKET_CRC if wrong else ErrorCode.PACKET_MAGIC
                assert dut.err_code_o.value.to_unsigned() == code, f"{what}: the code changed"
                if magic == MAGIC_PROGRAM:
                    assert dut.prog_valid_o.value == (out and good), f"{what}: prog_valid_o"
                await bench.clear()
        await bench.check_good(1)
        return offset

    await meeting.sweep("clear and verdict", range(-2, 4), once)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def clear_beside_a_header(dut):
    """clear_i around a program's header: before it the packet is whole, after it the rest is no
    packet, and the old program is invalid only if the new one was seen to begin."""
    bench = Bench(dut, by_hand=True)
    await bench.start()

    async def once(offset: int) -> int:
        await _lean(bench, b.packet(MAGIC_PROGRAM, [8]))
        bench.forget()
        before = b.packet(MAGIC_WEIGHTS, [5, 6, 7, 8])
        at = len(before) + offset
        beats = [*before, *b.packet(MAGIC_PROGRAM, [1, 2, 3, 4, 5])]
        await _play(dut, beats, clear_i=range(at, at + 1))
        began = "prog_start" in bench.events
        what = f"clear {offset} edges after a header: {bench.events}, errors {bench.errors}"
        if offset < 0:
            # The packet before ends at -1: a clear then takes its last beats with it.
            assert bench.errors == [] and bench.events[-1] == "prog_done", what
        else:
            assert bench.errors == [ErrorCode.PACKET_MAGIC], what
        assert dut.prog_valid_o.value == (offset < 0 or not began), what
        await bench.clear()
        return offset

    await meeting.sweep("clear and header", range(-1, 4), once)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def run_beside_a_program(dut):
    """A run that begins around a program's header: the program is taken whole, or refused and the
    one before kept."""
    bench = Bench(dut, by_hand=True)
    await bench.start()

    async def once(offset: int) -> int:
        await _lean(bench, b.packet(MAGIC_PROGRAM, [8]))
        bench.forget()
        await _play(dut, b.packet(MAGIC_PROGRAM, [1, 2]), busy_i=range(max(0, 1 + offset), 99))
        what = f"a run {offset} edges after a header: {bench.events}, errors {bench.errors}"
        if offset <= 0:
            assert bench.errors == [ErrorCode.PROGRAM_BUSY] and not bench.events, what
            assert bench.program == {}, what
        else:
            assert bench.errors == [] and bench.events == ["prog_start", "prog_done"], what
        assert dut.prog_valid_o.value == 1, what
        await bench.clear()
        return offset

    await meeting.sweep("run and program", range(-1, 4), once)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bits_at_every_place(dut):
    """TKEEP wrong in each bit of each beat, and each bit of magic and trailer inverted."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    for magic in (MAGIC_PROGRAM, MAGIC_WEIGHTS):
        words = b.random_words(bench.rng, 3)
        good = b.packet(magic, words)
        for place in range(len(good)):
            for bit in range(8):
                errors, events = await _lean(bench, b.with_keep(good, place, 0xFF ^ 1 << bit))
                began = ["prog_start"] * (magic == MAGIC_PROGRAM and place > 0)
                assert (errors, events) == ([ErrorCode.PACKET_TKEEP], began), (
                    f"{magic:#x}, TKEEP bit {bit} of beat {place}: {errors}, {events}"
                )
            part = "header" if place == 0 else "trailer" if place == 4 else "payload"
            coverage.hit("keep_place", f"{KINDS[magic]} {part}")
        for bit in range(32):
            errors, _ = await _lean(bench, b.packet(magic ^ 1 << bit, words))
            assert errors == [ErrorCode.PACKET_MAGIC], f"bit {bit} of {magic:#x}: {errors}"
            field_coverage.hit("packet", {"magic": magic ^ 1 << bit})
        for bit in range(64):
            errors, _ = await _lean(bench, b.packet(magic, words, crc=good[-1].data ^ 1 << bit))
            assert errors == [ErrorCode.PACKET_CRC], f"bit {bit} of the trailer: {errors}"
    await bench.check_good(3)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def lengths_with_high_bits(dut):
    """Lengths of 2^k - 1, 2^k, 2^k + 1, and a right one with each higher bit set: a program is
    refused beyond its memory, and no packet ends before all of its beats."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    lengths = {(1 << bit) + step for bit in range(33) for step in (-1, 0, 1)}
    lengths |= {5 | 1 << bit for bit in range(3, 32)}
    for length in sorted(n for n in lengths if n <= b.MASK_32):
        header = [b.Beat(b.header(MAGIC_PROGRAM, length))]
        errors, _ = await _lean(bench, header)
        legal = 1 <= length <= PROG_WORDS
        assert errors == ([] if legal else [ErrorCode.PROGRAM_LENGTH]), f"{length}: {errors}"
        field_coverage.hit("packet", {"length": length})
    for words, bit in product(([1], [1, 2, 3, 4, 5]), range(3, 32)):
        short = b.packet(MAGIC_WEIGHTS, words, length=len(words) | 1 << bit)
        errors, events = await _lean(bench, short)
        what = f"{len(words)} + 2^{bit}: {errors}"
        assert (errors, events) == ([ErrorCode.PACKET_TRUNCATED], []), what
    await bench.check_good(3)


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def packet_beyond_16_bits(dut):
    """Weights of 65,540 words (260 on Icarus): taken to the last, and not one more or less."""
    count, word = scaled(1 << 8, 1 << 16) + 4, 0x0123456789ABCDEF
    for name in ("clear_i", "busy_i"):
        getattr(dut, name).value = 0
    dut.weights_ready_i.value = 1
    b.idle(dut)
    await clocking.start(dut)
    await FallingEdge(dut.clk_i)
    for length, code in ((count, None), (count - 1, "OVERLONG"), (count + 1, "TRUNCATED")):
        crc = zlib.crc32(word.to_bytes(8, "little") * count)
        dut.s_axis_tkeep.value, dut.s_axis_tvalid.value = 0xFF, 1
        dut.s_axis_tdata.value = b.header(MAGIC_WEIGHTS, length)
        await FallingEdge(dut.clk_i)
        dut.s_axis_tvalid.value = 0
        await FallingEdge(dut.clk_i)
        dut.s_axis_tvalid.value, dut.s_axis_tdata.value = 1, word
        await Timer(count * clocking.PERIOD_NS - clocking.PERIOD_NS // 2, "ns")
        await FallingEdge(dut.clk_i)
        dut.s_axis_tdata.value, dut.s_axis_tlast.value = crc, 1
        await FallingEdge(dut.clk_i)
        dut.s_axis_tvalid.value = dut.s_axis_tlast.value = 0
        seen = {"weights_done_o": 0, "err_valid_o": 0}
        for _ in range(6):
            await FallingEdge(dut.clk_i)
            for name in seen:
                seen[name] += int(getattr(dut, name).value)
        what = f"{count} words, {length} announced: {seen}"
        assert seen["weights_done_o"] == (code is None), what
        if code:
            expected = ErrorCode[f"PACKET_{code}"]
            assert dut.err_code_o.value.to_unsigned() == expected, what
            dut.clear_i.value = 1
            await FallingEdge(dut.clk_i)
            dut.clear_i.value = 0
            await FallingEdge(dut.clk_i)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def pairs_of_errors(dut):
    """Every bad packet directly behind every other: the first one's code, once."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    names = list(_bad_packets(bench.rng))
    seconds = scaled(["magic of zero", "empty program", "CRC one bit off"], names)
    for first in names:
        for second in seconds:
            bad = _bad_packets(bench.rng)
            (one, code), (two, _) = bad[first], bad[second]
            errors, events = await _lean(bench, one, two)
            assert errors == [code], f"{first}, then {second}: {errors}"
            began = b.fields(one[0])["magic"] == MAGIC_PROGRAM and one[0].keep == 0xFF
            assert events == ["prog_start"] * began, f"{first}, then {second}: {events}"
    coverage.hit("error_pair", "one stream")
    await bench.check_good(3)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def faults_in_one_beat(dut):
    """Every set of faults in one header, and in one trailer: the code of the first rule that it
    breaks; a program that a run refuses leaves the old one valid, whatever else is wrong."""
    bench = Bench(dut, by_hand=True)
    await bench.start()
    rules = (
        ("keep", ErrorCode.PACKET_TKEEP),
        ("magic", ErrorCode.PACKET_MAGIC),
        ("busy", ErrorCode.PROGRAM_BUSY),
        ("length", ErrorCode.PROGRAM_LENGTH),
        ("last", ErrorCode.PACKET_TRUNCATED),
    )
    for number in range(1, 1 << len(rules)):
        broken = [name for bit, (name, _) in enumerate(rules) if number >> bit & 1]
        code = next(code for name, code in rules if name in broken)
        await _lean(bench, b.packet(MAGIC_PROGRAM, [8]))
        magic = MAGIC_PROGRAM ^ (1 << 9 if "magic" in broken else 0)
        word = b.header(magic, 0x10005 if "length" in broken else 5)
        beat = b.Beat(word, keep=0x7F if "keep" in broken else 0xFF, last="last" in broken)
        errors, _ = await _lean(bench, [beat], busy=int("busy" in broken))
        assert errors == [code], f"{broken}: {errors}"
        kept = set(broken) & {"keep", "magic", "busy"}
        assert dut.prog_valid_o.value == bool(kept), f"{broken}: prog_valid_o"
    good = b.packet(MAGIC_WEIGHTS, [1, 2])
    trailer = (
        ("keep", ErrorCode.PACKET_TKEEP),
        ("open", ErrorCode.PACKET_OVERLONG),
        ("crc", ErrorCode.PACKET_CRC),
    )
    for number in range(1, 1 << len(trailer)):
        broken = [name for bit, (name, _) in enumerate(trailer) if number >> bit & 1]
        code = next(code for name, code in trailer if name in broken)
        beat = b.Beat(
            good[-1].data ^ (1 if "crc" in broken else 0),
            keep=0xFE if "keep" in broken else 0xFF,
            last="open" not in broken,
        )
        errors, events = await _lean(bench, [*good[:-1], beat])
        assert (errors, events) == ([code], []), f"{broken}: {errors}, {events}"
    coverage.hit("error_pair", "one beat")
