"""`make diff`: each layer's tensor in real numbers, unrounded, in integers and in RTL, side by
side: where accuracy goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import click
import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.nn import functional as F

from host.simulation import runner
from model.common.archive import read_array
from model.common.command import Command, OutputFile
from model.common.console import wide_console
from model.common.errors import UserError, printable
from model.common.files import file_name, output
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.data.images import load_images
from model.interchange import exact
from model.interchange.importing import Numbers, raw_input
from model.network import Layer, Network, load_network
from model.reference.integer import run_integer

MAX_VALUES = 1 << 25  # of a tensor of all images


class DiffError(UserError, ValueError):
    """Images, network and model that do not belong together."""


@dataclass(frozen=True)
class Row:
    """One layer. error: largest difference of integers and unrounded values, in steps of the
    integers; SQNR in dB: of the integers against the unrounded values, of the unrounded values and
    of the integers against the real numbers (None without a model); clamped: share of integers at
    a limit other than ReLU's; mismatch: the first value in which the RTL differs, "" for none, None
    without RTL or where its tensor is not written, since a sum is fused into the layer."""

    name: str
    error: float
    rounding: float
    weights: float | None
    total: float | None
    clamped: float
    mismatch: str | None


def unrounded(net: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """{layer: float64 [N, C, H, W]}: the network without rounding between layers. x: float64
    [N, C, H, W] in steps of the input integers."""
    tensors = {"input": torch.from_numpy(np.asarray(x, np.float64))}
    for layer in net.layers:
        tensors[layer.name] = _layer(layer, *(tensors[name] for name in layer.inputs))
    return {layer.name: tensors[layer.name].numpy() for layer in net.layers}


def _layer(layer: Layer, *x: torch.Tensor) -> torch.Tensor:
    if layer.op == "maxpool":
        return F.max_pool2d(x[0], layer.kernel, layer.stride, layer.pad)
    if layer.op == "add":
        total = x[0] * layer.mult[0] + x[1] * layer.mult[1]
        return (total / 2.0**layer.shift).clamp(layer.out_min, layer.out_max)
    if layer.op == "avgpool":
        vertical, horizontal = layer.pad
        padded = F.pad(x[0], (horizontal, horizontal, vertical, vertical))
        sums = F.avg_pool2d(padded, layer.kernel, layer.stride, divisor_override=1)
    else:
        weight = torch.from_numpy(layer.weights.astype(np.float64))
        bias = torch.from_numpy(layer.bias.astype(np.float64))
        sums = F.conv2d(x[0], weight, bias, layer.stride, layer.pad)
    if layer.out == "int32":
        return sums
    factor = torch.from_numpy(np.atleast_1d(layer.mult / 2.0 ** np.asarray(layer.shift, float)))
    return (sums * factor.reshape(-1, 1, 1)).clamp(layer.out_min, layer.out_max)


def sqnr(signal: np.ndarray, other: np.ndarray, scale: float = 1.0) -> float:
    """dB of signal over its difference to scale * other, see `exact.sqnr`."""
    return exact.sqnr(signal, signal - scale * other)


def fitted_scale(signal: np.ndarray, other: np.ndarray) -> float:
    """The factor that brings `other` nearest to `signal`."""
    power = float(np.square(other.astype(np.float64)).sum())
    return float((signal * other).sum()) / power if power else 0.0


def compare(
    net: Network,
    integers: dict[str, np.ndarray],
    fake: dict[str, np.ndarray],
    real: dict[str, np.ndarray] | None = None,
    rtl: dict[str, np.ndarray] | None = None,
) -> list[Row]:
    """A row for each layer, from its tensors [N, C, H, W] in each form. Raises DiffError for a
    model without one of the layers."""
    from host.rtl_backend import first_mismatch

    rows = []
    for layer in net.layers:
        name, y, soft = layer.name, integers[layer.name], fake[layer.name]
        weights = total = None
        if real is not None:
            if name not in real or real[name].shape != y.shape:
                raise DiffError(
                    f"layer '{printable(name)}' is not in the model: give the one that the network "
                    "was imported from"
                )
            weights, total = (
                sqnr(real[name], other, fitted_scale(real[name], other)) for other in (soft, y)
            )
        at_limit = np.zeros(y.shape, bool)
        if layer.out_max is not None:
            at_limit = (y == layer.out_max) | (y == layer.out_min if layer.out_min else False)
        rows.append(
            Row(
                name,
                float(np.abs(soft - y).max()),
                sqnr(soft, y),
                weights,
                total,
                float(at_limit.mean()),
                first_mismatch(name, y, rtl[name]) if rtl and name in rtl else None,
            )
        )
    return rows


def real_tensors(path: str, pixels: np.ndarray, mean: object, std: object) -> dict:
    """{layer: float64 [N, C, H, W]} of an ONNX model on uint8 pixels. Raises UserError."""
    from model.interchange.lower import lower
    from model.interchange.onnx_file import load_graph
    from model.interchange.quantize import run_net

    graph = lower(load_graph(path))
    raw, _ = raw_input(graph, pixels, mean, std)
    assert raw is not None
    return run_net(graph, raw)


def show(
    rows: list[Row], net: Network, console: Console, sums: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Print the rows as a table. sums: {convolution: the sum that is fused into it in RTL}."""
    table = Table(title=escape(f"{net.name}: signal over noise in dB, from one form to the other"))
    right = [
        "real to unrounded",
        "real to integer",
        "unrounded to integer",
        "largest error, steps",
        "at a limit",
    ]
    for column in ["layer", "op", *right, "RTL"]:
        table.add_column(column, justify="right" if column in right else "left")
    for row, layer in zip(rows, net.layers):
        values = (row.weights, row.total, row.rounding)
        table.add_row(
            escape(row.name),
            layer.op,
            *("" if v is None else f"{v:.1f}" for v in values),
            f"{row.error:.2f}",
            f"{100 * row.clamped:.2f} %",
            escape(_in_rtl(row, sums)),
        )
    console.print(table)


def _in_rtl(row: Row, sums: Mapping[str, str]) -> str:
    if row.mismatch is not None:
        return row.mismatch or "equal"
    return f"in {sums[row.name]}" if row.name in sums else ""


def plot(rows: list[Row], net: Network, path: str | Path) -> None:
    """A PNG of the rows' SQNR."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(max(6.0, 0.45 * len(rows)), 5), layout="constrained")
    for label, values in (
        ("real to unrounded: weights", [row.weights for row in rows]),
        ("unrounded to integer: activations", [row.rounding for row in rows]),
        ("real to integer: both", [row.total for row in rows]),
    ):
        if values[0] is not None:
            finite = [v if v is not None and math.isfinite(v) else math.nan for v in values]
            axes.plot(range(len(rows)), finite, marker="o", label=label)
    axes.set_xticks(range(len(rows)), [row.name for row in rows], rotation=90, parse_math=False)
    axes.set_title(net.name, parse_math=False)
    axes.set_ylabel("SQNR in dB")
    axes.grid(alpha=0.3)
    axes.legend()
    with output(path) as handle:
        figure.savefig(handle, format="png", dpi=120)
    plt.close(figure)


@click.command(cls=Command, help=__doc__)
@click.option("--net", "net_path", required=True, help="network file, .clipq.npz")
@click.option(
    "--images", "images_path", required=True, help="integers or pixels [N, C, H, W], .npy"
)
@click.option("--float", "float_path", help="the ONNX model that the network was imported from")
@click.option(
    "--backend", type=click.Choice(["int", "rtl"]), default="int", help="rtl: compare the RTL, too"
)
@click.option("--out", type=OutputFile(), help="plot, .png  [build/diff-NAME.png]")
@click.option("--pixels", is_flag=True, help="the images are uint8 pixels")
@click.option("--modules", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--mean", type=Numbers(), help="as given when the model was imported")
@click.option("--std", type=Numbers(), help="as given when the model was imported")
def main(
    net_path: str,
    images_path: str,
    float_path: str | None,
    backend: str,
    out: str | None,
    pixels: bool,
    modules: str,
    mean: list[float] | None,
    std: list[float] | None,
) -> None:
    net = load_network(net_path)
    images = load_images(images_path, net, pixels)
    if float_path is None and (mean or std):
        raise DiffError("--mean and --std belong to a model: give it, too (FLOAT)")
    if float_path is not None and not pixels:
        raise DiffError("FLOAT needs images that are pixels (PIXELS=1)")
    largest = max(math.prod(s) for s in (net.input_shape, *(x.out_shape for x in net.layers)))
    images = images[: max(1, MAX_VALUES // largest)]
    soft, real, rtl = images.astype(np.float64), None, None
    sums: dict[str, str] = {}
    if pixels and net.scale is not None and net.offset is not None:
        given = np.asarray(read_array(images_path))[: len(images)]
        scale, offset = (np.array(v).reshape(-1, 1, 1) for v in (net.scale, net.offset))
        soft = (given * scale + offset).clip(*net.input_range)
        if float_path is not None:
            real = real_tensors(float_path, given, mean, std)
    if backend == "rtl":
        from host.rtl_backend import run_rtl

        hardware = Hardware(num_modules=int(modules))
        compiled = compile_network(net, hardware, debug=True)
        sums = compiled.fused_sums
        rtl = run_rtl(net, images, hardware, compiled=compiled, show=True).tensors
    rows = compare(net, run_integer(net, images, keep=True), unrounded(net, soft), real, rtl)
    show(rows, net, wide_console(), sums)
    target = Path(out) if out else runner.BUILD / f"diff-{file_name(net.name)}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    plot(rows, net, target)
    click.echo(f"{len(images)} images; plot: {printable(target)}")
    if any(row.mismatch for row in rows):
        raise DiffError("the RTL differs from the integers")
