"""Networks that hit every coverage point of layers with any seed: the mapping follows from shapes
alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from model.compiler.program_format import MAX_CHANNELS
from model.network import Network
from tb.lib.chain import Chain

# (low, high, both) clamps around the centre of `Chain.centred_conv` and of the average pools below;
# signed ones with both limits on one side of zero, too
CONV_CLAMPS = {
    True: (0, ((-5, 127), (-128, 5), (-5, 5), (-12, -3), (3, 12))),
    False: (100, ((95, 255), (0, 105), (95, 105))),
}
BIG_BIAS = (1 << 30) + (1 << 29)
CHANNELS = 48  # with so many channels kernels of width 1, 3 and 5 map to arrays of 1, 3 and 5 taps


def remainder_chains(rng, modules: int) -> Iterator[tuple[int, Chain]]:
    """(window, chain) whose layers have every remainder of input and output channels by the size of
    the hardware's groups.

    A layer's output channels are the next one's input channels, so that consecutive counts cover
    both.
    """
    # more than a group of outputs, since for fewer a wider window needs no more passes
    wide = range(3 * modules + 1, 3 * modules + 1 + max(32, 3 * modules))
    three = [
        *range(21, 33),
        *range(41, 53),
        *range(65, 73),
    ]  # counts for which arrays of 3 taps need fewer passes than of 5
    for window, counts in ((1, wide), (3, three), (5, range(1, 21))):
        shape = (2, 2) if window == 1 else (1, 3)
        for part in _parts(list(counts), 60):
            chain = Chain(
                rng, (part[-1], *shape), bool(rng.integers(2)), f"remainders of window {window}"
            )
            for channels in part:
                chain.conv(channels, (1, window), (0, window // 2))
            yield window, chain


def _parts(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def shape_chains(rng) -> Iterator[Chain]:
    """Kernels, pieces, groups, paddings, vertical taps and tiles of convolutions; for 4 modules."""
    square = Chain(rng, (6, 12, 12), True, "every kernel width and height")
    for width in range(1, 12):
        square.conv(5 + width % 4, (12 - width, width), ((12 - width) // 2, width // 2))
    yield square
    yield from _tile_chains(rng)
    yield from _pad_chains(rng)
    yield from _group_chains(rng)
    yield from _deep_chains(rng)
    yield from _near_chains(rng)
    for number, (kernel, channels) in enumerate(
        (((3, 1), 12), ((11, 1), 12), ((7, 3), 5), ((11, 3), 5), ((3, 5), 6), ((9, 5), 6))
    ):
        yield Chain(rng, (1 + number % 4, 13, 7), bool(number % 2), f"vertical taps {kernel}").conv(
            channels, kernel, (kernel[0] // 2, 0)
        )


def pair_chains(rng) -> Iterator[Chain]:
    """Two kernel rows at once: every number of channels from 5 to 16, both windows, one step and
    more, every stride, rows of padding, several tiles, a sum of two such tensors."""
    for channels in range(5, 17):
        signed = bool(channels % 2)
        chain = Chain(rng, (channels, 7, 6), signed, f"two rows of {channels} channels")
        kernel, pad = ((2 + channels % 3, 3), (channels % 2, 1))
        yield chain.conv(9 + channels % 4, kernel, pad).conv(24, (3, 3), (1, 1)).conv(3, (1, 1))
    for channels in (7, 12, 16):
        for signed in (True, False):
            for stride in ((1, 1), (2, 1), (1, 2), (2, 2)):
                yield Chain(
                    rng, (channels, 8, 9), signed, f"two rows, {channels} channels, stride {stride}"
                ).conv(12, (3, 3), (1, 1), stride=stride)
    for kernel, pad in (((2, 1), (1, 0)), ((4, 1), (3, 0)), ((2, 3), (0, 1)), ((11, 2), (10, 1))):
        yield Chain(rng, (16, 9, 9), True, f"two rows, kernel {kernel}").conv(24, kernel, pad)
    yield (
        Chain(rng, (16, 40, 17), False, "residual block of two rows")
        .conv(16, (3, 3), (1, 1))
        .conv(16, (3, 3), (1, 1))
        .add("input", "conv2_3x3", clamp=(0, 255))
        .conv(16, (3, 3), (1, 1))
    )


def stride_chains(rng) -> Iterator[Chain]:
    """Strides of 1 and 2 on each axis, of vertical taps and of channels; windows that begin at
    every place and see the last pixel or not; single pixels, tiles, pieces, shortcuts."""
    for number, (stride, size) in enumerate(
        product(((1, 2), (2, 1), (2, 2)), ((9, 9), (9, 8), (8, 9), (8, 8)))
    ):
        for channels, pad in ((3, (1, 1)), (3, (0, 2)), (18, (2, 0)), (9, (1, 1))):
            yield Chain(
                rng, (channels, *size), bool(number % 2), f"stride {stride}, {size}, pad {pad}"
            ).conv(5 + number % 3, (3, 3), pad, stride=stride)
    yield Chain(rng, (3, 35, 35), True, "first layer of a large network").conv(
        16, (7, 7), (3, 3), stride=(2, 2)
    )
    yield (
        Chain(rng, (20, 33, 67), False, "tiles of stride 2")
        .conv(24, (2, 4), (1, 1), stride=(1, 2))
        .conv(13, (11, 11), (5, 5), stride=(2, 2))
        .conv(13, (1, 1), stride=(2, 2))
        .conv(4, (3, 1), (2, 0), stride=(2, 1))
    )
    yield Chain(rng, (8, 2, 700), True, "wide tiles of stride 2").conv(
        4, (3, 3), (1, 1), stride=(2, 2)
    )
    yield Chain(rng, (40, 1, 1), True, "a pixel").conv(12, (5, 5), (2, 2), stride=(2, 2))
    block = Chain(rng, (16, 9, 9), False, "residual block")
    block.conv(32, (3, 3), (1, 1), stride=(2, 2)).conv(32, (3, 3), (1, 1))
    last = block.layers[-1].name
    block.branch("input").conv(32, (1, 1), stride=(2, 2))
    yield block.add(last, block.layers[-1].name, clamp=(0, 255))


def _tile_chains(rng) -> Iterator[Chain]:
    """One, two and three tiles, seams between rows and columns, with the last tile whole and
    smaller."""
    for height, width in ((4, 4), (32, 16), (31, 16), (48, 16), (1, 512), (1, 300)):
        chain = Chain(
            rng, (CHANNELS, height, width), bool(height % 2), f"tiles of {height} x {width}"
        )
        yield chain.conv(CHANNELS, (1, 1)).conv(16, (1, 3), (0, 1)).conv(12, (1, 5), (0, 2))


def _pad_chains(rng) -> Iterator[Chain]:
    """No, one and the most columns of padding for each window, and rows of it for vertical taps and
    for channels."""
    chain = Chain(rng, (CHANNELS, 4, 9), True, "columns of padding")
    for kernel, pad, channels in (
        (2, 1, 12),
        (4, 3, 12),
        (3, 0, CHANNELS),
        (3, 1, CHANNELS),
        (3, 2, CHANNELS),
        (5, 0, CHANNELS),
        (5, 1, CHANNELS),
        (5, 4, 8),
    ):
        if chain.shape[0] != CHANNELS:
            chain.conv(CHANNELS, (1, 1))
        chain.conv(channels, (1, kernel), (0, pad))
    yield chain
    for pad in (0, 1, 2):
        yield (
            Chain(rng, (3, 6, 5), bool(pad % 2), f"{pad} rows of padding")
            .conv(CHANNELS, (3, 3), (pad, 1))
            .conv(9, (3, 3), (pad, 1))
        )


def _group_chains(rng) -> Iterator[Chain]:
    """One, two and more groups of input and output channels, and pieces of a kernel row, for each
    window."""
    for inputs, kernel, outputs in (
        (40, 1, 12),
        (70, 1, 24),
        (24, 1, 37),
        (50, 3, 4),
        (70, 3, 8),
        (24, 3, 12),
        (16, 5, 4),
        (24, 5, 8),
        (50, 5, 12),
        (24, 2, 12),
        (24, 4, 12),
        (24, 6, 12),
        (24, 9, 12),
        (16, 7, 12),
        (16, 11, 12),
    ):
        chain = Chain(rng, (inputs, 3, 12), bool(outputs % 8), f"{inputs} channels, {kernel} wide")
        yield chain.conv(outputs, (1, kernel), (0, kernel // 2))


def _deep_chains(rng) -> Iterator[Chain]:
    """Nearly the most channels that there may be, in and out, for each window."""
    for kernel in (1, 3, 5):
        inputs, outputs = (int(n) for n in rng.integers(MAX_CHANNELS - 3, MAX_CHANNELS + 1, 2))
        yield Chain(
            rng, (inputs, 1, 1), bool(rng.integers(2)), f"{inputs} channels in, {kernel} wide"
        ).conv(3, (1, kernel), (0, kernel // 2))
        yield Chain(
            rng, (3, 1, 1), bool(rng.integers(2)), f"{outputs} channels out, {kernel} wide"
        ).conv(outputs, (1, kernel), (0, kernel // 2))


def order_chains(rng) -> Iterator[Chain]:
    """Every kind of layer first, and after every kind: the state that one leaves in the PEs and
    units must not affect the next."""
    add = (
        lambda c: c.conv(CHANNELS, (1, 1)),
        lambda c: c.conv(CHANNELS, (1, 3), (0, 1)),
        lambda c: c.conv(CHANNELS, (1, 5), (0, 2)),
        lambda c: c.maxpool((2, 2), (1, 1), (1, 1)),
        lambda c: c.avgpool((2, 2), (1, 1), (0, 0)),
        lambda c: c.add(mult=(3, 5), shift=3),
    )
    for kind, layer in enumerate(add):
        yield layer(Chain(rng, (CHANNELS, 3, 4), bool(kind % 2), f"first layer of kind {kind}"))
    # every ordered pair once, as a circle
    order = [
        k
        for i in range(len(add))
        for k in (i, *(x for j in range(i + 1, len(add)) for x in (i, j)))
    ]
    chain = Chain(rng, (CHANNELS, 6, 7), True, "every kind after every kind")
    for kind in (*order, order[0]):
        add[kind](chain)
    yield chain


def clamp_chains(rng) -> Iterator[Chain]:
    """Lower, upper and both clamps, for every sign of input and output, of convolutions and average
    pools."""
    for signed_in in (True, False):
        for signed_out in (True, False):
            centre, clamps = CONV_CLAMPS[signed_out]
            for clamp in clamps:
                yield Chain(rng, (5, 6, 7), signed_in, f"clamp {clamp}").centred_conv(
                    4, (1, 3), (0, 0), centre, clamp
                )
    for clamp in ((-10, 127), (-128, 10), (-10, 10), (-14, -4), (0, 255), (0, 10)):
        yield _average(rng, True, -128, 127, clamp)
    yield _average(rng, True, 40, 127, (0, 60))
    for clamp in ((120, 255), (0, 130), (120, 130), (-128, 100)):
        yield _average(rng, False, 0, 255, clamp)


def add_chains(rng) -> Iterator[Chain]:
    """Sums of tensors of every sign, of one tensor and itself; every edge of their clamps, extreme
    multipliers, every number of channels modulo four, rows with gaps in both inputs."""
    signed, unsigned = (-100, 100), (10, 240)
    for low_high, clamps in (
        (signed, ((-10, 127), (-128, 10), (-10, 10), (0, 255), (0, 10))),
        (unsigned, ((120, 255), (0, 130), (120, 130), (-128, 100))),
        ((40, 127), ((0, 60),)),
    ):
        for clamp in clamps:
            yield _images(rng, low_high is not unsigned, low_high, "sum with itself").add(
                clamp=clamp
            )
    for number, (clamp, mult) in enumerate(
        (
            ((-10, 127), (1, 3)),
            ((-10, 10), (16384, 32767)),
            ((-128, 10), (32767, 1)),
            ((0, 255), (5, 32767)),
        )
    ):
        for first in (True, False):
            chain = _images(rng, True, signed, f"mixed sum {mult}", channels=5 + number)
            chain.add(clamp=(0, 255))
            names = ("input", "add1") if first else ("add1", "input")
            yield chain.add(*names, mult=mult, shift=(sum(mult) - 1).bit_length(), clamp=clamp)
    yield (
        Chain(rng, (3, 5, 6), False, "sum of skewed rows")
        .conv(3, (3, 3), (1, 1))
        .add("input", "conv1_3x3")
        .conv(40, (3, 3), (1, 1))
    )
    for channels in (9, 33, 64):  # each of three tensors added to each other
        yield (
            Chain(rng, (channels, 5, 6), False, f"circle of sums, {channels} channels")
            .conv(channels, (1, 1))
            .add("input", "conv1_1x1")
            .add("conv1_1x1", "add2")
            .branch("input")
            .add("input", "add2")
            .add("add4", "add3")
        )


def fused_chains(rng) -> Iterator[Chain]:
    """Sums in the write-back of a convolution: every sign of its results, of the second tensor and
    of the sum, each edge of the clamp, extreme multipliers, each window, one tile and two."""
    cases = (  # signs of the convolution's results and of the second tensor, clamp of the sum
        (True, True, (-10, 127)),
        (True, True, (0, 255)),
        (True, False, (-128, 60)),
        (True, False, (0, 60)),
        (False, True, (-10, 50)),
        (False, True, (0, 255)),
        (False, False, (-128, 100)),
        (False, False, (0, 100)),
    )
    factors = [(1, 1)] * len(cases) + [(32767, 3), (5, 32767)]
    for number, ((own, other, clamp), mult) in enumerate(zip(cases + cases[:2], factors)):
        channels, width = CHANNELS - number % 4, 1 + 2 * (number % 3)
        size = (33, 9) if number < 3 else (3, 5)
        chain = Chain(rng, (channels, *size), other, f"fused sum {number}")
        centre, limits = (0, (-128, 127)) if own else (100, (0, 255))
        chain.centred_conv(channels, (1, width), (0, width // 2), centre, limits)
        names, shift = (chain.layers[-1].name, "input"), (sum(mult) - 1).bit_length()
        if number % 2:
            names, mult = names[::-1], mult[::-1]
        yield chain.add(*names, mult=mult, shift=shift, clamp=clamp)


def _images(rng, signed: bool, low_high: tuple, name: str, channels: int = 6) -> Chain:
    """A chain without layers whose images have values low..high."""
    chain = Chain(rng, (channels, 5, 7), signed, f"{name} of {low_high}")
    low, high = low_high
    chain.images[:] = rng.integers(low, high + 1, chain.images.shape)
    return chain


def _average(rng, signed: bool, low: int, high: int, clamp: tuple) -> Chain:
    """Means of four pixels of a feature map with values low..high."""
    chain = Chain(rng, (6, 9, 8), signed, f"average {clamp}")
    chain.images[:] = rng.integers(low, high + 1, chain.images.shape)
    return chain.avgpool((2, 2), (1, 1), clamp=clamp, shift=2)


def arithmetic_chains(rng) -> Iterator[Chain]:
    """Every shift, the extreme multipliers, sums beyond what floating point keeps."""
    count = 33
    shift = np.arange(count) % 32
    mult = np.clip((1 << shift) // rng.integers(2, 9, count), 1, 32767)
    mult[shift == 5] = 1
    bias = (rng.integers(30, 90, count) << shift) // mult  # the means lie between the clamps
    yield Chain(rng, (9, 4, 4), True, "every shift").plain_conv(
        count,
        codebook=(-1, 1, 1),
        bias=bias.astype(np.int32),
        mult=mult.astype(np.int32),
        shift=shift.astype(np.uint8),
        out_min=-128,
        out_max=127,
    )
    large = np.array([BIG_BIAS, -BIG_BIAS, 0, BIG_BIAS, -BIG_BIAS, 1], np.int32)
    yield Chain(rng, (9, 4, 4), False, "large sums").plain_conv(len(large), bias=large)
    for codebook in ((-128, -128, 127), (127, 127, -128), (1, -1, 1)):
        yield Chain(rng, (24, 4, 5), False, f"codebook {codebook}").conv(
            9, (1, 3), (0, 1), codebook=codebook
        )


def all_zero_network(rng) -> tuple[Network, np.ndarray]:
    """A convolution all of whose weights are zero, with different biases, in front of one that
    passes them on; and an image."""
    bias = np.arange(-40, 40, 10).astype(np.int32)
    chain = Chain(rng, (5, 4, 4), True, "all weights zero").plain_conv(
        8,
        bias=bias,
        mult=np.ones(8, np.int32),
        shift=np.zeros(8, np.uint8),
        out_min=-128,
        out_max=127,
    )
    layer = replace(chain.layers[0], codebook=np.zeros(4, np.int8))
    chain.plain_conv(6, bias=np.zeros(6, np.int32))
    return Network(
        name=chain.name,
        input_shape=chain.input_shape,
        input_signed=True,
        layers=[layer, chain.layers[1]],
    ), chain.images[:1]


def pool_chains(rng) -> Iterator[Chain]:
    """Windows, strides and paddings of both pools, every number of channels modulo four, int32 sums
    of both signs."""
    for op in ("maxpool", "avgpool"):
        pool = lambda chain, *geometry, op=op: getattr(chain, op)(*geometry)
        most = (2, 2) if op == "maxpool" else (3, 4)
        windows = (
            ((1, 2), (1, 1), (0, 0)),
            ((2, 3), (2, 3), (1, 0)),
            ((3, 1), (4, 1), (0, 0)),
            ((4, 5), (1, 2), most),
            ((2, 2), (3, 3), (0, 1)),
            ((3, 3), (2, 1), (1, 1)),
        )
        for number, geometry in enumerate(windows):
            yield pool(
                Chain(rng, (5 + number % 4, 9, 10), bool(number % 2), f"{op} {geometry}"), *geometry
            )
    for signed in (True, False):
        yield Chain(rng, (7, 5, 6), signed, "average sums").avgpool((3, 2), (1, 2), raw=True)
        yield Chain(rng, (7, 5, 6), signed, "convolution sums").conv(5, (2, 3), (1, 0), raw=True)


def _near_chains(rng) -> Iterator[Chain]:
    """The last rows of a channel group's last pass are the first ones of the next group's first
    pass, so narrow that their sums are just being written."""
    for shape, kernel, pad, stride in (
        ((36, 6, 10), (6, 1), (4, 0), (1, 2)),
        ((36, 9, 10), (9, 1), (8, 0), (2, 2)),
        ((36, 11, 3), (10, 3), (8, 1), (1, 1)),
        ((24, 10, 4), (10, 5), (7, 2), (1, 1)),
        ((24, 9, 2), (9, 5), (8, 2), (1, 1)),
        ((36, 8, 8), (8, 3), (4, 1), (1, 1)),
    ):
        yield Chain(rng, shape, True, f"pixels that return, {kernel}").conv(
            4, kernel, pad, stride=stride
        )


def image_chains(rng) -> Iterator[Chain]:
    """Single pixels, rows and columns, rows wider than a tile, odd and even numbers of quads in and
    out."""
    for shape in ((5, 1, 1), (8, 1, 9), (12, 9, 1), (3, 2, 400), (3, 3, 3)):
        yield Chain(rng, shape, True, f"image {shape}").conv(6, (1, 1)).maxpool((1, 1), (1, 1))


def corner_chains(rng) -> Iterator[Chain]:
    """All of the above but the remainders and the network without weights."""
    for source in (
        shape_chains,
        pair_chains,
        stride_chains,
        order_chains,
        clamp_chains,
        arithmetic_chains,
        pool_chains,
        add_chains,
        fused_chains,
        image_chains,
    ):
        yield from source(rng)
