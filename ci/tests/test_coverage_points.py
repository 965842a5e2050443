"""Reading coverage data, adding it up, exclusions: on hand-made data."""

import pytest

from ci import code_coverage
from ci.coverage_points import (
    Counts,
    CoverageError,
    Item,
    by_file,
    check_exclusions,
    load_exclusions,
    total,
)

SOURCE = (
    "module m;\nassign a = b;\nalways_ff @(posedge c)\n  if (x) y <= z;\n  else y <= "
    "0;\nlogic [1:0] q;\nendmodule\n"
)


def counter(count, **keys):
    return "C '" + "".join(f"\1{k}\2{v}" for k, v in keys.items()) + f"' {count}\n"


@pytest.fixture
def tree(tmp_path):
    """A root with rtl/m.sv and a function that writes a data file: {name of a point: count}."""
    (tmp_path / "rtl").mkdir()
    (tmp_path / "rtl" / "m.sv").write_text(SOURCE)
    f = str(tmp_path / "rtl" / "m.sv")

    def data(block=0, taken=0, other=0, bit0=0, bit1=0, name="coverage.dat"):
        path = tmp_path / name
        path.write_text(
            "# SystemC::Coverage-3\n"
            + counter(block, f=f, l=3, n=1, t="line", o="block", S="3")
            + counter(taken, f=f, l=4, n=3, t="branch", o="if", S="4")
            + counter(other, f=f, l=4, n=4, t="branch", o="else", S="5")
            + counter(bit0, f=f, l=6, n=13, t="toggle", o="q[0]:0->1")
            + counter(bit1, f=f, l=6, n=13, t="toggle", o="q[1]:0->1")
            + counter(9, f=f.replace("rtl", "tb"), l=1, n=1, t="line", o="block", S="1")
        )
        return path

    return tmp_path, data


def exclusions(root, text):
    (root / "e.yaml").write_text(text)
    return load_exclusions(root / "e.yaml")


def files_of(root, *paths, excluded=()):
    counts = Counts(root)
    for path in paths:
        counts.read(path)
    return by_file(counts.items(), list(excluded), root)


def test_counts_add_up_and_lines_follow_their_blocks(tree):
    root, data = tree
    files = files_of(
        root, data(block=5, taken=5, name="a"), data(block=2, other=2, bit1=1, name="b")
    )
    assert [f.path for f in files] == ["rtl/m.sv"]  # the test bench does not count
    assert files[0].counts[Item("rtl/m.sv", 3, "line")] == 7
    assert files[0].counts[Item("rtl/m.sv", 5, "line")] == 2
    assert [total(files, kind) for kind in ("line", "branch", "toggle")] == [(3, 3), (2, 2), (1, 2)]
    assert files[0].missed("toggle") == [Item("rtl/m.sv", 6, "toggle", "q[0]:0->1")]


def test_untaken_branch_misses_line_and_branch(tree):
    root, data = tree
    files = files_of(root, data(block=5, taken=5, bit0=1, bit1=1))
    assert files[0].missed("line") == [Item("rtl/m.sv", 5, "line")]
    assert files[0].missed("branch") == [Item("rtl/m.sv", 4, "branch", "else@4")]


def test_gates(tree):
    root, data = tree
    gates = {"line": 95, "branch": 90, "toggle": 85}
    missed = code_coverage.missed_gates(
        files_of(root, data(block=5, taken=5, bit0=1, bit1=1)), gates
    )
    assert (
        len(missed) == 2
        and missed[0].startswith("line: 66.67 %")
        and missed[1].startswith("branch: 50.00 %")
    )
    assert not code_coverage.missed_gates(files_of(root, data(1, 1, 1, 1, 1)), gates)
    assert len(code_coverage.missed_gates([], gates)) == 3  # no data is no coverage


def test_exclusions_take_out_what_they_name(tree):
    root, data = tree
    entries = exclusions(
        root,
        "- {file: rtl/m.sv, kind: toggle, signal: 'q\\[[01]\\]', reason: why not}\n"
        "- {file: rtl/m.sv, kind: branch, source: 'if (x) y <= z;', arm: else, reason: x is 1}\n",
    )
    files = files_of(root, data(block=5, taken=5, bit0=3), excluded=entries)
    assert total(files, "toggle") == (0, 0) and total(files, "branch") == (1, 1)
    errors, notes = check_exclusions(files, entries)
    assert not errors and notes == [
        "1 of 2 excluded items were covered, such as rtl/m.sv:6 toggle q[0]:0->1: rtl/m.sv toggle "
        "q\\[[01]\\]"
    ]


def test_useless_exclusions_are_errors(tree):
    root, data = tree
    entries = exclusions(
        root,
        "- {file: rtl/m.sv, kind: toggle, signal: 'r', reason: no such signal}\n"
        "- {file: rtl/m.sv, kind: branch, source: 'if (x) y <= z;', arm: if, reason: wrong}\n",
    )
    errors, _ = check_exclusions(files_of(root, data(block=5, taken=5), excluded=entries), entries)
    assert [e.split(":")[0] for e in errors] == [
        "exclusion without a match",
        "exclusion of what was covered",
    ]


@pytest.mark.parametrize(
    "entry",
    [
        "{file: rtl/m.sv, kind: toggle, signal: q}",
        "{file: rtl/m.sv, kind: line, source: q, signal: q, reason: r}",
        "{file: rtl/m.sv, kind: toggle, source: q, reason: r}",
        "{file: rtl/m.sv, kind: lines, source: q, reason: r}",
        "{kind: line, source: q, reason: r}",
        "{file: rtl/m.sv, kind: [line, toggle], source: q, reason: r}",
        "{file: rtl/m.sv, kind: line, source: q, reason: r, x: 1}",
    ],
)
def test_bad_exclusions_are_refused(tmp_path, entry):
    with pytest.raises(CoverageError):
        exclusions(tmp_path, f"- {entry}\n")


def test_missing_or_empty_data_is_an_error(tree):
    root, _ = tree
    (root / "empty.dat").write_text("# SystemC::Coverage-3\n")
    for name in ("empty.dat", "nothing.dat"):
        with pytest.raises(CoverageError):
            Counts(root).read(root / name)


def test_failed_case_leaves_no_coverage(monkeypatch):
    monkeypatch.setattr(code_coverage.results, "run_pytest", lambda words, env: 1)
    gates = {"line": 0, "branch": 0, "toggle": 0}
    with pytest.raises(CoverageError, match="a case failed"):
        code_coverage.measure(
            code_coverage.Plan(gates=gates, modules=4, tests=["skid_buffer"]), 1, 1
        )


def test_pages_show_source_and_holes(tree, tmp_path):
    root, data = tree
    files = files_of(root, data(block=5, taken=5, bit0=1))
    code_coverage.write_html(
        files,
        tmp_path,
        gates={"line": 95, "branch": 90, "toggle": 85},
        seed=1,
        seconds=1,
        cases=["c"],
        problems=["p"],
        notes=[],
    )
    page = (tmp_path / "rtl_m.sv.html").read_text()
    assert (
        "branch not seen: else@4" in page
        and "toggle not seen: q[1]:0-&gt;1" in page
        and 'class="missed"' in page
    )
    assert "rtl_m.sv.html" in (tmp_path / "index.html").read_text()
