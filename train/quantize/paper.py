"""The mode of the 2022 paper: Q3.5 weights and activations, no batch norm, mult = 1, shift = 5.

W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022: CLIP-Q with B = 2 and P = 20 %, codebook
and activations with 3 integer and 5 fraction bits. Other positions of the binary point are a
parameter; the shift is the number of fraction bits.

The start is a full-precision network with its batch norm folded into weights and biases. Unless
told otherwise it is rebalanced, which leaves its function as it is, because ReLU and pooling
commute with positive factors: the channels of neighbouring layers get weights of equal size (M.
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019),
and each layer gets the factor with which its 8-bit outputs come nearest to the full-precision ones.
Biases are corrected as in the same publication. Then CLIP-Q trains it.
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from train.net import CALIBRATION, Conv, Net
from train.quantize.baselines import FixedGain
from train.quantize.clipq import Setting
from train.quantize.segments import root_mean_square

ROUNDS = 20  # of equalization over all neighbouring layers
FACTORS = [2 ** (k / 2) for k in range(-3, 4)]  # tried around the one that just fills the range


@torch.no_grad()
def fold_batch_norm(net: Net) -> None:
    """Fold batch norm of the full-precision `net` into weights and biases, in place."""
    for _, block in net.blocks():
        bn = block.bn
        factor = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        bias = bn.bias.double() - bn.running_mean.double() * factor
        block.conv.weight.copy_(block.conv.weight.double() * factor.view(-1, 1, 1, 1))
        block.set_norm("bias")
        block.bn.to(bias.device).bias.copy_(bias)


def neighbours(net: Net) -> list[tuple[Conv, Conv]]:
    """Pairs of convolutions of which the second alone reads the first, past ReLU and pooling
    only."""
    specs, blocks, found = [node.spec for node in net.nodes.values()], dict(net.blocks()), []
    for name, block in blocks.items():
        at = name
        while True:
            readers = [spec for spec in specs if at in spec["inputs"]]
            if len(readers) != 1 or readers[0]["op"] == "add":
                break
            at = readers[0]["name"]
            if at in blocks:
                if blocks[at].spec["channels"][0] == block.spec["channels"][1]:
                    found.append((block, blocks[at]))
                break
    return found


@torch.no_grad()
def equalize(net: Net, rounds: int = ROUNDS) -> None:
    """Give each channel between two layers about the same norm in the weights that make it and in
    those that read it, in place. net: with its batch norm folded."""
    for _ in range(rounds):
        for first, second in neighbours(net):
            made = first.conv.weight.double().square().sum((1, 2, 3))
            read = second.conv.weight.double().square().sum((0, 2, 3))
            factor = torch.where((made > 0) & (read > 0), (read / made) ** 0.25, 1.0)
            first.conv.weight.copy_(first.conv.weight.double() * factor.view(-1, 1, 1, 1))
            first.bn.bias.copy_(first.bn.bias.double() * factor)
            second.conv.weight.copy_(second.conv.weight.double() / factor.view(1, -1, 1, 1))


@torch.no_grad()
def start(net: Net, x: torch.Tensor, clip: float, fraction_bits: int, rebalance: bool) -> None:
    """Turn the full-precision `net` into one of the paper's mode, in place; x: input integers
    [N, C, H, W] to choose the layers' factors on.

    Biases are corrected so that the mean of each channel is what it was before its weights and
    inputs were rounded.
    """
    fold_batch_norm(net)
    if rebalance:
        equalize(net)
    net.eval()
    reference = copy.deepcopy(net)
    wanted = reference.walk(
        x / net.spec["input"]["unit"], lambda name, node, *inputs: node(*inputs)
    )
    setting = Setting(clip, fraction_bits=fraction_bits)
    integers = {"input": x}
    for name, node in net.nodes.items():
        inputs = [integers[one] for one in node.spec["inputs"]]
        node.mode = "fake"
        if isinstance(node, Conv):
            steps = net.steps_of(node.spec["inputs"][0])
            target = _sums(reference.nodes[name], wanted, x / net.spec["input"]["unit"])
            _place(node, setting, inputs[0], target, steps, rebalance)
        elif node.spec["op"] == "add":
            node.calibrating = True
            node(*inputs)
            node.calibrating = False
        integers[name] = node.integers(*inputs).float()
    net.mode = "fake"


def _sums(node, values, x):
    """What a convolution of the full-precision network gives before ReLU."""
    source = node.spec["inputs"][0]
    return node.bn(node.sums(x if source == "input" else values[source], node.conv.weight))


def _place(node, setting, inputs, target, steps, rebalance) -> None:
    """Choose the gain of a layer. steps: integers per unit of its input; target: its sums in full
    precision."""
    node.set_norm("fixed")
    node.bn.to(inputs.device)
    quantizer = FixedGain(setting, 1.0)
    segments = quantizer.segments(node.conv.weight)  # they do not depend on the gain
    unit = 2.0**setting.fraction_bits
    real = steps / unit  # fixed-point value per unit of the full-precision activation
    factors = _factors(target, node, unit) if rebalance else [1.0]
    best = min(factors, key=lambda f: _fit(node, setting, segments, inputs, target, f, real))
    _fit(node, setting, segments, inputs, target, best, real)


def _factors(target, node, unit):
    """Factors to try: around the one that brings all but one output in ten thousand into the 8-bit
    range."""
    magnitude = (target.abs() if node.spec["signed"] else target.relu()).flatten()
    top = magnitude.kthvalue(max(1, int(len(magnitude) * CALIBRATION))).values.item()
    return [f * node.limits[1] / unit / top for f in FACTORS] if top > 0 else [1.0]


def _fit(node, setting, segments, inputs, target, factor, real_in) -> float:
    """Set the layer's gain and bias so that its outputs are about `factor` times the full-precision
    `target`; real_in: the factor of its inputs. Returns the squared error in the target's units.

    A layer whose codebook would be all zero gets weights of one fixed-point step instead.
    """
    unit, weights, (index, means) = 2.0**setting.fraction_bits, node.conv.weight, segments
    quantizer = FixedGain(setting, root_mean_square(weights) * factor / real_in)
    if not quantizer.codebook(means).any():
        quantizer = replace(quantizer, rms=1 / unit)
    rounded = (quantizer.codebook(means) / unit).to(weights.dtype)[index]
    real = ((rounded * weights).sum() / weights.square().sum()).item() * real_in
    if real <= 0:
        return float("inf")
    node.quantizer = quantizer
    node.steps.fill_(real * unit)
    # y = sums / unit + bias * steps, in integers: a factor that is a power of two in the file.
    node.bn.weight.copy_((1 / (unit * node.steps)).expand_as(node.bn.weight))
    sums = F.conv2d(inputs, rounded, None, node.conv.stride, node.conv.padding) / unit
    node.bn.bias.copy_((target - sums / real).mean((0, 2, 3)))
    low, high = (v / unit for v in node.limits)
    outputs = (sums + real * node.bn.bias.view(-1, 1, 1)).clamp(low, high)
    expected = target if node.spec["signed"] else target.relu()
    return (outputs / real - expected).square().sum().item()
