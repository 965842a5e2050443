"""Train the larger network that others learn from. `python -m train.teacher_training --help`."""

import os
from dataclasses import replace
from pathlib import Path

import click
import torch

from model.common.command import Command
from train import data
from train.checkpoint import CLASSES
from train.loss import Loss
from train.options import EPOCHS, FOLDER, SEED, THREADS, Multiple
from train.replica import rank
from train.teacher import Teacher, write
from train.train import Phase, Trainer, find_device, prepare_folder, run_phase, workers_for

# No label smoothing: it takes from the probabilities what a student could learn from them (R.
# Müller et al., "When Does Label Smoothing Help?", NeurIPS 2019).
PHASE = Phase(
    "larger", ((16, 4), (24, 8), (32, 9)), lr=0.08, batch=500, loss=Loss(smoothing=0.0), cutout=8
)


@click.command(cls=Command)
@click.option(
    "--dataset", type=click.Choice(sorted(CLASSES)), default="cifar100", show_default=True
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Several GPUs: torchrun -m train.teacher_training.",
)
@click.option(
    "--threads", type=THREADS, default=os.cpu_count(), show_default=True, help="Of the CPU."
)
@click.option(
    "--stage",
    "stages",
    type=(Multiple(8, 8, 32), EPOCHS),
    multiple=True,
    metavar="SIZE EPOCHS",
    help="So many epochs on pictures of this size, a multiple of eight; several in turn. ["
    + ", ".join(f"{size} {epochs}" for size, epochs in PHASE.stages)
    + "]",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder of teacher-DATASET.pt, checkpoint and logs. [build/teacher/DATASET-seedSEED]",
)
def main(dataset, seed, device, threads, stages, out):
    """Train a network for `train.tail --teacher` to learn from. The same command goes on from where
    it was stopped."""
    phase = replace(PHASE, stages=stages or PHASE.stages)
    out = out or Path("build/teacher") / f"{dataset}-seed{seed}"
    target = out / f"teacher-{dataset}.pt"
    device = find_device(device)
    prepare_folder(out, [f"{phase.name}.pt"], target.name)
    pictures = {split: (x.to(device), y.to(device)) for split, (x, y) in data.load(dataset).items()}
    torch.manual_seed(seed)
    net = Teacher(CLASSES[dataset])
    trainer = Trainer(workers_for(net, device, threads), phase, pictures, dataset, seed, out)
    trainer.resume()
    facts = run_phase(trainer, pictures)
    if rank() == 0:
        write(net, dataset, target)
        click.echo(f"wrote {target}: {100 * facts['validation']:.2f} % of the validation pictures")


if __name__ == "__main__":
    main()
