"""Alignment sweeps: one event is shifted over another through all offsets, so that each comes
before, with and after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from tb.lib import coverage


async def sweep(pair: str, offsets: Iterable[int], once: Callable[[int], Awaitable[int]]) -> None:
    """Call `once` for every offset, and check that the two events met.

    pair: a name in MEETINGS (tb/lib/cover_groups.py). once(offset): one trial that checks all that
    follows; it returns the cycles from the second event to the first, as they were at the pins
    (negative: the first came first). Raises AssertionError if one of the orders did not occur.
    """
    distances = [await once(offset) for offset in offsets]
    orders = {
        "before": any(distance < 0 for distance in distances),
        "with": 0 in distances,
        "after": any(distance > 0 for distance in distances),
    }
    missed = [order for order, seen in orders.items() if not seen]
    assert not missed, f"{pair}: never {', '.join(missed)}; distances {distances}"
    coverage.hit("meeting", *(f"{pair} {order}" for order in orders))
