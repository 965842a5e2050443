"""Top-1 accuracy of a full-precision network (model/zoo/*.float.npz) on the test images. `python -m train.evaluate FILE`."""

import os
from pathlib import Path

import click
import torch

from model.cifar import CifarError
from train import checkpoint, data
from train.nin import to_input


@torch.no_grad()
def accuracy(net, pixels, labels, dataset: str, batch: int = 100) -> float:
    """Top-1 0..1 in float32. pixels: uint8 [N, 3, 32, 32]."""
    right = sum((net(to_input(x, dataset)).argmax(1) == y).sum().item() for x, y in zip(pixels.split(batch), labels.split(batch)))
    return right / len(labels)


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--threads", default=os.cpu_count(), show_default=True)
def main(path, threads):
    """Top-1 accuracy of the full-precision network PATH (*.float.npz) on the 10,000 test images."""
    torch.set_num_threads(threads)
    try:
        net, facts = checkpoint.read(path)
        pixels, labels = data.load(facts["dataset"])["test"]
    except (ValueError, CifarError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    if net.mode != "float":
        raise click.ClickException(f"{path} holds a quantized network; `make accuracy` evaluates its network file")
    click.echo(f"{path.name}: top-1 {100 * accuracy(net, pixels, labels, facts['dataset']):.2f} % in full precision")


if __name__ == "__main__":
    main()
