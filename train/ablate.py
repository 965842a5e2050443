"""What each part of the CLIP-Q recipe is worth: one part changed at a time. `python -m train.ablate
--help`.

Every row is a short fine-tuning from the same full-precision network, with the same seed, order and
augmentation.
"""

from dataclasses import replace

import click

from model.common.command import Command
from train.clipq import Setting
from train.kmeans import KMeans
from train.loss import Loss
from train.paper_mode import FixedGain
from train.report import Row, measure
from train.train import BOUND, CLIP, CLIPQ, EXACT
from train.trial import Trial, common_options, open_bench, quantized_trial, short_phase

CLIPS = (0.2, 0.3, 0.4, 0.5)
BOUNDS = (None, 2.5, 2.0)
# Q3.5 needs weights of a given size; with a root mean square of one its seven bits of magnitude are
# used about as well as they can be.
Q35 = FixedGain(Setting(clip=CLIP, fraction_bits=5), 1.0)


def recipe_phases(epochs: int, size: int | None) -> tuple:
    """The recipe in short: CLIP-Q with a teacher, then one epoch of the integer arithmetic."""
    exact = replace(
        short_phase(1, size),
        name="exact",
        mode="exact",
        lr=EXACT.lr,
        bn_lr=EXACT.bn_lr,
        loss=EXACT.loss,
    )
    return short_phase(epochs, size, loss=CLIPQ.loss), exact


def trial(phases, quantizer=Setting(clip=CLIP), bound=BOUND) -> Trial:
    """A row's trial; what is not given is the recipe's."""
    return quantized_trial(quantizer, bound, phases)


def ablation(epochs: int, size: int | None) -> list[Row]:
    """The rows. The recipe itself comes first and takes part in each group that names its value."""
    phases = recipe_phases(epochs, size)
    alone = tuple(replace(p, loss=Loss()) for p in phases)
    # Without the exact epoch, one more of the others: the same amount of training.
    fake = (short_phase(epochs + 1, size, loss=CLIPQ.loss),)
    rows = [
        Row(
            f"recipe: P = {CLIP:.0%}, {BOUND} sigma, segment means, teacher, exact epoch",
            trial(phases),
        )
    ]
    rows += [
        Row(f"P = {clip:.0%}", trial(phases, Setting(clip=clip))) for clip in CLIPS if clip != CLIP
    ]
    rows += [
        Row(f"weights within {bound or 'any number of'} sigma", trial(phases, bound=bound))
        for bound in BOUNDS
        if bound != BOUND
    ]
    rows += [
        Row("codebook: k-means", trial(phases, KMeans())),
        Row("codebook: Q3.5", trial(phases, Q35)),
    ]
    return rows + [
        Row("no teacher", trial(alone)),
        Row("no exact epoch, one more of CLIP-Q", trial(fake)),
    ]


@click.command(cls=Command)
@common_options
def main(dataset, seed, start, epochs, size, pictures, device, threads):
    """Measure the ablation and write it to build/tables. Finished rows are kept, an interrupted one
    goes on."""
    bench = open_bench(dataset, seed, start, pictures, device, threads)
    title = f"Ablation, {epochs} + 1 epochs of fine-tuning a row" + (
        f" at {size}x{size}" if size else ""
    )
    click.echo(measure(bench, ablation(epochs, size), f"ablation-{dataset}-seed{seed}", title))


if __name__ == "__main__":
    main()
