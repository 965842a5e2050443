"""The registry rejects what it cannot run, and the regression notices a module that no test
holds."""

import re

import pytest

from ci import registry
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError

ENTRY = "{name: a, about: x, toplevel: top, module: m"


def load(tmp_path, text):
    path = tmp_path / "tests.yaml"
    path.write_text(text)
    return registry.load(path)


@pytest.mark.parametrize(
    "text, culprit",
    [
        ("tests: [" + ENTRY + ", colour: red}]", "colour"),
        ("tests: [{name: a, about: x, module: m}]", "toplevel"),
        ("tests: [" + ENTRY + ", simulators: [vcs]}]", "vcs"),
        ("tests: [" + ENTRY + "}, " + ENTRY + "}]", "twice"),
        ("tests: [" + ENTRY + ", seconds: long}]", "tests.a.seconds"),
        ("tests: [" + ENTRY + ", matrix: 5}]", "tests.a.matrix"),
        ("tests: [" + ENTRY + "}]\nsuites: [{name: a, about: x, pytest: y}]", "twice"),
        ("others: []", "others"),
    ],
)
def test_wrong_entry_is_named(tmp_path, text, culprit):
    with pytest.raises(registry.RegistryError, match=culprit):
        load(tmp_path, text)


def test_cases_are_all_combinations(tmp_path):
    test = load(
        tmp_path,
        "tests: [" + ENTRY + ", matrix: {NUM_MODULES: [4, 16], DEPTH: [1, 2]}, "
        "simulators: {verilator: , icarus: {NUM_MODULES: [4]}}}]",
    ).tests["a"]
    assert len(test.cases("verilator")) == 4 and len(test.cases("icarus")) == 1
    pinned = test.cases("verilator", modules=8)
    assert [c.parameters for c in pinned] == [
        {"NUM_MODULES": 8, "DEPTH": 1},
        {"NUM_MODULES": 8, "DEPTH": 2},
    ]


def test_shipped_registry_is_valid():
    loaded = registry.load()
    assert loaded.suites


def test_hierarchy_is_followed(tmp_path):
    (tmp_path / "a_pkg.sv").write_text("package a_pkg; localparam int W = 1; endpackage")
    (tmp_path / "child.sv").write_text("module child; // uncle\nendmodule")
    (tmp_path / "top.sv").write_text("module top; wire [a_pkg::W-1:0] x; child u(); endmodule")
    (tmp_path / "uncle.sv").write_text("module uncle; wire child; endmodule")
    index = RtlIndex(tmp_path)
    assert [f.name for f in index.files("top")] == ["a_pkg.sv", "child.sv", "top.sv"]
    assert index.roots(tmp_path) == ["top", "uncle"]
    assert [f.name for f in index.files("uncle")] == ["uncle.sv"]
    with pytest.raises(SourceError, match="aunt"):
        index.files("aunt")


@pytest.mark.parametrize(
    "files, message",
    [
        (["module a; endmodule", "module a; endmodule"], "module a is defined in .*0.sv and in"),
        (
            ["package a; localparam A = b::B; endpackage", "package b; import a::*; endpackage"],
            "circle: (a -> b -> a|b -> a -> b)",
        ),
        (['module a;\n`include "b.svh"\nendmodule'], "0.sv: `include is not followed"),
    ],
)
def test_sources_that_cannot_be_ordered_are_named(tmp_path, files, message):
    for number, text in enumerate(files):
        (tmp_path / f"{number}.sv").write_text(text)
    with pytest.raises(SourceError, match=message):
        RtlIndex(tmp_path).files("a")


def covered_modules(tests, index):
    """Modules in the hierarchies of all tests. Raises SourceError for a missing top level."""
    return set().union(*(index.closure(test.toplevel) for test in tests.tests.values()))


INDEX = RtlIndex()


@pytest.mark.parametrize("module", [unit.name for unit in INDEX.modules_in(ROOT / "rtl")])
def test_module_lies_in_a_bench(module):
    assert module in covered_modules(registry.load(), INDEX)


def test_untested_module_and_missing_top_are_noticed(tmp_path):
    (tmp_path / "top.sv").write_text("module top; endmodule")
    (tmp_path / "lonely.sv").write_text("module lonely; endmodule")
    index = RtlIndex(tmp_path)
    assert covered_modules(load(tmp_path, "tests: [" + ENTRY + "}]"), index) == {"top"}
    wrong = load(tmp_path, "tests: [" + ENTRY.replace("top,", "no_top,") + "}]")
    with pytest.raises(SourceError, match="no_top"):
        covered_modules(wrong, index)


def test_what_icarus_leaves_out_is_told():
    """A bench that does less on Icarus, by its code or its parameters, says what."""
    silent = []
    for test in registry.load().tests.values():
        modules = [ROOT.joinpath(*name.split(".")) for name in test.module.split(",")]
        sources = "".join(path.with_suffix(".py").read_text() for path in modules)
        less = re.search(r"\b(scaled|on_icarus|few)\(|\bVERILATOR\b", sources)
        icarus, verilator = (len(test.cases(sim)) for sim in ("icarus", "verilator"))
        if icarus and (less or icarus < verilator) and not test.left_out_on_icarus:
            silent.append(test.name)
    assert not silent, f"benches that do not say what they leave out on Icarus: {silent}"
