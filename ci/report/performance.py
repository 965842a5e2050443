"""The pages of speed and of synthesis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ci.report import goals
from ci.report.page import Card, Cards, Cell, Missing, Page, Part, Section, Table, bars
from host.simulation.rtl_index import ROOT
from model.compiler import compile_network
from model.compiler.hardware import Hardware
from model.network import Layer, Network
from model.performance.cycle_model import ImageCycles, predict
from model.performance.pool_cycles import pool_reads

MODULES = (4, 8, 16)
CLOCK = 100  # MHz, for images a second
REASONS = {
    "descriptor": "descriptor",
    "parameters": "parameters awaited",
    "set-up": "set-up of passes",
    "partial sums": "partial sums awaited",
    "weights": "weights awaited",
    "window": "window refilled",
    "drain": "last tile drained",
}


def useful(layer: Layer, modules: int) -> float:
    """Cycles in which all PEs would do the layer's multiplications, those of padding left out."""
    if layer.op != "conv":
        return 0.0
    one = (4, *layer.in_shape[1:])  # channels that a read takes at once
    taps = pool_reads("avgpool", one, layer.kernel, layer.stride, layer.pad, 4)
    return taps * layer.in_shape[0] * layer.out_shape[0] / (100 * modules)


def speed(nets: Sequence[Network], build: Path) -> Page:
    """Cycles, PE use and memory traffic of the shipped networks."""
    sections: list[Section] = []
    figures: dict[str, float] = {}
    for net in nets:
        found = {m: predict(compile_network(net, Hardware(num_modules=m))) for m in MODULES}
        figures |= {f"{net.name}, cycles with {m} modules": found[m].total_cycles for m in MODULES}
        sections.append(Section(net.name, [*_network(net, found)]))
    sections.append(
        Section(
            "Measured",
            [*_measured(goals.read(build / "perf.json", {}))],
            "The counters of the RTL in the last simulation that was asked for, beside the cycle "
            "model's figures.",
        )
    )
    text = (
        "Cycles of every layer, where the lost ones went, and memory traffic. The cycle model's "
        "figures are those of the RTL, exactly: every test of a whole network compares them."
    )
    return Page("performance", "Performance", text, sections, figures)


def _network(net: Network, found: dict[int, ImageCycles]) -> Iterator[Part]:
    work = sum(useful(layer, 1) for layer in net.layers)
    yield Cards(
        [
            Card(
                f"{image.total_cycles:,}",
                f"cycles an image, {m} conv modules",
                f"{1e6 * CLOCK / image.total_cycles:,.0f} images/s at {CLOCK} MHz, "
                f"{100 * work / m / image.total_cycles:.1f} % of PE cycles useful",
            )
            for m, image in found.items()
        ]
    )
    modules = MODULES[0]
    layers = found[modules].layers
    busy = [
        useful(layer, modules) if own.macs else own.ideal for layer, own in zip(net.layers, layers)
    ]
    names = [layer.name for layer in layers]
    whole: dict[str, list[float]] = {
        "work": busy,
        "PEs without a weight": [own.ideal - work for own, work in zip(layers, busy)],
        "no position computed": [sum(layer.lost.values()) for layer in layers],
    }
    yield bars(names, whole, f"Cycles of each layer with {modules} conv modules.", "cycles")
    lost = {label: [layer.lost.get(key, 0) for layer in layers] for key, label in REASONS.items()}
    caption = "The cycles in which no position is computed, by what they are spent on."
    yield bars(names, lost, caption, "cycles")
    traffic = {
        "features read": [4 * layer.reads for layer in layers],
        "features written": [4 * layer.writes for layer in layers],
        "weights read": [8 * layer.weight_words for layer in layers],
    }
    caption = "Bytes that each layer moves between memories and the data path, for one image."
    yield bars(names, traffic, caption, "bytes")
    rows: list[list[Cell]] = []
    for layer, *own in zip(net.layers, *(image.layers for image in found.values())):
        row: list[Cell] = [layer.name, layer.op, own[0].macs or None]
        for m, cycles in zip(MODULES, own):
            share = 100 * useful(layer, m) / cycles.cycles if cycles.macs else None
            row += [cycles.cycles, share]
        rows.append(row)
    heads = [head for m in MODULES for head in (f"cycles, {m} modules", "PE use, %")]
    yield Table(("layer", "op", "multiplications", *heads), rows)


def _measured(perf: dict[str, Any]) -> Iterator[Part]:
    if not perf:
        yield Missing("Counters of the RTL", "make perf")
        return
    total = perf["total_cycles"]
    equal = total["measured"] == total["predicted"]
    yield Cards(
        [
            Card(
                f"{total['measured']:,}",
                f"cycles measured, {perf['network']}, {perf['modules']} modules",
                f"predicted {total['predicted']:,}",
                equal,
            ),
            Card(f"{perf['simulation_seconds_per_image']:.1f} s", "simulation of an image"),
            Card(f"{total['paper']:,}", "cycles of the 2022 paper's data flow"),
        ]
    )
    keys = ("cycles", "stalls", "reads", "writes", "weight_words")
    rows = [
        [
            own["layer"],
            *(own["measured"][key] for key in keys),
            own["predicted"]["cycles"],
            own.get("paper_cycles"),
        ]
        for own in perf["layers"]
    ]
    heads = ("layer", "cycles", "stalls", "reads, words", "writes, words", "weights, words")
    yield Table((*heads, "cycles predicted", "the paper's cycles"), rows)


def synthesis(build: Path) -> Page:
    """Area and clock of what was synthesized here, and the figures that are held."""
    sections: list[Section] = []
    figures: dict[str, float] = {}
    for path in sorted((build / "synth").glob("*.json")):
        blocks = goals.read(path, [])
        keys = [k for k in blocks[0] if k not in ("block", "parameters", "path", "mhz")]
        cells = "lc" if "lc" in keys else "lut4"
        rows: list[list[Cell]] = []
        for b in blocks:
            clocks = sorted(b.get("mhz", {}).values())
            clock = clocks[(len(clocks) - 1) // 2] if clocks else None
            path_ = b.get("path") or {}
            ends = f"{path_['from']} → {path_['to']}, {path_['ns']} ns" if path_ else ""
            chosen = ", ".join(f"{k}={v}" for k, v in b["parameters"].items())
            rows.append([b["block"], chosen, *(b[k] for k in keys), clock, ends])
            figures[f"{b['block']}, {path.stem}, {cells}"] = b[cells]
        names = [b["block"] for b in blocks]
        caption = f"Logic cells of each block ({cells})."
        heads = ("block", "parameters", *keys, "MHz", "slowest path")
        found = bars(names, {cells: [b[cells] for b in blocks]}, caption, "cells")
        sections.append(Section(path.stem, [found, Table(heads, rows)]))
    if not sections:
        sections.append(Section("Blocks", [Missing("Synthesis", "make synth")]))
    held = goals.read(ROOT / "syn" / "baseline.json", {})
    kept: list[list[Cell]] = [
        [*name.split("/"), own.get("cells"), own.get("mhz")] for name, own in held.items()
    ]
    parts = [Table(("target", "modules", "block", "cells", "MHz"), kept)]
    text = "Figures that make synth has measured before (syn/baseline.json)."
    sections.append(Section("Held", parts, text))
    return Page("synthesis", "Synthesis", "Area and clock by Yosys and nextpnr.", sections, figures)
