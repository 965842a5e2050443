"""serial_multiplier: exact and clamped products, valid COUNT_W + 1 cycles after any start."""

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from host.harness import clocking


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def products(dut):
    """Random factors of all lengths, the extremes, and a start in the middle of a product."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    widths = [int(getattr(dut, name).value) for name in ("COUNT_W", "FACTOR_W", "PRODUCT_W")]
    largest = [2**w - 1 for w in widths]
    dut.start_i.value = 0
    clocking.start_clock(dut.clk_i)
    cases = [(a, b) for a in (0, 1, largest[0]) for b in (0, 1, largest[1])]
    cases += [
        tuple(int(rng.integers(2 ** int(rng.integers(1, w + 1)))) for w in widths[:2])
        for _ in range(200)
    ]
    clamped = 0
    for count, factor in cases:
        if rng.random() < 0.2:  # another one that is not waited for
            await _begin(dut, largest[0], largest[1])
            for _ in range(int(rng.integers(widths[0]))):
                await FallingEdge(dut.clk_i)
        await _begin(dut, count, factor)
        for _ in range(widths[0]):
            await FallingEdge(dut.clk_i)
        expected = min(count * factor, largest[2])
        clamped += count * factor > largest[2]
        for _ in range(3):
            got = dut.product_o.value.to_unsigned()
            assert got == expected, f"{count} * {factor} = {got}, expected {expected}"
            await FallingEdge(dut.clk_i)
    assert clamped or largest[0] * largest[1] <= largest[2], "no product was clamped"


async def _begin(dut, count, factor):
    await FallingEdge(dut.clk_i)
    dut.start_i.value, dut.count_i.value, dut.factor_i.value = 1, count, factor
    await FallingEdge(dut.clk_i)
    dut.start_i.value = 0
