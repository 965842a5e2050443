"""`python -m ci results`: the page of results, from committed figures and the cycle model.

The documentation site builds it anew each time (ci/docs_site.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import jinja2
import yaml

from host import memory
from host.simulation.rtl_index import ROOT
from model.common.command import Command, OutputFile
from model.common.files import write_text
from model.compiler import compile_network
from model.compiler.hardware import MODULE_COUNTS, Hardware
from model.data.images import ZOO
from model.network import Network, load_network
from model.performance import energy, paper_dataflow
from model.performance.cycle_model import predict
from syn import baseline

PUBLISHED = Path(__file__).with_name("published.yaml")
ACCURACY = ZOO / "accuracy.yaml"
WHOLE = "clipq_accel"
# W. Cheng, I.-C. Lin, Y.-Y. Shih, IEEE TCAS-I 69(10), 2022
PAPER: dict[str, Any] = {"pes": 400, "mhz": 111, "peak": 91.1, "lut": 42416, "top1": 90.73}


def facts() -> dict[str, Any]:
    """What the template shows."""
    net = load_network(ZOO / "nin-cifar10.clipq.npz")
    compiled = compile_network(net, Hardware())
    macs = sum(layer.macs for layer in predict(compiled).layers)
    figures = baseline.read()
    builds = []
    for modules in MODULE_COUNTS:
        cycles = predict(compile_network(net, Hardware(modules))).total_cycles
        mhz = figures.get(f"ecp5/{modules}/{WHOLE}", {}).get("mhz")
        cells = figures.get(f"xc7/{modules}/{WHOLE}", {}).get("cells")
        builds.append(
            {"modules": modules, "cells": cells, **_rates(100 * modules, cycles, mhz, macs)}
        )
    paper_cycles = sum(paper_dataflow.network_cycles(net).values())
    paper = {**_rates(PAPER["pes"], paper_cycles, PAPER["mhz"], macs), **PAPER}
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    return {
        "nin": {"macs": macs, "gop": 2e-9 * macs},
        "builds": builds,
        "paper": paper,
        "work": [
            design(compiled) for design in (energy.accelerator, energy.paper, energy.eight_bit)
        ],
        "top1": accuracy()[net.name]["quantized"],
        "shipped": [shipped(load_network(path)) for path in sorted(ZOO.glob("*.clipq.npz"))],
        "blocks": [
            {"mhz": None, **dict(zip(("target", "build", "block"), name.split("/"))), **entry}
            for name, entry in figures.items()
        ],
        "published": [{**row, "host": urlsplit(row["source"]).netloc} for row in published],
    }


def _rates(pes: int, cycles: int, mhz: float | None, macs: int) -> dict[str, Any]:
    """Images and operations a second; None without a clock."""
    rate = 1e6 * mhz / cycles if mhz else None
    return {
        "pes": pes,
        "cycles": cycles,
        "share": macs / (pes * cycles),
        "mhz": mhz,
        "rate": rate,
        "gops": 2e-9 * macs * rate if rate else None,
        "peak": 2e-3 * pes * mhz if mhz else None,
    }


def accuracy() -> dict[str, dict[str, Any]]:
    """Of the shipped networks: {name: {"title", "quantized", "full_precision"}}, the latter two the
    top-1 (%) on the test images."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(ACCURACY.read_text(encoding="utf-8"))
    return found


def shipped(net: Network) -> dict[str, Any]:
    """The row of a shipped network: size, accuracy, and cycles of each build."""
    sizes = memory.measure(net)
    predictions = [predict(compile_network(net, Hardware(modules))) for modules in MODULE_COUNTS]
    macs = sum(layer.macs for layer in predictions[0].layers)
    return {
        "name": net.name,
        "weights": sizes.weights_fp32 // 4,
        "bytes": sizes.indices + sizes.codebooks + sizes.channels,
        "macs": macs,
        "builds": [
            _rates(100 * modules, prediction.total_cycles, None, macs)
            for modules, prediction in zip(MODULE_COUNTS, predictions)
        ],
        **accuracy()[net.name],
    }


def page() -> str:
    """The page in Markdown."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined)
    return environment.get_template("results.md.j2").render(facts())


@click.command(cls=Command, help=__doc__)
@click.option("--out", type=OutputFile(), help="[build/results.md]")
def main(out: str | None) -> None:
    if out is None:
        (ROOT / "build").mkdir(exist_ok=True)
        out = "build/results.md"
    write_text(Path(out), page())
    click.echo(f"written: {out}")
