"""`make perf`: cycles, utilization and memory accesses of every layer of a network, measured in RTL
and predicted; writes build/perf.json."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from host import rtl_backend
from host.simulation import runner
from model.common.command import Command
from model.common.files import write_text
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.data.images import ZOO, bundled_images, pixels_to_input
from model.network import Network, load_network
from model.performance import energy, paper_dataflow
from model.performance.cycle_model import predict


def measure(net: Network, hardware: Hardware, images: np.ndarray) -> dict:
    """One record per layer and the totals: measured and predicted side by side."""
    compiled = compile_network(net, hardware)
    run = rtl_backend.run_rtl(net, images, hardware, compiled=compiled, show=True)
    prediction = predict(compiled)
    paper = paper_dataflow.network_cycles(net, hardware.num_modules)
    layers = []
    for number, (layer, expected) in enumerate(zip(net.layers, prediction.layers)):
        cycles, stalls, reads, writes, weights = (int(v) for v in run.counters[0, number])
        record = {
            "layer": layer.name,
            "op": layer.op,
            "macs": expected.macs,
            "ideal_cycles": expected.ideal,
            "measured": {
                "cycles": cycles,
                "stalls": stalls,
                "reads": reads,
                "writes": writes,
                "weight_words": weights,
                "utilization": replace(expected, cycles=cycles).utilization(hardware.num_modules),
            },
            "predicted": {
                "cycles": expected.cycles,
                "reads": expected.reads,
                "writes": expected.writes,
                "weight_words": expected.weight_words,
                "utilization": expected.utilization(hardware.num_modules),
            },
        }
        if layer.name in compiled.fused_into:
            record["fused_into"] = compiled.fused_into[layer.name]
        if layer.op == "conv":
            record["mode"] = compiled.plans[layer.name].mode
            record["paper_cycles"] = paper[layer.name]
            record["paper_reads"] = paper_dataflow.conv_reads(
                layer.out_shape, layer.in_shape, layer.kernel, hardware.num_modules
            )
        layers.append(record)
    return {
        "network": net.name,
        "modules": hardware.num_modules,
        "images": len(images),
        "layers": layers,
        "total_cycles": {
            "measured": int(run.total_cycles[0]),
            "predicted": prediction.total_cycles,
            "paper": sum(paper.values()),
        },
        "work": {
            name: {**asdict(work), "memory_bits": work.memory_bits}
            for name, work in (
                ("accelerator", energy.accelerator(compiled)),
                ("paper", energy.paper(compiled)),
                ("eight_bit", energy.eight_bit(compiled)),
            )
        },
        "total_cycles_per_image": [int(c) for c in run.total_cycles],
        "simulation_seconds_per_image": float(np.mean(run.seconds)),
        "units": {
            "reads": "32-bit words of the feature buffer",
            "writes": "32-bit words",
            "weight_words": "64-bit words",
            "work": "model/performance/energy.py",
        },
    }


def differences(report: dict[str, Any]) -> list[str]:
    """What the RTL counted and the model did not predict. Weights are read ahead, some of a layer's
    while the one before still counts: only their sum is predicted."""
    pairs = [
        (f"{record['layer']}: {key}", record["measured"][key], record["predicted"][key])
        for record in report["layers"]
        for key in ("cycles", "reads", "writes")
    ]
    weights = [
        sum(record[kind]["weight_words"] for record in report["layers"])
        for kind in ("measured", "predicted")
    ]
    total = report["total_cycles"]
    pairs += [("weight words", *weights), ("image", total["measured"], total["predicted"])]
    return [name for name, measured, predicted in pairs if measured != predicted]


def show_work(report: dict[str, Any], console: Console) -> None:
    """Print the work of an image as a table: what stands behind its energy."""
    table = Table(title="one image: accesses in Mbit, operations in millions, their bits in Gbit")
    for column in ("", "accelerator", "paper's dataflow", "the same passes, 8-bit weights"):
        table.add_column(column, justify="left" if not column else "right")
    designs = report["work"].values()
    for name in report["work"]["accelerator"]["memories"]:
        for way in ("read", "write"):
            memories = [design["memories"][name] for design in designs]
            bits = [m[f"{way}s"] * m[f"{way}_width"] for m in memories]
            table.add_row(f"{name}, {way}", *(f"{b / 1e6:,.2f}" for b in bits))
    for title, key, scale in (
        ("all memories", "memory_bits", 1e6),
        ("multiplications", "multiplications", 1e6),
        ("multiplier bits", "multiplier_bits", 1e9),
        ("additions", "additions", 1e6),
        ("adder bits", "adder_bits", 1e9),
    ):
        table.add_row(title, *(f"{design[key] / scale:,.2f}" for design in designs))
    console.print(table)


def show(report: dict[str, Any], console: Console) -> None:
    """Print the report of `measure` as a table."""
    table = Table(
        title=f"{report['network']}, {report['modules']} conv modules: measured in RTL | predicted"
    )
    for column in (
        "layer",
        "cycles",
        "predicted",
        "stalls",
        "utilization",
        "predicted",
        "reads",
        "predicted",
        "writes",
        "predicted",
        "weights",
        "predicted",
        "paper's cycles",
    ):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for record in report["layers"]:
        measured, predicted = record["measured"], record["predicted"]
        share = [
            f"{100 * part['utilization']:.1f} %" if record["macs"] else ""
            for part in (measured, predicted)
        ]
        place = f" (in {record['fused_into']})" if "fused_into" in record else ""
        table.add_row(
            record["layer"] + place,
            f"{measured['cycles']:,}",
            f"{predicted['cycles']:,}",
            f"{measured['stalls']:,}",
            *share,
            f"{measured['reads']:,}",
            f"{predicted['reads']:,}",
            f"{measured['writes']:,}",
            f"{predicted['writes']:,}",
            f"{measured['weight_words']:,}",
            f"{predicted['weight_words']:,}",
            f"{record['paper_cycles']:,}" if "paper_cycles" in record else "",
        )
    total = report["total_cycles"]
    table.add_row(
        "image",
        f"{total['measured']:,}",
        f"{total['predicted']:,}",
        *[""] * 9,
        f"{total['paper']:,}",
    )
    console.print(table)
    console.print(
        "reads and writes: 32-bit words of the feature buffer; weights: 64-bit words, counted to "
        "the layer during which they are read ahead."
    )


@click.command(cls=Command, help=__doc__)
@click.option(
    "--modules",
    type=click.Choice(["4", "8", "16"]),
    default="4",
    show_default=True,
    help="conv modules of the RTL",
)
@click.option("--net", "path", default=str(ZOO / "nin-cifar10.clipq.npz"), show_default=True)
def main(modules: str, path: str) -> None:
    console = Console(width=170, markup=False, emoji=False)
    net = load_network(path)
    pixels, _ = bundled_images("cifar10")
    report = measure(net, Hardware(num_modules=int(modules)), pixels_to_input(net, pixels[:1]))
    target = runner.BUILD / "perf.json"
    target.parent.mkdir(exist_ok=True)
    write_text(target, json.dumps(report, indent=1))
    show(report, console)
    show_work(report, console)
    if wrong := differences(report):
        sys.exit(f"the cycle model is wrong in: {', '.join(wrong)}")
    console.print(f"Written: {target.relative_to(runner.ROOT)}")
