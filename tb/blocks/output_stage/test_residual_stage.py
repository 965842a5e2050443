"""residual_stage against model/reference/requantize.py: every sign, factors, shifts and clamps at
their edges, steps at every pace."""

from __future__ import annotations

from collections import deque

import cocotb
import numpy as np

from host.harness import clocking
from model.compiler.program_format import QUAD_ADDR_W
from model.reference.requantize import shift_round
from tb.blocks.output_stage.pipeline import Pipeline
from tb.lib.descriptors import random_port
from tb.lib.effort import scaled
from tb.lib.packing import pack, unpack
from tb.lib.stalls import PATTERNS, stalls

READ_LATENCY = 9  # from a request to the second tensor's data
ADDRESSES = 1 << QUAD_ADDR_W
INPUTS = ("desc_i", "valid_i", "y_i", "addr_i", "mask_i", "rd_data_i")
RANGES = {True: (-128, 127), False: (0, 255)}


def _layer(rng, number):
    """{field: value} of a fused sum; signs in turn."""
    own, signed = bool(number & 1), bool(number & 4)
    mult, other_mult = (int(rng.choice([1, 32767, rng.integers(1, 32768)])) for _ in range(2))
    low, high = sorted(int(v) for v in rng.integers(*RANGES[signed], 2, endpoint=True))
    wide = RANGES[signed]
    return {
        "out_min": -1 if own else 0,
        "other_signed": number >> 1 & 1,
        "mult": mult,
        "other_mult": other_mult,
        "sum_shift": max(0, min(31, (mult + other_mult).bit_length() + int(rng.integers(-2, 2)))),
        "sum_min": low if number % 3 == 0 else wide[0],
        "sum_max": high if number % 3 == 0 else wide[1],
        "other_base": int(rng.integers(ADDRESSES)),
        "out_base": int(rng.integers(ADDRESSES)),
    }


def _tensor(rng, signed, count):
    """Integers of a tensor's range, often its limits."""
    low, high = RANGES[signed]
    return np.where(
        rng.random(count) < 0.3, rng.choice([low, high], count), rng.integers(low, high + 1, count)
    )


class Bench:
    """The stage and what plays the feature buffer."""

    def __init__(self, dut):
        self.dut, self.modules = dut, int(dut.NUM_MODULES.value)
        self.rng = np.random.default_rng(cocotb.RANDOM_SEED)
        self.data = deque([None] * READ_LATENCY)

    async def start(self):
        for port in INPUTS:
            getattr(self.dut, port).value = 0
        await clocking.start(self.dut)
        read = lambda: (
            unpack(self.dut.y_o.value, self.modules, 8).tolist(),
            self.dut.addr_o.value.to_unsigned(),
            int(str(self.dut.mask_o.value), 2),
        )
        self.pipeline = Pipeline(
            self.dut.clk_i, self.dut.valid_o, int(self.dut.LATENCY.value), read
        )

    async def cycle(self, layer, valid):
        """One cycle, with a random step of results if valid."""
        dut, rng, modules = self.dut, self.rng, self.modules
        own = _tensor(rng, layer["out_min"] < 0, modules)
        other = _tensor(rng, bool(layer["other_signed"]), modules)
        addr, mask = int(rng.integers(ADDRESSES)), int(rng.integers(1 << modules // 4))
        dut.valid_i.value, dut.y_i.value = int(valid), pack(own, 8)
        dut.addr_i.value, dut.mask_i.value = addr, mask
        self.data.append(other if valid else None)
        due = self.data.popleft()
        junk = rng.integers(0, 256, modules)  # in cycles in which nobody looks
        dut.rd_data_i.value = pack(junk if due is None else due, 8)
        total = own * layer["mult"] + other * layer["other_mult"]
        y = shift_round(total, layer["sum_shift"]).clip(layer["sum_min"], layer["sum_max"]) & 0xFF
        await self.pipeline.step((y.tolist(), addr, mask) if valid else None)
        assert dut.rd_valid_o.value == int(valid), "rd_valid_o"
        if valid:
            want = (addr + layer["other_base"] - layer["out_base"]) % ADDRESSES
            assert dut.rd_addr_o.value.to_unsigned() == want, "rd_addr_o"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def layers(dut):
    """Layer after layer of all signs: every result of every lane, at the full pace and below."""
    bench = Bench(dut)
    await bench.start()
    seen = set()
    for number in range(scaled(16, 64)):
        layer = _layer(bench.rng, number)
        dut.desc_i.value = random_port(bench.rng, layer)
        for _ in range(READ_LATENCY + 2):
            await bench.cycle(layer, False)
        stall = stalls(bench.rng, PATTERNS[number % len(PATTERNS)])
        for _ in range(60):
            await bench.cycle(layer, not next(stall))
            await bench.cycle(layer, False)
        for _ in range(int(dut.LATENCY.value)):
            await bench.cycle(layer, False)
        seen.add((layer["out_min"] < 0, layer["other_signed"], layer["sum_min"] < 0))
    assert bench.pipeline.checked > 300 and len(seen) == 8


@cocotb.test()
async def reset_drops(dut):
    """What is in flight at a reset does not come out."""
    bench = Bench(dut)
    await bench.start()
    for _ in range(5):
        dut.valid_i.value = 1
        await clocking.reset(dut, int(bench.rng.integers(1, 9)))
        dut.valid_i.value = 0
        await clocking.reset(dut, 1)
        await bench.pipeline.drain()
