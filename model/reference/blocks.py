"""Golden functions of single blocks of the accelerator: the values that a block computes, without
its pipeline.

The blocks are those of rtl/conv_unit and rtl/memory; names and numbering are those of
docs/architecture.md. A pixel as the feature buffer delivers it is uint8 [8 quads, 4 channels]; the
activations of a position are int64 [4 arrays, 25 PEs], indices of a conv module uint8 [4, 25].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.compiler.conv_plan import ConvPlan
from model.compiler.memory_plan import Tensor
from model.compiler.program_format import ARRAYS, PES, QUAD_ADDR_W
from model.compiler.weights import EXTRA_PES
from model.network.contract import Pair

SEGMENTS = 3
BANKS = 8


# ---------------------------------------------------------------------------------------- conv unit


def pe_sources(mode: int) -> list[tuple[int, int]]:
    """(quad, tap) that each of the 25 PEs of an array takes in a conv mode; tap 0 is the newest
    column."""
    sources = [(pe % 8, pe // 8 if mode else 0) for pe in range(24)] + [(0, 0)]
    if mode == 2:
        for k, pe in enumerate(EXTRA_PES):
            sources[pe] = (k % 5, 3 + k // 5)
    return sources


def window_activations(
    pixels: np.ndarray, col_mask: np.ndarray, row_mask: np.ndarray, mode: int, signed: bool
) -> np.ndarray:
    """Activations of every PE, one position a pixel: int64 [T, 4, 25].

    pixels: uint8 [T, 8, 4], one a cycle, pixel t the newest of position t (older ones than the
    first count as 0). col_mask: bit per tap, row_mask: bit per quad, int [T]; 0 blanks the tap or
    quad. signed: bytes are two's complement.
    """
    pixels = pixels.view(np.int8) if signed else pixels
    padded = np.concatenate([np.zeros((4, 8, 4), np.int64), pixels.astype(np.int64)])
    count = len(pixels)
    act = np.zeros((count, ARRAYS, PES), np.int64)
    for pe, (quad, tap) in enumerate(pe_sources(mode)):
        keep = (np.asarray(col_mask) >> tap & 1) * (np.asarray(row_mask) >> quad & 1)
        act[:, :, pe] = padded[4 - tap : 4 - tap + count, quad] * keep[:, None]
    return act


def gated_sums(act: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sums of an array's gated activations: int64 [..., 3 segments, 3 planes] (index bit 0, bit 1,
    both).

    act, index: [..., 25]; PE 24 counts to segment 0.
    """
    gates = np.stack([index & 1, index >> 1 & 1, (index == 3).astype(index.dtype)], axis=-1).astype(
        np.int64
    )
    terms = gates * np.asarray(act)[..., None]
    sums = terms[..., :24, :].reshape(*terms.shape[:-2], SEGMENTS, 8, 3).sum(axis=-2)
    sums[..., 0, :] += terms[..., 24, :]
    return sums


def module_products(
    act: np.ndarray, index: np.ndarray, codebook: Sequence[int] | np.ndarray, mode: int
) -> np.ndarray:
    """What a conv module adds to its partial sums: int64 [T, 3 lanes]; lanes 1 and 2 are 0 except
    in mode 0.

    act: [T, 4, 25]; index: [4, 25] or [T, 4, 25], values 0..3; codebook: four weights, the first 0.
    """
    terms = act * np.asarray(codebook, np.int64)[index]
    lanes = terms[..., :24].reshape(len(act), ARRAYS, SEGMENTS, 8).sum(axis=(1, 3))
    lanes[:, 0] += terms[..., 24].sum(axis=1)
    if mode:
        lanes[:, 0] = lanes.sum(axis=1)
        lanes[:, 1:] = 0
    return lanes


# --------------------------------------------------------------------------------------- sequencers


@dataclass(frozen=True)
class Position:
    """One output position of a pass: its tag, and the place of its window in the feature buffer.

    addresses: quad address of each tap, tap 0 (rightmost) first; None where the tap lies outside
    the columns of the feature map.
    """

    pixel: int
    first: bool
    col_mask: int
    row_mask: int
    addresses: tuple[int | None, ...]


def conv_schedule(plan: ConvPlan, source: Tensor) -> Iterator[tuple[int, list[Position]]]:
    """Passes of a layer in order: (tile number, [Position, ...]); the list of a pass without work
    is empty.

    plan: compiler ConvPlan; source: the input's compiler Tensor. Derived from the definition of the
    convolution alone: output pixel (y, x) takes input pixel (y * stride + kernel row - pad, x *
    stride + kernel column - pad).
    """
    tile = 0
    for _ in range(plan.output_groups):
        for y0, x0 in plan.tile_origins():
            seen: set[int] = set()
            for channel_group in range(plan.channel_groups):
                for kr in range(plan.kr_count):
                    for piece in range(plan.pieces):
                        yield (
                            tile,
                            list(
                                _positions(
                                    plan,
                                    source,
                                    (y0, x0),
                                    channel_group,
                                    kr * plan.kr_step,
                                    piece * plan.window,
                                    seen,
                                )
                            ),
                        )
            tile += 1


def _positions(
    plan: ConvPlan,
    source: Tensor,
    origin: Pair,
    channel_group: int,
    kernel_row: int,
    kernel_col: int,
    seen: set[int],
) -> Iterator[Position]:
    height, width = plan.in_shape[1:]
    rows, cols = plan.tile_size(*origin)
    offset = source.base + channel_group * plan.quads
    for y in range(rows):
        row = (origin[0] + y) * plan.stride[0] + kernel_row - plan.pad[0]
        if not (plan.vertical or 0 <= row < height):
            continue
        taps = [row + (v // 4 if plan.pair else v) for v in range(8)]  # of each quad, if vertical
        row_mask = (
            sum((0 <= r < height) << v for v, r in enumerate(taps)) if plan.vertical else 0xFF
        )
        for x in range(cols):
            left = (origin[1] + x) * plan.stride[1] + kernel_col - plan.pad[1]
            columns = [left + plan.window - 1 - tap for tap in range(plan.window)]
            addresses = tuple(
                (offset + row * source.row_stride + c * source.quads) % (1 << QUAD_ADDR_W)
                if 0 <= c < width
                else None
                for c in columns
            )
            pixel = y * cols + x
            col_mask = sum((a is not None) << tap for tap, a in enumerate(addresses))
            yield Position(pixel, pixel not in seen, col_mask, row_mask, addresses)
            seen.add(pixel)


@dataclass(frozen=True)
class DrainStep:
    """One step of the drain sequencer: NUM_MODULES results of a pixel."""

    tile: int
    lane: int
    pixel: int
    word: int  # output channel / NUM_MODULES
    address: int  # of the first quad
    mask: int  # quads that exist


def drain_schedule(plan: ConvPlan, target: Tensor) -> Iterator[DrainStep]:
    """DrainSteps of a layer in order; target: the output's compiler Tensor."""
    per_word = plan.num_modules // 4
    tile = 0
    for group in range(plan.output_groups):
        words = [
            w
            for w in range(group * plan.steps, (group + 1) * plan.steps)
            if w * per_word < target.quads
        ]
        for y0, x0 in plan.tile_origins():
            rows, cols = plan.tile_size(y0, x0)
            for y in range(rows):
                for x in range(cols):
                    for lane, word in enumerate(words):
                        quad = word * per_word
                        address = (
                            target.base
                            + (y0 + y) * target.row_stride
                            + (x0 + x) * target.quads
                            + quad
                        )
                        mask = sum((quad + k < target.quads) << k for k in range(per_word))
                        yield DrainStep(
                            tile, lane, y * cols + x, word, address % (1 << QUAD_ADDR_W), mask
                        )
            tile += 1


# ------------------------------------------------------------------------------------------- memory


class WeightBuffer:
    """FIFO of `depth` words that keeps the words read until `commit`; `rewind` goes back to the
    last commit."""

    def __init__(self, depth: int) -> None:
        self.depth, self.at = depth, 0
        self.words: list[int] = []

    @property
    def full(self) -> bool:
        """Whether no word fits."""
        return len(self.words) == self.depth

    @property
    def level(self) -> int:
        """Words not yet read."""
        return len(self.words) - self.at

    def push(self, word: int) -> None:
        """Append a word. Raises OverflowError if the buffer is full."""
        if self.full:
            raise OverflowError("the buffer is full")
        self.words.append(word)

    def read(self) -> int:
        """The next word."""
        word = self.words[self.at]
        self.at += 1
        return word

    def rewind(self) -> None:
        """Read again from the last commit on."""
        self.at = 0

    def commit(self) -> None:
        """Free all words that have been read."""
        self.words, self.at = self.words[self.at :], 0


class FeatureBuffer:
    """Quads by address, as rtl/memory/feature_buffer.sv writes and reads them; quads are integers
    of 32 bits."""

    def __init__(self, bank_words: int) -> None:
        self.quads = np.zeros(BANKS * bank_words, np.int64)

    def write(self, address: int, mask: int, quads: Sequence[int], base: int, end: int) -> bool:
        """Store quads[v] at address + v where mask bit v is set; returns whether one lies outside
        [base, end) and is not written."""
        left_out = False
        for v in range(BANKS):
            if mask >> v & 1:
                if base <= address < end and address + v < end:
                    self.quads[address + v] = quads[v]
                else:
                    left_out = True
        return left_out

    def addresses(self, address: int, vstep: int, pair: bool = False) -> np.ndarray:
        """Addresses of the eight quads of a read, int64 [8]; pair: of two rows, four quads each."""
        entry = np.arange(BANKS)
        return address + entry + BANKS * vstep * (entry // 4 if pair else entry)


def tensor_beats(
    quads: Sequence[int] | np.ndarray, base: int, row_stride: int, row_quads: int, height: int
) -> list[tuple[int, bool, bool]]:
    """Result beats of a tensor: [(data of 64 bits, half, last), ...]. quads: feature buffer's
    content by address."""
    stored = [
        int(quads[base + y * row_stride + i]) for y in range(height) for i in range(row_quads)
    ]
    count = -(-len(stored) // 2)
    beats = []
    for i in range(count):
        pair = stored[2 * i : 2 * i + 2]
        data = pair[0] | (pair[1] << 32 if len(pair) == 2 else 0)
        beats.append((data, len(pair) == 1, i == count - 1))
    return beats
