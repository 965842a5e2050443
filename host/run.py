"""`make run`: any network on any input, with the integer model, PyTorch or the RTL."""

from __future__ import annotations

import math
from collections.abc import Callable

import click
import numpy as np
from tqdm import tqdm

from model.common.command import Command, OutputFile
from model.common.errors import printable
from model.common.files import output
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.data.images import load_images
from model.network import Network, load_network

BATCH = 50
BATCH_VALUES = 1 << 25  # of the network's largest tensor


def run_batches(
    forward: Callable[[np.ndarray], np.ndarray], net: Network, images: np.ndarray, label: str
) -> np.ndarray:
    """`forward` over batches of images with a progress bar; int32 [N, C, H, W]."""
    largest = max(
        math.prod(shape) for shape in (net.input_shape, *(layer.out_shape for layer in net.layers))
    )
    batch = max(1, min(BATCH, BATCH_VALUES // largest))
    starts = range(0, len(images), batch)
    return np.concatenate(
        [
            forward(images[i : i + batch])
            for i in tqdm(starts, desc=label, unit="batch", disable=len(starts) < 3)
        ]
    )


def run_int(net: Network, images: np.ndarray) -> dict:
    """{"y": int32 [N, C, H, W]} of the NumPy reference."""
    from model.reference.integer import run_integer

    return {"y": run_batches(lambda part: run_integer(net, part), net, images, "int")}


def run_torch(net: Network, images: np.ndarray) -> dict:
    """{"y": int32 [N, C, H, W]} of the PyTorch module."""
    import torch

    from model.reference.torch_net import TorchNet

    module = TorchNet(net)
    forward = lambda part: module(torch.from_numpy(part)).numpy()
    return {"y": run_batches(forward, net, images, "torch")}


# {name: function of a network and images, int32 [N, C, H, W]}
BACKENDS = {"int": run_int, "torch": run_torch}


def run_rtl(net: Network, images: np.ndarray, modules: int, planes: int = 3) -> dict:
    """{"y": int32 [N, C, H, W], "cycles": int64 [N, layers], "total_cycles": int64 [N]} of the
    RTL."""
    from host import rtl_backend  # loads cocotb, which the other backends do without

    hardware = Hardware(num_modules=modules, planes=planes)
    compiled = compile_network(net, hardware)
    run = rtl_backend.run_rtl(net, images, hardware, compiled=compiled, show=True)
    return {
        "y": run.tensors[net.layers[-1].name],
        "cycles": run.cycles,
        "total_cycles": run.total_cycles,
    }


@click.command(cls=Command, help=__doc__)
@click.option(
    "--net",
    "net_path",
    required=True,
    type=click.Path(dir_okay=False),
    help="network file, .clipq.npz",
)
@click.option(
    "--images",
    "images_path",
    required=True,
    type=click.Path(dir_okay=False),
    help="integers (or pixels) [N, C, H, W], .npy",
)
@click.option(
    "--backend", type=click.Choice(["int", "torch", "rtl"]), default="int", show_default=True
)
@click.option(
    "--out",
    "out_path",
    required=True,
    type=OutputFile(),
    help="results: y, and for rtl cycles and total_cycles",
)
@click.option("--pixels", is_flag=True, help="the images are uint8 pixels")
@click.option(
    "--modules",
    type=click.Choice(["4", "8", "16"]),
    default="4",
    show_default=True,
    help="conv modules of the RTL",
)
@click.option(
    "--planes",
    type=click.Choice(["2", "3"]),
    default="3",
    show_default=True,
    help="index planes of the RTL; 2 for codebooks with w3 = w1 + w2",
)
def main(
    net_path: str,
    images_path: str,
    backend: str,
    out_path: str,
    pixels: bool,
    modules: str,
    planes: str,
) -> None:
    net = load_network(net_path)
    images = load_images(images_path, net, pixels)
    if backend == "rtl":
        results = run_rtl(net, images, int(modules), int(planes))
    else:
        results = BACKENDS[backend](net, images)
    with output(out_path) as handle:
        np.savez_compressed(handle, **results)
    shape = " x ".join(map(str, results["y"].shape))
    cycles = (
        f", {int(results['total_cycles'].mean()):,} cycles per image" if backend == "rtl" else ""
    )
    print(
        f"{net.name}: {len(images)} images with {backend}, results {shape}{cycles}: "
        f"{printable(out_path)}"
    )
