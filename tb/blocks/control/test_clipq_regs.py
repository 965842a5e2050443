"""Register block over AXI4-Lite: reset values, live fields, rw, pulses, W1C and its race, errors,
stalls on all channels.

Everything expected follows from host/register_map.py, which comes from the same source as the
block.
"""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotb_bus.drivers.amba import AXI4LiteMaster, AXIProtocolError, AXIxRESP
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from host.harness import clocking
from host.harness.port_flow import measured_pattern
from host.register_map import FIELDS, Register
from tb.lib import coverage, meeting
from tb.lib.cover_groups import AXIL_CHANNELS
from tb.lib.stalls import PATTERNS, stalls

PULSES = {0: "hwif_out_ctrl_start", 1: "hwif_out_ctrl_stop", 2: "hwif_out_ctrl_soft_reset"}
IRQ_INPUTS = ("hwif_in_irq_status_done", "hwif_in_irq_status_error", "hwif_in_irq_status_stopped")
WRITABLE = {r for r in Register if any(access != "r" for _, _, access, _ in FIELDS[r].values())}
READABLE = {
    r for r in Register if any(access not in ("w", "w1p") for _, _, access, _ in FIELDS[r].values())
}
UNMAPPED = [0x40, 0x44, 0x4C, 0x10C, 0x418, 0x81C, 0xC20, 0xFFC]


class Bench:
    """A register block behind cocotb-bus' master, its live inputs, and a count of the pulses it
    gave."""

    def __init__(self, dut):
        self.dut = dut
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self.master = None
        self.pulses = dict.fromkeys(PULSES.values(), 0)
        self.live: dict[tuple[Register, str], int] = {}

    async def start(self, master: bool = True) -> None:
        for name in (
            "awvalid",
            "awaddr",
            "awprot",
            "wvalid",
            "wdata",
            "wstrb",
            "bready",
            "arvalid",
            "araddr",
            "arprot",
            "rready",
        ):
            getattr(self.dut, f"s_axil_{name}").value = 0
        for name in IRQ_INPUTS:
            getattr(self.dut, name).value = 0
        self.new_live_values()
        self.dut.rst_n.value = 0
        clocking.start_clock(self.dut.clk)
        await ClockCycles(self.dut.clk, 4)
        await FallingEdge(self.dut.clk)
        self.dut.rst_n.value = 1
        await RisingEdge(self.dut.clk)
        if master:
            self.master = AXI4LiteMaster(self.dut, "s_axil", self.dut.clk, case_insensitive=True)
        cocotb.start_soon(self._count_pulses())
        await RisingEdge(self.dut.clk)

    async def _count_pulses(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            for name in self.pulses:
                self.pulses[name] += int(getattr(self.dut, name).value)

    def new_live_values(self, bit: int | None = None) -> None:
        """Random values, or the same bit everywhere, on every input that a read-only field shows"""
        for register, fields in FIELDS.items():
            for name, (high, low, _, reset) in fields.items():
                if reset is None:
                    value = (
                        int(self.rng.integers(0, 2 ** (high - low + 1)))
                        if bit is None
                        else (2 ** (high - low + 1) - 1) * bit
                    )
                    getattr(self.dut, f"hwif_in_{register.name}_{name}".lower()).value = value
                    self.live[register, name] = value

    def expected(self, register: Register, stored: dict[Register, int] | None = None) -> int:
        """What a read gives: constants, live values, and `stored` (the reset values if it has
        none)."""
        if stored and register in stored:
            return stored[register]
        return sum(
            (self.live.get((register, name), 0) if reset is None else reset) << low
            for name, (_, low, _, reset) in FIELDS[register].items()
        )

    async def read(self, address: int) -> int:
        return int(await self.master.read(address))

    async def slverr(self, transfer) -> None:
        try:
            await transfer
        except AXIProtocolError as error:
            assert error.xresp == AXIxRESP.SLVERR
        else:
            raise AssertionError("the access was answered with OKAY")


def _sample(register: Register, word: int, verb: str, lanes: int = 0xFFFFFFFF) -> None:
    """Coverage: the bits of a word that was read or written (in the enabled byte lanes) and had the
    effect it must have."""
    for high, low, access, _ in FIELDS[register].values():
        if (verb == "read" and access not in ("w", "w1p")) or (verb == "written" and access != "r"):
            bits = (bit for bit in range(low, high + 1) if lanes >> bit & 1)
            coverage.hit(
                "register_bit",
                *(f"{register.name}[{bit}] {verb} {word >> bit & 1}" for bit in bits),
            )


def _mask(register: Register) -> int:
    return sum((2 ** (high - low + 1) - 1) << low for high, low, _, _ in FIELDS[register].values())


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reset_and_live_values(dut):
    """Every readable register after reset, and live fields that follow their inputs."""
    bench = Bench(dut)
    await bench.start()
    for bit in (None, None, None, 0, 1):
        bench.new_live_values(bit)
        for register in READABLE:
            value = await bench.read(register)
            assert value == bench.expected(register), register.name
            _sample(register, value, "read")
    assert await bench.read(Register.ID) == int.from_bytes(b"CLPQ", "little")
    assert dut.hwif_out_irq_status_intr.value == 0 and not any(bench.pulses.values())


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def errors(dut):
    """Writes to read-only registers, reads of write-only ones and unmapped addresses: SLVERR and no
    effect."""
    bench = Bench(dut)
    await bench.start()
    ones = 0xFFFFFFFF
    for register in set(Register) - WRITABLE:
        await bench.slverr(bench.master.write(register, ones))
    for register in set(Register) - READABLE:
        await bench.slverr(bench.master.read(register))
    for address in UNMAPPED:
        await bench.slverr(bench.master.write(address, ones))
        await bench.slverr(bench.master.read(address))
    for register in READABLE:
        assert await bench.read(register) == bench.expected(register), register.name
    assert not any(bench.pulses.values())


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def read_write(dut):
    """Plain rw registers with random byte enables; reserved bits read zero; the outputs follow."""
    bench = Bench(dut)
    await bench.start()
    stored = {Register.IRQ_ENABLE: 0, Register.LAYER_SEL: 0}
    for _ in range(100):
        register = list(stored)[bench.rng.integers(2)]
        word, strobe = int(bench.rng.integers(2**32)), int(bench.rng.integers(16))
        lanes = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
        await bench.master.write(register, word, byte_enable=strobe)
        stored[register] = (stored[register] & ~lanes | word & lanes) & _mask(register)
        assert await bench.read(register) == stored[register]
        _sample(register, word, "written", lanes)
        _sample(register, stored[register], "read")
        assert dut.hwif_out_layer_sel_layer.value.to_unsigned() == stored[Register.LAYER_SEL]
        enables = [
            getattr(dut, f"hwif_out_irq_enable_{n}").value for n in ("done", "error", "stopped")
        ]
        assert sum(int(e) << i for i, e in enumerate(enables)) == stored[Register.IRQ_ENABLE]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def control_pulses(dut):
    """Each CTRL bit written 1 gives exactly one cycle on its own output, and only if its byte is
    enabled."""
    bench = Bench(dut)
    await bench.start()
    expected = dict(bench.pulses)
    for _ in range(40):
        word, strobe = int(bench.rng.integers(2**32)), int(bench.rng.integers(16))
        await bench.master.write(Register.CTRL, word, byte_enable=strobe)
        await ClockCycles(dut.clk, 5)
        for bit, name in PULSES.items():
            expected[name] += word >> bit & strobe & 1
        assert bench.pulses == expected
        _sample(Register.CTRL, word, "written", 0xFF * (strobe & 1))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def interrupt(dut):
    """Events stick until 1 is written; the line is high while an enabled one is set."""
    bench = Bench(dut)
    await bench.start()
    status = enable = word = 0
    for _ in range(150):
        action = bench.rng.integers(3)
        if action == 0:
            events = int(bench.rng.integers(8))
            await _pulse(dut, events)
            status |= events
        elif action == 1:
            word = int(bench.rng.integers(2**32))
            await bench.master.write(Register.IRQ_STATUS, word)
            status &= ~word
        else:
            enable = int(bench.rng.integers(8))
            await bench.master.write(Register.IRQ_ENABLE, enable)
        assert await bench.read(Register.IRQ_STATUS) == status
        assert dut.hwif_out_irq_status_intr.value == bool(status & enable)
        _sample(Register.IRQ_STATUS, status, "read")
        if action == 1:
            _sample(Register.IRQ_STATUS, word, "written")


async def _pulse(dut, events: int) -> None:
    await FallingEdge(dut.clk)
    for bit, name in enumerate(IRQ_INPUTS):
        getattr(dut, name).value = events >> bit & 1
    await FallingEdge(dut.clk)
    for name in IRQ_INPUTS:
        getattr(dut, name).value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def event_during_clear(dut):
    """Every set of events around the clearing write of every set of bits: an event in the very
    cycle of the write is not lost, and a bit that is not written 1 stays."""
    bench = Bench(dut)
    await bench.start()
    clear_edge = await _edge_of_clear(bench)

    async def once(offset: int) -> int:
        for events in range(1, 8):
            for cleared in range(8):
                before = int(bench.rng.integers(8))
                await _write_with_events(bench, before, cleared, events, clear_edge + offset)
                kept = (before | events if offset < 0 else before) & ~cleared
                expected = kept if offset < 0 else kept | events
                status = await bench.read(Register.IRQ_STATUS)
                assert status == expected, (
                    f"{status:03b}, expected {expected:03b}: from {before:03b}, {cleared:03b} "
                    f"cleared, events {events:03b} {offset} cycles after the clear"
                )
        return offset

    await meeting.sweep("event and clearing write", range(-2, 3), once)


async def _edge_of_clear(bench: Bench) -> int:
    """Clock edges from the begin of a write to IRQ_STATUS to the one that clears a bit."""
    dut = bench.dut
    await bench.master.write(Register.IRQ_ENABLE, 7)
    await _pulse(dut, 7)
    await RisingEdge(dut.clk)
    write = cocotb.start_soon(bench.master.write(Register.IRQ_STATUS, 7, sync=False))
    for edge in range(20):
        await RisingEdge(dut.clk)
        if dut.hwif_out_irq_status_intr.value == 0:
            await write
            return edge - 1
    raise AssertionError("the line stays high after the bits were cleared")


async def _write_with_events(
    bench: Bench, before: int, cleared: int, events: int, edge: int
) -> None:
    """Set the bits `before` of IRQ_STATUS and no others, then write `cleared`, with `events` at
    clock edge `edge` from the begin of that write."""
    dut = bench.dut
    await bench.master.write(Register.IRQ_STATUS, 7)
    await _pulse(dut, before)
    await RisingEdge(dut.clk)
    write = cocotb.start_soon(bench.master.write(Register.IRQ_STATUS, cleared, sync=False))
    for at in range(edge + 2):
        for bit, name in enumerate(IRQ_INPUTS):
            getattr(dut, name).value = (events >> bit & 1) if at == edge else 0
        await RisingEdge(dut.clk)
    await write


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def parallel_traffic_with_stalls(dut):
    """Reads and writes at the same time with stalls on all five channels, against a model; nothing
    is lost or doubled."""
    bench = Bench(dut)
    await bench.start(master=False)
    master = AxiLiteMaster(
        AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst_n, reset_active_level=False
    )
    for part in (master.write_if, master.read_if):
        part.log.setLevel("WARNING")
    channels = (
        master.write_if.aw_channel,
        master.write_if.w_channel,
        master.write_if.b_channel,
        master.read_if.ar_channel,
        master.read_if.r_channel,
    )
    monitors = [_ChannelMonitor(dut, name) for name in AXIL_CHANNELS]
    layer = 0
    for turn in range(16):
        for number, (channel, monitor) in enumerate(zip(channels, monitors)):
            channel.set_pause_generator(stalls(bench.rng, PATTERNS[(turn + number) % 4]))
            monitor.clear()
        fixed = list(READABLE - {Register.LAYER_SEL})
        addresses = [fixed[bench.rng.integers(len(fixed))] for _ in range(20)]
        reads = [cocotb.start_soon(master.read(a, 4)) for a in addresses]
        values = [int(v) for v in bench.rng.integers(0, 64, 20)]
        writes = [
            cocotb.start_soon(master.write(Register.LAYER_SEL, v.to_bytes(4, "little")))
            for v in values
        ]
        bad = cocotb.start_soon(master.write(Register.ID, bytes(4)))
        for address, read in zip(addresses, reads):
            result = await read
            assert (result.resp, int.from_bytes(result.data, "little")) == (
                AxiResp.OKAY,
                bench.expected(address),
            ), address.name
        for write in writes:
            assert (await write).resp == AxiResp.OKAY
        assert (await bad).resp == AxiResp.SLVERR
        patterns = [f"{monitor.name} {monitor.pattern()}" for monitor in monitors]
        layer = values[-1]
        assert int.from_bytes((await master.read(Register.LAYER_SEL, 4)).data, "little") == layer
        coverage.hit("axil_stall", *patterns)
        bench.new_live_values()


class _ChannelMonitor:
    """Counts the transfers of one AXI4-Lite channel and the pauses between them: of valid where the
    master sends, else of ready."""

    def __init__(self, dut, name: str):
        self.dut, self.name = dut, name
        self.valid, self.ready = (
            getattr(dut, f"s_axil_{name}valid"),
            getattr(dut, f"s_axil_{name}ready"),
        )
        self.clear()
        cocotb.start_soon(self._watch())

    def clear(self) -> None:
        """Count from here."""
        self.beats = self.pauses = self.longest = self.run = 0

    def pattern(self) -> str:
        """One of PATTERNS. Pauses of valid count up to the last transfer only: behind it there is
        nothing to send."""
        return measured_pattern(self.beats, self.pauses, self.longest, burst=16)

    async def _watch(self) -> None:
        receives = self.name in ("b", "r")
        while True:
            await RisingEdge(self.dut.clk)
            valid, ready = int(self.valid.value), int(self.ready.value)
            if valid and ready:
                self.pauses += self.run
                self.longest = max(self.longest, self.run)
                self.beats, self.run = self.beats + 1, 0
            elif valid if receives else self.beats and not valid:
                self.run += 1
