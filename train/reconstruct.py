"""A full-precision network quantized without training: indices that make up for each other's
errors. `python -m train.reconstruct --help`.

E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", ICLR
2023, here with a codebook of four values per layer: layer by layer, what matters is not how far the
weights move but how far the layer's outputs do. Ours on top of it:
- the target are the full-precision network's sums, while the inputs are those of the layers already
  quantized, so later layers
  correct earlier ones;
- inputs are taken about their mean, because batch norm's bias absorbs what all pictures share;
- a free scale per output channel (batch norm's again) under the layer's one codebook, both refitted
  by least squares;
- coordinate descent after GPTQ's one pass: each weight takes the codebook value that is best given
  all the others, until few change;
- the last layer is fitted to sums averaged over a picture, which is all that the classifier uses.

CLIP-Q training goes on from there (`train.train --start`).
"""

import copy
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
import torch.nn.functional as F

from model.common.command import Command
from model.data.cifar import class_names
from train import checkpoint, data
from train.export import ZOO
from train.kmeans import KMeans
from train.nin import CALIBRATION, INPUT_UNIT, NIN, POOL_AFTER, to_input
from train.options import FILE, FOLDER
from train.parallel import Workers
from train.segments import LEVELS, Segments, root_mean_square
from train.shipper import Shipper

PICTURES = 10_000
ROWS = 200_000  # input patches that a layer's covariance is measured on
CHUNK = 50  # pictures unfolded at a time
RIDGE = 1e-3  # pull of the target towards the full-precision weights, in mean variances of an input
DAMP = 1e-2  # GPTQ's, likewise
ROUNDS = 3  # of assignment and refit
SWEEPS = 8  # of coordinate descent in each
ITERATIONS = 60  # of k-means, for the values to start with
BLOCK = 128  # columns whose errors are handed on together
POOLED = 0.8  # how much of the last layer's fit concerns the averages over a picture
STARTS = (
    (0.08, 0.30, 0.80),
    (0.20, 0.70, 0.92),
)  # quantiles of the free values: two negative ones, two positive ones
SAMPLES = 2_000_000  # outputs that an activation scale is chosen on


@dataclass(frozen=True)
class Fit:
    """One layer's choice. scale [O]; values [4] ascending, one of them zero; place int64 [O, K]
    into values; error relative to the target's square."""

    scale: torch.Tensor
    values: torch.Tensor
    place: torch.Tensor
    error: float = float("inf")

    @property
    def zero(self) -> int:
        """The segment of value zero."""
        return int((self.values == 0).nonzero()[0])

    @property
    def weights(self) -> torch.Tensor:
        """What the layer multiplies by, [O, K]."""
        return self.scale[:, None] * self.values[self.place]


def nearest(wanted: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Number of the nearest of the ascending `values`; int64 of the shape of `wanted`."""
    return torch.bucketize(wanted, (values[1:] + values[:-1]) / 2)


def relative_error(target, covariance, weights) -> float:
    """Variance of the outputs' error over the outputs', 0 if equal. target, weights: float32 [O,
    K]; covariance: of the inputs, [K, K]."""
    off = target - weights
    return float(((off @ covariance) * off).sum() / ((target @ covariance) * target).sum())


def gptq(target, covariance, scale, values) -> torch.Tensor:
    """Places [O, K]: column by column, each one's rounding error handed on to those still free.

    target: float32 [O, K]; covariance: [K, K], positive semidefinite; scale: [O]; values: [4]
    ascending. Inputs of the largest variance go first.
    """
    count = len(covariance)
    damped = covariance + DAMP * covariance.diagonal().mean() * torch.eye(count)
    order = damped.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left, place = target[:, order].clone(), torch.empty(target.shape, dtype=torch.long)
    for begin in range(0, count, BLOCK):
        end = min(begin + BLOCK, count)
        errors = torch.zeros(len(target), end - begin)
        for k in range(begin, end):
            place[:, order[k]] = chosen = nearest(left[:, k] / scale, values)
            error = errors[:, k - begin] = (left[:, k] - scale * values[chosen]) / upper[k, k]
            left[:, k:end] -= error[:, None] * upper[k, k:end]
        left[:, end:] -= errors @ upper[begin:end, end:]
    return place


def descend(
    target, covariance, weights, scale, values, sweeps: int, rng: torch.Generator
) -> torch.Tensor:
    """Weights [O, K] after `sweeps` rounds in which each takes the value that is best given the
    others: scale [O] times one of `values`.

    target, covariance: as for `gptq`; weights: to start from.
    """
    weights = weights.clone()
    gradient = (target - weights) @ covariance
    variance = covariance.diagonal()
    for _ in range(sweeps):
        moved = False
        for k in torch.randperm(len(variance), generator=rng).tolist():
            wanted = weights[:, k] + gradient[:, k] / variance[k]
            chosen = scale * values[nearest(wanted / scale, values)]
            step = chosen - weights[:, k]
            if step.any():
                moved = True
                gradient -= step[:, None] * covariance[k]
                weights[:, k] = chosen
        if not moved:
            break
    return weights


def refit(target, covariance, fit: Fit) -> Fit:
    """Scales and free values of least squares for given places. Values that would change their
    order stay as they are. target, covariance: as for `gptq`."""
    scale, values = fit.scale, fit.values
    free = [k for k in range(LEVELS) if k != fit.zero]
    for _ in range(3):
        quantized = values[fit.place]
        seen = quantized @ covariance
        scale = ((target * seen).sum(1) / (quantized * seen).sum(1)).clamp(
            min=1e-6 * float(fit.scale.max())
        )
        parts = [scale[:, None] * (fit.place == k) for k in free]
        seen = [part @ covariance for part in parts]
        normal = torch.tensor(
            [[float((a * b).sum()) for b in parts] for a in seen], dtype=torch.float64
        )
        right = torch.tensor([float((a * target).sum()) for a in seen], dtype=torch.float64)
        better = values.clone()
        better[free] = torch.linalg.lstsq(normal, right).solution.float()
        if (better.diff() > 0).all():
            values = better
    return replace(fit, scale=scale, values=values)


def fit_layer(target: torch.Tensor, covariance: torch.Tensor) -> Fit:
    """The better of two fits of `target` [O, K], with two negative values and with two positive
    ones. covariance: of the inputs, [K, K]."""
    best = None
    for start in STARTS:
        rng = torch.Generator().manual_seed(0)
        scale = target.square().mean(1).sqrt()
        fit = Fit(
            scale,
            torch.from_numpy(KMeans(ITERATIONS, start).centres(target / scale[:, None])).float(),
            torch.zeros(target.shape, dtype=torch.long),
        )
        for _ in range(ROUNDS):
            fit = replace(fit, place=gptq(target, covariance, fit.scale, fit.values))
            weights = descend(target, covariance, fit.weights, fit.scale, fit.values, SWEEPS, rng)
            fit = replace(fit, place=nearest(weights / fit.scale[:, None], fit.values))
            fit = refit(target, covariance, fit)
        fit = replace(fit, error=relative_error(target, covariance, fit.weights))
        best = fit if best is None or fit.error < best.error else best
    return best


def _patches(x, kernel, chosen):
    rows = F.unfold(x, kernel, padding=kernel // 2).permute(0, 2, 1)
    return rows if chosen is None else rows[:, chosen]


def moments(
    quantized, original, weight, pooled: bool, unit: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(covariance [K, K] of the quantized network's input patches, [O, K] of the original network's
    sums with them).

    quantized, original: inputs [N, I, H, W] of the layer in the two networks, of any dtype; unit:
    how much of the former is one of the latter;
    weight: [O, I, r, r]. pooled: mostly of averages over a picture.
    """
    kernel, flat = weight.shape[-1], weight.flatten(1)
    pixels = quantized.shape[2] * quantized.shape[3]
    per = pixels if pooled else max(1, ROWS // len(quantized))
    rng = torch.Generator().manual_seed(1)
    totals = [
        [torch.zeros(()) for _ in range(4)] + [0] for _ in range(2)
    ]  # of patches and of their averages
    for x, y in zip(quantized.split(CHUNK), original.split(CHUNK)):
        chosen = None if per >= pixels else torch.randperm(pixels, generator=rng)[:per]
        a, b = (
            _patches(x.float() / unit, kernel, chosen),
            _patches(y.float(), kernel, chosen) @ flat.T,
        )
        for total, (p, q) in zip(
            totals, ((a.flatten(0, 1), b.flatten(0, 1)), (a.mean(1), b.mean(1)))
        ):
            for i, value in enumerate((p.T @ p, q.T @ p, p.sum(0), q.sum(0))):
                total[i] = total[i] + value
            total[4] += len(p)
    (own, crossed), averages = (_central(total) for total in totals)
    if not pooled:
        return own, crossed
    # Averages vary less: bring both to the same total variance before they are mixed.
    gain = POOLED * own.trace() / averages[0].trace()
    return (1 - POOLED) * own + gain * averages[0], (1 - POOLED) * crossed + gain * averages[1]


def _central(total):
    square, product, mean, sums, count = total
    return square / count - torch.outer(mean, mean) / count**2, product / count - torch.outer(
        sums, mean
    ) / count**2


def target_weights(weight, covariance, crossed) -> tuple[torch.Tensor, torch.Tensor]:
    """(full-precision weights [O, K] that come nearest to the original sums from the quantized
    inputs, ridged covariance)."""
    ridge = RIDGE * covariance.diagonal().mean()
    covariance = covariance + ridge * torch.eye(len(covariance))
    solution = torch.linalg.solve(
        covariance.double(), (crossed + ridge * weight.flatten(1)).T.double()
    )
    return solution.T.float().contiguous(), covariance


def _sums(x, weight):
    """The convolution's sums [n, O, H, W] of each chunk of pictures x [N, I, H, W] in turn."""
    for part in x.split(CHUNK):
        yield F.conv2d(part.float(), weight, padding=weight.shape[-1] // 2)


@dataclass(frozen=True)
class Statistics:
    """Of a convolution's sums. mean, variance: float32 [O]; sample: float32 [1, O, M, 1], of about
    SAMPLES sums."""

    mean: torch.Tensor
    variance: torch.Tensor
    sample: torch.Tensor


def statistics(x, weight) -> Statistics:
    """Of the sums of x [N, I, H, W] with weight [O, I, r, r]."""
    pixels = x.shape[2] * x.shape[3]
    take = min(pixels, -(-SAMPLES // (len(x) * len(weight))))
    rng = torch.Generator().manual_seed(0)
    total, square, sample = 0.0, 0.0, []
    for sums in _sums(x, weight):
        rows = sums.double().sum((0, 2, 3)), sums.double().square().sum((0, 2, 3))
        total, square = total + rows[0], square + rows[1]
        chosen = torch.randperm(pixels, generator=rng)[:take]
        sample.append(sums.flatten(2)[:, :, chosen].transpose(0, 1).flatten(1))
    mean = total / (len(x) * pixels)
    variance = (square / (len(x) * pixels) - mean.square()).clamp(min=0)
    return Statistics(mean.float(), variance.float(), torch.cat(sample, 1)[None, :, :, None])


def _normalized(bn, sums):
    return F.batch_norm(
        sums, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps
    )


def outputs(block, x, weight, pool: bool) -> torch.Tensor:
    """What `block` in evaluation mode makes of x [N, I, H, W] with these weights: float16, or in a
    quantized network (u)int8. pool: 2x2 after it."""
    parts = []
    for sums in _sums(x, weight):
        y = _normalized(block.bn, sums)
        if block.mode != "float":
            y = (y * block.steps).round_().clamp_(*block.limits)
        elif not block.last:
            y = F.relu_(y)
        y = F.max_pool2d(y, 2) if pool else y
        parts.append(
            y.half() if block.mode == "float" else y.to(torch.int8 if block.last else torch.uint8)
        )
    return torch.cat(parts)


def adopt(block, unit, x, source, original_mean) -> None:
    """Give `block`, whose weights and quantizer are new, batch norm and activation scale.

    unit: original sums per sum of integers, [O]; x: the block's input integers [N, I, H, W];
    source, original_mean: the original network's block and the mean [O] of its sums.
    """
    measured = statistics(x, block.quantizer.integers(block.conv.weight))
    bn, old = block.bn, source.bn
    gain = old.weight / (old.running_var + old.eps).sqrt()
    bias = old.bias + gain * (original_mean - old.running_mean)
    bn.running_mean.copy_(measured.mean)
    bn.running_var.copy_(measured.variance)
    bn.weight.copy_(gain * unit * (bn.running_var + bn.eps).sqrt())
    bn.bias.copy_(bias)
    soft = _normalized(bn, measured.sample)
    soft = (soft.abs() if block.last else soft).flatten()
    block.steps.copy_(block.limits[1] / soft.kthvalue(int(len(soft) * CALIBRATION)).values)
    block.mode = "fake"


def take_weights(block, fit: Fit) -> torch.Tensor:
    """Give `block` the fitted weights and their quantizer. Returns the original sums per sum of
    integers, [O]."""
    chosen = fit.values[fit.place]
    peak = chosen.abs().max()
    middle = (fit.values[1:] + fit.values[:-1]) / 2 / peak
    shadow = checkpoint.halves(chosen).float()  # before anything is measured: as a checkpoint's
    edges = middle.double() / root_mean_square(shadow)
    block.quantizer = Segments(tuple(edges.tolist()), fit.zero)
    block.conv.weight.copy_(shadow.view_as(block.conv.weight))
    return fit.scale * float(peak / block.quantizer.integers(block.conv.weight).abs().max())


def make_scales_positive(block) -> None:
    """Give channels of negative batch-norm scale negated weights instead: the file's mult is
    positive."""
    sign = torch.where(block.bn.weight < 0, -1.0, 1.0)
    block.bn.weight *= sign
    block.bn.running_mean *= sign
    block.conv.weight *= sign[:, None, None, None]


@torch.no_grad()
def reconstruct(net: NIN, x: torch.Tensor, report=lambda text: None) -> None:
    """Turn the full-precision `net` (on the CPU) into a quantized one with the same outputs as
    nearly as can be, in place.

    x: input integers -128..127, float32 [N, 3, H, W], of training pictures. report: called with a
    line per layer.
    """
    began = time.monotonic()
    torch.set_num_threads(1)  # the network must not depend on how sums are split over threads
    original, integers, unit = x / INPUT_UNIT, x.to(torch.int8), INPUT_UNIT
    for name, block in net.blocks():
        make_scales_positive(block)
        source = copy.deepcopy(block)
        weight, pool = source.conv.weight, name in POOL_AFTER
        covariance, crossed = moments(integers, original, weight, block.last, unit)
        target, covariance = target_weights(weight, covariance, crossed)
        fit = fit_layer(target, covariance)
        adopt(
            block,
            take_weights(block, fit) / unit,
            integers,
            source,
            statistics(original, weight).mean,
        )
        integers = outputs(block, integers, block.quantizer.integers(block.conv.weight), pool)
        original, unit = outputs(source, original, weight, pool), float(block.steps)
        report(
            f"{name}: error of the sums {fit.error:.4f}, codebook "
            f"{block.quantizer.quantize(block.conv.weight)[1].tolist()}, "
            f"{time.monotonic() - began:.0f} s"
        )
    net.eval()


@click.command(cls=Command)
@click.option(
    "--dataset", type=click.Choice(sorted(checkpoint.CLASSES)), default="cifar10", show_default=True
)
@click.option(
    "--start", type=FILE, help="The full-precision network. [model/zoo/nin-DATASET.float.npz]"
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("build/reconstruct"),
    show_default=True,
    help="Folder of the quantized network.",
)
@click.option(
    "--pictures",
    type=click.IntRange(2, 45_000),
    default=PICTURES,
    show_default=True,
    help="Of the training set, to measure the layers' inputs on.",
)
def main(dataset, start, out, pictures):
    """Quantize a full-precision network layer by layer, validate it in integers and write it unless
    OUT has a better network."""
    source = start or ZOO / f"nin-{dataset}.float.npz"
    net, facts = checkpoint.read_for(source, dataset, False)
    ship = Shipper(dataset, out, class_names(dataset), facts.get("seed", 0))
    sets = data.load(dataset)
    chosen = torch.randperm(len(sets["train"][0]), generator=torch.Generator().manual_seed(0))[
        :pictures
    ]
    reconstruct(net, to_input(sets["train"][0][chosen], dataset), click.echo)
    ship.offer(net, {"phase": "reconstruct", "epoch": 0}, Workers(net, os.cpu_count()), sets["val"])


if __name__ == "__main__":
    main()
