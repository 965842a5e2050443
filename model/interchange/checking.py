"""`python -m model check`: whether a model or network file runs on the accelerator, and what it
costs. No simulator is needed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model.common.command import Command
from model.common.console import wide_console
from model.common.errors import printable
from model.compiler import Compiled, CompileError, compile_network
from model.compiler.hardware import Hardware
from model.compiler.weights import numbered
from model.interchange.codebook import Fit, find_levels, keeps_sums
from model.interchange.float_net import FloatLayer, FloatNet
from model.network import Layer, Network, NetworkError, load_network
from model.performance.cycle_model import ImageCycles, predict

MODES = {0: "1 wide", 1: "3 wide", 2: "5 wide"}


@dataclass(frozen=True)
class Verdict:
    """problems: why the network does not run, one line each, empty if it does. layers: what there
    is to show of each. compiled, prediction: None if it does not run."""

    problems: list[str]
    layers: list[Layer]
    origin: dict[str, str]
    notes: list[str]
    compiled: Compiled | None = None
    prediction: ImageCycles | None = None


def check(path: str | Path, hardware: Hardware) -> Verdict:
    """Check an ONNX model or a network file. Raises UserError for a file that cannot be read."""
    if str(path).endswith(".npz"):
        net = load_network(path)
        return _compiled(net, list(net.layers), {}, [], hardware)
    from model.interchange.builder import UnsupportedModel
    from model.interchange.lower import lower
    from model.interchange.onnx_file import ModelError, load_graph

    graph = load_graph(path)
    try:
        model = lower(graph)
    except UnsupportedModel as error:
        return Verdict(error.problems, [], {}, [])
    except ModelError as error:
        raise ModelError(f"{printable(path)}: {error}") from None
    origin = {layer.name: " + ".join(layer.origin) for layer in model.layers}
    layers, problems = _structure(model)
    problems += _plane_problems(model, layers, hardware)
    if problems:
        return Verdict(problems, layers, origin, model.notes)
    net = Network(name=model.name, input_shape=model.input_shape, input_signed=True, layers=layers)
    return _compiled(net, list(net.layers), origin, model.notes, hardware)


def _compiled(
    net: Network, layers: list[Layer], origin: dict[str, str], notes: list[str], hardware: Hardware
) -> Verdict:
    try:
        compiled = compile_network(net, hardware)
    except CompileError as error:  # the first of perhaps several
        problems = [p for layer in layers if (p := _alone(net, layer, hardware))]
        return Verdict(problems or [str(error)], layers, origin, notes)
    return Verdict([], layers, origin, notes, compiled, predict(compiled))


def _alone(net: Network, layer: Layer, hardware: Hardware) -> str | None:
    """Why the compiler refuses the layer on its own, None if it takes it."""
    twin = f"{layer.name}'"[-255:]
    inputs = ("input", twin)[: len(set(layer.inputs))]
    names = dict(zip(dict.fromkeys(layer.inputs), inputs))
    before = []
    if twin in inputs:  # a second tensor of the input's shape
        one: dict[str, Any] = dict(kernel=(1, 1), stride=(1, 1), pad=(0, 0))
        before = [Layer(name=twin, op="maxpool", inputs=("input",), **one)]
    try:
        compile_network(
            Network(
                name=net.name,
                input_shape=layer.in_shape,
                input_signed=layer.in_signed_all[0],
                layers=[*before, replace(layer, inputs=tuple(names[n] for n in layer.inputs))],
            ),
            hardware,
        )
    except CompileError as error:
        named = repr(layer.name) in str(error)
        return str(error) if named else f"layer {layer.name!r}: {error}"
    return None


def _structure(model: FloatNet) -> tuple[list[Layer], list[str]]:
    """The layers of a model that is not quantized, with any weights, and what the network file's
    rules have against each."""
    layers, problems, signed = [], [], {"input": True}
    for number, layer in enumerate(model.layers):
        last = number + 1 == len(model.layers)
        made = _any_weights(layer, signed, last)
        shapes = [model.shape(name) for name in layer.inputs]
        try:
            checked = Network(
                name=model.name,
                input_shape=shapes[0],
                input_signed=signed[layer.inputs[0]],
                layers=[replace(made, inputs=("input",) * len(layer.inputs))],
            )
            signed[layer.name] = checked.layers[0].out_signed
        except NetworkError as error:
            signed[layer.name] = False
            problems.append(f"{error} (from {' + '.join(layer.origin)})")
        layers.append(made)
    return layers, problems


def _plane_problems(model: FloatNet, layers: list[Layer], hardware: Hardware) -> list[str]:
    """What two index planes have against the weights that an import gives each layer."""
    if hardware.planes == 3:
        return []
    pairs = [pair for pair in zip(model.layers, layers) if pair[0].op == "conv"]
    return [p for layer, made in pairs if (p := _needs_three_planes(layer, made, hardware))]


def _needs_three_planes(layer: FloatLayer, made: Layer, hardware: Hardware) -> str | None:
    fit = _exact(layer)
    if fit is None:
        return (
            f"layer {layer.name!r}: weights: an import gives them any three values and zero, two "
            "index planes need one that is the sum of the other two; train such codebooks "
            "(docs/training.md) or take PLANES=3"
        )
    try:
        numbered(replace(made, codebook=fit.codebook, index=fit.index), hardware)
    except CompileError as error:
        return f"layer {layer.name!r}: {error}"
    return None


def _exact(layer: FloatLayer) -> Fit | None:
    return find_levels(layer.weight.reshape(len(layer.weight), -1))


def _any_weights(layer: FloatLayer, signed: dict[str, bool], last: bool) -> Layer:
    inputs = [signed[name] for name in layer.inputs]
    low = -128 if layer.low < 0 and (layer.op == "conv" or any(inputs)) else 0
    if layer.grid is not None:
        low = layer.grid.low
    raw = last and layer.op in ("conv", "avgpool")
    raw = raw and keeps_sums(layer, _exact(layer) if layer.op == "conv" else None)
    fields: dict[str, Any] = dict(name=layer.name, op=layer.op, inputs=layer.inputs)
    scaling: dict[str, Any] = {} if raw else dict(out_min=low, out_max=127 if low < 0 else 255)
    if raw:
        fields["out"] = "int32"
    if layer.op != "add":
        fields.update(stride=layer.stride, pad=layer.pad)
    if layer.op == "conv":
        channels = len(layer.weight)
        arrays: dict[str, Any] = dict(
            index=np.zeros(layer.weight.shape, np.uint8),
            codebook=np.zeros(4, np.int8),
            bias=np.zeros(channels, np.int32),
        )
        if not raw:
            scaling.update(mult=np.ones(channels, np.int32), shift=np.zeros(channels, np.uint8))
        return Layer(**fields, **arrays, **scaling)
    if layer.op == "maxpool":
        return Layer(**fields, kernel=layer.kernel)
    if layer.op == "avgpool":
        parts: dict[str, Any] = {} if raw else dict(mult=1, shift=0)
        return Layer(**fields, kernel=layer.kernel, **parts, **scaling)
    return Layer(**fields, mult=(1, 1), shift=0, **scaling)


def high_water(compiled: Compiled) -> tuple[int, str]:
    """(bytes of the feature buffer that live tensors take at most, the layer that runs then)."""
    last_use = {}
    for number, entry in enumerate(compiled.entries):
        for name in entry.inputs:
            last_use[name] = number
    alive, most = {"input"}, (0, "")
    for number, entry in enumerate(compiled.entries):
        if entry.output.name in compiled.tensors:
            alive.add(entry.output.name)
        held = 4 * sum(compiled.tensors[name].size for name in alive)
        most = max(most, (held, entry.name), key=lambda pair: pair[0])
        alive = {name for name in alive if last_use.get(name, number + 1) > number}
    return most


def show(verdict: Verdict, hardware: Hardware, clock: float, console: Console) -> None:
    for note in verdict.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    if verdict.layers:
        console.print(_table(verdict, hardware))
    if verdict.compiled is not None and verdict.prediction is not None:
        cycles = verdict.prediction.total_cycles
        held, where = high_water(verdict.compiled)
        console.print(
            f"{cycles:,} cycles an image: {clock * 1e6 / cycles:,.1f} frames/s at {clock:g} MHz "
            f"with {hardware.num_modules} conv modules",
            f"weights: {8 * len(verdict.compiled.weights):,} bytes an image; feature buffer: at "
            f"most {held:,} of {4 * hardware.quads:,} bytes in use, in {where}",
            sep="\n",
            markup=False,
            highlight=False,
        )
    for problem in verdict.problems:
        console.print(f"not possible: {problem}", markup=False, highlight=False)


def _table(verdict: Verdict, hardware: Hardware) -> Table:
    compiled, prediction = verdict.compiled, verdict.prediction
    table = Table()
    right = ("weights", "output bytes", "MACs", "cycles", "utilization")
    columns = ("layer", "from", "op", "output", "mode", *right)
    for column in columns:
        if column != "from" or verdict.origin:
            figures = column in right  # whole, in a narrow terminal too
            table.add_column(column, justify="right" if figures else "left", no_wrap=figures)
    for number, layer in enumerate(verdict.layers):
        row = [layer.name, layer.op]
        row[1:1] = [verdict.origin[layer.name]] if verdict.origin else []
        cells = [""] * 7
        if compiled is not None and prediction is not None:
            cost = prediction.layers[number]
            fused, plan = compiled.fused_into, compiled.plans.get(layer.name)
            tensor = compiled.tensors.get(layer.name)
            cells = [
                " x ".join(map(str, layer.out_shape)),
                MODES[plan.mode] if plan else "",
                f"{layer.index.size:,}" if layer.op == "conv" else "",
                f"{4 * tensor.size:,}" if tensor else "",
                f"{cost.macs:,}" if cost.macs else "",
                f"in {fused[layer.name]}" if layer.name in fused else f"{cost.cycles:,}",
                f"{100 * cost.utilization(hardware.num_modules):.1f} %" if cost.macs else "",
            ]
        table.add_row(*(escape(cell) for cell in row + cells))
    return table


@click.command(cls=Command, name="check")
@click.option("--net", "path", required=True, help="Model (.onnx) or network file (.clipq.npz).")
@click.option("--modules", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--planes", type=click.Choice(["2", "3"]), default="3", show_default=True)
@click.option(
    "--clock", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True,
    help="MHz, for frames/s.",
)  # fmt: skip
def main(path: str | Path, modules: str, planes: str, clock: float) -> None:
    """Whether a model or network file runs on the accelerator, and what it costs."""
    hardware = Hardware(num_modules=int(modules), planes=int(planes))
    verdict = check(path, hardware)
    show(verdict, hardware, clock, wide_console())
    if verdict.problems:
        sys.exit(f"error: {printable(path)} does not run on the accelerator")
    click.echo(f"{printable(path)} runs on the accelerator")
