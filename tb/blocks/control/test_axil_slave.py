"""axil_slave with a memory behind its request port: byte strobes, errors, stalls, turns between
reads and writes."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from host.harness import clocking
from tb.lib.stalls import PATTERNS, stalls

WORDS = 16
BAD_WORD = 5  # the block answers every access to it with an error


class Block:
    """Register block of WORDS words; answers in the cycle of the request, as the RTL one does."""

    def __init__(self, dut):
        self.dut = dut
        self.words = [0] * WORDS
        self.requests = 0

    async def run(self) -> None:
        dut = self.dut
        while True:
            await FallingEdge(dut.clk_i)
            if dut.req_valid_o.value != 1:
                dut.rsp_rdata_i.value, dut.rsp_err_i.value = 0xDEADDEAD, 0
                continue
            self.requests += 1
            address = dut.req_addr_o.value.to_unsigned()
            assert address % 4 == 0
            word = address // 4
            dut.rsp_rdata_i.value, dut.rsp_err_i.value = self.words[word], int(word == BAD_WORD)
            if dut.req_write_o.value == 1 and word != BAD_WORD:
                mask = dut.req_mask_o.value.to_unsigned()
                self.words[word] = (
                    self.words[word] & ~mask | dut.req_wdata_o.value.to_unsigned() & mask
                )


async def _start(dut) -> Block:
    for name in (
        "awvalid",
        "awaddr",
        "wvalid",
        "wdata",
        "wstrb",
        "bready",
        "arvalid",
        "araddr",
        "rready",
    ):
        getattr(dut, f"s_axil_{name}").value = 0
    dut.rsp_rdata_i.value = dut.rsp_err_i.value = 0
    await clocking.start(dut)
    block = Block(dut)
    cocotb.start_soon(block.run())
    await RisingEdge(dut.clk_i)
    return block


def _master(dut) -> AxiLiteMaster:
    master = AxiLiteMaster(
        AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk_i, dut.rst_ni, reset_active_level=False
    )
    for part in (master.write_if, master.read_if):
        part.log.setLevel("WARNING")
    return master


def _pause(master: AxiLiteMaster, rng: np.random.Generator) -> None:
    for channel in (
        master.write_if.aw_channel,
        master.write_if.w_channel,
        master.write_if.b_channel,
        master.read_if.ar_channel,
        master.read_if.r_channel,
    ):
        channel.set_pause_generator(stalls(rng, PATTERNS[rng.integers(4)]))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def memory_traffic(dut):
    """Random reads and writes of 1 to 4 bytes at any offset in a word, with stalls on all channels,
    against a byte array."""
    block = await _start(dut)
    master = _master(dut)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    expected = bytearray(4 * WORDS)
    for i in range(200):
        if i % 20 == 0:
            _pause(master, rng)
        word, offset = int(rng.integers(WORDS)), int(rng.integers(4))
        address, count = 4 * word + offset, int(rng.integers(1, 5 - offset))
        resp = AxiResp.SLVERR if word == BAD_WORD else AxiResp.OKAY
        if rng.random() < 0.5:
            data = rng.bytes(count)
            assert (await master.write(address, data)).resp == resp
            if resp == AxiResp.OKAY:
                expected[address : address + count] = data
        else:
            result = await master.read(address, count)
            assert (result.resp, result.data) == (resp, bytes(expected[address : address + count]))
        assert b"".join(w.to_bytes(4, "little") for w in block.words) == bytes(expected)
    assert block.requests == 200, "an access was lost or doubled"


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def unmapped(dut):
    """Addresses beyond the block: SLVERR, zero, and no request, whichever address bit is set."""
    block = await _start(dut)
    master = _master(dut)
    for bit in range(6, len(dut.s_axil_awaddr)):
        assert (await master.write(1 << bit, b"\xff" * 4)).resp == AxiResp.SLVERR
        result = await master.read(1 << bit, 4)
        assert (result.resp, result.data) == (AxiResp.SLVERR, bytes(4))
    assert block.requests == 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reads_and_writes_take_turns(dut):
    """With both always waiting each gets every other access, and an access takes four cycles at
    most."""
    await _start(dut)
    for name in ("awvalid", "wvalid", "arvalid", "bready", "rready"):
        getattr(dut, f"s_axil_{name}").value = 1
    order = []
    cycles = 200
    for _ in range(cycles):
        await RisingEdge(dut.clk_i)
        if dut.s_axil_bvalid.value == 1:
            order.append("B")
        if dut.s_axil_rvalid.value == 1:
            order.append("R")
    assert len(order) >= cycles // 4 - 2, f"{len(order)} accesses in {cycles} cycles"
    assert all(a != b for a, b in zip(order[1:], order[2:])), "".join(order)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def reset_in_the_middle(dut):
    """Nothing is accepted or answered in reset, and what was waiting is forgotten."""
    block = await _start(dut)
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    for _ in range(20):
        for name in ("awvalid", "wvalid", "arvalid"):
            getattr(dut, f"s_axil_{name}").value = int(rng.integers(2))
        await ClockCycles(dut.clk_i, int(rng.integers(1, 6)))
        await FallingEdge(dut.clk_i)
        dut.rst_ni.value = 0
        await FallingEdge(dut.clk_i)
        for name in ("awready", "wready", "arready", "bvalid", "rvalid"):
            assert getattr(dut, f"s_axil_{name}").value == 0, name
        for name in ("awvalid", "wvalid", "arvalid"):
            getattr(dut, f"s_axil_{name}").value = 0
        await clocking.reset(dut)
        before = block.requests
        for _ in range(8):
            await RisingEdge(dut.clk_i)
            assert dut.s_axil_bvalid.value == 0 and dut.s_axil_rvalid.value == 0
        assert block.requests == before
