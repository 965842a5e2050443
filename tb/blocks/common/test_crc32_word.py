"""crc32_word against zlib."""

from __future__ import annotations

import zlib

import cocotb
import numpy as np
from cocotb.triggers import Timer


@cocotb.test()
async def matches_zlib(dut):
    """Messages of 1 to 40 words, random ones, all zeros and all ones."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    messages = [rng.bytes(8 * int(rng.integers(1, 41))) for _ in range(40)] + [
        bytes(64),
        b"\xff" * 64,
    ]
    for message in messages:
        crc = 0xFFFFFFFF
        for word in np.frombuffer(message, "<u8"):
            dut.crc_i.value, dut.data_i.value = crc, int(word)
            await Timer(1, unit="ns")
            crc = dut.crc_o.value.to_unsigned()
        assert crc ^ 0xFFFFFFFF == zlib.crc32(message), f"message {message.hex()}"
