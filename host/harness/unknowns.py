"""Watches ports for unknown (X) and floating (Z) values after reset. Only Icarus shows them: its
registers and memories start as X.

Control ports must be known in every cycle after a reset. Payload ports must be known while their
valid is high: an unwritten memory or pipeline register may be X while valid is low.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cocotb
from cocotb.handle import LogicArrayObject, LogicObject
from cocotb.triggers import FallingEdge

# Outputs of a block that others act upon in any cycle: those of one bit, except payload, which only
# a valid beside it makes count, and levels. By the project's naming, an output ends in _o, belongs
# to an AXI port, or is the register block's.
_BIT = re.compile(
    r"\w+_o|hwif_out_\w+"
    r"|m_axis\w*_tvalid|s_axis\w*_tready|s_axil_(?:(?:aw|w|ar)ready|[br]valid)"
)
_PAYLOAD = re.compile(r"tag_(?:load|first|buf)_o|beat_(?:half|last)_o|(?:acc_)?mask_o")
_BITS = re.compile(r"(?:.*_)?(?:level|room)_o")


class UnknownMonitor:
    """Counts the cycles in which all watched ports are known; the first other one fails the test.

    control: handles that must be known in every cycle after reset; payload: {valid: handles that
    must be known while it is 1}. Sampled at the falling edge of `clock`, half a cycle after the
    registers changed, while `reset_n` is 1.
    """

    def __init__(
        self, clock: Any, reset_n: Any, control: Sequence, payload: Mapping | None = None
    ) -> None:
        self.clock, self.reset_n = clock, reset_n
        self.control, self.payload = tuple(control), dict(payload or {})
        if not self.control and not self.payload:
            raise ValueError("no port to watch for unknown values")
        self.cycles = 0

    def start(self) -> UnknownMonitor:
        """Watch until the test ends; an exception in here fails it."""
        cocotb.start_soon(self._watch())
        return self

    async def _watch(self) -> None:
        while True:
            await FallingEdge(self.clock)
            if str(self.reset_n.value) == "1":
                self.check()
                self.cycles += 1

    def check(self) -> None:
        """Raises AssertionError naming the first watched port with an X or Z bit."""
        for handle in self._to_check():
            if not handle.value.is_resolvable:
                raise AssertionError(f"{handle._path} is {handle.value} after reset")

    def _to_check(self) -> Iterator:
        yield from self.control
        for valid, handles in self.payload.items():
            yield valid
            if str(valid.value) == "1":
                yield from handles


def control_outputs(dut: Any) -> list:
    """The outputs of top level `dut` that must be known in every cycle, by their names."""
    return [handle for handle in dut if _is_control(handle)]


def _is_control(handle: Any) -> bool:
    if isinstance(handle, LogicObject):
        return bool(_BIT.fullmatch(handle._name)) and not _PAYLOAD.fullmatch(handle._name)
    return isinstance(handle, LogicArrayObject) and bool(_BITS.fullmatch(handle._name))


def watch_block(dut: Any) -> UnknownMonitor | None:
    """Watch the control outputs of a block on Icarus; None on Verilator, which knows no X, and for
    a block without any."""
    if "icarus" not in cocotb.SIM_NAME.lower() or not (control := control_outputs(dut)):
        return None
    return UnknownMonitor(dut.clk_i, dut.rst_ni, control).start()


def watch_accelerator(accel: Any) -> UnknownMonitor:
    """Watch every output of an instance of clipq_accel."""

    def port(*names: str) -> list:
        return [getattr(accel, name) for name in names]

    control = port(
        "irq_o",
        "s_axil_awready",
        "s_axil_wready",
        "s_axil_arready",
        "s_axis_prog_tready",
        "s_axis_image_tready",
    )
    payload = {
        accel.s_axil_bvalid: port("s_axil_bresp"),
        accel.s_axil_rvalid: port("s_axil_rdata", "s_axil_rresp"),
        accel.m_axis_result_tvalid: port(
            "m_axis_result_tdata", "m_axis_result_tkeep", "m_axis_result_tlast"
        ),
    }
    return UnknownMonitor(accel.clk_i, accel.rst_ni, control, payload).start()
