"""Watches a valid/ready channel: what is taken, and that an offer stays until it is."""

from __future__ import annotations

from collections.abc import Sequence

from cocotb.triggers import FallingEdge, First, RisingEdge, ValueChange

from tb.lib.signals import is_high


class ProtocolError(AssertionError):
    """A channel broke the rules of its handshake; the message names the valid signal."""


async def transfer(clock, valid, ready, payload: Sequence) -> tuple[int, ...]:
    """The payload of the next transfer; returns at its rising edge, before anything has changed.

    It sleeps while nothing can happen, so that the simulator runs at full speed. Raises
    ProtocolError if an offer is withdrawn or changed before it is taken, ValueError for an X.
    """
    offered = None
    while True:
        if not is_high(valid):
            if offered is not None:
                raise ProtocolError(f"{valid._name} fell before its offer was taken")
            await RisingEdge(valid)
        await RisingEdge(clock)
        if not is_high(valid):
            continue
        values = tuple(int(signal.value) for signal in payload)
        if offered not in (None, values):
            raise ProtocolError(f"the offer of {valid._name} changed before it was taken")
        if is_high(ready):
            return values
        offered = values
        changes = (ValueChange(signal) for signal in payload)
        await First(RisingEdge(ready), FallingEdge(valid), *changes)
