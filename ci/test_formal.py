"""The proofs of formal/proofs.yaml, as tests of the regression; without the nightly ones."""

import re
from pathlib import Path

import pytest
import yaml

from ci import formal

# Below the project: YoWASP's file system does not hold every temporary directory.
OUT = formal.OUT / "regress"
QUICK = [p for p in formal.load().values() if "nightly" not in p.tags]


@pytest.mark.parametrize("proof", QUICK, ids=lambda p: p.name)
def test_proof(proof: formal.Proof) -> None:
    assert formal.prove(proof, out=OUT).error == ""


def test_a_false_statement_is_not_proven(tmp_path: Path) -> None:
    """The runner itself: a proof on broken RTL fails and names the assertion."""
    for source in (formal.ROOT / "rtl").rglob("*.sv"):
        text = source.read_text(encoding="utf-8")
        if source.name == "loop_counter.sv":
            text = text.replace("left_q == WIDTH'(2)", "left_q == WIDTH'(3)")
        (tmp_path / "rtl").mkdir(exist_ok=True)
        (tmp_path / "rtl" / source.name).write_text(text, encoding="utf-8")
    error = formal.prove(formal.load()["loop_counter"], tmp_path / "rtl", OUT / "broken").error
    assert re.search(r"Assert failed in loop_counter_proof", error)


@pytest.mark.parametrize(
    "change, culprit",
    [
        ({"mode": "guess"}, "proofs.yaml: proofs.a.mode: Input should be 'prove' or 'bmc'"),
        ({"dept": 3}, "proofs.yaml: proofs.a.dept: Extra inputs"),
        ({"matrix": {"W": []}}, "proof a: its matrix gives no case"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, change: dict, culprit: str) -> None:
    entry = {"name": "a", "about": "x", "top": "x", "mode": "bmc", "depth": 2, "seconds": 1}
    (tmp_path / "proofs.yaml").write_text(yaml.safe_dump({"proofs": [{**entry, **change}]}))
    with pytest.raises(formal.ProofError, match=culprit):
        formal.load(tmp_path / "proofs.yaml")


def test_a_planted_bug_needs_a_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formal, "PLANTED", tmp_path / "bugs.yaml")
    formal.PLANTED.write_text("bugs: [{proof: gone, file: x.sv, find: a, replace: b}]")
    with pytest.raises(formal.ProofError, match="bugs.yaml: no proof is called 'gone'"):
        formal.check_planted(formal.load(), "", tmp_path)


def test_excluded_cases_are_noticed() -> None:
    """A harness that cannot reach what it covers fails: here within too few cycles."""
    proof = formal.load()["loop_counter"]
    error = formal.prove(proof.model_copy(update={"cover": 2}), out=OUT / "excluded").error
    assert error.startswith("cover: FAIL")


def test_covers_beyond_a_bounded_proof_are_reported() -> None:
    """They can happen, but nothing is proven of them; a proof by induction has none."""
    counter = formal.load()["loop_counter"]
    bounded = counter.model_copy(update={"mode": "bmc", "depth": 4})
    outcome = formal.prove(bounded, out=OUT / "bounded")
    assert not outcome.error and len(outcome.beyond) == 1
    lines = r"covers beyond the proof: (\S+ in step [4-7](, )?)+; proven are steps 0 to 3"
    assert re.fullmatch(f"loop_counter: {lines}", outcome.beyond[0])
    assert not formal.prove(counter, out=OUT / "bounded").beyond


def test_matrix_is_proven_point_by_point() -> None:
    """Each point is a case with its parameters; the first that fails is named."""
    reader = formal.load()["tensor_reader"]
    assert len({case.name for case in reader.cases}) == len(reader.matrix) == 8
    assert reader.cases[1].parameters == {"ROWS": 1, "QUADS": 2} and not reader.cases[1].matrix
    points = {"matrix": [{"DEPTH": 1}, {"DEPTH": 3}], "cover": 3}
    line = formal.load()["delay_line"].model_copy(update=points)
    assert formal.prove(line, out=OUT / "matrix").error.startswith("delay_line-DEPTH3: cover: FAIL")
