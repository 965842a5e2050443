"""Every performance counter of every layer against independent counts in the harness, with late
weights, results held up and neither, beyond 65,535, and after commands that are refused."""

from __future__ import annotations

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from host.harness.engines import IDEAL, Traffic
from host.register_map import Ctrl, ErrorCode, IrqStatus, Register
from tb.lib import coverage
from tb.lib.accelerator import random_generator
from tb.lib.chain import Chain
from tb.lib.packets import flipped
from tb.top.bench import IDEAL_TRAFFIC, Bench
from tb.top.fault_bench import FaultBench

LATE = Traffic(40, 20, 100)
CASES = {
    "none": IDEAL_TRAFFIC,
    "results held up": (IDEAL, IDEAL, 240),
    "weights late": (LATE, IDEAL, 0),
    "both": (LATE, IDEAL, 240),
}
FIRST_COUNTS = ("cycles", "late", "held up", "reads", "writes", "weights")


def chain(rng) -> Chain:
    """Every kind of layer; the last one has more tiles than partial-sum buffers and 32-bit results,
    so that a receiver can hold it up."""
    return (
        Chain(rng, (3, 20, 20), True, "counted")
        .conv(9, (3, 3), (1, 1))
        .maxpool((2, 2), (2, 2))
        .avgpool((2, 2), (1, 1))
        .conv(12, (1, 1))
        .add()
        .conv(24, (3, 3), (1, 1), raw=True)
    )


async def counted(bench: Bench, layers: int) -> np.ndarray:
    """int64 [layers, 6]: the harness's counts, as FIRST_COUNTS says."""
    rows = []
    for layer in range(layers):
        bench.dut.counted_layer_i.value = layer
        await ClockCycles(bench.dut.clk_i, 1)
        bits = bench.dut.counted_o.value.to_unsigned()
        rows.append([bits >> 32 * i & 0xFFFFFFFF for i in range(len(FIRST_COUNTS))])
    return np.array(rows, np.int64)


async def registers(bench: Bench, layers: int) -> np.ndarray:
    """int64 [layers, 5] of the counters' registers."""
    names = ("CYCLES", "STALLS", "READS", "WRITES", "WEIGHTS")
    rows = []
    for layer in range(layers):
        await bench.host.write(Register.LAYER_SEL, layer)
        rows.append([await bench.host.read(Register[f"LAYER_{name}"]) for name in names])
    return np.array(rows, np.int64)


def compare_counts(got: np.ndarray, counts: np.ndarray, what: str) -> None:
    """Registers [layers, 5] against the harness's counts [layers, 6]."""
    cycles, late, held, reads, writes, weights = counts.T
    want = np.stack([cycles, late + held, reads, writes, weights], axis=1)
    for layer, (one, other) in enumerate(zip(got.tolist(), want.tolist())):
        assert one == other, f"{what}, layer {layer}: registers {one}, the harness counted {other}"


@cocotb.test()
async def layers_with_and_without_stalls(dut):
    """Cycles, stalls, reads, writes and weight words of each layer, whatever holds it up."""
    rng, own = random_generator(), 0
    bench = await Bench(dut).start()
    network = chain(rng)
    net = network.network()
    for name, traffic in CASES.items():
        outcome = await bench.check(net, network.images[:1], traffic=traffic)
        counts = await counted(bench, len(net.layers))
        compare_counts(outcome.counters[-1], counts, name)
        late, held = counts[:, 1].sum(), counts[:, 2].sum()
        dut._log.info("%s: %d cycles late, %d held up", name, late, held)
        own = held if name == "none" else own  # it waits for a buffer whoever takes the results
        assert (late > 0) == (name in ("weights late", "both")), f"{name}: {late} cycles late"
        assert (held > own) == (name in ("results held up", "both")), f"{name}: {held} held up"
        coverage.hit("counted_stalls", name)


@cocotb.test()
async def stalls_beyond_16_bits(dut):
    """A receiver that takes nothing for more than 65,535 cycles."""
    rng = random_generator()
    bench = await Bench(dut).start()
    network, cycles = chain(rng), (1 << 16) + 300
    net = network.network()

    async def release():
        await ClockCycles(dut.clk_i, cycles)
        dut.result_stall_i.value = 0

    cocotb.start_soon(release())
    outcome = await bench.check(net, network.images[:1], debug=False, traffic=(IDEAL, IDEAL, 256))
    counts = await counted(bench, len(net.layers))
    compare_counts(outcome.counters[-1], counts, "held up")
    assert counts[-1, 2] > 50_000, f"held up for {counts[-1, 2]} cycles only"
    assert outcome.total_cycles[-1] > 1 << 16


@cocotb.test()
async def refused_commands(dut):
    """START and a program during a run are refused: the counters of the image before stay, and so
    do all other registers; only STATUS and ERROR tell."""
    bench = await FaultBench(dut).start()
    layers = len(bench.net.layers)
    for code in (ErrorCode.START_BUSY, ErrorCode.PROGRAM_BUSY):
        await bench.good_run()
        await bench.load(bench.compiled.program)
        image = bench.compiled.encode_image(bench.image()[0])
        await bench.host.start_run()
        await bench.send(prog=bench.compiled.weights, image=image)
        await bench.idle("prog", "image")
        for _ in range(200):
            if await bench.host.read(Register.IMAGES_DONE):
                break
            await ClockCycles(dut.clk_i, 100)
        counts = await counted(bench, layers)
        compare_counts(await registers(bench, layers), counts, "in the run")
        await bench.host.write(Register.IRQ_STATUS, IrqStatus.DONE)
        before = await all_registers(bench)
        assert before[Register.IMAGES_DONE] == 1 and before[Register.TOTAL_CYCLES] > 0
        if code == ErrorCode.START_BUSY:
            await bench.host.write(Register.CTRL, Ctrl.START)
        else:
            await bench.send(prog=flipped(bench.compiled.program, 5, 3))
        await bench.expect(code)
        compare_counts(await registers(bench, layers), counts, f"after {code.name}")
        after = await all_registers(bench)
        changed = {r.name for r, value in after.items() if value != before[r]}
        assert changed == {"STATUS", "ERROR", "IRQ_STATUS"}, f"after {code.name}: {changed} changed"
        await bench.host.write(Register.CTRL, Ctrl.START)  # ignored after an error
        assert await all_registers(bench) == after, f"START after {code.name}"
        await bench.recover()
    await bench.good_run(reload=False)
    assert bench.values_checked


async def all_registers(bench: Bench) -> dict[Register, int]:
    """All registers that can be read, with the first layer's counters."""
    await bench.host.write(Register.LAYER_SEL, 0)
    return {r: await bench.host.read(r) for r in Register if r != Register.CTRL}
