"""The proofs of formal/proofs.yaml, as tests of the regression; without the nightly ones."""
import re

import pytest

from tb import formal

# Below the project: YoWASP's file system does not hold every temporary directory.
OUT = formal.OUT / "regress"
QUICK = [p for p in formal.load().values() if "nightly" not in p.tags]


@pytest.mark.parametrize("proof", QUICK, ids=lambda p: p.name)
def test_proof(proof):
    assert formal.prove(proof, out=OUT).error == ""


def test_a_false_statement_is_not_proven(tmp_path):
    """The runner itself: a proof on broken RTL fails and names the assertion."""
    for source in (formal.ROOT / "rtl").rglob("*.sv"):
        text = source.read_text(encoding="utf-8")
        if source.name == "loop_counter.sv":
            text = text.replace("left_q == WIDTH'(2)", "left_q == WIDTH'(3)")
        (tmp_path / "rtl").mkdir(exist_ok=True)
        (tmp_path / "rtl" / source.name).write_text(text, encoding="utf-8")
    error = formal.prove(formal.load()["loop_counter"], tmp_path / "rtl", OUT / "broken").error
    assert re.search(r"Assert failed in loop_counter_proof", error)


def test_excluded_cases_are_noticed():
    """A harness that cannot reach what it covers fails: here within too few cycles."""
    proof = formal.load()["loop_counter"]
    error = formal.prove(formal.Proof(**{**vars(proof), "cover": 2}), out=OUT / "excluded").error
    assert error.startswith("cover: FAIL")
