"""The commands and examples of README.md and docs/ run as they are pasted.

A fenced block in `sh` or `python` runs in a folder that holds what the project's own does; the
blocks of a page run in their order. A comment before a block says where else it runs:

    <!-- nightly -->            with NIGHTLY=1 only
    <!-- run by FILE -->        each of its commands stands in FILE, which CI runs
    <!-- not run: reason -->
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from markdown_it import MarkdownIt

from host.simulation import process, runner
from host.simulation.rtl_index import ROOT
from model.tests.onnx_models import Graph

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = {"sh": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-c")}
SHOWN = {"json", "mermaid", "text", "yaml"}
NOT_RUN = {("driver.md", "needs a board"), ("testing.md", "part of a bench")}
MARK = re.compile(r"<!-- (nightly|run by (?P<file>\S+)|not run: (?P<reason>.+)) -->\n*")
NIGHTLY = os.environ.get("NIGHTLY") == "1"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language and text, and the mark before it, if there is one."""

    page: Path
    language: str
    text: str
    mark: re.Match | None

    @property
    def due(self):
        """Whether it runs here and now."""
        when = self.mark[1] if self.mark else ""
        return self.language in PROGRAMS and (not when or (NIGHTLY and when == "nightly"))


def blocks(page):
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [
        Block(page, token.info, token.content, MARK.fullmatch(before.content))
        for before, token in zip([tokens[0], *tokens], tokens)
        if token.type == "fence"
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def execute(block, folder):
    """Run a block. Fails with its output if its exit status is not 0."""
    log = folder / "log"
    with open(log, "wb") as output:
        command = [*PROGRAMS[block.language], block.text]
        code = process.run(command, output, cwd=folder, timeout=3600)
    assert code == 0, f"{block.page.name}:\n{block.text}\n{log.read_text(errors='replace')}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder like the project's, with the files that the pages speak of: x.clipq.npz and x.npy
    from docs/network-file.md, a model and pixels for it."""
    folder = tmp_path_factory.mktemp("pages")
    (ROOT / "build").mkdir(exist_ok=True)
    for item in [*ROOT.glob("[!.]*"), ROOT / ".venv"]:
        (folder / item.name).symlink_to(item)
    execute(next(b for b in BLOCKS if "save_network(x, " in b.text), folder)
    graph = Graph([1, 3, 16, 16])
    x = graph.op("Div", graph.op("Sub", "image", graph.const([120.0])), graph.const([64.0]))
    x = graph.op("Relu", graph.conv(x, 3, 8, 3, pads=[1, 1, 1, 1]))
    onnx.save(
        graph.model(graph.conv(graph.op("GlobalAveragePool", x), 8, 10, 1)), folder / "model.onnx"
    )
    pixels = np.random.default_rng(1).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    return folder


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("page", sorted({b.page.name for b in BLOCKS if b.due}))
def test_page_runs_as_pasted(page, folder):
    if reason := runner.missing("verilator"):
        pytest.skip(reason)
    for block in BLOCKS:
        if block.page.name == page and block.due:
            execute(block, folder)


def test_every_block_has_a_known_language():
    assert {block.language for block in BLOCKS} == {*PROGRAMS, *SHOWN}


def test_blocks_that_do_not_run_here_run_elsewhere():
    marked = [block.mark for block in BLOCKS if block.mark]
    assert {
        (b.page.name, b.mark["reason"]) for b in BLOCKS if b.mark and b.mark["reason"]
    } == NOT_RUN
    assert any(mark["file"] for mark in marked) and any(mark[1] == "nightly" for mark in marked)
    for block in BLOCKS:
        for line in block.text.splitlines() if block.mark and block.mark["file"] else ():
            script = (ROOT / block.mark["file"]).read_text()
            assert line.partition(" #")[0].strip() in script, f"{block.page.name}: {line}"


@pytest.mark.parametrize("text", ["make check NET=none.onnx\ntrue", "false | true"])
def test_failing_command_is_noticed(text, folder):
    with pytest.raises(AssertionError, match="page.md"):
        execute(Block(Path("page.md"), "sh", text, None), folder)
