"""Which layers a descriptor computes: one, or a convolution and the sum that its results are added
to before they are written. The one map between the layers of a network and its program."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from model.network.layer import Layer
from model.network.network import Network


@dataclass(frozen=True)
class Entry:
    """One descriptor's layers. layer: what its unit computes. add: the sum that is fused into the
    write-back of a convolution, None without one."""

    layer: Layer
    add: Layer | None = None

    @property
    def output(self) -> Layer:
        """The layer whose tensor is written."""
        return self.add or self.layer

    @property
    def name(self) -> str:
        """Names of the layers."""
        return " + ".join(layer.name for layer in (self.layer, self.add) if layer)

    @property
    def other(self) -> str | None:
        """Name of the second tensor of a fused sum."""
        if self.add is None:
            return None
        return next(name for name in self.add.inputs if name != self.layer.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all tensors that are read."""
        return self.layer.inputs + ((self.other,) if self.other else ())

    def factors(self) -> tuple[int, int]:
        """Multipliers of a fused sum: of the convolution's results, of the second tensor."""
        assert self.add is not None
        mult = dict(zip(self.add.inputs, self.add.mult))
        return mult[self.layer.name], mult[str(self.other)]


def entries(net: Network, fuse: bool = True) -> list[Entry]:
    """The descriptors of a network, in their order; fuse: with sums in the write-back of the larger
    convolution that they and nothing else read, which is computed in the place of the sum."""
    readers = Counter(name for layer in net.layers for name in layer.inputs)
    alone = {x.name: x for x in net.layers if x.op == "conv" and readers[x.name] == 1}
    fused = {}
    for layer in net.layers:
        convs = [alone[name] for name in layer.inputs if name in alone]
        if fuse and layer.op == "add" and convs:
            fused[layer.name] = max(convs, key=lambda conv: conv.macs)
    moved = {conv.name for conv in fused.values()}
    return [
        Entry(fused[layer.name], layer) if layer.name in fused else Entry(layer)
        for layer in net.layers
        if layer.name not in moved
    ]
