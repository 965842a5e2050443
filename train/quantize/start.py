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
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.common.errors import UserError
from model.interchange.codebook import PEAK, best_codebook
from train.net import Add, Conv, Net, Node
from train.quantize import Binary, ClipQ, FixedGain, FixedPoint, Quantizer, Segments, Ternary
from train.quantize.clipq import root_mean_square
from train.recipe import Quantization

ROWS = 100_000  # input patches that a layer is fitted on
CHUNK = 100  # images at a time
STEP = 10_000  # rows at a time
EQUALIZATIONS = 20  # over all neighbouring layers
FACTORS = [2 ** (k / 2) for k in range(-3, 4)]  # tried around the one that just fills the range


def halves(weights: Tensor) -> Tensor:
    """Float16 weights whose largest magnitude is 1: the smallest normal float16 is 6e-5."""
    peak = weights.abs().max()
    return (weights / torch.where(peak > 0, peak, 1.0)).half()


def outputs(node: Node, *inputs: Tensor) -> Tensor:
    """What a layer in evaluation mode makes of inputs [N, C, H, W] each: float16, or in a quantized
    network (u)int8."""
    kind = torch.int8 if node.spec["signed"] else torch.uint8
    kind = torch.half if node.mode == "float" else kind
    parts = zip(*(x.split(CHUNK) for x in inputs))
    return torch.cat([node(*(x.float() for x in part)).to(kind) for part in parts])


def patches(x: Tensor, conv: torch.nn.Conv2d) -> Tensor:
    """About ROWS of the windows that a convolution sees in x [N, C, H, W]: [S, K] of x's type; the
    same places for the same shapes."""
    rng, taken, pads = torch.Generator().manual_seed(0), [], cast(tuple[int, int], conv.padding)
    for part in x.split(CHUNK):
        windows = F.pad(part, (pads[1], pads[1], pads[0], pads[0]))
        for dim in (0, 1):
            windows = windows.unfold(2 + dim, conv.kernel_size[dim], conv.stride[dim])
        height, width = windows.shape[2:4]
        at = torch.randperm(height * width, generator=rng)[: -(-ROWS // len(x))]
        chosen = windows[:, :, at // width, at % width].transpose(1, 2)
        taken.append(chosen.reshape(len(part) * len(at), -1))
    return torch.cat(taken)


def applied(rows: Tensor, weight: Tensor) -> Tensor:
    """Sums float32 [S, O] of a weight [O, I, Kh, Kw]."""
    return torch.cat([part.float() @ weight.flatten(1).T for part in rows.split(STEP)])


def moments(rows: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """float64 (covariance [K, K] of rows [S, K], [O, K] of wanted [S, O] with them)."""
    means = [sum(part.double().sum(0) for part in x.split(STEP)) / len(x) for x in (rows, wanted)]
    covariance = crossed = torch.zeros((), dtype=torch.float64)
    for part, sums in zip(rows.split(STEP), wanted.split(STEP)):
        a, b = ((x - mean).float() for x, mean in zip((part, sums), means))
        covariance, crossed = covariance + (a.T @ a).double(), crossed + (b.T @ a).double()
    return covariance / len(rows), crossed / len(rows)


@dataclass(frozen=True)
class Layer:
    """A convolution to quantize. old: that of the full-precision network; rows: [S, K] of its
    input integers, `per_unit` of which are one; wanted: the full-precision sums, [S, O]."""

    block: Conv
    old: Conv
    rows: Tensor
    wanted: Tensor
    per_unit: float

    def fit(self, affine: bool) -> Tensor:
        """Give the block the weights and the codebook whose sums come nearest to the wanted ones.
        Returns the full-precision sums per sum of integers, [O]."""
        weight, block = self.old.conv.weight.flatten(1) / self.per_unit, self.block
        covariance, crossed = (x.numpy() for x in moments(self.rows, self.wanted))
        given = weight.double().numpy()
        mask = np.ones(given.shape, bool)
        fit = best_codebook(given, covariance, crossed, mask, block.raw, affine)
        affine = affine and fit.codebook[1] * fit.codebook[2] < 0
        levels = torch.from_numpy(np.sort(fit.codebook)).double() / PEAK
        if not (levels.diff() > 0).all():
            raise UserError("its weights have fewer than four values of both signs")
        chosen = torch.from_numpy(fit.codebook[fit.index]).view_as(block.conv.weight) / PEAK
        shadow = halves(chosen).float()  # before anything is measured: as a checkpoint's
        edges = (levels[1:] + levels[:-1]) / 2 / chosen.abs().max() / root_mean_square(shadow)
        zero = int((levels == 0).nonzero())
        block.quantizer = Segments(tuple(edges.tolist()), zero, bool(affine))
        block.conv.weight.copy_(shadow)
        top = block.quantizer.integers(shadow).abs().max()
        return torch.from_numpy(fit.scale) * (PEAK * chosen.abs().max() / top)

    def keep(self, quantizer: Quantizer) -> Tensor:
        """Give the block the full-precision weights and a quantizer. Returns as `fit` does."""
        weight = self.old.conv.weight
        self.block.quantizer = quantizer
        self.block.conv.weight.copy_(weight)
        integers = quantizer.integers(weight)
        unit = (integers * weight).sum() / integers.square().sum() / self.per_unit
        return unit.expand(len(weight))

    def adopt(self, unit: Tensor) -> None:
        """Give the block, whose weights are new, batch norm and activation scale. unit: the
        full-precision sums per sum of integers, [O]."""
        block, bn = self.block, self.old.bn
        sums = applied(self.rows, block.quantizer.integers(block.conv.weight))
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
        norm = block.bn.eval()
        block.choose_steps(norm(sums[:, :, None, None]))

    def start_paper(self, how: Quantization) -> None:
        """Choose gain and bias of a layer whose batch norm is folded. The bias makes the mean of
        each channel what it was before weights and inputs were rounded. A layer whose codebook
        would be all zero gets weights of one fixed-point step instead."""
        block, weight, unit = self.block, self.old.conv.weight, 2.0**how.fraction_bits
        target, real_in = self.wanted + self.old.bn.bias, self.per_unit / unit
        expected = target if block.spec["signed"] else target.relu()
        low, high = (v / unit for v in block.limits)
        top, best = block.top(target), float("inf")
        block.set_norm("fixed")
        block.conv.weight.copy_(weight)
        for factor in [f * high / top for f in FACTORS] if how.rebalance and top > 0 else [1.0]:
            gain = root_mean_square(weight) * factor / real_in
            quantizer = FixedGain(how.clip, how.fraction_bits, gain)
            if not quantizer.integers(weight).any():
                quantizer = replace(quantizer, rms=1 / unit)
            rounded = quantizer.integers(weight) / unit
            real = ((rounded * weight).sum() / weight.square().sum()).item() * real_in
            if real <= 0:
                continue
            sums = applied(self.rows, rounded) / unit
            bias = (target - sums / real).mean(0)
            error = ((sums + real * bias).clamp(low, high) / real - expected).square().sum().item()
            if error < best:
                best, block.quantizer = error, quantizer
                block.steps.fill_(real * unit)
                # y = sums / unit + bias * steps: a factor that is a power of two in the file.
                block.bn.weight.copy_((1 / (unit * block.steps)).expand_as(bias))
                block.bn.bias.copy_(bias)
        if best == float("inf"):
            raise UserError("its weights are zero")


def make_scales_positive(block: Conv) -> None:
    """Give channels of negative batch-norm scale negated weights instead: the file's mult is
    positive."""
    sign = torch.where(block.bn.weight < 0, -1.0, 1.0)
    block.bn.weight *= sign
    block.bn.running_mean *= sign
    block.conv.weight *= sign[:, None, None, None]


def fold_batch_norm(block: Conv) -> None:
    """Fold it into weights and bias of a full-precision convolution."""
    bn = block.bn
    factor = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.double() - bn.running_mean.double() * factor
    block.conv.weight.copy_(block.conv.weight.double() * factor.view(-1, 1, 1, 1))
    block.set_norm("bias")
    block.bn.bias.copy_(bias)


def neighbours(net: Net) -> list[tuple[Conv, Conv]]:
    """Pairs of convolutions of which the second alone reads the first, past ReLU and pooling
    only."""
    blocks, found = dict(net.blocks()), []
    for block_name, block in blocks.items():
        name = block_name
        while True:
            readers = [n for n, node in net.nodes.items() if name in node.spec["inputs"]]
            if len(readers) != 1 or net.nodes[readers[0]].spec["op"] == "add":
                break
            name = readers[0]
            if name in blocks:
                if blocks[name].spec["channels"][0] == block.spec["channels"][1]:
                    found.append((block, blocks[name]))
                break
    return found


def equalize(net: Net) -> None:
    """Give each channel between two layers about the same norm in the weights that make it and in
    those that read it. net: with its batch norm folded."""
    for _ in range(EQUALIZATIONS):
        for first, second in neighbours(net):
            made = first.conv.weight.double().square().sum((1, 2, 3))
            read = second.conv.weight.double().square().sum((0, 2, 3))
            factor = torch.where((made > 0) & (read > 0), (read / made) ** 0.25, 1.0)
            first.conv.weight.copy_(first.conv.weight.double() * factor.view(-1, 1, 1, 1))
            first.bn.bias.copy_(first.bn.bias.double() * factor)
            second.conv.weight.copy_(second.conv.weight.double() / factor.view(1, -1, 1, 1))


@torch.no_grad()
def quantize(
    net: Net, x: Tensor, how: Quantization, report: Callable[[str], object] = lambda text: None
) -> None:
    """Turn the full-precision `net` (on the CPU) into a quantized one, in place.

    x: input integers -128..127, float32 [N, C, H, W], of training images. report: called with a
    line per layer. Raises UserError that names a layer that has no codebook.
    """
    torch.set_num_threads(1)  # the network must not depend on how sums are split over threads
    source = copy.deepcopy(net.eval())
    for _, block in source.blocks():
        make_scales_positive(block)
        if block.raw or how.method == "paper":
            fold_batch_norm(block)
    if how.method == "paper" and how.rebalance:
        equalize(source)
    values = {"input": (x.to(torch.int8), x / net.spec["input"]["unit"])}
    names = list(net.nodes)
    for number, (name, node) in enumerate(net.nodes.items()):
        old, node.mode = source.nodes[name], "fake"
        before = [values[one] for one in node.spec["inputs"]]
        units = [net.steps_of(one) for one in node.spec["inputs"]]
        if isinstance(node, Conv):
            last = name == net.blocks()[-1][0]
            try:
                _start(node, cast(Conv, old), *before[0], units[0], how, last)
            except UserError as error:
                raise UserError(f"layer {name}: {error}") from error
            report(f"{name}: {node.quantizer}")
        elif isinstance(node, Add):
            a, b = (integers[:: max(1, len(x) // 250)].float() for integers, _ in before)
            node.choose_ratio(a, b, (units[0], units[1]))
        if name != net.last:
            values[name] = (
                outputs(node, *(i for i, _ in before)),
                outputs(old, *(f for _, f in before)),
            )
        for one in list(values):
            if not any(one in net.nodes[k].spec["inputs"] for k in names[number + 1 :]):
                del values[one]
    net.mode = "fake"


def _start(
    block: Conv, old: Conv, x: Tensor, y: Tensor, per_unit: float, how: Quantization, last: bool
) -> None:
    wanted = applied(patches(y, old.conv), old.conv.weight)
    layer = Layer(block, old, patches(x, old.conv), wanted, per_unit)
    if how.method == "paper":
        layer.start_paper(how)
    elif how.method == "reconstruct":
        layer.adopt(layer.fit(how.affine and not last))
    else:
        kinds = {"clipq": ClipQ(how.clip), "ternary": Ternary(), "binary": Binary()}
        layer.adopt(layer.keep(kinds.get(how.method, FixedPoint(how.bits))))
