"""Functional coverage of the environment: the layers of every image that the scoreboard found
equal, in the project's common coverage."""

from __future__ import annotations

from pyuvm import ConfigDB, uvm_subscriber

from tb.lib import coverage, layer_coverage
from tb.lib.cover_groups import GROUPS
from tb.uvm.config import KEY
from tb.uvm.items import ExpectedImage

ALL_KINDS = frozenset(
    f"{group}.{point}" for group in ("layer_op", "layer_mapping") for point in GROUPS[group]
)


class LayerCoverage(uvm_subscriber):
    """Samples each compared image; points of the goal (`group.point`) that this test did not hit
    fail it."""

    def build_phase(self):
        super().build_phase()
        self.goal = ConfigDB().get(self, "", KEY).coverage_goal
        self.before = coverage.hits()

    def write(self, tt: ExpectedImage):
        layer_coverage.sample(tt.compiled, tt.tensors)

    def missing(self) -> list[str]:
        """Points of the goal that were not hit since the test began."""
        return sorted(self.goal - set(coverage.hits() - self.before))

    def check_phase(self):
        super().check_phase()
        hit = coverage.hits() - self.before
        self.logger.info(
            "%d coverage points hit, %d of %d of the goal",
            len(hit),
            len(self.goal & set(hit)),
            len(self.goal),
        )
        assert not self.missing(), "coverage holes: " + ", ".join(self.missing())
