"""Bytes of a network's parameters against 32-bit floats. `python -m host memory [NET...]`.

FP32 is a float per weight and, where all parameters are compared, a bias per channel (batch norm
folded, its leanest form). The quantized network has 2 bits per weight and 4 bytes of codebook per
layer; all its parameters add 4 bytes of bias, 2 of mult (15 bits) and 1 of shift (5 bits) per
channel. Entropy coding of the indices is a range coder whose frequency tables depend on the index
to the left and the one above in the kernel; what is counted is its real output, tables included,
after it has been decoded.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import constriction
import numpy as np

from model.common.command import Command
from model.common.errors import UserError, printable
from model.data.images import ZOO
from model.network import Network, load_network

CODEBOOK_BYTES = 4
CHANNEL_BYTES = 7
OUTSIDE = 4  # stands for a neighbour outside the kernel
CONTEXTS = (OUTSIDE + 1) ** 2
TABLE = np.dtype("<u2")  # frequencies of the four indices
TOTAL = 2**16 - 1


@dataclass(frozen=True)
class Memory:
    """Bytes. The fields below `bias_fp32` are sums over the layers."""

    weights_fp32: int
    bias_fp32: int
    indices: int  # two bits each, every layer padded to whole bytes
    codebooks: int
    channels: int  # bias, mult and shift
    range_coded: int  # indices, with their frequency tables
    zlib: int  # packed indices, for comparison
    lzma: int


def pack(index: np.ndarray) -> bytes:
    """Two bits an index, the first in the lowest bits."""
    flat = np.ravel(index).astype(np.uint8)
    fours = np.concatenate([flat, np.zeros(-len(flat) % 4, np.uint8)]).reshape(-1, 4)
    return (fours << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8).tobytes()


def contexts(index: np.ndarray, ky: int, kx: int) -> np.ndarray:
    """0..24 for one tap of every kernel: the indices left of it and above it, either 4 where there
    is none. [O, I]"""
    outside = np.full(index.shape[:2], OUTSIDE)
    left = index[:, :, ky, kx - 1] if kx else outside
    above = index[:, :, ky - 1, kx] if ky else outside
    return left.astype(np.int64) * (OUTSIDE + 1) + above


def _steps(index: np.ndarray) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """(ky, kx, context, mask [O, I]) in the order of coding; needs only what has been decoded
    before each step."""
    for ky, kx in np.ndindex(index.shape[2:]):
        where = contexts(index, ky, kx)
        for context in np.unique(where):
            yield ky, kx, context, where == context


def frequencies(counts: np.ndarray) -> np.ndarray:
    """uint16, counts [..., 4] scaled to about 65535 in the last axis; a value that occurs has at
    least 1."""
    totals = np.maximum(counts.sum(-1, keepdims=True), 1)
    return np.maximum(np.floor(counts * (TOTAL / totals)), counts > 0).astype(TABLE)


def _tables(index: np.ndarray) -> np.ndarray:
    counts = np.zeros((CONTEXTS, 4), np.int64)
    for ky, kx, context, mask in _steps(index):
        counts[context] += np.bincount(index[:, :, ky, kx][mask], minlength=4)
    return frequencies(counts)


def _stored(shape: tuple[int, ...]) -> slice:
    """The contexts whose tables are stored: a 1x1 kernel has one."""
    return slice(None) if np.prod(shape[2:]) > 1 else slice(CONTEXTS - 1, None)


def _model(table: np.ndarray) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(table / np.float64(table.sum()), perfect=False)


def encode(index: np.ndarray) -> bytes:
    """Frequency tables and range code of one layer's indices, uint8 [O, I, Kh, Kw], 0..3."""
    tables, encoder = _tables(index), constriction.stream.queue.RangeEncoder()
    for ky, kx, context, mask in _steps(index):
        if np.count_nonzero(tables[context]) > 1:  # a single value needs no code
            encoder.encode(index[:, :, ky, kx][mask].astype(np.int32), _model(tables[context]))
    return tables[_stored(index.shape)].tobytes() + encoder.get_compressed().astype("<u4").tobytes()


def decode(code: bytes, shape: tuple) -> np.ndarray:
    """uint8 indices of `shape` back from `encode`."""
    tables, index = np.zeros((CONTEXTS, 4), TABLE), np.zeros(shape, np.uint8)
    end = tables[_stored(shape)].nbytes
    tables[_stored(shape)] = np.frombuffer(code[:end], TABLE).reshape(-1, 4)
    decoder = constriction.stream.queue.RangeDecoder(
        np.frombuffer(code[end:], "<u4").astype(np.uint32)
    )
    for ky, kx, context, mask in _steps(index):
        table, count = tables[context], int(mask.sum())
        single = np.count_nonzero(table) == 1
        index[:, :, ky, kx][mask] = (
            np.argmax(table) if single else decoder.decode(_model(table), count)
        )
    return index


def coded_size(index: np.ndarray) -> int:
    """Bytes of `encode`; raises RuntimeError unless it decodes to the same indices."""
    code = encode(index)
    if not np.array_equal(decode(code, index.shape), index):
        raise RuntimeError("the range coder does not give back what it was given")
    return len(code)


def measure(network: Network) -> Memory:
    """The sizes of a network's convolutions."""
    convs = [layer for layer in network.layers if layer.op == "conv"]
    indices = [layer.index for layer in convs]
    weights = sum(index.size for index in indices)
    packed = [pack(index) for index in indices]
    channels = sum(len(index) for index in indices)
    return Memory(
        weights_fp32=4 * weights,
        bias_fp32=4 * channels,
        indices=sum(map(len, packed)),
        codebooks=CODEBOOK_BYTES * len(convs),
        channels=CHANNEL_BYTES * channels,
        range_coded=sum(map(coded_size, indices)),
        zlib=sum(len(zlib.compress(p, 9)) for p in packed),
        lzma=sum(
            len(lzma.compress(p, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]))
            for p in packed
        ),
    )


def rows(m: Memory) -> list[tuple[str, int, float]]:
    """(what, bytes, FP32 bytes over it)."""
    everything = m.weights_fp32 + m.bias_fp32
    sizes = [
        ("FP32 weights", m.weights_fp32, m.weights_fp32),
        ("FP32 weights and biases", everything, everything),
        ("indices, codebooks", m.indices + m.codebooks, m.weights_fp32),
        ("indices, codebooks, bias, mult, shift", m.indices + m.codebooks + m.channels, everything),
        (
            "the same against FP32 weights alone",
            m.indices + m.codebooks + m.channels,
            m.weights_fp32,
        ),
        ("range-coded indices, codebooks", m.range_coded + m.codebooks, m.weights_fp32),
        (
            "range-coded indices, all parameters",
            m.range_coded + m.codebooks + m.channels,
            everything,
        ),
        ("indices through zlib -9, codebooks", m.zlib + m.codebooks, m.weights_fp32),
        ("indices through LZMA, codebooks", m.lzma + m.codebooks, m.weights_fp32),
    ]
    return [(what, size, against / size) for what, size, against in sizes]


@click.command(cls=Command)
@click.argument("nets", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(nets: tuple[Path, ...]) -> None:
    """Memory of the network files NETS (default: all in model/zoo)."""
    for path in nets or sorted(ZOO.glob("*.clipq.npz")):
        network = load_network(path)
        if not any(layer.op == "conv" for layer in network.layers):
            raise UserError(f"{printable(path)}: there is no convolution, so there are no weights")
        click.echo(f"{path}")
        for what, size, ratio in rows(measure(network)):
            click.echo(f"  {what:40} {size:>12,} bytes {ratio:8.2f}x")
