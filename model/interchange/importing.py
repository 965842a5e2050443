"""`python -m model import`: an ONNX or QONNX model, from Python a torch module too, becomes a
network file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.common.archive import read_array
from model.common.command import Command, OutputFile
from model.common.console import wide_console
from model.common.errors import UserError, printable
from model.interchange.float_net import FloatNet
from model.network import save_network

if TYPE_CHECKING:
    import onnx
    import torch

    from model.interchange.quantize import Quantized


class CalibrationError(UserError, ValueError):
    """Calibration images or normalization that do not fit the model."""


def import_onnx(
    path: str, images: Any = None, mean: Any = None, std: Any = None
) -> tuple[Quantized, list[str]]:
    """The network of an ONNX file: model.interchange.quantize.Quantized, and notes for the user.

    images: calibration images [N, C, H, W]: uint8 pixels, or real numbers as the model reads them;
    None for a model that prescribes all quantization. mean, std: [C] or one number, in units of
    pixel / 255; the model reads (pixel / 255 - mean) / std. Raises UserError.
    """
    from model.interchange.lower import lower
    from model.interchange.onnx_file import ModelError, load_graph

    graph = load_graph(path)
    try:
        return _import(lower(graph), images, mean, std)
    except ModelError as error:
        raise ModelError(f"{printable(path)}: {error}") from None


def import_torch(
    module: torch.nn.Module, images: Any, mean: Any = None, std: Any = None
) -> tuple[Quantized, list[str]]:
    """The network of a torch.nn.Module in evaluation mode, through ONNX; the rest as import_onnx.
    images: [N, C, H, W], of the size that the network shall have."""
    from model.interchange.lower import lower
    from model.interchange.onnx_file import graph_of

    return _import(lower(graph_of(to_onnx(module, np.shape(images)[1:]))), images, mean, std)


def to_onnx(module: torch.nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """onnx.ModelProto of a torch.nn.Module in evaluation mode that reads [1, *shape]. Raises
    UserError where torch cannot export it."""
    import torch

    example = torch.zeros(1, *shape)
    training = module.training
    try:
        program = torch.onnx.export(module.eval(), (example,), dynamo=True, verbose=False)
    except Exception as error:  # torch.export raises whatever the module's code does
        reason = printable(str(error).strip().split("\n")[0][:300])
        raise UserError(f"{type(module).__name__}: torch cannot export it ({reason})") from error
    finally:
        module.train(training)
    assert program is not None, "torch.onnx.export with dynamo=True returns the program"
    return program.model_proto


def _import(net: FloatNet, images: Any, mean: Any, std: Any) -> tuple[Quantized, list[str]]:
    from model.interchange.quantize import MAX_IMAGES, quantize

    raw, pixels = raw_input(net, images, mean, std, MAX_IMAGES)
    return quantize(net, raw, pixels), net.notes


def raw_input(
    net: FloatNet, images: Any, mean: Any, std: Any, most: int | None = None
) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray] | None]:
    """(what the model reads, float64 [N, C, H, W] or None; (gain, offset) of it in pixels or
    None). images, mean, std: as for import_onnx; most: images that are read at most. Raises
    CalibrationError."""
    channels = net.input_shape[0]
    normalized = bool((net.gain != 1).any() or (net.offset != 0).any())
    pixels = None
    if mean is not None or std is not None:
        mean = _per_channel("mean", 0.0 if mean is None else mean, channels)
        std = _per_channel("std", 1.0 if std is None else std, channels)
        if (np.abs(mean) > 1).any() or (std <= 0).any() or (std > 1).any():
            raise CalibrationError(
                f"mean {mean.tolist()} and std {std.tolist()} are in units of pixel / 255: mean in "
                "-1..1, std in 0..1; divide both by 255"
            )
        pixels = 1 / (255 * std), -mean / std
    elif normalized and (images is None or np.asarray(images).dtype == np.uint8):
        pixels = np.ones(channels), np.zeros(channels)
    if images is None:
        return None, pixels
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != net.input_shape or not len(images):
        raise CalibrationError(
            f"calibration images must be [N, {', '.join(map(str, net.input_shape))}], not "
            f"{list(images.shape)}"
        )
    images = images[:most]
    if images.dtype == np.uint8:
        if pixels is None:
            raise CalibrationError(
                "calibration images are uint8 pixels, but the model has no normalization: say "
                "--mean and --std, in units of pixel / 255 (0 and 1 if it reads pixel / 255), or "
                "give the numbers that the model reads"
            )
        gain, offset = (v[:, None, None] for v in pixels)
        return images * gain + offset, pixels
    if images.dtype.kind not in "fiu":
        raise CalibrationError(f"calibration images must be numbers, not {images.dtype}")
    if pixels is None and normalized:
        net.notes.append(
            "the calibration images are not uint8, so what a pixel is stays unknown: the file has "
            "no scale and offset (give uint8 pixels, or --mean and --std)"
        )
    images = images.astype(np.float64)
    if not np.isfinite(images).all():
        raise CalibrationError("calibration images hold NaN or infinite values")
    return images, pixels


def _per_channel(name: str, value: Any, channels: int) -> np.ndarray:
    values = np.asarray(value, np.float64).reshape(-1)
    if values.size not in (1, channels) or not np.isfinite(values).all():
        raise CalibrationError(f"{name}: one finite number, or one for each of {channels} channels")
    return np.broadcast_to(values, channels).copy()


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return [float(v) for v in value.split(",")] if isinstance(value, str) else value
        except ValueError:
            self.fail(f"{printable(value)!r} is not a list of numbers, as in 0.49,0.48,0.45")


def show(quantized: Quantized, notes: list[str], console: Console) -> None:
    """What became of each layer."""
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    table = Table(title=escape(f"{quantized.net.name}: how each layer was quantized"))
    for column in ("layer", "op", "output", "weights", "SQNR", "at a limit"):
        table.add_column(column, justify="right" if column in ("SQNR", "at a limit") else "left")
    for layer, quality in zip(quantized.net.layers, quantized.layers):
        known = not math.isnan(quality.sqnr)
        table.add_row(
            escape(layer.name),
            layer.op,
            " x ".join(map(str, layer.out_shape)),
            escape(quality.weights),
            f"{quality.sqnr:.1f} dB" if known else "",
            f"{100 * quality.clamped:.1f} %" if known else "",
        )
    console.print(table)
    if quantized.agreement is not None:
        console.print(
            f"the class of {100 * quantized.agreement:.1f} % of the calibration images is that of "
            "the model"
        )


@click.command(cls=Command, name="import")
@click.option("--model", "path", required=True, help="ONNX or QONNX model.")
@click.option(
    "--calib", help="Calibration images [N, C, H, W], .npy: uint8 pixels, or real numbers."
)
@click.option("--out", required=True, type=OutputFile(), help="Network file, .clipq.npz.")
@click.option("--mean", type=Numbers(), help="Of the pixels / 255, e.g. 0.49,0.48,0.45.")
@click.option("--std", type=Numbers(), help="Likewise: the model reads (pixel / 255 - mean) / std.")
def main(path: str, calib: str | None, out: str, mean: Any, std: Any) -> None:
    """An ONNX or QONNX model becomes a network file."""
    images = None
    if calib is not None:
        try:
            images = read_array(calib)
        except UserError as error:
            raise CalibrationError(f"{printable(calib)}: {error}") from None
    quantized, notes = import_onnx(path, images, mean, std)
    save_network(quantized.net, out)
    show(quantized, notes, wide_console())
    click.echo(f"Written: {printable(out)}")
