"""`make run`: any network on any input, with the integer model, PyTorch or the RTL."""
from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from model.compiler import CompileError, compile_network
from model.compiler.hardware import Hardware
from model.images import ImageError, load_images
from model.network import NetworkError, load_network
from tb import rtl_backend, runner

BATCH = 50


def run_batches(forward, images: np.ndarray, label: str) -> np.ndarray:
    """`forward` over batches of images with a progress bar; int32 [N, C, H, W]."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([forward(images[i:i + BATCH]) for i in tqdm(starts, desc=label, unit="batch", disable=len(starts) < 3)])


def run_int(net, images: np.ndarray) -> dict:
    from model.integer import run_integer
    return {"y": run_batches(lambda part: run_integer(net, part), images, "int")}


def run_torch(net, images: np.ndarray) -> dict:
    import torch
    from model.torch_net import TorchNet
    module = TorchNet(net).eval()

    def forward(part):
        with torch.no_grad():
            return module(torch.from_numpy(part)).numpy()

    return {"y": run_batches(forward, images, "torch")}


def run_rtl(net, images: np.ndarray, modules: int) -> dict:
    hardware = Hardware(num_modules=modules)
    compiled = compile_network(net, hardware)
    run = rtl_backend.run_rtl(net, images, hardware, compiled=compiled, show=True)
    return {"y": run.tensors[net.layers[-1].name], "cycles": run.cycles, "total_cycles": run.total_cycles}


@click.command(help=__doc__)
@click.option("--net", "net_path", required=True, type=click.Path(dir_okay=False), help="network file, .clipq.npz")
@click.option("--images", "images_path", required=True, type=click.Path(dir_okay=False), help="integers (or pixels) [N, C, H, W], .npy")
@click.option("--backend", type=click.Choice(["int", "torch", "rtl"]), default="int", show_default=True)
@click.option("--out", "out_path", required=True, type=click.Path(dir_okay=False), help="results: y, and for rtl cycles and total_cycles")
@click.option("--pixels", is_flag=True, help="the images are uint8 pixels")
@click.option("--modules", type=click.Choice(["4", "8", "16"]), default="4", show_default=True, help="conv modules of the RTL")
def main(net_path, images_path, backend, out_path, pixels, modules):
    try:
        net = load_network(net_path)
        images = load_images(images_path, net, pixels)
        if backend == "rtl":
            results = run_rtl(net, images, int(modules))
        else:
            results = (run_int if backend == "int" else run_torch)(net, images)
        save(out_path, results)
    except (NetworkError, ImageError, CompileError) as error:
        sys.exit(f"error: {error}")
    except (runner.RunnerError, rtl_backend.SimulationError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or out_path}: {error.strerror or error}")
    shape = " x ".join(map(str, results["y"].shape))
    cycles = f", {int(results['total_cycles'].mean()):,} cycles per image" if backend == "rtl" else ""
    print(f"{net.name}: {len(images)} images with {backend}, results {shape}{cycles}: {out_path}")


def save(path: str, results: dict) -> None:
    """Write the .npz under exactly this name, and never half of it."""
    part = Path(f"{path}.part")
    with open(part, "wb") as handle:
        np.savez_compressed(handle, **results)
    part.replace(path)


if __name__ == "__main__":
    main()
