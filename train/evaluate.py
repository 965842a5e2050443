"""Top-1 accuracy of a shipped checkpoint on the test images. `python -m train.evaluate FILE`.

A full-precision network (*.float.npz) in float32; a quantized one (*.ckpt.npz) in the integers of
its network file, in the forward pass of the training's last phase. `make accuracy` gives the same
figure from the network file alone, by other code and slower.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import click
import torch

from model.common.command import Command
from train import checkpoint, data
from train.nin import to_input
from train.options import FILE, THREADS


@torch.no_grad()
def accuracy(net, pixels, labels, dataset: str, threads: int = 1, batch: int = 100) -> float:
    """Top-1 0..1; a network in mode "fake" is evaluated in mode "exact". pixels: uint8 [N, 3, 32,
    32]."""
    net.eval()
    if net.mode == "fake":
        net.mode = "exact"
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        right = pool.map(
            lambda part: _right(net, *part, dataset), zip(pixels.split(batch), labels.split(batch))
        )
        return sum(right) / len(labels)


@torch.no_grad()
def _right(net, pixels, labels, dataset) -> int:
    return (net(to_input(pixels, dataset)).argmax(1) == labels).sum().item()


@click.command(cls=Command)
@click.argument("path", type=FILE)
@click.option("--threads", type=THREADS, default=os.cpu_count(), show_default=True)
def main(path, threads):
    """Top-1 accuracy of PATH (*.float.npz or *.ckpt.npz) on the 10,000 test images."""
    net, facts = checkpoint.read(path)
    pixels, labels = data.load(facts["dataset"])["test"]
    way = "full precision" if net.mode == "float" else "integers"
    click.echo(
        f"{path.name}: top-1 {100 * accuracy(net, pixels, labels, facts['dataset'], threads):.2f} "
        f"% in {way}"
    )


if __name__ == "__main__":
    main()
