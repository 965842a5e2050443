"""Places every tensor in the feature buffer for as long as a later layer reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from model.compiler.errors import CompileError
from model.network.contract import Shape


@dataclass(frozen=True)
class Tensor:
    """A tensor's place: quad q of pixel (y, x) is at base + y * row_stride + x * quads + q."""

    shape: Shape
    signed: bool
    row_stride: int  # quads
    base: int = 0  # quad address, once it is placed

    @property
    def quads(self) -> int:
        """Quads (four channels) per pixel."""
        return -(-self.shape[0] // 4)

    @property
    def row_quads(self) -> int:
        """Quads of a row, without its padding."""
        return self.shape[2] * self.quads

    @property
    def size(self) -> int:
        """Quads from the first to the last, row padding included."""
        return (self.shape[1] - 1) * self.row_stride + self.row_quads


MOST_SKEWED = 16  # channels of a tensor whose rows can be read together


def skewed_stride(width: int, quads: int) -> int:
    """Row stride that puts the same column of successive rows into different banks: of eight rows
    of one quad (1 modulo 8), or of two rows of up to four quads (4 modulo 8). width: quads of a
    row."""
    return width + ((1 if quads == 1 else 4) - width) % 8


def skewed_names(wanted: Iterable[str], pairs: Sequence[tuple[str, ...]]) -> set[str]:
    """Names of tensors with skewed rows: the wanted ones, and those that have one row stride with
    any of them. pairs: of names that have, as both inputs of a sum."""
    names = set(wanted)
    while more := {name for pair in pairs if names & set(pair) for name in pair} - names:
        names |= more
    return names


def layout(shape: Shape, signed: bool, skewed: bool) -> Tensor:
    """Tensor without a place yet; skewed: rows padded so that vertical taps can be read at once (at
    most MOST_SKEWED channels)."""
    quads = -(-shape[0] // 4)
    row = shape[2] * quads
    return Tensor(shape, signed, skewed_stride(row, quads) if skewed else row)


def place(
    tensors: Mapping[str, Tensor], last_use: Mapping[str, int], capacity: int
) -> dict[str, Tensor]:
    """Bases for tensors {name: Tensor} in order of creation.

    last_use: {name: index of the last layer that reads it}, layers counted from 0, the input
    created before layer 0. Raises CompileError, which names the layer, where they do not fit.
    """
    try:
        return _place_in_turns(tensors, last_use, capacity)
    except CompileError:
        if placed := _place_by_size(tensors, last_use, capacity):
            return placed
        raise


def _place_in_turns(
    tensors: Mapping[str, Tensor], last_use: Mapping[str, int], capacity: int
) -> dict[str, Tensor]:
    """A new tensor goes to the end of the buffer away from the one made before, so that two tensors
    that fill it together always fit: the best for a chain of layers."""
    placed: dict[str, Tensor] = {}
    live: dict[str, Tensor] = {}
    at_bottom = True
    for index, (name, tensor) in enumerate(tensors.items(), start=-1):
        live = {other: placed[other] for other in live if last_use.get(other, -1) >= index}
        base = _find(
            sorted((t.base, t.base + t.size) for t in live.values()),
            tensor.size,
            capacity,
            at_bottom,
        )
        if base is None:
            held = sum(t.size for t in live.values())
            raise CompileError(
                f"layer {name!r}: its output needs {4 * tensor.size:,} bytes of feature buffer "
                f"beside {4 * held:,} bytes of tensors "
                f"still needed; the buffer holds {4 * capacity:,}"
            )
        placed[name] = live[name] = Tensor(tensor.shape, tensor.signed, tensor.row_stride, base)
        at_bottom = not at_bottom
    return placed


def _place_by_size(
    tensors: Mapping[str, Tensor], last_use: Mapping[str, int], capacity: int
) -> dict[str, Tensor] | None:
    """The largest tensor first, each as low as those allow that are needed at the same time: the
    best where tensors are kept for later layers. None if they do not fit."""
    spans = {
        name: range(made, max(made, last_use.get(name, made)) + 1)
        for made, name in enumerate(tensors, start=-1)
    }
    placed: dict[str, Tensor] = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].size):
        beside = [
            (other.base, other.base + other.size)
            for other_name, other in placed.items()
            if spans[name].start < spans[other_name].stop
            and spans[other_name].start < spans[name].stop
        ]
        base = _find(_merged(beside), tensor.size, capacity, True)
        if base is None:
            return None
        placed[name] = Tensor(tensor.shape, tensor.signed, tensor.row_stride, base)
    return {name: placed[name] for name in tensors}


def _merged(regions: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same regions in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(regions):
        if merged and start <= merged[-1][1]:
            start, end = merged[-1][0], max(end, merged[-1][1])
            merged.pop()
        merged.append((start, end))
    return merged


def _find(
    taken: Sequence[tuple[int, int]], size: int, capacity: int, at_bottom: bool
) -> int | None:
    """Base of a free region, the lowest or the highest one; None if there is none."""
    edges = [0] + [edge for region in taken for edge in region] + [capacity]
    bases = []
    for start, end in zip(edges[::2], edges[1::2]):
        if start + size <= end:
            bases += [start, end - size]
    return (bases[0] if at_bottom else bases[-1]) if bases else None
