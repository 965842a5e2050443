"""Convolutions with rectangular and even kernels, up to eleven rows or columns."""

import cocotb

from tb.lib.accelerator import on_icarus, random_generator
from tb.lib.chain import Chain
from tb.top.bench import Bench

KERNELS = (
    (1, 3),
    (3, 1),
    (1, 11),
    (11, 1),
    (2, 2),
    (4, 4),
    (2, 5),
    (7, 2),
    (6, 3),
    (3, 10),
    (10, 8),
    (8, 9),
    (5, 1),
    (1, 4),
    (9, 11),
    (6, 6),
)
TINY_KERNELS = ((1, 4), (2, 3), (3, 1))


@cocotb.test()
async def rectangular_kernels(dut):
    """Chains of four layers with random channels and the three kinds of padding."""
    rng = random_generator()
    bench = await Bench(dut).start()
    kernels = TINY_KERNELS if on_icarus() else KERNELS
    for first in range(0, len(kernels), 4):
        size = (3, 4) if on_icarus() else (13, 14)
        chain = Chain(
            rng,
            (int(rng.integers(1, 9)), *size),
            bool(rng.integers(2)),
            f"kernels {first}..{first + 3}",
        )
        for kernel in kernels[first : first + 4]:
            pad = tuple(
                int(rng.choice([0, k // 2, k - 1])) if n >= k else k - 1
                for k, n in zip(kernel, chain.shape[1:])
            )
            chain.conv(int(rng.integers(1, 6 if on_icarus() else 40)), kernel, pad)
        await bench.check_alive(chain.network(), chain.images[:1])
    assert bench.values_checked > 0


@cocotb.test()
async def rows_above_the_image(dut):
    """A small last tile between two large ones, the second of which leaves its first rows to a
    later kernel row: its first sums must not land
    where the tile before the small one is still being drained."""
    rng = random_generator()
    bench = await Bench(dut).start()
    channels, size = (2, (2, 3)) if on_icarus() else (2 * bench.hardware.num_modules, (20, 60))
    chain = Chain(rng, (20, *size), True, "rows above").conv(channels, (6, 3), (5, 1))
    outcome = await bench.check_alive(chain.network(), chain.images[:1])
    plan = next(iter(outcome.compiled.plans.values()))
    last = plan.out_shape[1] % plan.tile[0]
    assert on_icarus() or (plan.tile[0] >= 3 and last == 1 and not plan.vertical), (
        f"tiles of another shape: {plan}"
    )
