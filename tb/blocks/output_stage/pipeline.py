"""Drives a fixed-latency pipeline without back-pressure and checks every cycle of its output."""

from __future__ import annotations

from collections import deque

from cocotb.triggers import RisingEdge


class Pipeline:
    """Holds the results expected `latency` cycles after their inputs; `step` is one clock cycle.

    read() returns what the outputs hold, to be compared with what `step` was told to expect.
    valid_o is compared in every cycle, so that a result that comes early, late, twice or never is
    an error.
    """

    def __init__(self, clk, valid, latency: int, read):
        self.clk, self.valid, self.read = clk, valid, read
        self.pending = deque([None] * latency)
        self.checked = 0

    async def step(self, expected=None) -> None:
        """One cycle; `expected`: the result of what the inputs hold now, None if they are not
        valid."""
        await RisingEdge(self.clk)
        due = self.pending.popleft()
        assert self.valid.value == (due is not None), (
            f"valid_o is {self.valid.value} after {self.checked} results"
        )
        if due is not None:
            got = self.read()
            assert got == due, f"result {self.checked}: got {got}, expected {due}"
            self.checked += 1
        self.pending.append(expected)

    async def drain(self) -> None:
        """Cycles until nothing is in flight; the inputs must not be valid."""
        for _ in range(len(self.pending)):
            await self.step()
