"""Functional coverage: kinds of layers, by how the compiler maps them, against the sign of their inputs."""
from __future__ import annotations

from collections import Counter

from pyuvm import ConfigDB, uvm_subscriber

from model.compiler import Compiled
from tb.uvm.config import KEY

KINDS = ("conv 1 wide", "conv 3 wide", "conv 5 wide", "conv in pieces", "conv vertical taps", "conv several tiles", "maxpool", "avgpool", "int32")
SIGNS = ("signed", "unsigned")
ALL_CELLS = frozenset((kind, sign) for kind in KINDS for sign in SIGNS)


def cells_of(compiled: Compiled) -> list[tuple[str, str]]:
    """The cells that a network hits."""
    cells = []
    for layer in compiled.net.layers:
        kinds = [layer.op] if layer.op != "conv" else _conv_kinds(compiled.plans[layer.name])
        if layer.out == "int32":
            kinds.append("int32")
        cells += [(kind, SIGNS[0] if layer.in_signed else SIGNS[1]) for kind in kinds]
    return cells


def _conv_kinds(plan) -> list[str]:
    kinds = [f"conv {plan.window} wide"]
    if plan.pieces > 1:
        kinds.append("conv in pieces")
    if plan.vertical:
        kinds.append("conv vertical taps")
    if plan.tiles > 1:
        kinds.append("conv several tiles")
    return kinds


class LayerCoverage(uvm_subscriber):
    """Counts the cells of every network that was loaded; cells of the goal that stayed empty fail the test."""

    def build_phase(self):
        super().build_phase()
        self.goal = ConfigDB().get(self, "", KEY).coverage_goal
        self.hits: Counter = Counter()

    def write(self, tt: Compiled):
        self.hits.update(cells_of(tt))

    def missing(self) -> list[tuple[str, str]]:
        """Cells of the goal that were not hit."""
        return sorted(self.goal - set(self.hits))

    def grid(self) -> str:
        """The hits as a table."""
        lines = [f"{'':20}" + "".join(f"{sign:>10}" for sign in SIGNS)]
        return "\n".join(lines + [f"{kind:20}" + "".join(f"{self.hits[kind, sign]:10}" for sign in SIGNS) for kind in KINDS])

    def check_phase(self):
        super().check_phase()
        self.logger.info("layers by kind and sign of the input:\n%s", self.grid())
        assert not self.missing(), "coverage holes: " + ", ".join(f"{kind} {sign}" for kind, sign in self.missing())
