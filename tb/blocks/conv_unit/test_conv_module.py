"""Tests of rtl/conv_unit/conv_module.sv and psum_memory.sv: tiles of several passes, one drained
while the next accumulates."""

from dataclasses import dataclass

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from host.harness import clocking
from model.reference.blocks import module_products, window_activations
from tb.blocks.conv_unit.streams import pack_rows, pixel_stream, play, skew, unpack_rows
from tb.lib.effort import scaled

STAGES = 20
TO_READ = STAGES + 4  # activations of stage 0 to the address of their partial sum
TO_SUM = TO_READ + 4  # ... to the cycle in which a drain address sees the sum
DRAIN_LATENCY = 2
GAP = 4  # cycles until the same pixel may return


@dataclass
class Tile:
    """A tile: its buffer, sums int64 [pixels, 3 lanes], and the cycle from which it may be
    drained."""

    buffer: int
    sums: np.ndarray
    ready: int


class Script:
    """Inputs of a whole run, cycle by cycle: passes of random lengths over tiles in alternating
    buffers."""

    def __init__(self, rng, mode, codebook, signed, kind, tiles, pixels_max):
        self.rng, self.mode, self.codebook = rng, mode, codebook
        act, loads, accesses, self.tiles = [], [], [], []
        at = 2  # the codebook needs two cycles
        act.append(np.zeros((2, 4, 25), np.int64))
        previous = 0
        for tile in range(tiles):
            start = at
            pixels = int(rng.integers(GAP + 1, pixels_max))
            sums = np.zeros((pixels, 3), np.int64)
            for number in range(int(rng.integers(1, 4))):
                index = np.zeros((4, 25), np.uint8)
                used = 25 if mode == 2 else 24
                index[:, :used] = rng.integers(0, 4, (4, used))
                stream = window_activations(
                    pixel_stream(rng, pixels, kind),
                    np.full(pixels, 31),
                    np.full(pixels, 255),
                    mode,
                    signed,
                )
                sums += module_products(stream, index, codebook, mode)
                loads.append((at, index))
                accesses += [(at + i, tile & 1, i, int(number == 0)) for i in range(pixels)]
                gap = int(rng.integers(0, 4)) if rng.random() < 0.3 else 0
                act += [stream, rng.integers(-128, 256, (gap, 4, 25))]
                at += pixels + gap
            idle = max(
                0, previous + TO_SUM - (at - start)
            )  # the tile before must be drained when this one ends
            act.append(np.zeros((idle, 4, 25), np.int64))
            at += idle
            self.tiles.append(Tile(tile & 1, sums, at + TO_SUM))
            previous = pixels
        self.total = at + TO_SUM + pixels_max + 10
        self.act = np.zeros((self.total, 4, 25), np.int64)
        flat = np.concatenate(act)
        self.act[: len(flat)] = flat
        self.loads, self.accesses = loads, accesses

    def inputs(self):
        """{port: word of each cycle}; words that the design must ignore are random."""
        staged = np.zeros_like(self.act)
        for array in range(4):
            for stage, pes in enumerate(
                [[24]] + [[8 * s + 2 * k + i for s in range(3) for i in range(2)] for k in range(4)]
            ):
                staged[:, array, pes] = skew(self.act, 5 * array + stage)[:, array, pes]
        load, shown = (
            np.zeros((self.total, STAGES), np.int64),
            np.zeros((self.total, 4, 25), np.int64),
        )
        shown[:] = self.rng.integers(0, 4, shown.shape)
        for start, index in self.loads:
            for stage in range(STAGES):
                array, k = divmod(stage, 5)
                pes = (
                    [24]
                    if k == 0
                    else [8 * s + 2 * (k - 1) + i for s in range(3) for i in range(2)]
                )
                load[start + stage - 1, stage] = 1
                shown[start + stage - 1, array, pes] = index[array, pes]
        read = {
            name: [0] * self.total
            for name in ("acc_ren_i", "acc_buf_i", "acc_addr_i", "acc_first_i")
        }
        for at, buffer, pixel, first in self.accesses:
            for name, value in zip(read, (1, buffer, pixel, first)):
                read[name][at + TO_READ] = value
        x, y = staged[:, :, 0:24:2], staged[:, :, 1:24:2]
        return {
            "load_i": pack_rows(load, 1),
            "idx_i": pack_rows(shown, 2),
            "single_i": pack_rows(staged[:, :, 24], 9),
            "x_i": pack_rows(x, 9),
            "y_i": pack_rows(y, 9),
            "xy_i": pack_rows(x + y, 10),
            **read,
            **self.drain_address(),
        }

    def drain_address(self):
        """Every tile is drained, pixel by pixel, as soon as it is complete; meanwhile the next one
        accumulates."""
        addresses = [int(a) for a in self.rng.integers(0, 256, self.total)]
        for tile in self.tiles:
            for pixel in range(len(tile.sums)):
                addresses[tile.ready + pixel] = pixel
        return {"drain_addr_i": addresses}


async def _check(dut, script, lanes):
    record = await play(dut, script.inputs(), ["drain_o"])
    for number, tile in enumerate(script.tiles):
        for pixel, want in enumerate(tile.sums):
            at = tile.ready + pixel + DRAIN_LATENCY
            bits = record["drain_o"][at]
            assert bits is not None, f"mode {script.mode}, tile {number}, pixel {pixel}: X"
            got = unpack_rows([bits], 6, 32, signed=True)[0, 3 * tile.buffer : 3 * tile.buffer + 3]
            assert (got[:lanes] == want[:lanes]).all(), (
                f"mode {script.mode}, tile {number}, pixel {pixel}: got {got}, expected {want}"
            )


async def _prepare(dut):
    """Write all of both buffers once, so that no word is X."""
    for port in (
        "mode_i",
        "codebook_i",
        "load_i",
        "idx_i",
        "single_i",
        "x_i",
        "y_i",
        "xy_i",
        "acc_ren_i",
        "acc_buf_i",
        "acc_addr_i",
        "acc_first_i",
        "drain_addr_i",
    ):
        getattr(dut, port).value = 0
    clocking.Clock(dut.clk_i, clocking.PERIOD_NS, unit="ns", impl="gpi").start()
    dut.load_i.value = (1 << STAGES) - 1
    for _ in range(STAGES + 10):
        await RisingEdge(dut.clk_i)
    dut.load_i.value, dut.acc_ren_i.value, dut.acc_first_i.value = 0, 1, 1
    for buffer in range(2):
        for pixel in range(256):
            dut.acc_buf_i.value, dut.acc_addr_i.value, dut.drain_addr_i.value = buffer, pixel, pixel
            await RisingEdge(dut.clk_i)
    dut.acc_ren_i.value = dut.acc_first_i.value = 0
    for _ in range(GAP + 2):
        await RisingEdge(dut.clk_i)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def tiles(dut):
    """Sums of random passes in all modes, first flags, both buffers at once, three lanes in mode 0,
    extreme values."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    await _prepare(dut)
    for mode in (2, 0, 1):
        for kind in ("random", "all 255", "extreme"):
            codebook = (
                np.array([0, -128, 127, -128])
                if kind == "all 255"
                else np.array([0, *rng.integers(-128, 128, 3)])
            )
            dut.mode_i.value, dut.codebook_i.value = mode, pack_rows([codebook[1:]], 8)[0]
            signed = kind != "all 255" and bool(rng.integers(2))
            script = Script(rng, mode, codebook, signed, kind, 4, scaled(40, 257))
            await _check(dut, script, 3 if mode == 0 else 1)
