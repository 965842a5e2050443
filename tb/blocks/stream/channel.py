"""Drivers for a plain valid/ready channel: handles of valid, ready and data, one word each, sampled
on the rising edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cocotb.triggers import RisingEdge


async def send(
    clock, valid, ready, drive: Callable[[Any], None], words: Iterable, stall: Iterator[bool]
) -> None:
    """Send every word, pausing before one as long as `stall` says. `drive(word)` puts a word on the
    data signals.

    Between words valid is low and the data keep their last value. Returns right after the handshake
    of the last word.
    """
    valid.value = 0
    for word in words:
        while next(stall):
            await RisingEdge(clock)
        drive(word)
        valid.value = 1
        await RisingEdge(clock)
        while ready.value != 1:
            await RisingEdge(clock)
        valid.value = 0


async def receive(
    clock, valid, ready, read: Callable[[], int], count: int, stall: Iterator[bool]
) -> list[int]:
    """Take `count` words, holding ready low as `stall` says; returns them as `read()` gives them.

    Fails if valid falls, or the data change, before ready was high.
    """
    words: list[int] = []
    waiting: int | None = None
    while len(words) < count:
        ready.value = int(not next(stall))
        await RisingEdge(clock)
        if valid.value != 1:
            assert waiting is None, f"valid fell before word {len(words)} was taken"
            continue
        word = read()
        assert waiting in (None, word), (
            f"word {len(words)} changed from {waiting:#x} to {word:#x} while waiting"
        )
        taken = ready.value == 1
        waiting = None if taken else word
        if taken:
            words.append(word)
    ready.value = 0
    return words
