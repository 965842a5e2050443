"""`make demo`: real CIFAR-10 images through the RTL, every layer of the first one and all logits
compared with PyTorch."""

from __future__ import annotations

import sys
import time

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from host import rtl_backend
from model.common.command import Command
from model.common.errors import UserError, printable
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.data.images import ZOO, bundled_images, pixels_to_input
from model.network import Network, load_network
from model.reference.torch_net import TorchNet

CLOCK_NOTE = "at 100 MHz"
CLOCK_HZ = 100e6
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def compare_layers(net: Network, images: np.ndarray, hardware: Hardware, console: Console) -> bool:
    """Debug program: every layer's tensor of the first image against PyTorch."""
    compiled = compile_network(net, hardware, debug=True)
    run = rtl_backend.run_rtl(net, images[:1], hardware, compiled=compiled, show=True)
    with torch.no_grad():
        expected = TorchNet(net).eval()(torch.from_numpy(images[:1]), keep=True)
    table = Table(title="Every layer of the first image, RTL against PyTorch")
    for column in ("layer", "output", "values", "equal"):
        table.add_column(column, justify="right" if column == "values" else "left")
    good = True
    for layer in net.layers:
        verdict = f"in {compiled.fused_sums.get(layer.name)}"  # what the RTL writes is the sum
        if layer.name in run.tensors:
            mismatch = rtl_backend.first_mismatch(
                layer.name, expected[layer.name].numpy(), run.tensors[layer.name]
            )
            good &= not mismatch
            verdict = mismatch or "all"
        table.add_row(
            layer.name,
            " x ".join(map(str, layer.out_shape)),
            f"{np.prod(layer.out_shape):,}",
            verdict,
        )
    console.print(table)
    return good


def compare_images(
    net: Network, images: np.ndarray, labels: np.ndarray, hardware: Hardware, console: Console
) -> bool:
    """All images: logits against PyTorch, classes, cycles."""
    compiled = compile_network(net, hardware)
    start = time.perf_counter()
    run = rtl_backend.run_rtl(net, images, hardware, compiled=compiled, show=True)
    wall = time.perf_counter() - start
    last = net.layers[-1].name
    logits = run.tensors[last]
    with torch.no_grad():
        expected = TorchNet(net).eval()(torch.from_numpy(images)).numpy()
    table = Table(
        title=f"{len(images)} test images through the RTL, {hardware.num_modules} conv modules"
    )
    for column in (
        "image",
        "is a",
        "the RTL says",
        "logits = PyTorch",
        "cycles",
        f"frames/s {CLOCK_NOTE}",
    ):
        table.add_column(column, justify="right" if column[0] in "cf" else "left")
    for number, (label, got, want, cycles) in enumerate(
        zip(labels, logits, expected, run.total_cycles)
    ):
        table.add_row(
            str(number),
            net.classes[label],
            net.classes[int(got.reshape(-1).argmax())],
            "yes" if np.array_equal(got, want) else "NO",
            f"{cycles:,}",
            f"{CLOCK_HZ / cycles:.1f}",
        )
    console.print(table)
    right = int((logits.reshape(len(images), -1).argmax(1) == labels).sum())
    console.print(
        f"{right} of {len(images)} classified as labelled; {int(run.total_cycles.mean()):,} cycles "
        "per image; simulated "
        f"{run.seconds.mean():.2f} s per image on this machine ({wall:.0f} s in all)"
    )
    mismatch = rtl_backend.first_mismatch(last, expected, logits)
    if mismatch:
        console.print(mismatch)
    return not mismatch


@click.command(cls=Command, help=__doc__)
@click.option(
    "--modules",
    type=click.Choice(["4", "8", "16"]),
    default="4",
    show_default=True,
    help="conv modules of the RTL",
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(1, 200),
    default=10,
    show_default=True,
    help="number of test images",
)
@click.option(
    "--net",
    "path",
    default=str(ZOO / "nin-cifar10.clipq.npz"),
    show_default=True,
    help="a CIFAR-10 network",
)
def main(modules: str, count: int, path: str) -> None:
    console = Console(markup=False, emoji=False)
    net = load_network(path)
    if net.output.out_shape != (len(CLASSES), 1, 1) or net.classes != CLASSES:
        raise UserError(
            f"{printable(path)}: the demo needs a network with the {len(CLASSES)} classes of "
            "CIFAR-10; make run takes any"
        )
    pixels, labels = bundled_images("cifar10")
    images = pixels_to_input(net, pixels[:count])
    hardware = Hardware(num_modules=int(modules))
    console.print(
        f"Network {net.name}: "
        f"{sum(layer.index.size for layer in net.layers if layer.op == 'conv'):,} weights of 2 "
        "bits, "
        f"{sum(layer.macs for layer in net.layers if layer.op == 'conv'):,} multiply-accumulates "
        "per image."
    )
    good = compare_layers(net, images, hardware, console)
    good &= compare_images(net, images, labels[:count], hardware, console)
    console.print(
        "PASSED: the RTL and PyTorch agree in every value compared."
        if good
        else "FAILED: the RTL and PyTorch differ."
    )
    sys.exit(0 if good else 1)
