"""Training, export and evaluation. `python -m train --help`."""

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click
from click import option

from model.common.command import Command
from model.common.cores import cores
from model.common.errors import UserError, printable
from model.common.files import check_output
from train import checkpoint, sources, tables
from train.recipe import read
from train.stages import FOLDER as STAGES
from train.stages import Project
from train.workers import find_device, say

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


DATASETS, DEVICES = click.Choice(["cifar10", "cifar100"]), click.Choice(["cpu", "cuda"])
SEED, THREADS = click.IntRange(0, 2**63 - 1), click.IntRange(1, 1024)
COMMON = (
    option("--recipe", default="full", help="full, short, smoke..., or a file *.yaml."),
    option("--dataset", type=DATASETS, help="Of a recipe that has a choice. [its own]"),
    option("--seed", type=SEED, help="Instead of the recipe's."),
    option("--device", type=DEVICES, default="cpu", help="Several: torchrun --nproc-per-node=gpu."),
    option("--threads", type=THREADS, default=cores(), help="Of the CPU."),
    option("--stages", "folder", type=FOLDER, default=STAGES, help="What the stages leave behind."),
)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that commands which train share."""
    return reduce(lambda decorated, option: option(decorated), reversed(COMMON), command)


def project(
    recipe: str, dataset: str | None, seed: int | None, device: str, threads: int, folder: Path
) -> Project:
    """The recipe of a name or a file, with its data."""
    followed, target = read(recipe, dataset, seed), find_device(device)
    sets = sources.load(followed.data, Path(followed.path).resolve().parent)
    return Project(followed, sets, target, threads, folder)


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Training, export and evaluation of networks for the accelerator."""


@main.command(cls=Command)
@common
@option("--out", type=FOLDER, help="Folder of the network and its card. [STAGES/NAME]")
def run(out: Path | None, folder: Path, **given: Any) -> None:
    """From data to network file and model card. The same command goes on where it was stopped."""
    made = project(folder=folder, **given)
    out = out or folder / made.recipe.name
    for kind, part in made.finish(out).items():
        say(f"{kind}: validation {part['val']:.2%}, test {part['test']:.2%}", err=False)
    say(f"wrote {printable(made.files(out)['clipq'])} and its card", err=False)


@main.command(name="export", cls=Command)
@click.argument("checkpoints", nargs=-1, type=FILE)
@option("--out", type=FOLDER, help="Folder of the network files. [the checkpoint's]")
def export_command(checkpoints: tuple[Path, ...], out: Path | None) -> None:
    """Export CHECKPOINTS (*.ckpt.npz; default: all in model/zoo) to *.clipq.npz."""
    targets: dict[Path, Path] = {}
    for source in checkpoints or sorted(checkpoint.ZOO.glob(f"*{checkpoint.SUFFIX}")):
        target = (out or source.parent) / source.name.replace(checkpoint.SUFFIX, ".clipq.npz")
        if not source.name.endswith(checkpoint.SUFFIX):
            raise click.UsageError(f"{printable(source)}: the name must end in {checkpoint.SUFFIX}")
        if target in targets:
            raise click.UsageError(f"{printable(source)}: another one becomes {printable(target)}")
        targets[target] = source
    if out:
        out.mkdir(parents=True, exist_ok=True)
    for target in targets:
        check_output(target)
    for target, source in targets.items():
        checkpoint.export(source, target)
        click.echo(f"{printable(source)} -> {printable(target)}")


@main.command(cls=Command)
@click.argument("path", type=FILE)
@common
def evaluate(path: Path, **given: Any) -> None:
    """Top-1 accuracy of the checkpoint PATH on a recipe's test images: *.float.npz in full
    precision, *.ckpt.npz in the integers of its network file."""
    net, facts = checkpoint.read(path)
    made = project(**given)
    theirs = made.sets.classes, list(made.sets.test.pixels.shape[1:])
    if (facts.get("classes", theirs[0]), net.spec["input"]["shape"]) != theirs:
        raise UserError(
            f"{printable(path)}: made for other classes or images than those of the recipe "
            f"{made.recipe.name}; --dataset or --recipe names its own"
        )
    way = "full precision" if net.mode == "float" else "integers"
    say(
        f"{printable(path.name)}: top-1 {made.accuracies(net, 'test')['test']:.2%} in {way}",
        err=False,
    )


@main.command(name="tables", cls=Command)
@click.argument("names", nargs=-1, type=click.Choice(list(tables.TABLES)))
@common
@option("--epochs", type=click.IntRange(1, 100_000), default=8, help="Of fine-tuning a row.")
@option("--out", type=FOLDER, default=tables.FOLDER)
def tables_command(names: tuple[str, ...], epochs: int, out: Path, **given: Any) -> None:
    """The tables NAMES (default: all) of the 2022 paper, measured. The same command goes on where
    it was stopped."""
    base = project(**given)
    for name in names or tables.TABLES:
        say(f"wrote {printable(tables.write(base, name, epochs, out))}", err=False)


if __name__ == "__main__":
    main(prog_name="python -m train")
