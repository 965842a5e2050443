"""Training, export and evaluation. `python -m train --help`."""

import os
from pathlib import Path

import click

from model.common.command import Command
from model.common.errors import printable
from model.common.files import check_output
from train import checkpoint, export, sources, tables
from train.options import EPOCHS, FILE, FOLDER, SEED, THREADS
from train.recipe import read
from train.stages import FOLDER as STAGES
from train.stages import Project
from train.workers import find_device

DATASETS = click.Choice(list(checkpoint.CIFAR))
COMMON = (
    click.option("--dataset", type=DATASETS, help="Of a recipe that has a choice. [its own]"),
    click.option("--seed", type=SEED, help="Instead of the recipe's."),
    click.option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="Several GPUs: torchrun -m train ...",
    ),
    click.option(
        "--threads", type=THREADS, default=os.cpu_count(), show_default=True, help="Of the CPU."
    ),
    click.option(
        "--stages",
        "folder",
        type=FOLDER,
        default=STAGES,
        show_default=True,
        help="Folder of what the stages leave behind.",
    ),
)


def common(command):
    """The options that commands which train share."""
    for option in reversed(COMMON):
        command = option(command)
    return command


def project(recipe: str, dataset, seed, device, threads, folder) -> Project:
    """The recipe of a name or a file, with its data."""
    followed, target = read(recipe, dataset, seed), find_device(device)
    sets = sources.load(followed.data, Path(followed.path).resolve().parent)
    return Project(followed, sets, target, threads, folder)


@click.group()
def main():
    """Training, export and evaluation of networks for the accelerator."""


@main.command(cls=Command)
@click.option(
    "--recipe", default="full", show_default=True, help="full, short, smoke..., or a file *.yaml."
)
@common
@click.option("--out", type=FOLDER, help="Folder of the network and its card. [STAGES/NAME]")
def run(recipe, dataset, seed, device, threads, folder, out):
    """From data to network file and model card. The same command goes on where it was stopped."""
    made = project(recipe, dataset, seed, device, threads, folder)
    out = out or folder / made.recipe.name
    found = made.finish(out)
    for kind, part in found.get("accuracies", {}).items():
        click.echo(f"{kind}: validation {part['val']:.2%}, test {part['test']:.2%}")
    if found:
        click.echo(f"wrote {printable(made.files(out)['clipq'])} and its card")


@main.command(name="export", cls=Command)
@click.argument("checkpoints", nargs=-1, type=FILE)
@click.option("--out", type=FOLDER, help="Folder of the network files. [the checkpoint's]")
def export_command(checkpoints, out):
    """Export CHECKPOINTS (*.ckpt.npz; default: all in model/zoo) to *.clipq.npz."""
    targets = {}
    for source in checkpoints or sorted(export.ZOO.glob(f"*{export.SUFFIX}")):
        if not source.name.endswith(export.SUFFIX):
            raise click.UsageError(f"{printable(source)}: the name must end in {export.SUFFIX}")
        target = (out or source.parent) / source.name.replace(export.SUFFIX, ".clipq.npz")
        if target in targets.values():
            raise click.UsageError(f"{printable(source)}: another one becomes {printable(target)}")
        targets[source] = target
    if out:
        out.mkdir(parents=True, exist_ok=True)
    for target in targets.values():
        check_output(target)
    for source, target in targets.items():
        export.export(source, target)
        click.echo(f"{source} -> {target}")


@main.command(cls=Command)
@click.argument("path", type=FILE)
@click.option("--recipe", default="full", show_default=True, help="Whose test images are used.")
@common
def evaluate(path, recipe, dataset, seed, device, threads, folder):
    """Top-1 accuracy of the checkpoint PATH on a recipe's test images: *.float.npz in full
    precision, *.ckpt.npz in the integers of its network file."""
    net, facts = checkpoint.read(path)
    dataset = dataset or facts.get("dataset")
    made = project(recipe, dataset, seed, device, threads, folder)
    way = "full precision" if net.mode == "float" else "integers"
    click.echo(f"{path.name}: top-1 {made.accuracy(net, 'test'):.2%} in {way}")


@main.command(name="tables", cls=Command)
@click.argument("names", nargs=-1, type=click.Choice(list(tables.TABLES)))
@click.option(
    "--recipe", default="full", show_default=True, help="Whose full precision all rows start from."
)
@common
@click.option("--epochs", type=EPOCHS, default=8, show_default=True, help="Of fine-tuning a row.")
@click.option("--out", type=FOLDER, default=tables.FOLDER, show_default=True)
def tables_command(names, recipe, dataset, seed, device, threads, folder, epochs, out):
    """The tables NAMES (default: all) of the 2022 paper, measured. The same command goes on where
    it was stopped."""
    base = project(recipe, dataset, seed, device, threads, folder)
    for name in names or tables.TABLES:
        click.echo(f"wrote {printable(tables.write(base, name, epochs, out))}")


if __name__ == "__main__":
    main(prog_name="python -m train")
