"""`make report`: one site of all results that the last runs have left in build/, in build/report.

It works from the file system, without the network. What has no result is a line with the command
that makes it. The figures of a clean checkout are kept in build/history, one file a commit. With
--check (`make signoff`) the command fails unless every goal of verification is met.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ci.report import goals, networks, performance, verification
from ci.report.page import Card, Cards, Missing, Page, Section, chart
from host.simulation import environment
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.files import write_text
from model.data.images import ZOO
from model.network import load_network


def _git(*arguments: str) -> str:
    """What git says; empty outside a checkout."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment.child(), capture_output=True)
    return done.stdout.decode().strip()


def overview(reached: Sequence[goals.Goal], pages: Sequence[Page]) -> Page:
    """Each goal at a glance, and what has no result yet."""
    cards = [
        Card(
            f"{g.percent:.4g} %" if g.total else "—",
            g.name,
            f"{g.hit:,} of {g.total:,}" if g.total else g.command,
            g.met if g.total else None,
        )
        for g in reached
    ]
    figures = [
        Card(f"{value:,.6g}", name)
        for page in pages
        if page.name in ("performance", "synthesis")
        for name, value in page.figures.items()
    ]
    sections = [Section("Goals", [Cards(cards)]), Section("Figures", [Cards(figures)])]
    lost = [
        part
        for page in pages
        for section in page.sections
        for part in section.parts
        if part.kind == "missing"
    ]
    if lost:
        sections.append(Section("Without a result", lost))
    text = (
        "CLIP-Q training in PyTorch, a bit-exact integer model and a SystemVerilog accelerator: "
        "what was tested, measured and proven here."
    )
    return Page("index", "Overview", text, sections)


def history(folder: Path, pages: Sequence[Page], commit: str) -> Page:
    """Keep the figures of a clean commit, and show those of all commits."""
    figures = {k: v for page in pages for k, v in page.figures.items()}
    if commit and not commit.endswith("-dirty"):
        stamp = int(_git("show", "-s", "--format=%ct", "HEAD"))
        kept = {"commit": commit, "time": stamp, "figures": figures}
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{commit}.json", json.dumps(kept, indent=1) + "\n")
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    records.sort(key=lambda record: record["time"])
    names = {name: None for record in records for name in record["figures"]}
    sections = []
    for title, chosen in (
        ("Goals", [n for p in pages if p.name == "signoff" for n in names if n in p.figures]),
        ("Cycles", [n for n in names if "cycles" in n]),
        ("Area", [n for n in names if n.endswith((", lc", ", lut4"))]),
    ):
        if not chosen:
            continue
        figure = go.Figure(
            [
                go.Scatter(
                    x=[record["commit"] for record in records],
                    y=[record["figures"].get(name) for record in records],
                    name=name,
                    mode="lines+markers",
                )
                for name in chosen
            ]
        )
        figure.update_layout(showlegend=True)
        figure.update_xaxes(type="category")
        sections.append(Section(title, [chart(figure, f"{title} over commits.", 420)]))
    if not sections:
        parts = [Missing("Figures of a clean checkout", "git commit; make report")]
        sections.append(Section("History", parts))
    return Page(
        "history", "History", "The figures of each commit that a report was made of.", sections
    )


def write(pages: Sequence[Page], out: Path, commit: str) -> None:
    """Write the pages and the library that draws their charts."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "plotly.min.js", get_plotlyjs())
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    options = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = options.get_template("page.html.j2")
    when = time.strftime("%Y-%m-%d")
    for page in pages:
        text = template.render(page=page, pages=pages, when=when, commit=commit or "unknown")
        write_text(out / f"{page.name}.html", text)


@click.command(cls=Command, help=__doc__)
@click.option(
    "--build",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "build",
    help="folder with the results",
)
@click.option("--out", type=click.Path(path_type=Path), help="folder of the site  [BUILD/report]")
@click.option("--check", is_flag=True, help="fail unless every goal is met")
def main(build: Path, out: Path | None, check: bool) -> None:
    out, findings = out or build / "report", goals.tried(build)
    reached = goals.reached(build, findings)
    nets = [load_network(path) for path in sorted(ZOO.glob("*.clipq.npz"))]
    commit = _git("describe", "--always", "--dirty", "--exclude=*", "--abbrev=7")
    pages = [
        verification.sign_off(reached, findings, build),
        verification.tests(build),
        verification.coverage(findings, build, out),
        performance.speed(nets, build),
        networks.networks(nets, ZOO, build),
        performance.synthesis(build),
    ]
    pages = [overview(reached, pages), *pages, history(build / "history", pages, commit)]
    write(pages, out, commit)
    lines = [{**asdict(g), "percent": round(g.percent, 2), "met": g.met} for g in reached]
    write_text(out / "goals.json", json.dumps(lines, indent=1) + "\n")
    for g in reached:
        verdict = "met" if g.met else "MISSED" if g.total else "NO RESULT"
        print(f"{verdict:9} {g.name:44} {g.hit:7} of {g.total:7} {g.percent:7.2f} %  {g.command}")
    met = sum(g.met for g in reached)
    print(f"report: {met} of {len(reached)} goals met; {out / 'index.html'}")
    sys.exit(check and met < len(reached))
