"""The documentation site: it opens from the file system without the network, and its search finds.
Its tutorials run."""

import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from ci import docs_site
from ci.tests import browsing
from host.simulation import process, runner
from host.simulation.rtl_index import ROOT

RESOURCE = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^ >]*"
)
TUTORIALS = [path.stem for path in sorted(docs_site.TUTORIALS.glob("*.ipynb"))]
SIMULATORS = {"pytorch_to_rtl": "verilator", "planted_bug": "icarus"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with open(folder / "log", "wb") as log:
        command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder / "site")]
        code = process.run(command, log, cwd=ROOT, timeout=600)
    assert code == 0, (folder / "log").read_text()
    return folder / "site"


def test_no_page_names_a_resource_elsewhere(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 20
    for page in pages:
        assert not RESOURCE.findall(page.read_text()), page.name
    assert RESOURCE.findall('<script src="https://unpkg.com/x"></script><link href=//x.org/y>')


@pytest.mark.parametrize("name", ["index", "architecture", *SIMULATORS])
def test_page_opens(site, browser, name):
    assert not browsing.problems(site / f"{name}.html", browser)


def test_search_finds(site, browser):
    page = browser.new_page()
    page.set_default_timeout(browsing.PATIENCE)
    page.goto((site / "index.html").as_uri())
    page.fill(".md-search__input", "codebook")
    page.wait_for_selector(".md-search-result__item")
    assert "arithmetic.html" in page.inner_html(".md-search-result__list")
    page.close()


@pytest.mark.parametrize(
    "name", [path.stem for path in sorted(docs_site.TUTORIALS.glob("*.ipynb"))]
)
def test_tutorial_runs(name):
    """Its cells give the outputs that the page shows, but for those tagged as `varies`, which
    depend on the processor."""
    if reason := runner.missing(SIMULATORS[name]):
        pytest.skip(reason)
    shown = nbformat.read(docs_site.TUTORIALS / f"{name}.ipynb", 4)
    ran = nbformat.from_dict(shown)
    where = {"metadata": {"path": str(docs_site.TUTORIALS)}}
    NotebookClient(ran, timeout=1200, kernel_name="python3", resources=where).execute()
    for before, after in zip(shown.cells, ran.cells):
        texts = [docs_site.outputs(cell) for cell in (before, after)]
        varies = "varies" in before.metadata.get("tags", ())
        again = f"python -m jupyter execute --inplace tutorials/{name}.ipynb"
        assert texts[0] == texts[1] or varies, f"{before.source}\nto show what is right: {again}"
