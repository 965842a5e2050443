"""Start from unknown or random registers and memories, and the hardware reset in the middle of
everything.

On Icarus, whose registers and memories start as X, every output of the accelerator is watched for X
and Z after reset; on Verilator they start with random values that depend on the seed.
"""

import cocotb
from cocotb.task import bridge
from cocotb.triggers import ClockCycles, FallingEdge

from host.harness import clocking
from host.harness.engines import Traffic
from host.harness.unknowns import watch_accelerator
from host.register_map import Ctrl, ErrorCode, Register, field
from model.compiler import compile_network
from tb.lib.accelerator import on_icarus, random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench

RESETS = 25


def first_networks(rng):
    """Small networks, each the first that the hardware sees: every conv mode, both pools, 32-bit
    results; after wide kernels narrow ones."""
    yield (
        Chain(rng, (3, 4, 5), True, "all modes")
        .conv(5, (3, 5), (1, 2))
        .conv(6, (1, 3), (0, 1))
        .conv(4, (1, 1))
    )
    yield (
        Chain(rng, (5, 4, 4), False, "pools")
        .maxpool((2, 2), (2, 2))
        .avgpool((2, 2), (1, 1))
        .conv(3, (1, 1), raw=True)
    )


def watch(dut):
    """The monitor of the accelerator's outputs on Icarus, else None."""
    return watch_accelerator(dut.u_accel) if on_icarus() else None


async def from_unknown(dut, number: int) -> None:
    """The first network after power-up is computed right, and nothing unknown leaves."""
    rng = random_generator()
    monitor = watch(dut)
    bench = await Bench(dut).start()
    chain = list(first_networks(rng))[number]
    await bench.check_alive(chain.network(), chain.images[:1])
    assert bench.values_checked > 0
    assert monitor is None or monitor.cycles > 200, (
        "the monitor of unknown values saw hardly anything"
    )


@cocotb.test()
async def convolutions_from_unknown(dut):
    """All conv modes, from whatever registers, memories and the 25th PE hold."""
    await from_unknown(dut, 0)


@cocotb.test()
async def pools_from_unknown(dut):
    """Both pools and 32-bit results, from whatever registers and memories hold."""
    await from_unknown(dut, 1)


@cocotb.test()
async def reset_in_operation(dut):
    """Hardware resets at random moments, of a program, of weights and images, of results: registers
    as after power-up, then a right run."""
    rng = random_generator()
    monitor = watch(dut)
    bench = await Bench(dut).start()
    chain = (
        Chain(rng, (3, 3, 4), True, "victim").conv(5, (1, 3), (0, 1))
        if on_icarus()
        else (
            Chain(rng, (3, 9, 7), True, "victim")
            .conv(9, (3, 3), (1, 1))
            .maxpool((2, 2), (2, 2))
            .conv(12, (5, 5), (2, 2))
            .avgpool((2, 2), (1, 1))
        )
    )
    net = chain.network()
    compiled = compile_network(net, bench.hardware, debug=True)
    outcome = await bench.check(net, chain.images[:1])
    span = 2 * int(outcome.total_cycles[0])
    for number in range(1 if on_icarus() else RESETS):
        await _begin(bench, compiled, chain.images[0], rng, span)
        moment = int(rng.integers(1, span))
        await ClockCycles(dut.clk_i, moment)
        dut._log.info("reset %d: %d cycles after the streams began", number, moment)
        await clocking.reset(dut, int(rng.integers(1, 5)))
        await _after_reset(bench)
        await bench.check(net, chain.images[:1] if on_icarus() else chain.images[number % 2 :][:1])
    assert bench.values_checked > 0
    assert monitor is None or monitor.cycles > 200, (
        "the monitor of unknown values saw hardly anything"
    )


@cocotb.test()
async def reset_at_the_end_of_an_image(dut):
    """Resets of a single cycle around the cycle in which an image is done leave no interrupt
    behind, and the next run is right."""
    rng = random_generator()
    bench = await Bench(dut).start()
    chain = Chain(rng, (3, 3, 4), True, "victim").conv(5, (1, 3), (0, 1))
    net = chain.network()
    compiled, image = compile_network(net, bench.hardware, debug=True), chain.images[:1]
    await bench.check(net, image)
    for offset in (None, -1, 0) if on_icarus() else (None, *range(-6, 4)):
        await bridge(bench.accelerator.load)(compiled)
        await bench.host.start_run()
        await bench.host.begin("prog", compiled.weights)
        await (await bench.host.begin("image", compiled.encode_image(image[0])))
        if offset is None:
            length = await clocking.wait_for(
                dut, lambda: int(dut.irq_o.value), 20_000, "no interrupt at the end of the image"
            )
        else:
            await ClockCycles(dut.clk_i, length + offset)
        await clocking.reset(dut, 1)
        await _after_reset(bench)
    await bench.check(net, image)
    assert bench.values_checked > 0


async def _begin(bench, compiled, image, rng, span) -> None:
    """Load and start a network, on streams of random speed, or send only its program; do not wait
    for anything."""
    slow = Traffic(0, int(rng.choice([256, 100])), int(rng.choice([0, 128])))
    bench.host.set_traffic(slow, slow, int(rng.choice([0, 128])))
    if rng.random() < 0.2:
        await (await bench.host.begin("prog", compiled.program))
        return
    await bridge(bench.accelerator.load)(compiled)
    await bench.host.write(Register.CTRL, Ctrl.START)
    await ClockCycles(bench.dut.clk_i, int(rng.integers(1, 40)))
    await bench.host.begin("prog", compiled.weights)
    await (await bench.host.begin("image", compiled.encode_image(image)))


async def _after_reset(bench) -> None:
    """Registers as after power-up: no program, no error, no interrupt, no images done; the streams'
    engines rest."""
    dut, host = bench.dut, bench.host
    await FallingEdge(dut.clk_i)
    assert (
        not int(dut.irq_o.value)
        and not int(dut.prog_busy_o.value)
        and not int(dut.image_busy_o.value)
    )
    assert await host.read(Register.STATUS) == 0, "STATUS after a reset"
    assert field(await host.read(Register.ERROR), Register.ERROR, "CODE") == ErrorCode.NONE, (
        "ERROR after a reset"
    )
    for register in (
        Register.IRQ_STATUS,
        Register.IRQ_ENABLE,
        Register.IMAGES_DONE,
        Register.LAYER_SEL,
    ):
        assert await host.read(register) == 0, f"{register.name} after a reset"
    await host.write(Register.CTRL, Ctrl.START)
    await ClockCycles(dut.clk_i, 40)
    error = field(await host.read(Register.ERROR), Register.ERROR, "CODE")
    assert error == ErrorCode.NO_PROGRAM, "the program outlived a reset"
    await clocking.reset(dut)
    await FallingEdge(dut.clk_i)
    assert await host.read(Register.STATUS) == 0
