"""The table of blocks without a bench of their own in docs/architecture.md names them all, and what
it names contains them."""

import re

import yaml

from ci import registry
from host.simulation.rtl_index import ROOT, RtlIndex

RTL = ROOT / "rtl"
PAGE = ROOT / "docs" / "architecture.md"
PROOFS = ROOT / "formal" / "proofs.yaml"


def _table() -> dict[str, tuple[list[str], list[str]]]:
    """{block: (names of tests, names of proofs)} of the table."""
    section = PAGE.read_text(encoding="utf-8").split("## Blocks without a bench of their own")[1]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|([^|]*)\|$", section, re.M)
    return {block: (_names(tests), _names(proofs)) for block, tests, proofs in rows}


def _names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_block_without_a_bench_is_listed():
    tops = {test.toplevel for test in registry.load().tests.values()}
    modules = {unit.name for unit in RtlIndex(RTL).modules_in(RTL)}
    assert set(_table()) == modules - tops


def test_the_listed_tests_and_proofs_contain_the_block():
    tests = {test.name: test.toplevel for test in registry.load().tests.values()}
    proofs = {p["name"]: p["top"] for p in yaml.safe_load(PROOFS.read_text())["proofs"]}
    simulated, proven = RtlIndex(), RtlIndex(RTL, ROOT / "formal")
    for block, (in_tests, in_proofs) in _table().items():
        assert in_tests, block
        for name in in_tests:
            assert block in simulated.closure(tests[name]), (block, name)
        for name in in_proofs:
            assert block in proven.closure(proofs[name]), (block, name)
