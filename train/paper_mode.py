"""The mode of the 2022 paper: Q3.5 weights and activations, no batch norm, mult = 1, shift = 5.
`python -m train.paper_mode --help`.

W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022: CLIP-Q with B = 2 and P = 20 %, codebook
and activations with 3 integer and 5 fraction bits. Other positions of the binary point are a
parameter; the shift is the number of fraction bits.

The start is our full-precision network with its batch norm folded into weights and biases. Unless
told otherwise it is
rebalanced, which leaves its function as it is, because ReLU and max pooling commute with positive
factors: the channels of neighbouring layers get weights of equal size (M. Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019), and each layer gets the
factor with which its 8-bit outputs come nearest to the full-precision ones. Biases are corrected as
in the same publication. Then CLIP-Q trains it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from torch import nn

from model.common.command import Command
from model.common.errors import UserError
from model.common.files import check_output
from model.data.cifar import class_names
from model.network import Network, save_network
from model.reference.integer import run_integer
from train import clipq
from train.exact import ReplaceForward, exact_outputs
from train.export import to_network
from train.nin import CALIBRATION, INPUT_UNIT, LAST, LAYERS, NIN, POOL_AFTER, ConvBlock, to_input
from train.options import Real
from train.segments import root_mean_square
from train.trial import Trial, common_options, open_bench, short_phase

CLIP = 0.2
FRACTION_BITS = 5
ROUNDS = 20  # of equalization over all neighbouring layers
FACTORS = [
    2 ** (k / 2) for k in range(-3, 4)
]  # tried around the factor that just fills the range of the activations
CALIBRATION_PICTURES = 16


@dataclass(frozen=True)
class FixedGain:
    """CLIP-Q with a fixed-point codebook for shadow weights of any length: they are brought to the
    root mean square `rms` first.

    Without batch norm the size of the weights matters, but the optimizer (train.muon) keeps their
    direction only.
    """

    setting: clipq.Setting
    rms: float

    def segments(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, segment means float64 [4] of the weights at a root
        mean square of one)."""
        weights = weights.detach()
        index = clipq.partition(weights, self.setting)
        return index, clipq.segment_means(weights, index, 4) / root_mean_square(weights)

    def codebook(self, means: torch.Tensor) -> torch.Tensor:
        """int64 [4] in units of 2^-fraction_bits, from the means that `segments` gives."""
        return clipq.fixed_point(means * self.rms, self.setting.fraction_bits)

    def quantize(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(index int64 of the weights' shape, codebook int64 [4] in units of 2^-fraction_bits)."""
        index, means = self.segments(weights)
        return index, self.codebook(means)

    def integers(self, weights: torch.Tensor) -> torch.Tensor:
        """Codebook entries in place of the weights, as floats of their type."""
        index, codebook = self.quantize(weights)
        return codebook.to(weights.dtype)[index]


class Offset(nn.Module):
    """A bias per channel, in the output's real units, in the place where ConvBlock has batch norm;
    its statistics never change."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.eps = 0.1, 0.0


class PaperBlock(ConvBlock):
    """Convolution, bias and rounding to 8 bits; all numbers in fixed point."""

    def __init__(self, inputs: int, outputs: int, kernel: int, last: bool, setting: clipq.Setting):
        super().__init__(inputs, outputs, kernel, last)
        self.bn = Offset(outputs)
        self.setting = setting
        self.register_buffer("rms", torch.tensor(1.0, dtype=torch.float64))

    @property
    def quantizer(self) -> FixedGain:
        """CLIP-Q at this layer's size of weights."""
        return FixedGain(self.setting, self.rms.item())

    @quantizer.setter
    def quantizer(self, setting):
        self.setting = setting

    def frozen_scales(self) -> tuple[torch.Tensor, ...]:
        """(bias in units of 2^-2n, mult = 1, shift = n), int64 [O] each; n: fraction bits."""
        n = self.setting.fraction_bits
        bias = (self.bn.bias.detach().double() * 4.0**n).round().long()
        return bias, torch.ones_like(bias), torch.full_like(bias, n)

    def forward(self, x):
        weight = (
            self.conv.weight
            if self.ready
            else clipq.fake_quantize(self.conv.weight, self.quantizer)
        )
        if self.mode == "exact":
            scales = self.scales if self.ready else self.frozen_scales()
            rounded = exact_outputs(x, weight, self.conv.padding, scales, self.limits)
            if not self.training:
                return rounded.float()
        unit = 2.0**self.setting.fraction_bits
        soft = F.conv2d(x, weight, padding=self.conv.padding) / unit + (self.bn.bias * unit).view(
            -1, 1, 1
        )
        if self.mode != "exact":
            rounded = (soft.detach() + 0.5).floor().clamp(*self.limits)
        return ReplaceForward.apply(soft, rounded, *self.limits)


class PaperNIN(NIN):
    """The NIN without batch norm. Input, output and methods are those of NIN; there is no mode
    "float"."""

    def __init__(self, classes: int, setting: clipq.Setting):
        super().__init__(classes)
        for name, inputs, outputs, kernel in LAYERS:
            setattr(
                self, name, PaperBlock(inputs, outputs or classes, kernel, name == LAST, setting)
            )
        self.mode = "fake"


def fold_batch_norm(net: NIN) -> list[list[torch.Tensor]]:
    """[weights [O, I, Kh, Kw], bias [O]] in float64 of each layer of a full-precision NIN, without
    batch norm."""
    layers = []
    for _, block in net.blocks():
        bn = block.bn
        factor = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
        bias = bn.bias.detach().double() - bn.running_mean.double() * factor
        layers.append([block.conv.weight.detach().double() * factor.view(-1, 1, 1, 1), bias])
    return layers


def equalize(layers: list[list[torch.Tensor]], rounds: int = ROUNDS) -> None:
    """Give each channel between two layers about the same norm in the weights that make it and in
    those that read it, in place."""
    energy = [
        weights.square().sum((2, 3)) for weights, _ in layers
    ]  # squared norms of the kernels, [O, I]
    factors = [torch.ones_like(bias) for _, bias in layers]
    for _ in range(rounds):
        for i in range(len(layers) - 1):
            made, read = energy[i].sum(1), energy[i + 1].sum(0)
            squared = torch.where((made > 0) & (read > 0), (read / made).sqrt(), 1.0)
            energy[i] = energy[i] * squared[:, None]
            energy[i + 1] = energy[i + 1] / squared
            factors[i] *= squared.sqrt()
    for i, layer in enumerate(layers):
        layer[0] = layer[0] * factors[i].view(-1, 1, 1, 1)
        layer[1] = layer[1] * factors[i]
        if i:
            layer[0] = layer[0] / factors[i - 1].view(1, -1, 1, 1)


@torch.no_grad()
def place(
    net: PaperNIN, layers: list[list[torch.Tensor]], x: torch.Tensor, rebalance: bool
) -> None:
    """Write folded layers into `net`, each with the factor that suits its number format; x: input
    integers [N, 3, H, W].

    Biases are corrected so that the mean of each channel is what it was before its weights and
    inputs were rounded.
    """
    n = net.conv1.setting.fraction_bits
    inputs, reference = x, x / INPUT_UNIT
    real = INPUT_UNIT / 2.0**n  # fixed-point value per unit of the full-precision activation
    for (name, block), (weights, bias) in zip(net.blocks(), layers):
        block.conv.weight.copy_(weights)
        target = F.conv2d(reference, weights.float(), bias.float(), padding=block.conv.padding)
        factors = _factors(target, block) if rebalance else [1.0]
        segments = block.quantizer.segments(block.conv.weight)  # they do not depend on the factor
        best = min(factors, key=lambda f: _fit(block, segments, inputs, target, f, real)[0])
        _, real = _fit(block, segments, inputs, target, best, real)
        inputs, reference = (
            block.integer_forward(inputs).float(),
            target if block.last else target.relu(),
        )
        if name in POOL_AFTER:
            inputs, reference = F.max_pool2d(inputs, 2), F.max_pool2d(reference, 2)
    net.conv9.steps = torch.tensor(real * 2.0**n, device=x.device)


def _factors(target, block):
    """Factors to try: around the one that brings all but one output in ten thousand into the 8-bit
    range."""
    magnitude = (target.abs() if block.last else target.relu()).flatten()
    top = magnitude.kthvalue(max(1, int(len(magnitude) * CALIBRATION))).values.item()
    full = block.limits[1] / 2.0**block.setting.fraction_bits
    return [f * full / top for f in FACTORS] if top > 0 else [1.0]


def _fit(block, segments, inputs, target, factor, real_in):
    """Set the layer's gain and bias so that its outputs are about `factor` times the full-precision
    `target` (before ReLU).

    real_in: the factor of its inputs. Returns (squared error in the target's units, the factor that
    the rounded weights really have). A layer whose codebook would be all zero gets weights of one
    fixed-point step instead.
    """
    n, weights, (index, means) = block.setting.fraction_bits, block.conv.weight, segments
    block.rms.fill_(root_mean_square(weights) * factor / real_in)
    if not block.quantizer.codebook(means).any():
        block.rms.fill_(2.0**-n)
    rounded = (block.quantizer.codebook(means) * 2.0**-n).to(weights.dtype)[index]
    real = ((rounded * weights).sum() / weights.square().sum()).item() * real_in
    if real <= 0:
        return float("inf"), 1.0
    sums = F.conv2d(inputs, rounded, padding=block.conv.padding) * 2.0**-n
    block.bn.bias.copy_((target * real - sums).mean((0, 2, 3)))
    low, high = (v * 2.0**-n for v in block.limits)
    outputs = (sums + block.bn.bias.view(-1, 1, 1)).clamp(low, high)
    wanted = target if block.last else target.relu()
    return (outputs / real - wanted).square().sum().item(), real


@dataclass(frozen=True)
class PaperStart:
    """Start of a trial (train.trial). clip: P; by_sign: of each sign or of all magnitudes;
    fraction_bits: 1..7."""

    clip: float = CLIP
    by_sign: bool = True
    fraction_bits: int = FRACTION_BITS
    rebalance: bool = True

    def __post_init__(self):
        if not 1 <= self.fraction_bits <= 7:
            raise ValueError(
                f"the paper's mode: {self.fraction_bits} fraction bits are outside 1..7"
            )

    def __call__(self, net: NIN, x: torch.Tensor) -> PaperNIN:
        layers = fold_batch_norm(net)
        if self.rebalance:
            equalize(layers)
        setting = clipq.Setting(self.clip, 2, self.by_sign, self.fraction_bits)
        paper = PaperNIN(len(layers[-1][1]), setting).to(x.device)
        place(paper, layers, x[:CALIBRATION_PICTURES], self.rebalance)
        return paper


def paper_phases(epochs: int, size: int | None = None) -> tuple:
    """CLIP-Q at a third of the usual rate (nothing normalizes the layers), then one epoch of the
    integer arithmetic itself."""
    fake = short_phase(epochs, size, lr=0.01, bn_lr=0.01, warmup=0.1)
    return fake, replace(short_phase(1, size), name="exact", mode="exact", lr=0.002, bn_lr=0.002)


def to_paper_network(net: PaperNIN, dataset: str, classes: tuple = ()) -> Network:
    """The integer network, mult = 1 and the same shift in every channel. Raises ValueError or
    NetworkError that names the layer."""
    network = to_network(net, dataset, classes)
    return replace(network, name=f"{network.name}-paper")


def check_equal(net: PaperNIN, network: Network, x: torch.Tensor) -> None:
    """Raise UserError unless training and NumPy reference agree in every layer; x: input
    integers."""
    ours, reference = net.integer_forward(x), run_integer(network, x.long().numpy(), keep=True)
    for name, tensor in ours.items():
        if not (tensor.numpy() == reference[name]).all():
            raise UserError(f"layer {name}: the integer model differs from the training")


@click.command(cls=Command)
@common_options
@click.option(
    "--fraction-bits",
    type=click.IntRange(1, 7),
    default=FRACTION_BITS,
    show_default=True,
    help="5 is Q3.5.",
)
@click.option(
    "--clip",
    type=Real(0, 1, max_open=True),
    default=CLIP,
    show_default=True,
    help="P, as a fraction.",
)
@click.option(
    "--all-magnitudes",
    is_flag=True,
    help="Clip P of all magnitudes together, as in the paper's example, not of each sign.",
)
@click.option("--as-folded", is_flag=True, help="Do not rebalance the layers before training.")
@click.option("--out", type=click.Path(path_type=Path), help="Network file. [build/paper/...]")
def main(
    dataset,
    seed,
    start,
    epochs,
    size,
    pictures,
    device,
    threads,
    fraction_bits,
    clip,
    all_magnitudes,
    as_folded,
    out,
):
    """Train the NIN in the 2022 paper's mode and export it. Resumes where it was stopped."""
    name = f"nin-{dataset}-q{8 - fraction_bits}.{fraction_bits}-seed{seed}.clipq.npz"
    out = out or Path("build/paper") / name
    out.parent.mkdir(parents=True, exist_ok=True)
    check_output(out)
    bench = open_bench(dataset, seed, start, pictures, device, threads)
    net, result = bench.train(
        Trial(
            PaperStart(clip, not all_magnitudes, fraction_bits, not as_folded),
            paper_phases(epochs, size),
        )
    )
    net.cpu()
    network = to_paper_network(net, dataset, tuple(class_names(dataset)))
    check_equal(net, network, to_input(bench.pictures["test"][0][:20].cpu(), dataset))
    save_network(network, out)
    click.echo(
        f"wrote {out}: {result['validation']:.2%} of the validation pictures, {result['test']:.2%} "
        "of the test pictures"
    )


if __name__ == "__main__":
    main()
