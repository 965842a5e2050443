"""Configuration of the environment: one object, handed to every component through pyuvm's
ConfigDB."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cocotb.triggers import Lock
from pyuvm import uvm_active_passive_enum

from host.driver import Host, write_hex
from model.compiler import Compiled
from model.compiler.hardware import Hardware
from tb.uvm.generated.register_model import clipq_regs
from tb.uvm.register_access import register_model

ACTIVE, PASSIVE = uvm_active_passive_enum.UVM_ACTIVE, uvm_active_passive_enum.UVM_PASSIVE
KEY = "CONFIG"
ENGINE_FILES = {
    "prog": Path("prog.hex"),
    "image": Path("image.hex"),
}  # read by the harness's DMA engines


class EngineMemory:
    """Memory of the harness's two sending DMA engines; both are loaded by one strobe, hence the
    lock."""

    def __init__(self, host: Host):
        self._host, self._lock = host, Lock()
        self._words = {engine: np.zeros(0, "<u8") for engine in ENGINE_FILES}

    async def append(self, engine: str, words: np.ndarray) -> int:
        """Put words behind what is there; returns their address."""
        async with self._lock:
            base = len(self._words[engine])
            self._words[engine] = np.concatenate([self._words[engine], words])
            for name, path in ENGINE_FILES.items():
                if name == engine or not path.exists():
                    write_hex(path, self._words[name] if len(self._words[name]) else [0])
            await self._host.pulse("load_i")
            return base


@dataclass
class EnvConfig:
    """What a test decides about the environment.

    is_active: of all agents. networks: those that may be loaded, for the predictor. coverage_goal:
    points (`group.point`) that must have been hit at the end. registers: the register model, which
    the register scoreboard keeps up to date.
    """

    dut: object
    host: Host
    hardware: Hardware
    is_active: uvm_active_passive_enum = ACTIVE
    networks: list[Compiled] = field(default_factory=list)
    coverage_goal: frozenset = frozenset()
    memory: EngineMemory = None
    registers: clipq_regs = field(default_factory=register_model)

    def __post_init__(self):
        self.memory = EngineMemory(self.host)

    def network_of(self, program: np.ndarray) -> Compiled | None:
        """The network whose program packet this is."""
        return next((c for c in self.networks if np.array_equal(c.program, program)), None)
