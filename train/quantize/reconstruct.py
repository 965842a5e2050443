"""A full-precision network quantized without training: indices that make up for each other's
errors.

E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", ICLR 2023, here with a codebook of four values per layer:
layer by layer, what matters is not how far the weights move but how far the layer's outputs do.
Ours on top of it:
- the target are the full-precision network's sums, while the inputs are those of the layers already
  quantized, so later layers correct earlier ones;
- inputs are taken about their mean, because batch norm's bias absorbs what all images share;
- a free scale per output channel (batch norm's again) under the layer's one codebook, both refitted
  by least squares;
- coordinate descent after GPTQ's one pass: each weight takes the codebook value that is best given
  all the others, until few change;
- a layer whose average over the image is all that is used is fitted to that average.

CLIP-Q training goes on from there.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from model.common.errors import UserError
from train import checkpoint
from train.net import Add, Conv, Net, add_batch_norm
from train.quantize.kmeans import KMeans
from train.quantize.segments import LEVELS, Segments, root_mean_square

ROWS = 200_000  # input patches that a layer's covariance is measured on
CHUNK = 50  # images unfolded at a time
RIDGE = 1e-3  # pull of the target towards the full-precision weights, in mean variances of an input
DAMP = 1e-2  # GPTQ's, likewise
ROUNDS = 3  # of assignment and refit
SWEEPS = 8  # of coordinate descent in each
ITERATIONS = 60  # of k-means, for the values to start with
BLOCK = 128  # columns whose errors are handed on together
POOLED = 0.8  # how much of the last layer's fit concerns the averages over a image
STARTS = (
    (0.08, 0.30, 0.80),
    (0.20, 0.70, 0.92),
)  # quantiles of the free values: two negative ones, two positive ones
AFFINE_SHARE = 0.9  # the smaller of the outer values over the larger, at most, to begin with
SAMPLES_OF_ADD = 250  # images that an addition's scale is chosen on
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


def planes(zero: int, affine: bool) -> list[list[int]]:
    """Places of the values that each free number is part of: of one each, or where the middle of
    the three values beside zero is the sum of the outer ones, of two."""
    low, middle, high = (k for k in range(LEVELS) if k != zero)
    return [[low, middle], [middle, high]] if affine else [[low], [middle], [high]]


def refit(target, covariance, fit: Fit, affine: bool = False) -> Fit:
    """Scales and free values of least squares for given places. Values that would change their
    order stay as they are. target, covariance: as for `gptq`."""
    scale, values, parts_of = fit.scale, fit.values, planes(fit.zero, affine)
    for _ in range(3):
        quantized = values[fit.place]
        seen = quantized @ covariance
        scale = ((target * seen).sum(1) / (quantized * seen).sum(1)).clamp(
            min=1e-6 * float(fit.scale.max())
        )
        parts = [
            scale[:, None] * sum((fit.place == place) for place in places) for places in parts_of
        ]
        seen = [part @ covariance for part in parts]
        normal = torch.tensor(
            [[float((a * b).sum()) for b in parts] for a in seen], dtype=torch.float64
        )
        right = torch.tensor([float((a * target).sum()) for a in seen], dtype=torch.float64)
        numbers = torch.linalg.lstsq(normal, right).solution.float()
        better = torch.zeros_like(values)
        for places, number in zip(parts_of, numbers):
            better[places] += number
        if (better.diff() > 0).all():
            values = better
    return replace(fit, scale=scale, values=values)


def start_values(target, scale, start, affine: bool) -> torch.Tensor:
    """Values to begin with, float32 [4] ascending: of k-means; affine: with the middle one made
    the sum of the outer ones, which may have to move for it."""
    values = torch.from_numpy(KMeans(ITERATIONS, start).centres(target / scale[:, None])).float()
    if affine:
        two_below = values[2] == 0
        outer, other = (0, 3) if two_below else (3, 0)
        values[other] = -torch.sign(values[outer]) * min(
            abs(values[other]), AFFINE_SHARE * abs(values[outer])
        )
        values[1 if two_below else 2] = values[0] + values[3]
    return values


def fit_layer(target: torch.Tensor, covariance: torch.Tensor, affine: bool = False) -> Fit:
    """The better of two fits of `target` [O, K], with two negative values and with two positive
    ones. covariance: of the inputs, [K, K]."""
    best = None
    for start in STARTS:
        rng = torch.Generator().manual_seed(0)
        scale = target.square().mean(1).sqrt().clamp(min=1e-12)
        values = start_values(target, scale, start, affine)
        if not (values.diff() > 0).all():
            continue
        fit = Fit(scale, values, torch.zeros(target.shape, dtype=torch.long))
        for _ in range(ROUNDS):
            fit = replace(fit, place=gptq(target, covariance, fit.scale, fit.values))
            weights = descend(target, covariance, fit.weights, fit.scale, fit.values, SWEEPS, rng)
            fit = replace(fit, place=nearest(weights / fit.scale[:, None], fit.values))
            fit = refit(target, covariance, fit, affine)
        fit = replace(fit, error=relative_error(target, covariance, fit.weights))
        best = fit if best is None or fit.error < best.error else best
    if best is None:
        raise UserError("its weights have fewer than four values of both signs")
    return best


def _patches(x, conv, chosen):
    rows = F.unfold(x, conv.kernel_size, 1, conv.padding, conv.stride).permute(0, 2, 1)
    return rows if chosen is None else rows[:, chosen]


def moments(
    quantized, original, conv, pooled: bool, unit: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(covariance [K, K] of the quantized network's input patches, [O, K] of the original network's
    sums with them).

    quantized, original: inputs [N, I, H, W] of the layer in the two networks, of any dtype; unit:
    how much of the former is one of the latter; conv: the original network's. pooled: mostly of
    averages over an image.
    """
    flat = conv.weight.flatten(1)
    pixels = F.conv2d(original[:1].float(), conv.weight, None, conv.stride, conv.padding)[
        0, 0
    ].numel()
    per = pixels if pooled else max(1, ROWS // len(quantized))
    rng = torch.Generator().manual_seed(1)
    # of patches and of their averages
    totals = [[torch.zeros(()) for _ in range(4)] + [0] for _ in range(2)]
    for x, y in zip(quantized.split(CHUNK), original.split(CHUNK)):
        chosen = None if per >= pixels else torch.randperm(pixels, generator=rng)[:per]
        a = _patches(x.float() / unit, conv, chosen)
        b = _patches(y.float(), conv, chosen) @ flat.T
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


def _sums(x, conv, weight):
    """The convolution's sums [n, O, H, W] of each chunk of images x [N, I, H, W] in turn."""
    for part in x.split(CHUNK):
        yield F.conv2d(part.float(), weight, None, conv.stride, conv.padding)


@dataclass(frozen=True)
class Statistics:
    """Of a convolution's sums. mean, variance: float32 [O]; sample: float32 [1, O, M, 1], of about
    SAMPLES sums."""

    mean: torch.Tensor
    variance: torch.Tensor
    sample: torch.Tensor


def statistics(x, conv, weight) -> Statistics:
    """Of the sums of x [N, I, H, W] with weight [O, I, Kh, Kw]."""
    rng = torch.Generator().manual_seed(0)
    total, square, sample, count = 0.0, 0.0, [], 0
    for sums in _sums(x, conv, weight):
        pixels = sums[0, 0].numel()
        take = min(pixels, -(-SAMPLES // (len(x) * len(weight))))
        rows = sums.double().sum((0, 2, 3)), sums.double().square().sum((0, 2, 3))
        total, square, count = total + rows[0], square + rows[1], count + len(sums) * pixels
        chosen = torch.randperm(pixels, generator=rng)[:take]
        sample.append(sums.flatten(2)[:, :, chosen].transpose(0, 1).flatten(1))
    mean = total / count
    variance = (square / count - mean.square()).clamp(min=0)
    return Statistics(mean.float(), variance.float(), torch.cat(sample, 1)[None, :, :, None])


def outputs(node, weight, *inputs) -> torch.Tensor:
    """What a layer in evaluation mode makes of inputs [N, C, H, W] each: float16, or in a quantized
    network (u)int8. weight: a convolution's, None of another layer."""
    parts = []
    for part in zip(*(x.split(CHUNK) for x in inputs)):
        part = [x.float() for x in part]
        if weight is None:
            y = node(*part)
        else:
            y = _normalized(node.bn, node.sums(part[0], weight))
            if node.mode != "float":
                y = (y * node.steps).round_().clamp_(*node.limits)
            elif node.spec["relu"]:
                y = F.relu_(y)
        small = torch.int8 if node.spec["signed"] else torch.uint8
        parts.append(y.half() if node.mode == "float" else y.to(small))
    return torch.cat(parts)


def _normalized(bn, sums):
    return F.batch_norm(
        sums, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps
    )


def adopt(block, unit, x, source, original_mean) -> None:
    """Give `block`, whose weights and quantizer are new, batch norm and activation scale.

    unit: original sums per sum of integers, [O]; x: the block's input integers [N, I, H, W];
    source, original_mean: the original network's block and the mean [O] of its sums.
    """
    measured = statistics(x, block.conv, block.quantizer.integers(block.conv.weight))
    bn, old = block.bn, source.bn
    gain = old.weight / (old.running_var + old.eps).sqrt()
    bias = old.bias + gain * (original_mean - old.running_mean)
    bn.running_mean.copy_(measured.mean)
    bn.running_var.copy_(measured.variance)
    bn.weight.copy_(gain * unit * (bn.running_var + bn.eps).sqrt())
    bn.bias.copy_(bias)
    block.choose_steps(_normalized(bn, measured.sample))
    block.mode = "fake"


def take_weights(block, fit: Fit, affine: bool = False) -> torch.Tensor:
    """Give `block` the fitted weights and their quantizer. Returns the original sums per sum of
    integers, [O]."""
    chosen = fit.values[fit.place]
    peak = chosen.abs().max()
    middle = (fit.values[1:] + fit.values[:-1]) / 2 / peak
    shadow = checkpoint.halves(chosen).float()  # before anything is measured: as a checkpoint's
    edges = middle.double() / root_mean_square(shadow)
    block.quantizer = Segments(tuple(edges.tolist()), fit.zero, affine)
    block.conv.weight.copy_(shadow.view_as(block.conv.weight))
    return fit.scale * float(peak / block.quantizer.integers(block.conv.weight).abs().max())


def make_scales_positive(block) -> None:
    """Give channels of negative batch-norm scale negated weights instead: the file's mult is
    positive."""
    sign = torch.where(block.bn.weight < 0, -1.0, 1.0)
    block.bn.weight *= sign
    block.bn.running_mean *= sign
    block.conv.weight *= sign[:, None, None, None]


def is_averaged(net: Net, name: str) -> bool:
    """Whether only averages of a layer's outputs over the whole image are used."""
    readers = [node.spec for node in net.nodes.values() if name in node.spec["inputs"]]
    return len(readers) == 1 and bool(readers[0].get("global")) and not net.nodes[name].spec["relu"]


def _quantize_block(net, name, block, source, integers, original, affine):
    """Fit one layer; returns its error."""
    make_scales_positive(source)
    unit, weight = net.steps_of(block.spec["inputs"][0]), source.conv.weight
    moment = moments(integers, original, source.conv, is_averaged(net, name), unit)
    target, covariance = target_weights(weight, *moment)
    try:
        fit = fit_layer(target, covariance, affine)
    except UserError as error:
        raise UserError(f"layer {name}: {error}") from error
    mean = statistics(original, source.conv, weight).mean
    adopt(block, take_weights(block, fit, affine) / unit, integers, source, mean)
    return fit.error


@torch.no_grad()
def reconstruct(
    net: Net, x: torch.Tensor, affine: bool = False, report: Callable = lambda text: None
) -> None:
    """Turn the full-precision `net` (on the CPU) into a quantized one with the same outputs as
    nearly as can be, in place.

    x: input integers -128..127, float32 [N, C, H, W], of training images. affine: codebooks with
    w3 = w1 + w2, but for the last convolution. report: called with a line per layer. Raises
    UserError that names a layer that has no codebook.
    """
    torch.set_num_threads(1)  # the network must not depend on how sums are split over threads
    add_batch_norm(net, x[:CHUNK])
    net.eval()
    source = copy.deepcopy(net)
    values = {"input": (x.to(torch.int8), x / net.spec["input"]["unit"])}
    names = list(net.nodes)
    for number, (name, node) in enumerate(net.nodes.items()):
        old, before = source.nodes[name], [values[one] for one in node.spec["inputs"]]
        weights = None, None
        if isinstance(node, Conv):
            chosen = affine and name != net.blocks()[-1][0]
            error = _quantize_block(net, name, node, old, *before[0], chosen)
            weights = node.quantizer.integers(node.conv.weight), old.conv.weight
            codebook = node.quantizer.quantize(node.conv.weight)[1].tolist()
            report(f"{name}: error of the sums {error:.4f}, codebook {codebook}")
        elif isinstance(node, Add):
            node.calibrating, node.mode = True, "fake"
            node(*(integers[:SAMPLES_OF_ADD].float() for integers, _ in before))
            node.calibrating = False
        node.mode = "fake"
        if name != net.last:
            values[name] = tuple(
                outputs(one, weight, *parts)
                for one, weight, parts in zip((node, old), weights, zip(*before))
            )
        for one in list(values):
            if not any(one in net.nodes[k].spec["inputs"] for k in names[number + 1 :]):
                del values[one]
    net.mode = "fake"
