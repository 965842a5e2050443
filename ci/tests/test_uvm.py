"""The UVM environment can be taken out of the project's other benches."""

import ast

import pytest

from host.simulation.rtl_index import ROOT

FILES = sorted((ROOT / "tb" / "uvm").glob("*.py"))
PROJECT = {"ci", "host", "model", "syn", "tb", "train"}
ALLOWED = ("host", "model", "tb.lib", "tb.uvm")


def imports(source: str) -> list[str]:
    """Modules of the project that a Python source imports."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] in PROJECT]


def foreign(source: str) -> list[str]:
    """Those of them that the environment may not import."""
    return [n for n in imports(source) if not n.startswith(tuple(f"{a}." for a in ALLOWED))]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_environment_imports_only_shared_parts(path):
    assert not foreign(path.read_text(encoding="utf-8"))


def test_foreign_import_is_found():
    assert foreign("from tb.top import bench\nimport ci.lint\nfrom tb.lib import stalls") == [
        "tb.top.bench",
        "ci.lint",
    ]
