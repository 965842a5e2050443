"""Tests of rtl/memory/feature_buffer.sv: random reads (channels and columns of rows) and masked
writes against a linear memory."""

from collections import deque

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.performance.pool_cycles import READ_LATENCY as LATENCY
from model.reference.blocks import BANKS, FeatureBuffer
from tb.lib.effort import scaled
from tb.lib.packing import pack

READ_LATENCY = LATENCY - 1  # the port multiplexer takes a cycle
PORT_LATENCY = 8  # cycles from a read through the write port to its data
PORT_QUADS = 4
WRITE_TO_READ = 3  # cycles from a write to a request that sees it
OOB_LATENCY = 3
INPUTS = (
    "rd_valid_i",
    "rd_addr_i",
    "rd_count_i",
    "rd_vstep_i",
    "rd_pair_i",
    "wr_valid_i",
    "wr_addr_i",
    "wr_mask_i",
    "wr_data_i",
    "wr_read_i",
    "wr_base_i",
    "wr_end_i",
)


class Bench:
    """One memory and its model; `cycle` is one clock cycle."""

    def __init__(self, dut):
        self.dut, self.model = dut, FeatureBuffer(int(dut.BANK_WORDS.value))
        self.size = len(self.model.quads)
        self.base, self.end, self.vstep, self.pair = 0, self.size, 0, False
        self.reads = deque([None] * READ_LATENCY)
        self.port_reads = deque([None] * PORT_LATENCY)
        self.oob = deque([False] * OOB_LATENCY)
        self.writes = deque(
            [set()] * WRITE_TO_READ, maxlen=WRITE_TO_READ
        )  # addresses touched in the last cycles
        self.checked = self.left_out = 0

    def region(self, base, end, vstep, pair=False):
        """Write bounds and row step; both are stable while anything is in flight."""
        self.base, self.end, self.vstep, self.pair = base, end, vstep, pair
        self.dut.rd_pair_i.value = int(pair)
        self.dut.wr_base_i.value, self.dut.wr_end_i.value, self.dut.rd_vstep_i.value = (
            base,
            end,
            vstep,
        )

    async def cycle(self, read=None, write=None, port_read=None):
        """read: (address, count); write: (address, mask, eight quads); port_read: address, only
        without a write."""
        dut = self.dut
        dut.rd_valid_i.value, dut.wr_valid_i.value = int(read is not None), int(write is not None)
        dut.wr_read_i.value = int(port_read is not None)
        expected = port_expected = None
        if port_read is not None:
            dut.wr_addr_i.value = port_read
            dut.wr_mask_i.value, dut.wr_data_i.value = 255, 0  # neither may matter
            port_expected = [
                (v, port_read + v, int(self.model.quads[port_read + v])) for v in range(PORT_QUADS)
            ]
        if read is not None:
            dut.rd_addr_i.value, dut.rd_count_i.value = read
            addresses = self.model.addresses(read[0], self.vstep, self.pair)[: read[1]]
            assert addresses[-1] < self.size, "the test reads beyond the memory"
            expected = [(v, a, int(self.model.quads[a])) for v, a in enumerate(addresses.tolist())]
        touched, left_out = set(), False
        if write is not None:
            dut.wr_addr_i.value, dut.wr_mask_i.value, dut.wr_data_i.value = (
                write[0],
                write[1],
                pack(write[2], 32),
            )
            touched = {write[0] + v for v in range(BANKS) if write[1] >> v & 1}
        unsure = touched | set().union(
            *self.writes
        )  # what a request sees of a write in flight is not defined
        if expected is not None:
            # The model holds the writes of the cycles before the unsure ones, so skip those
            # entries.
            expected = [e for e in expected if e[1] not in unsure]
        if write is not None:
            left_out = self.model.write(*write, self.base, self.end)
        self.writes.append(touched)
        await RisingEdge(dut.clk_i)
        self.reads.append(expected)
        self.port_reads.append(port_expected)
        self.oob.append(left_out)
        self.left_out += left_out
        assert dut.oob_o.value == self.oob.popleft(), "oob_o"
        for due, port in (
            (self.reads.popleft(), dut.rd_data_o),
            (self.port_reads.popleft(), dut.wr_data_o),
        ):
            if not due:
                continue
            got = str(port.value)[::-1]
            for v, address, want in due:
                bits = got[32 * v : 32 * v + 32][::-1]
                assert bits == f"{want:032b}", (
                    f"entry {v} (address {address}): read {bits}, expected {want:032b}"
                )
                self.checked += 1


async def _start(dut):
    for name in INPUTS:
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    assert dut.oob_o.value == 0
    return np.random.default_rng(cocotb.RANDOM_SEED)


def _quads(rng):
    return [int(q) for q in rng.integers(0, 2**32, BANKS)]


async def _fill(bench, rng):
    bench.region(0, bench.size, 0)
    for address in range(0, bench.size, BANKS):
        await bench.cycle(write=(address, 255, _quads(rng)))
    for _ in range(READ_LATENCY):
        await bench.cycle()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_traffic(dut):
    """Reads of 1..8 quads across bank borders, consecutive and by rows, while masked writes go on,
    some of them out of bounds; reads through the write port between the writes."""
    rng = await _start(dut)
    bench = Bench(dut)
    await _fill(bench, rng)
    for _ in range(scaled(10, 40)):
        low, high = sorted(int(x) for x in rng.integers(0, bench.size + 1, 2))
        most = (bench.size - 1) // 7 // BANKS  # the last of eight rows must lie in the memory
        vstep = int(rng.integers(0, most)) if rng.random() < 0.6 else 0
        for _ in range(READ_LATENCY):
            await bench.cycle()
        bench.region(low, high, vstep, bool(rng.random() < 0.4))
        await bench.cycle()
        for _ in range(120):
            count = int(rng.integers(1, BANKS + 1))
            limit = bench.size - (count - 1) * (1 + BANKS * vstep)
            read = (int(rng.integers(limit)), count) if limit > 0 and rng.random() < 0.8 else None
            near = rng.choice([low, high, int(rng.integers(bench.size))])
            address = int(np.clip(near + rng.integers(-9, 9), 0, bench.size - 1))
            write = (address, int(rng.integers(256)), _quads(rng)) if rng.random() < 0.6 else None
            port_read = None
            if write is None and rng.random() < 0.6:
                port_read = int(rng.integers(bench.size - PORT_QUADS + 1))
            await bench.cycle(read, write, port_read)
    for _ in range(READ_LATENCY):
        await bench.cycle()
    assert bench.checked > 1000 and bench.left_out > 10


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bounds(dut):
    """Every offset of a write around both ends of the region, with each single quad and with all
    eight: quads outside keep their value."""
    rng = await _start(dut)
    bench = Bench(dut)
    await _fill(bench, rng)
    low, high = 11, bench.size - 13
    bench.region(low, high, 0)
    for edge in (low, high):
        for address in range(edge - 10, edge + 10):
            for mask in (255, 0, *(1 << v for v in range(BANKS))):
                await bench.cycle(write=(address, mask, _quads(rng)))
    bench.region(0, 0, 0)  # nothing may be written
    await bench.cycle()
    await bench.cycle(write=(0, 255, _quads(rng)))
    for _ in range(WRITE_TO_READ):
        await bench.cycle()
    addresses = np.arange(bench.size - BANKS + 1)
    close = (addresses < low + 20) | (addresses > high - 30)
    for address in addresses[close | (addresses % max(1, bench.size // 512) == 0)]:
        await bench.cycle(read=(int(address), BANKS))
    for _ in range(READ_LATENCY):
        await bench.cycle()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def write_to_read(dut):
    """A request three cycles after a write sees it, one a cycle before does not."""
    rng = await _start(dut)
    bench = Bench(dut)
    await _fill(bench, rng)
    for _ in range(50):
        address = int(rng.integers(bench.size - BANKS))
        await bench.cycle(read=(address, BANKS))
        await bench.cycle(write=(address, int(rng.integers(1, 256)), _quads(rng)))
        await bench.cycle()
        await bench.cycle()
        bench.writes.clear()
        await bench.cycle(read=(address, BANKS))
    for _ in range(READ_LATENCY):
        await bench.cycle()
