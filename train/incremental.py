"""Incremental quantization: weights take their codebook values in rounds, and those still free are trained to make up for it.

A. Zhou, A. Yao, Y. Guo, L. Xu, Y. Chen, "Incremental Network Quantization: Towards Lossless CNNs with Low-Precision Weights", ICLR 2017.
The gradient is that of the network itself, nowhere a straight-through one, so nothing jumps to and fro between two values. Ours on top:
- the codebook and the first round come from `train.reconstruct`, layer by layer on the second moments of the layer's inputs;
- in each round a random choice of the free weights is held (the paper holds the largest ones), and coordinate descent finds the values of all
  held and all free weights at which the layer's sums stay nearest to what they were;
- activations have 8 bits from the first round on.
"""

import copy
from dataclasses import dataclass, replace

import torch

from train import clipq
from train.nin import INPUT_UNIT, NIN, POOL_AFTER
from train.reconstruct import (adopt, descend, fit_layer, make_scales_positive, moments, nearest, outputs, relative_error, statistics,
                               target_weights)
from train.segments import Segments

PICTURES = 1000  # that a round measures the layers' inputs on
SWEEPS = 4  # of coordinate descent in a round
ROOM = 1.5  # how far free weights may go, in multiples of the codebook's extremes


@dataclass(frozen=True, eq=False)
class Held:
    """Quantizer of a layer some of whose weights are held; the others are free and count as they are.

    index: int64 of the weights' shape, of the codebook entry that a weight is held at, -1 where it is free. codebook: int64 [4], entry 0 zero, the others ascending.
    """

    index: torch.Tensor
    codebook: torch.Tensor

    @property
    def free(self) -> torch.Tensor:
        """1.0 where a weight is free, else 0.0; float32 of the weights' shape."""
        return (self.index < 0).float()

    @property
    def values(self) -> torch.Tensor:
        """The codebook in ascending order, float32 [4]."""
        return self.codebook.float().sort().values

    @property
    def segments(self) -> Segments:
        """The quantizer of the finished layer, whose weights are codebook entries."""
        values = self.values
        rms = self.codebook.double()[self.index].square().mean().sqrt()
        return Segments(tuple(((values[1:] + values[:-1]).double() / 2 / rms).tolist()), int((values == 0).nonzero()[0]))

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4]). Raises ValueError while weights are free."""
        if (self.index < 0).any():
            raise ValueError(f"incremental: {int((self.index < 0).sum())} weights are still free")
        return self.index, self.codebook

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """Codebook entries where weights are held, else the weights; floats of their type."""
        return torch.where(self.index < 0, weights, self.codebook.to(weights.dtype)[self.index])

    def to(self, device) -> "Held":
        """The same on another device."""
        return Held(self.index.to(device), self.codebook.to(device))

    def confine(self, weights: torch.Tensor) -> None:
        """Keep free weights, in place, near the range of the codebook, which must replace them in the end."""
        weights.clamp_(ROOM * float(self.codebook.min()), ROOM * float(self.codebook.max()))


def share(net: NIN) -> float:
    """How much of the weights of `net` is held, 0..1; 0 for a network without held weights, too."""
    quantizers = [block.quantizer for _, block in net.blocks()]
    if not all(isinstance(q, Held) for q in quantizers):
        return 0.0
    return 1 - float(sum(q.free.sum() for q in quantizers)) / sum(q.index.numel() for q in quantizers)


def state(net: NIN) -> dict | None:
    """{name of a layer: {index, codebook}} for a checkpoint; None if nothing is held."""
    if not isinstance(net.conv9.quantizer, Held):
        return None
    return {name: {"index": b.quantizer.index.to(torch.int8), "codebook": b.quantizer.codebook} for name, b in net.blocks()}


def load_state(net: NIN, saved: dict) -> None:
    """Give `net` the quantizers of `state`."""
    for name, block in net.blocks():
        block.quantizer = Held(saved[name]["index"].long(), saved[name]["codebook"]).to(block.conv.weight.device)


def finished(net: NIN) -> NIN:
    """Copy of a network whose weights are all held, for the shipped checkpoint: weights are codebook entries, quantizers `Segments`."""
    twin = copy.deepcopy(net)
    for _, block in twin.blocks():
        block.conv.weight.data = block.quantizer.integers(block.conv.weight.data)
        block.quantizer = block.quantizer.segments
    return twin


def _chosen(shape, held: float, layer: int, seed: int) -> torch.Tensor:
    """Which weights are held when the share is `held`: a random choice that grows with it."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1000 * seed + layer)) < held


def _hold(block, target, covariance, chosen, rng) -> None:
    """Hold `chosen` [O, K] at the codebook values, in the units of the codebook, and let the free weights make up for it."""
    values = block.quantizer.values
    start = block.quantizer.integers(block.conv.weight).flatten(1)
    weights = descend(target, covariance, start, torch.ones(len(target)), values, SWEEPS, rng, chosen, ROOM)
    file_order = torch.tensor([block.quantizer.codebook.tolist().index(int(v)) for v in values])
    index = torch.where(chosen, file_order[nearest(weights, values)], -1)
    block.quantizer = replace(block.quantizer, index=index.view_as(block.conv.weight))
    block.conv.weight.copy_(weights.view_as(block.conv.weight))


def _codebook(target, covariance) -> tuple[torch.Tensor, torch.Tensor]:
    """(codebook int64 [4] for the whole layer, scale [O] of the original sums per sum of integers)."""
    fit = fit_layer(target, covariance)
    ascending = clipq.scaled(fit.values)
    codebook = torch.cat([ascending[fit.zero : fit.zero + 1], ascending[: fit.zero], ascending[fit.zero + 1 :]])
    return codebook, fit.scale * float(fit.values.abs().max() / ascending.abs().max())


@torch.no_grad()
def hold(net: NIN, x: torch.Tensor, held: float, seed: int = 0, report=lambda text: None) -> None:
    """Let the share `held` of each layer's weights take codebook values, in place; outputs stay as nearly as can be what they were.

    net: in full precision, which chooses the codebooks, or one that this function has been called with before, with a smaller share.
    x: input integers -128..127, float32 [N, 3, H, W], of training pictures, on the network's device; the work is done on the CPU.
    report: called with a line per layer.
    """
    device = x.device
    net.cpu()
    x, before = x.cpu(), copy.deepcopy(net).eval()
    for _, block in [*net.blocks(), *before.blocks()]:
        if isinstance(block.quantizer, Held):
            block.quantizer = block.quantizer.to("cpu")
    first = net.mode == "float"
    original, integers = (x / INPUT_UNIT if first else x), x
    unit = INPUT_UNIT if first else 1.0  # input integers per unit of the original network's input
    for number, (name, block) in enumerate(net.blocks()):
        if first:
            make_scales_positive(getattr(before, name))
            make_scales_positive(block)
        source = getattr(before, name)
        weight = source.conv.weight if first else source.quantizer.integers(source.conv.weight)
        covariance, crossed = moments(integers, original, weight, block.last, unit)
        target, covariance = target_weights(weight, covariance, crossed)
        scale = torch.ones(len(target))
        if first:
            codebook, scale = _codebook(target, covariance)
            target = target / scale[:, None]
            block.quantizer = Held(torch.full(weight.shape, -1), codebook)
            block.conv.weight.copy_(target.view_as(weight))
            block.quantizer.confine(block.conv.weight)
        rng = torch.Generator().manual_seed(number)
        _hold(block, target, covariance, _chosen(target.shape, held, number, seed), rng)
        adopt(block, scale / unit, integers, source, statistics(original, weight).mean)
        integers = outputs(block, integers, block.quantizer.integers(block.conv.weight), name in POOL_AFTER)
        original = outputs(source, original, weight, name in POOL_AFTER)
        unit = float(block.steps) if first else float(block.steps / source.steps)
        error = relative_error(target, covariance, block.conv.weight.flatten(1))
        report(f"{name}: {100 * held:.1f} % held, error of the sums {error:.5f}, codebook {block.quantizer.codebook.tolist()}")
    net.mode = "fake"
    net.to(device)
    for _, block in net.blocks():
        block.quantizer = block.quantizer.to(device)
