"""Tests of rtl/memory/weight_buffer.sv: random pushes, reads, rewinds and commits against the
model."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.reference.blocks import WeightBuffer
from tb.lib.effort import scaled

# Probabilities of push, read, rewind and commit.
# words: a buffer that the mixes alone neither fill nor go round is filled and then read to the end
# first, once
LARGE = 1000
MIXES = (
    (0.5, 0.5, 0.02, 0.1),
    (0.9, 0.3, 0.0, 0.03),
    (0.9, 0.9, 0.05, 0.02),
    (0.2, 0.9, 0.05, 0.2),
    (1.0, 1.0, 0.0, 0.3),
)


async def _start(dut):
    for name in ("in_valid_i", "in_data_i", "re_i", "rewind_i", "commit_i"):
        getattr(dut, name).value = 0
    await clocking.start(dut)
    await RisingEdge(dut.clk_i)
    return np.random.default_rng(cocotb.RANDOM_SEED)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_operations(dut):
    """Order, exact level, full and empty, replay; a reset in between empties the buffer."""
    rng = await _start(dut)
    cycles = scaled(600, 2500)
    depth = int(dut.DEPTH.value)
    seen = {"full": 0, "rewound": 0, "committed": 0, "read": 0, "went round": 0}
    for number, mix in enumerate(MIXES):
        dut.in_valid_i.value = dut.re_i.value = dut.rewind_i.value = dut.commit_i.value = 0
        await clocking.reset(dut)
        await RisingEdge(dut.clk_i)
        model, due, coming = WeightBuffer(depth), None, None
        pushing, word, read_here = False, 0, 0
        filling = depth if depth > LARGE and number == 1 else 0
        for cycle in range(2 * filling + cycles):
            if not pushing:
                pushing, word = (
                    bool(cycle < filling or rng.random() < mix[0]),
                    int(rng.integers(2**64, dtype=np.uint64)),
                )
            act = cycle >= filling
            read = act and model.level > 0 and (cycle < 2 * filling or rng.random() < mix[1])
            rewind = act and not read and rng.random() < mix[2]
            commit = act and not read and not rewind and rng.random() < mix[3]
            dut.in_valid_i.value, dut.in_data_i.value = int(pushing), word
            dut.re_i.value, dut.rewind_i.value, dut.commit_i.value = (
                int(read),
                int(rewind),
                int(commit),
            )
            await RisingEdge(dut.clk_i)
            if due is not None:
                assert dut.data_o.value == due, f"read {dut.data_o.value}, expected {due:064b}"
            assert dut.level_o.value == model.level
            assert dut.in_ready_o.value == (not model.full)
            seen["full"] += model.full
            accepted = pushing and not model.full
            due, coming = coming, model.read() if read else None
            if rewind:
                seen["rewound"] += model.at > 0
                model.rewind()
            if commit:
                seen["committed"] += model.at > 0
                model.commit()
            if accepted:
                model.push(word)
                pushing = False
            seen["read"] += read
            read_here += read
            seen["went round"] += read_here > depth
    assert all(seen.values()), f"something was never tried: {seen}"
