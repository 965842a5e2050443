"""Vectors of integers as packed ports, one row a cycle, and a bench that plays them and records the
answers."""

import numpy as np
from cocotb.triggers import RisingEdge


def pack_rows(values, width):
    """Integers [T, ...] -> T packed words, elements of `width` bits, the first in the lowest
    bits."""
    values = np.asarray(values, np.int64)
    bits = (values.reshape(len(values), -1, 1) >> np.arange(width) & 1).astype(np.uint8)
    rows = np.packbits(bits.reshape(len(values), -1), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def unpack_rows(words, count, width, signed=False):
    """Packed words [T] -> int64 [T, count]."""
    size = -(-count * width // 8)
    raw = np.frombuffer(b"".join(w.to_bytes(size, "little") for w in words), np.uint8).reshape(
        len(words), size
    )
    bits = (
        np.unpackbits(raw, axis=1, bitorder="little")[:, : count * width]
        .reshape(len(words), count, width)
        .astype(np.int64)
    )
    values = (bits << np.arange(width)).sum(axis=-1)
    return values - (bits[..., -1] << width) if signed else values


async def play(dut, inputs, outputs):
    """Drive {port: [word of each cycle]} and return {port: [word of each cycle]} of `outputs`, None
    where a bit is X.

    Word t of an output is what it holds at the end of cycle t, in which word t of the inputs is
    applied. Call it after a rising edge.
    """
    count = max(len(words) for words in inputs.values())
    handles = [(getattr(dut, port), words) for port, words in inputs.items()]
    record = {port: [] for port in outputs}
    for t in range(count):
        for handle, words in handles:
            if t < len(words):
                handle.value = words[t]
        await RisingEdge(dut.clk_i)
        for port, words in record.items():
            value = getattr(dut, port).value
            words.append(int(str(value), 2) if value.is_resolvable else None)
    return record


def pixel_stream(rng, count, kind="random"):
    """uint8 [count, 8 quads, 4 channels]: random, or extreme values only (as 8-bit patterns of 255,
    0, -128 or 127)."""
    if kind == "random":
        return rng.integers(0, 256, (count, 8, 4)).astype(np.uint8)
    if kind == "extreme":
        return rng.choice(np.array([0, 127, 128, 255], np.uint8), (count, 8, 4))
    return np.full((count, 8, 4), {"all 255": 255, "all -128": 128}[kind], np.uint8)


PIXEL_KINDS = ("random", "extreme", "all 255", "all -128")


def array_inputs(act):
    """Activations int64 [..., 25] as the ports of an array carry them (pe.sv, pe_pair.sv):
    {port: (int64 [..., n], width in bits)}."""
    x, y = act[..., 0:24:2], act[..., 1:24:2]
    return {"single_i": (act[..., 24:], 8), "x_i": (x, 9), "y_i": (y, 9), "xy_i": (x + y, 9)}


def sum_offset(signed):
    """What an array adds to the sums of its three segments beside activations."""
    return np.array([4 * 256 + 128, 4 * 256, 4 * 256]) * int(signed)


def skew(values, delay):
    """Rows [T, ...] delayed by `delay` cycles, zeros before."""
    out = np.zeros_like(values)
    out[delay:] = values[: len(values) - delay]
    return out
