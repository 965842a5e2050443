"""How a full-precision network becomes a quantized one, layer by layer and without training.

The inputs of a layer are those of the layers already quantized, its target are the sums of the
full-precision network, so later layers correct earlier ones. Batch norm keeps the function: it gets
the statistics of the integer sums. CLIP-Q training goes on from there. The methods:
- reconstruct: indices that make up for each other's errors (`model.interchange.codebook`);
- clipq, fixed, ternary, binary: a quantizer's own start from the full-precision weights;
- paper: W. Cheng, I.-C. Lin, Y.-Y. Shih, 2022: CLIP-Q, codebook and activations in fixed point, no
  batch norm, mult = 1, shift = the fraction bits. Batch norm is folded into weights and biases.
  Unless told otherwise the network is rebalanced, which leaves its function as it is: channels
  between two layers get weights of equal size (M. Nagel et al., ICCV 2019), and each layer the
  factor with which its 8-bit outputs come nearest to the full-precision ones.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.common.errors import UserError
from model.interchange import exact
from model.interchange.codebook import PEAK, best_codebook
from train.net import Add, Conv, Net, Node
from train.quantize.codebooks import (
    ClipQ,
    FixedPoint,
    Quantizer,
    Segments,
    Signs,
    halves,
    root_mean_square,
)
from train.recipe import Quantization

ROWS = 100_000  # input patches that a layer is fitted on
CHUNK = 100  # images at a time
STEP = 10_000  # rows at a time
EQUALIZATIONS = 20  # over all neighbouring layers
FACTORS = [2 ** (k / 2) for k in range(-3, 4)]  # tried around the one that just fills the range
TERNARY = 0.7


def outputs(node: Node, *inputs: Tensor) -> Tensor:
    """What a layer in evaluation mode makes of inputs [N, C, H, W] each: float16, or in a quantized
    network (u)int8."""
    kind = torch.int8 if node.spec["signed"] else torch.uint8
    kind = torch.half if node.mode == "float" else kind
    parts = zip(*(x.split(CHUNK) for x in inputs))
    return torch.cat([node(*(x.float() for x in part)).to(kind) for part in parts])


def patches(x: Tensor, conv: Conv) -> Tensor:
    """About ROWS of the windows that a convolution sees in x [N, C, H, W]: [S, K] of x's type; the
    same places for the same shapes."""
    rng, taken, (vertical, horizontal) = torch.Generator().manual_seed(0), [], conv.spec["pad"]
    for part in x.split(CHUNK):
        windows = F.pad(part, (horizontal, horizontal, vertical, vertical))
        for dim in (2, 3):
            windows = windows.unfold(dim, conv.weight.shape[dim], conv.spec["stride"][dim - 2])
        height, width = windows.shape[2:4]
        at = torch.randperm(height * width, generator=rng)[: -(-ROWS // len(x))]
        chosen = windows[:, :, at // width, at % width].transpose(1, 2)
        taken.append(chosen.reshape(len(part) * len(at), -1))
    return torch.cat(taken)


def applied(rows: Tensor, weight: Tensor) -> Tensor:
    """Sums float32 [S, O] of a weight [O, I, Kh, Kw]."""
    return torch.cat([part.float() @ weight.flatten(1).T for part in rows.split(STEP)])


@dataclass(frozen=True)
class Layer:
    """A convolution to quantize. old: that of the full-precision network; rows: [S, K] of its
    input integers, `per_unit` of which are one; wanted: the full-precision sums, [S, O]."""

    block: Conv
    old: Conv
    rows: Tensor
    wanted: Tensor
    per_unit: float

    def start(self, how: Quantization, last: bool) -> None:
        """By any method but "paper"."""
        if how.method == "reconstruct":
            unit = self._fit(how.affine and not last)
        else:
            kinds: dict[str, Quantizer] = {
                "clipq": ClipQ(how.clip),
                "ternary": Signs(TERNARY),
                "binary": Signs(0),
            }
            self.block.quantizer = kinds.get(how.method, FixedPoint(how.bits))
            weight = self.old.weight
            self.block.weight.copy_(weight)
            integers = self.block.integers()
            slope = (integers * weight).sum() / integers.square().sum() / self.per_unit
            unit = slope.expand(len(weight))
        self._adopt(unit)

    def _fit(self, affine: bool) -> Tensor:
        """Give the block the weights and the codebook whose sums come nearest to the wanted ones.
        Returns the full-precision sums per sum of integers, [O]."""
        block, given = self.block, self.old.weight.flatten(1).double().numpy() / self.per_unit
        rows, wanted = self.rows.numpy(), self.wanted.double().numpy()
        _, _, covariance, crossed = exact.joint_moments(rows, wanted)
        mask = np.ones(given.shape, bool)
        fit = best_codebook(given, covariance, crossed, mask, block.raw, affine)
        levels = torch.from_numpy(np.sort(fit.codebook)).double() / PEAK
        if not (levels.diff() > 0).all():
            raise UserError("its weights have fewer than four values of both signs")
        chosen = torch.from_numpy(fit.codebook[fit.index]).view_as(block.weight) / PEAK
        block.weight.copy_(halves(chosen))  # before anything is measured: as a checkpoint's
        size = chosen.abs().max() * root_mean_square(block.weight)
        edges = ((levels[1:] + levels[:-1]) / 2 / size).tolist()
        affine = affine and fit.codebook[1] * fit.codebook[2] < 0
        block.quantizer = Segments(tuple(edges), int((levels == 0).nonzero()), bool(affine))
        top = block.integers().abs().max()
        return torch.from_numpy(fit.scale) * (PEAK * chosen.abs().max() / top)

    def _adopt(self, unit: Tensor) -> None:
        """Give the block, whose weights are new, batch norm and activation scale. unit: the
        full-precision sums per sum of integers, [O]."""
        block, bn = self.block, self.old.bn
        sums = applied(self.rows, block.integers())
        variance, mean = torch.var_mean(sums.double(), 0, correction=0)
        gain = bn.weight / (bn.running_var + bn.eps).sqrt()
        bias = bn.bias + gain * (self.wanted.double().mean(0) - bn.running_mean)
        if block.raw:  # all channels have one scale
            block.set_norm("fixed")
            block.steps.copy_(1 / unit[0])
            block.bn.weight.copy_(unit.float())
            block.bn.bias.copy_(bias - unit * mean)
            return
        block.set_norm("batch")
        block.bn.running_mean.copy_(mean)
        block.bn.running_var.copy_(variance)
        block.bn.weight.copy_(gain * unit * (block.bn.running_var + block.bn.eps).sqrt())
        block.bn.bias.copy_(bias)
        block.choose_steps(block.bn.eval()(sums[:, :, None, None]))

    def start_paper(self, how: Quantization) -> None:
        """Choose gain and bias of a layer whose batch norm is folded. The bias makes the mean of
        each channel what it was before weights and inputs were rounded. A layer whose codebook
        would be all zero gets weights of one fixed-point step instead."""
        block, weight, unit = self.block, self.old.weight, 2.0**how.fraction_bits
        target, real_in = self.wanted + self.old.bn.bias, self.per_unit / unit
        expected = target if block.spec["signed"] else target.relu()
        low, high = (v / unit for v in block.limits)
        top, best = block.top(target), float("inf")
        if not weight.any():
            raise UserError("its weights are zero")
        block.set_norm("fixed")
        block.weight.copy_(weight)
        for factor in [f * high / top for f in FACTORS] if how.rebalance and top > 0 else [1.0]:
            gain = root_mean_square(weight) * factor / real_in
            quantizer = ClipQ(how.clip, how.fraction_bits, gain)
            if not quantizer.integers(weight).any():
                quantizer = replace(quantizer, rms=1 / unit)
            rounded = quantizer.integers(weight) / unit
            real = ((rounded * weight).sum() / weight.square().sum()).item() * real_in
            sums = applied(self.rows, rounded) / unit
            bias = (target - sums / real).mean(0)
            error = ((sums + real * bias).clamp(low, high) / real - expected).square().sum().item()
            if error < best:
                best, block.quantizer = error, quantizer
                block.steps.fill_(real * unit)
                # y = sums / unit + bias * steps: a factor that is a power of two in the file.
                block.bn.weight.copy_((1 / (unit * block.steps)).expand_as(bias))
                block.bn.bias.copy_(bias)


def fold_batch_norm(block: Conv) -> None:
    """Fold it into weights and bias of a full-precision convolution."""
    bn = block.bn
    factor = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.double() - bn.running_mean.double() * factor
    block.weight.copy_(block.weight.double() * factor.view(-1, 1, 1, 1))
    block.set_norm("bias")
    block.bn.bias.copy_(bias)


def neighbours(net: Net) -> list[tuple[Conv, Conv]]:
    """Pairs of convolutions of which the second alone reads the first, past ReLU and pooling
    only."""
    readers = Counter(one for node in net.nodes.values() for one in node.spec["inputs"])
    made: dict[str, Conv | None] = {}  # the convolution whose channels an output has
    found = []
    for name, node in net.nodes.items():
        source = node.spec["inputs"][0]
        first = made.get(source) if readers[source] == 1 else None
        if isinstance(node, Conv) and first:
            found.append((first, node))
        made[name] = node if isinstance(node, Conv) else None if isinstance(node, Add) else first
    return found


def equalize(net: Net) -> None:
    """Give each channel between two layers about the same norm in the weights that make it and in
    those that read it. net: with its batch norm folded."""
    for _ in range(EQUALIZATIONS):
        for first, second in neighbours(net):
            made = first.weight.double().square().sum((1, 2, 3))
            read = second.weight.double().square().sum((0, 2, 3))
            factor = torch.where((made > 0) & (read > 0), (read / made) ** 0.25, 1.0)
            first.weight.copy_(first.weight.double() * factor.view(-1, 1, 1, 1))
            first.bn.bias.copy_(first.bn.bias.double() * factor)
            second.weight.copy_(second.weight.double() / factor.view(1, -1, 1, 1))


@torch.no_grad()
def quantize(
    net: Net, x: Tensor, how: Quantization, report: Callable[[str], object] = lambda text: None
) -> None:
    """Turn the full-precision `net` (on the CPU) into a quantized one, in place.

    x: input integers -128..127, float32 [N, C, H, W], of training images. report: called with a
    line per layer. Raises UserError that names a layer that has no codebook.
    """
    torch.set_num_threads(1)  # the network must not depend on how sums are split over threads
    source, last = copy.deepcopy(net), net.blocks()[-1][1]
    for _, block in source.blocks():
        if block.raw or how.method == "paper":
            fold_batch_norm(block)
    if how.method == "paper" and how.rebalance:
        equalize(source)
    values = {"input": (x.to(torch.int8), x / net.spec["input"]["unit"])}
    last_use = {one: name for name, node in net.nodes.items() for one in node.spec["inputs"]}
    for name, node in net.nodes.items():
        old, names = source.nodes[name], node.spec["inputs"]
        node.mode = "fake"
        integers, floats = zip(*(values[one] for one in names))
        units = [net.steps_of(one) for one in names]
        if isinstance(node, Conv):
            rows, wanted = patches(integers[0], node), patches(floats[0], node)
            layer = Layer(node, old, rows, applied(wanted, old.weight), units[0])
            try:
                layer.start_paper(how) if how.method == "paper" else layer.start(how, node is last)
            except UserError as error:
                raise UserError(f"layer {name}: {error}") from error
            report(f"{name}: {node.quantizer}")
        elif isinstance(node, Add):
            a, b = (one[:: max(1, len(x) // 250)].float() for one in integers)
            node.choose_ratio(a, b, (units[0], units[1]))
        if name != net.last:
            values[name] = outputs(node, *integers), outputs(old, *floats)
        for one in set(names):
            if last_use[one] == name:
                del values[one]
    net.mode = "fake"
