"""Mutants judged on a cluster: findings are those of `make mutate`, kept, and none is judged twice;
another checkout and a run that ends before its end are refused."""

import json
from dataclasses import asdict

import pytest
from click.testing import CliRunner

from ci import cases, farm_mutate, mutate
from ci.mutation import trial
from host import cluster
from host.simulation import runner
from model.common.errors import UserError

MODULE = ("--module", "skid_buffer", "-n", "1")


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Folder of results."""
    monkeypatch.setattr(mutate, "OUT", tmp_path)
    monkeypatch.setattr(runner, "BUILD", tmp_path)
    return tmp_path


def findings(out):
    """Those that are kept."""
    return json.loads((out / "results.json").read_text())["findings"]


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(runner.missing("icarus")), reason="no icarus")
def test_findings_of_a_cluster(out):
    chosen = mutate.choose(1, mutate.SEED, "skid_buffer", (), False, False)
    done = CliRunner().invoke(farm_mutate.main, [*MODULE, "--workers", "1"])
    assert done.exit_code == 0 and "killed (100.0 %)" in done.output, done.output
    found = findings(out)
    assert found.keys() == {m.key for m in chosen} and len(chosen) > 1
    assert all(f["killed_by"].startswith("skid_buffer[icarus") for f in found.values())
    assert all(f["sources"] for f in found.values()) and (out / mutate.REPORT).exists()
    again = CliRunner().invoke(farm_mutate.main, MODULE)
    assert again.exit_code == 0 and "scheduler" not in again.output, again.output
    assert findings(out) == found


def test_what_is_decided_is_in_no_piece():
    chosen = mutate.choose(100, 1, "", (), False, False)
    found = {m.key: trial.Finding(m.key, m.kind, m.module, m.title) for m in chosen}
    found[chosen[0].key].status = "killed"
    found[chosen[1].key].status = "survived"
    pieces = farm_mutate.pieces_of(chosen, found)
    assert sorted(k for piece in pieces for k in piece) == sorted(m.key for m in chosen[1:])
    assert max(map(len, pieces)) == farm_mutate.PIECE


def test_what_arrived_before_a_stop_is_kept(out, monkeypatch):
    results = trial.Results(out / "results.json")
    keys = [results.finding(m).key for m in mutate.choose(0, 1, "skid_buffer", (), True, False)]
    killed = {keys[0]: {**asdict(results.findings[keys[0]]), "status": "killed"}}

    def stopped(*_, **__):
        yield keys[:1], killed
        raise UserError("stopped")

    monkeypatch.setattr(cluster, "completed", stopped)
    monkeypatch.setattr(cluster, "result", lambda found: found)
    with pytest.raises(UserError, match="stopped"):
        farm_mutate.compute(None, [keys[:1], keys[1:]], results, 1)
    statuses = [findings(out)[key]["status"] for key in keys]
    assert statuses == ["killed"] + ["not tried"] * (len(keys) - 1)


def test_other_sources_are_refused():
    with pytest.raises(UserError, match="give all the same checkout"):
        farm_mutate.try_piece({}, 1, "0" * 16)


@pytest.mark.timeout(600)
def test_a_run_that_fails_on_a_worker_is_named(out):
    """This mutant does not exist."""
    nothing = {"0123": asdict(trial.Finding("0123", "designed", "x", "x"))}
    with pytest.raises(UserError, match="failed on a worker: no mutant 0123 to try"):
        farm_mutate.try_piece(nothing, 1, cases.digest())
