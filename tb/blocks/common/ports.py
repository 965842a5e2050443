"""One stream into a block and one out of it, on the ports in_* and out_*."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cocotb
import numpy as np

from host.harness import clocking
from tb.blocks.stream import channel


async def start(dut) -> np.random.Generator:
    """Clock and reset with idle ports; the generator of the test's random data."""
    dut.in_valid_i.value = 0
    dut.in_data_i.value = 0
    dut.out_ready_i.value = 0
    await clocking.start(dut)
    return np.random.default_rng(cocotb.RANDOM_SEED)


def words(rng: np.random.Generator, dut, count: int) -> list[int]:
    """Random words as wide as the port."""
    width = len(dut.in_data_i)
    return [
        int.from_bytes(rng.bytes((width + 7) // 8), "little") & ((1 << width) - 1)
        for _ in range(count)
    ]


def send(dut, words: Sequence[int], stall: Iterable[bool]):
    """Begin to send words, with pauses where `stall` is true."""
    return cocotb.start_soon(
        channel.send(
            dut.clk_i,
            dut.in_valid_i,
            dut.in_ready_o,
            lambda word: setattr(dut.in_data_i, "value", word),
            words,
            stall,
        )
    )


async def receive(dut, count: int, stall: Iterable[bool]) -> list[int]:
    """Take `count` words, with pauses where `stall` is true."""
    return await channel.receive(
        dut.clk_i,
        dut.out_valid_o,
        dut.out_ready_i,
        lambda: dut.out_data_o.value.to_unsigned(),
        count,
        stall,
    )
