"""Trials: kept results, resumption, bounds; the rows of tables and ablation; the commands on a
handful of pictures."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from model.common.errors import UserError
from model.network import load_network
from train import ablate, paper_mode, report, tables, trial
from train.clipq import Setting
from train.methods import METHODS
from train.nin import NIN
from train.trial import Bench, load_full_precision, quantized_trial, short_phase


def sets():
    rng = np.random.default_rng(1)
    draw = lambda n, s: (
        torch.from_numpy(rng.integers(0, 256, (n, 3, s, s)).astype(np.uint8)),
        torch.from_numpy(rng.integers(0, 10, n)),
    )
    return {"train": draw(8, 16), "val": draw(2, 32), "test": draw(2, 32)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "float.pt"
    torch.manual_seed(1)
    torch.save({"net": NIN(10).state_dict()}, path)
    return path


def make_bench(source, folder, seed=0):
    return Bench("cifar10", seed, source, sets(), torch.device("cpu"), 1, folder)


PHASES = (short_phase(1, 8),)


def method_trial(name):
    return quantized_trial(METHODS[name].quantizer, METHODS[name].bound, PHASES)


def test_finished_trial_is_not_trained_again(source, tmp_path, monkeypatch):
    bench = make_bench(source, tmp_path)
    first = bench.run(method_trial("ternary"))
    assert (
        0 <= first["test"] <= 1
        and len(first["history"]["fake"]) == 1
        and "Ternary" in first["settings"]
    )
    monkeypatch.setattr(Bench, "train", lambda *_: pytest.fail("this trial has its result"))
    assert make_bench(source, tmp_path).run(method_trial("ternary")) == first
    for other, seed in (("binary", 0), ("ternary", 1)):
        with pytest.raises(pytest.fail.Exception):
            make_bench(source, tmp_path, seed).run(method_trial(other))


def test_interrupted_trial_gives_the_same_network(source, tmp_path, monkeypatch):
    """Stopped after the first of two steps; the paper's mode, whose start is computed anew."""
    one = trial.Trial(paper_mode.PaperStart(), (trial.replace(short_phase(2, 8), lr=0.01),))
    straight, _ = make_bench(source, tmp_path / "a").train(one)
    step = trial.Trainer._step
    monkeypatch.setattr(
        trial.Trainer,
        "_step",
        lambda self, *batch: (setattr(self, "stopping", True), step(self, *batch))[1],
    )
    with pytest.raises(UserError, match="stopped and saved"):
        make_bench(source, tmp_path / "b").train(one)
    monkeypatch.undo()
    resumed, _ = make_bench(source, tmp_path / "b").train(one)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(a, b)


def largest(source, folder, bound):
    net, _ = make_bench(source, folder).train(quantized_trial(Setting(), bound, PHASES))
    return max(
        (b.conv.weight.abs().max() / b.conv.weight.square().mean().sqrt()).item()
        for _, b in net.blocks()
    )


def test_bound_is_the_trials_own(source, tmp_path):
    """Uniform initial weights reach 1.73 standard deviations, so 1.5 acts and none at all leaves
    them."""
    assert largest(source, tmp_path / "a", 1.5) < 1.72 < largest(source, tmp_path / "b", None)


def test_missing_and_wrong_networks_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.pt does not exist"):
        load_full_precision(tmp_path / "nowhere.pt", "cifar10")
    bad = tmp_path / "bad.pt"
    torch.save({"other": 1}, bad)
    with pytest.raises(UserError, match="bad.pt"):
        load_full_precision(bad, "cifar10")
    torch.save({"net": NIN(10).state_dict()}, bad)
    with pytest.raises(UserError, match="bad.pt"):
        load_full_precision(bad, "cifar100")


def test_rows_of_the_tables():
    counts = {name: len(rows("cifar10", 2, None)) for name, rows in tables.ROWS.items()}
    assert counts == {"bits": 5, "point": 8, "quantizers": 6}
    for rows in tables.ROWS.values():
        made = rows("cifar100", 2, None)
        assert len({r.trial for r in made}) == len(made)
        assert all(r.paper is None or 40 < r.paper < 68 for r in made)


def test_ablation_changes_one_thing_at_a_time():
    recipe, *others = ablate.ablation(2, None)
    assert len({recipe.trial, *(r.trial for r in others)}) == 10
    for row in others:
        assert {phase.bound for phase in row.trial.phases} == {row.trial.start.bound}
        unbound = lambda phases: [trial.replace(phase, bound=None) for phase in phases]
        changed = (unbound(row.trial.phases) != unbound(recipe.trial.phases)) + (
            row.trial.start.quantizer != recipe.trial.start.quantizer
        )
        assert changed + (row.trial.start.bound != recipe.trial.start.bound) == 1, row.name


@pytest.fixture
def few_pictures(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial.data, "load", lambda dataset: sets())
    monkeypatch.setattr(paper_mode, "class_names", lambda dataset: list("abcdefghij"))


def test_table_command_writes_its_rows_beside_the_papers(source, few_pictures, monkeypatch):
    monkeypatch.setattr(tables, "BITS", {8: tables.BITS[8]})
    args = [
        "bits",
        "--start",
        str(source),
        "--epochs",
        "1",
        "--size",
        "8",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    run = CliRunner().invoke(tables.main, args)
    assert run.exit_code == 0, run.output
    written = json.loads((report.FOLDER / "bits-cifar10-seed0.json").read_text())
    assert [(r["row"], r["paper"]) for r in written["rows"]] == [
        ("full precision", 90.88),
        (METHODS["fixed8"].about, 89.82),
    ]
    markdown = (report.FOLDER / "bits-cifar10-seed0.md").read_text()
    assert (
        markdown.strip() in run.output
        and "1 epochs" in markdown
        and "8 training, 2 validation and 2 test pictures" in markdown
    )
    assert f"| {100 * written['rows'][1]['test']:.2f} |" in markdown


def test_ablation_command(source, few_pictures, monkeypatch):
    rows = ablate.ablation(1, 8)
    monkeypatch.setattr(ablate, "ablation", lambda epochs, size: rows[:1])
    run = CliRunner().invoke(
        ablate.main,
        [
            "--start",
            str(source),
            "--epochs",
            "1",
            "--size",
            "8",
            "--threads",
            "1",
            "--device",
            "cpu",
        ],
    )
    assert run.exit_code == 0, run.output
    (row,) = json.loads((report.FOLDER / "ablation-cifar10-seed0.json").read_text())["rows"]
    assert set(row["history"]) == {"fake", "exact"} and row["row"].startswith("recipe")


def test_paper_mode_command(source, few_pictures):
    args = [
        "--start",
        str(source),
        "--epochs",
        "1",
        "--size",
        "8",
        "--threads",
        "1",
        "--device",
        "cpu",
    ]
    run = CliRunner().invoke(
        paper_mode.main, [*args, "--fraction-bits", "6", "--out", "x.clipq.npz"]
    )
    assert run.exit_code == 0, run.output
    network = load_network("x.clipq.npz")
    assert (
        network.classes == tuple("abcdefghij")
        and (network.layer("conv5").shift == 6).all()
        and "of the test pictures" in run.output
    )
