"""Hooks of the documentation site (mkdocs.yml): pages from files outside docs/, links between both,
and diagrams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mermaidx
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from ci import results_page
from host.simulation.rtl_index import ROOT

ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "syn/boards/README.md": "boards.md",
}
TUTORIALS = ROOT / "tutorials"
API = {
    "Networks": ("model.network",),
    "Integer model": ("model.reference",),
    "Compiler": ("model.compiler",),
    "Cycle model": ("model.performance",),
    "Import and export": ("model.interchange",),
    "Driver": ("host.driver",),
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)\n?")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file in docs/ holds."""
    for name, page in ROOT_PAGES.items():
        text = _BADGE.sub("", (ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        cells = nbformat.read(path, 4).cells
        text = "\n\n".join(map(_markdown, cells))
        files.append(File.generated(config, f"{path.stem}.md", content=text))
    files.append(File.generated(config, "results.md", content=results_page.page()))
    parts = [
        f"## {title}\n\n" + "\n".join(f"::: {module}" for module in modules)
        for title, modules in API.items()
    ]
    files.append(
        File.generated(config, "api.md", content="# Python interface\n\n" + "\n\n".join(parts))
    )
    return files


def outputs(cell: Any) -> str:
    """What a cell of a notebook has printed on standard output."""
    found = [output for output in cell.get("outputs", ()) if output.get("name") == "stdout"]
    return "".join(output.text for output in found)


def _markdown(cell: Any) -> str:
    if cell.cell_type == "markdown":
        return cell.source
    printed = outputs(cell)
    shown = f"\n\n```text\n{printed}\n```" if printed else ""
    return f"```python\n{cell.source}\n```{shown}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links as they are right on the site. A link to a file that is no page becomes its name."""

    def right(match: re.Match) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        name = target.removeprefix("../")
        page = ROOT_PAGES.get(name, name.removeprefix("docs/"))
        if page.endswith(".ipynb"):
            page = f"{Path(page).stem}.md"
        if page.endswith(".md"):
            return f"[{label}]({page}{anchor})"
        return f"{label} (`{name}`)"

    return _LINK.sub(right, markdown)


def diagram(source: str, *_: Any, **__: Any) -> str:
    """A Mermaid diagram as SVG, so that the page needs no script to show it."""
    return f'<div class="diagram">{mermaidx.render(source).svg}</div>'
