"""The page of results follows the files it is made of."""

import json
import re

from click.testing import CliRunner

from ci import docs_site, results_page
from host.simulation.rtl_index import ROOT
from model.compiler import compile_network
from model.compiler.hardware import MODULE_COUNTS, Hardware
from model.data.images import ZOO
from model.network import load_network
from model.performance import energy
from model.performance.cycle_model import predict
from syn import baseline


def row(text, begin):
    """Cells of the table row that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {begin}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_page_has_what_the_cycle_model_and_the_readme_say():
    text = results_page.page()
    readme = (ROOT / "README.md").read_text()
    golden = row(readme, "cycles an image from the first beat in")
    assert row(text, "cycles an image")[:3] == golden
    assert row(text, "cycles an image")[3] == row(readme, "cycles of the paper's")[0] + ", modelled"
    assert row(text, "top-1 on CIFAR-10")[0] + " %" == row(readme, "NIN, CIFAR-10 |")[0]
    assert row(text, "effective GOP/s")[3] == "23.2, modelled"
    assert row(text, "images a second at")[3] == "52, modelled"
    assert row(text, "peak GOP/s")[3] == "91.1"
    work = energy.accelerator(
        compile_network(load_network(ZOO / "nin-cifar10.clipq.npz"), Hardware())
    )
    assert row(text, "all memories")[0] == f"{work.memory_bits / 1e6:.2f}"
    products = row(text, "multiplications")
    assert products[0] == f"{work.multiplications / 1e6:.2f}; {work.multiplier_bits / 1e9:.2f}"
    assert products[1] == "222.49; 14.24"


def test_a_figure_that_is_measured_changes_the_page(tmp_path, monkeypatch):
    figures = {"ecp5/4/clipq_accel": {"cells": 38000, "mhz": 87.5}, "xc7/16/pe": {"cells": 71}}
    figures["xc7/16/clipq_accel"] = {"cells": 41234}
    monkeypatch.setattr(baseline, "FILE", tmp_path / "baseline.json")
    (tmp_path / "baseline.json").write_text("{}")
    empty = results_page.page()
    assert row(empty, "clock, whole")[:3] == row(empty, "images a second at")[:3]
    assert row(empty, "clock, whole")[:3] == ["not measured"] * 3
    assert row(empty, "logic cells")[:3] == ["not measured"] * 3
    (tmp_path / "baseline.json").write_text(json.dumps(figures))
    text = results_page.page()
    cycles = int(row(text, "cycles an image")[0].replace(",", ""))
    assert row(text, "clock, whole")[:3] == ["87.5", "not measured", "not measured"]
    assert row(text, "images a second at")[0] == f"{87.5e6 / cycles:.0f}"
    assert row(text, "effective GOP/s")[0] == f"{87.5e-3 * 2 * 222_486_528 / cycles:.1f}"
    assert row(text, "peak GOP/s")[0] == "70.0"
    assert row(text, "logic cells")[:3] == ["not measured", "not measured", "41,234"]
    assert "| xc7 | 16 | `pe` | 71 | – |" in text


def test_every_committed_figure_of_a_block_is_on_the_page():
    text = results_page.page()
    for name, figures in baseline.read().items():
        target, build, block = name.split("/")
        cells, mhz = figures["cells"], figures.get("mhz", "–")
        assert f"| {target} | {build} | `{block}` | {cells:,} | {mhz} |" in text


def test_figures_of_others_have_a_source():
    text = results_page.page()
    for name, rate, top1 in (
        ("FINN CNV, 2-bit", "868", "89.0"),
        ("FINN CNV, 1-bit", "3,052", "84.2"),
        ("FINN CNV-W1A1", "661.5", "84.5"),
        ("hls4ml RN07", "36.6", "–"),
        ("FracBNN", "–", "89.1"),
    ):
        cells = row(text, name)
        assert cells[1:3] == [rate, top1] and re.search(r"\(https://\S+\)$", cells[-1])


def test_every_shipped_network_is_on_the_page():
    """With the cycles of each build, and the figures that README.md and docs/training.md have."""
    text, readme = results_page.page(), (ROOT / "README.md").read_text()
    training = (ROOT / "docs" / "training.md").read_text()
    names = sorted(path.name.removesuffix(".clipq.npz") for path in ZOO.glob("*.clipq.npz"))
    assert sorted(results_page.accuracy()) == names
    for name, facts in results_page.accuracy().items():
        net = load_network(ZOO / f"{name}.clipq.npz")
        cells = row(text, f"{name} |")
        for modules, cell in zip(MODULE_COUNTS, cells[4:], strict=True):
            cycles = predict(compile_network(net, Hardware(modules))).total_cycles
            share = int(cells[2].replace(",", "")) / (100 * modules * cycles)
            assert cell == f"{cycles:,} ({100 * share:.0f} %)"
        assert cells[3] == f"{facts['quantized']:.2f}, {facts['full_precision']:.2f}"
        assert row(readme, facts["title"] + " |")[:2] == [f"{x} %" for x in cells[3].split(", ")]
        for kind, suffix in (("quantized", "clipq"), ("full_precision", "float")):
            assert f"**{facts[kind]:.2f}** | `{name}.{suffix}.npz` |" in training
    four, eight, sixteen = (cell.split()[0] for cell in row(text, "resnet20-cifar10 |")[4:])
    assert f"takes {four}, {eight} and {sixteen} cycles" in " ".join(readme.split())


def test_the_command_and_the_site_write_the_same_page(tmp_path, monkeypatch):
    out = tmp_path / "results.md"
    assert CliRunner().invoke(results_page.main, ["--out", str(out)]).exit_code == 0
    made = {}
    monkeypatch.setattr(
        docs_site.File, "generated", lambda _, name, content: made.setdefault(name, content)
    )
    docs_site.on_files([], None)
    assert made["results.md"] == out.read_text() == results_page.page()
