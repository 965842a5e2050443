"""The commands and examples of the pages run as they are pasted.

A fenced block in `sh` or `python` runs in a folder that holds what the project's own does; the
blocks of a page run in their order. A comment before a block says where else it runs:

    <!-- nightly -->            with NIGHTLY=1 only
    <!-- run by FILE -->        each of its commands stands in FILE, which CI runs
    <!-- not run: reason -->

A command in the text, also one with its choices as in `make sim TEST=name [SIM=verilator|icarus]`,
is taken as far as the command line that make starts, which must have the options.
"""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import click
import numpy as np
import onnx
import pytest
from markdown_it import MarkdownIt

from ci import registry
from host.simulation import process, runner
from host.simulation.rtl_index import ROOT
from model.tests.onnx_models import Graph

PAGES = ["README.md", "CONTRIBUTING.md", "syn/boards/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = [f"tutorials/{path.name}" for path in sorted((ROOT / "tutorials").glob("*.ipynb"))]
PROGRAMS = {"sh": ("bash", "-euo", "pipefail", "-c"), "python": (sys.executable, "-c")}
SHOWN = {"json", "mermaid", "text", "yaml"}
NOT_RUN = {
    ("docs/driver.md", "needs a board"),
    ("syn/boards/README.md", "needs a board"),
    ("docs/testing.md", "part of a bench"),
}
MARK = re.compile(r"<!-- (nightly|run by (?P<file>\S+)|not run: (?P<reason>.+)) -->\n*")
NIGHTLY = os.environ.get("NIGHTLY") == "1"
COMMAND = re.compile(r"make [a-z]|\.venv/bin/python -m (ci|host|model|syn|train) ")
VALUES = {  # of what a page leaves open
    "BASE": "HEAD",
    "CALIB": "images.npy",
    "FLOAT": "model.onnx",
    "IMAGES": "images.npy",
    "JOBS": "2",
    "MODEL": "model.onnx",
    "MODULE": "skid_buffer",
    "MODULES": "4",
    "N": "9",
    "NET": "x.clipq.npz",
    "OUT": "out",
    "PLANES": "2",
    "PROOF": "sync_fifo",
    "SEED": "7",
    "TEST": "sync_fifo",
}
OPEN = re.compile(r"|n|name|commit|<.*>|x\..*")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language and text, and the mark before it, if there is one."""

    page: str
    language: str
    text: str
    mark: re.Match | None

    @property
    def due(self):
        """Whether it runs here and now."""
        when = self.mark[1] if self.mark else ""
        return self.language in PROGRAMS and (not when or (NIGHTLY and when == "nightly"))


def text_of(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    if page not in NOTEBOOKS:
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def commands(page):
    """The commands in a page's text."""
    tokens = MarkdownIt().enable("table").parse(text_of(page))
    inline = [part for token in tokens for part in token.children or ()]
    found = [part.content for part in inline if part.type == "code_inline"]
    shown = [token.content.strip() for token in tokens if token.info == "text"]
    return sorted({text for text in (*found, *shown) if COMMAND.match(text)})


def first_choice(usage):
    """The words of a command with all its options, the first of the choices each, and a value for
    what it leaves open."""
    for word in re.sub(r"\|[^\]\s]*|[\[\]]", "", usage).split():
        variable, equals, value = word.partition("=")
        if equals and OPEN.fullmatch(value):
            word = f"{variable}={VALUES.get(variable, '')}"
        yield word


def check_command(usage, folder):
    """Fails if a command, its variables, options or test are not those that there are."""
    words = shlex.split(" ".join(first_choice(usage)))
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert words[1] in re.findall(r"^([a-z-]+):", makefile, re.M), f"{usage}: no such target"
        known = " ".join(re.findall(r"^(?:PATHS|CHOICES) .*", makefile, re.M)).split()
        given = dict(word.split("=", 1) for word in words[2:])
        assert given.keys() <= set(known), f"{usage}: {given.keys() - set(known)}"
        if not given:  # the command by its name
            return
        if "TEST" in given:
            registry.load().named(given["TEST"])
        made = subprocess.run(
            ["make", "-n", *words[1:]], cwd=folder, capture_output=True, text=True
        )
        assert made.returncode == 0, f"{usage}: {made.stderr}"
        words = shlex.split(made.stdout.replace("\\\n", ""))
    module, name, *arguments = words[words.index("-m") + 1 :]
    command = importlib.import_module(f"{module}.__main__").main
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), name)
        assert command, f"{usage}: python -m {module} has no command {name}"
    else:
        arguments = [name, *arguments]
    try:
        command.make_context(name, arguments)
    except click.exceptions.Exit as end:  # --help
        assert not end.exit_code
    except click.UsageError as error:
        raise AssertionError(f"{usage}: {error.format_message()}") from None


def blocks(page):
    tokens = MarkdownIt().parse(text_of(page))
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
    assert code == 0, f"{block.page}:\n{block.text}\n{log.read_text(errors='replace')}"


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
@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if b.due}))
def test_page_runs_as_pasted(page, folder):
    if reason := runner.missing("verilator"):
        pytest.skip(reason)
    for block in BLOCKS:
        if block.page == page and block.due:
            execute(block, folder)


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS])
def test_commands_in_the_text_are_those_that_there_are(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for usage in commands(page):
        check_command(usage, folder)


@pytest.mark.parametrize(
    "usage, reason",
    [
        ("make nothing", "no such target"),
        ("make perf [NETT=x.clipq.npz]", "NETT"),
        ("make sim TEST=none", "no test named 'none'"),
        ("make sim TEST=name SIM=questa", "must be one of"),
        ("make diff NET=", "IMAGES is missing"),
        ("make synth ARGS=--fast", "No such option"),
        (".venv/bin/python -m host none", "no command none"),
        (".venv/bin/python -m host perf --none", "No such option"),
    ],
)
def test_command_that_there_is_not(usage, reason, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises((AssertionError, registry.RegistryError), match=reason):
        check_command(usage, folder)


def test_every_block_has_a_known_language():
    assert {block.language for block in BLOCKS} == {*PROGRAMS, *SHOWN}


def test_blocks_that_do_not_run_here_run_elsewhere():
    marked = [block.mark for block in BLOCKS if block.mark]
    assert {(b.page, b.mark["reason"]) for b in BLOCKS if b.mark and b.mark["reason"]} == NOT_RUN
    assert any(mark["file"] for mark in marked) and any(mark[1] == "nightly" for mark in marked)
    for block in BLOCKS:
        for line in block.text.splitlines() if block.mark and block.mark["file"] else ():
            script = (ROOT / block.mark["file"]).read_text()
            assert line.partition(" #")[0].strip() in script, f"{block.page}: {line}"


@pytest.mark.parametrize("text", ["make check NET=none.onnx\ntrue", "false | true"])
def test_failing_command_is_noticed(text, folder):
    with pytest.raises(AssertionError, match="page.md"):
        execute(Block("page.md", "sh", text, None), folder)
