"""How packets flowed through a stream port, as measured by the harness's port_monitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flow:
    """Counts of one port: beats, cycles inside a packet without a beat offered (gaps) or taken
    (held), and the longest run of each."""

    beats: int
    gaps: int
    held: int
    longest_gap: int
    longest_held: int

    @classmethod
    def read(cls, signal: Any) -> Flow:
        """From a monitor_o port."""
        word = signal.value.to_unsigned()
        return cls(
            *(
                word >> low & (1 << bits) - 1
                for low, bits in ((0, 32), (32, 32), (64, 32), (96, 16), (112, 16))
            )
        )

    @property
    def sender(self) -> str:
        """Stall pattern (as in `measured_pattern`) of the sending side."""
        return measured_pattern(self.beats, self.gaps, self.longest_gap)

    @property
    def receiver(self) -> str:
        """Stall pattern of the receiving side."""
        return measured_pattern(self.beats, self.held, self.longest_held)


def measured_pattern(beats: int, pauses: int, longest: int, burst: int = 32) -> str:
    """The stall pattern of `beats` with `pauses` cycles between them, at most `longest` in a row.

    none: no pause; bursts: one of `burst` cycles or more; heavy: as many pauses as beats; else
    light.
    """
    if not pauses:
        return "none"
    if longest >= burst:
        return "bursts"
    return "heavy" if pauses >= beats else "light"
