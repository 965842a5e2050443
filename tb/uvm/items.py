"""What travels between the components of the environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyuvm import uvm_sequence_item

from host.driver import IDEAL, Traffic
from host.register_map import Register
from model.compiler import Compiled
from model.compiler.program_format import MAGIC_PROGRAM, MAGIC_WEIGHTS, PACKET
from model.compiler.records import decode


class RegisterItem(uvm_sequence_item):
    """One access over AXI4-Lite. `value` is written, or filled in by a read; `response` is the AXI
    response (0 = OKAY)."""

    def __init__(
        self, register: int, value: int | None = None, write: bool = False, response: int = 0
    ):
        super().__init__("register_item")
        self.register, self.value, self.write, self.response = register, value, write, response

    def __str__(self):
        name = (
            Register(self.register).name
            if self.register in set(Register)
            else f"{self.register:#05x}"
        )
        return (
            f"{'write' if self.write else 'read'} {name} "
            f"{self.value if self.value is None else hex(self.value)} response {self.response}"
        )


class StreamItem(uvm_sequence_item):
    """One AXI-Stream packet: 64-bit words, and how the engine behaves while it sends them."""

    def __init__(self, words: np.ndarray, traffic: Traffic = IDEAL):
        super().__init__("stream_item")
        self.words, self.traffic = np.asarray(words, "<u8"), traffic

    @property
    def kind(self) -> str:
        """program, weights or image, by the first word."""
        magic = decode(PACKET, self.words)["magic"] if len(self.words) else 0
        return {MAGIC_PROGRAM: "program", MAGIC_WEIGHTS: "weights"}.get(magic, "image")


class StallItem(uvm_sequence_item):
    """From now on the receiver of the results pauses with a probability of stall / 256 in each
    cycle."""

    def __init__(self, stall: int):
        super().__init__("stall_item")
        self.stall = stall


@dataclass(frozen=True)
class ExpectedImage:
    """What the accelerator has to send for one image: {layer: int32 [1, C, H, W]} in the order of
    the program."""

    number: int
    compiled: Compiled
    tensors: dict


@dataclass(frozen=True)
class Control:
    """CTRL was written: a run begins, or a soft reset ends what there was."""

    started: bool
    aborted: bool


@dataclass(frozen=True)
class ResultPacket:
    """One packet of the result stream: uint64 words."""

    words: np.ndarray
