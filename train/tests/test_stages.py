"""A recipe from data to network file: stages found again, interrupted and gone on with, and what is
written at the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from host.run import run_rtl
from host.simulation import runner
from model.common.errors import UserError
from model.data.images import pixels_to_input
from model.network import load_network
from model.reference.integer import run_integer
from train import card, engine, sources, stages, tables
from train.__main__ import main
from train.checkpoint import export
from train.recipe import Data, read
from train.stages import Project
from train.tests.helpers import PROCESSES, images
from train.tests.test_trace import Small

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("float", "ckpt", "clipq")
RECIPE = {
    "name": "tiny",
    "data": {"npz": "x.npz", "validation": 10, "test": 10},
    "net": "train.tests.test_trace:Small",
    "shift": 1,
    "teacher": {"net": "train.tests.test_trace:Small", "epochs": 1, "batch": 20},
    "full_precision": {"epochs": 2, "batch": 20, "teachers": ["teacher"], "labels": 0.5},
    "quantize": {"method": "reconstruct", "images": 60},
    "fine_tune": {
        "epochs": 2,
        "batch": 20,
        "statistics": 10,
        "rate": 0.01,
        "teachers": ["teacher", "full_precision"],
        "labels": 0.3,
        "mix": 0.5,
    },
}


@pytest.fixture
def recipe(tmp_path):
    """The path of a recipe of a small network on few images, which can be changed."""
    batch = images(80, shape=(3, 8, 8))
    np.savez(tmp_path / "x.npz", images=batch.pixels.numpy(), labels=batch.labels.numpy())

    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**RECIPE, **changes}))
        return path

    return write


def project(path, folder, said=None, seed=None) -> Project:
    found = read(str(path), seed=seed)
    say = (said if said is not None else []).append
    sets = sources.load(found.data, path.parent)
    return Project(found, sets, torch.device("cpu"), 1, folder, say)


def test_all_stages_to_network_file_and_card(recipe, tmp_path):
    said = []
    made = project(recipe(), tmp_path / "stages", said)
    found = made.finish(tmp_path / "out")
    paths = made.files(tmp_path / "out")
    assert all(path.exists() for path in paths.values())
    export(paths["ckpt"], tmp_path / "again.clipq.npz")
    assert (tmp_path / "again.clipq.npz").read_bytes() == paths["clipq"].read_bytes()
    network = load_network(paths["clipq"])
    assert network.name == "tiny" and len(network.classes) == 10
    x = pixels_to_input(network, made.sets.test.pixels.numpy())
    right = run_integer(network, x)[:, :, 0, 0].argmax(1) == made.sets.test.labels.numpy()
    assert found["integers"]["test"] == pytest.approx(right.mean())
    text = paths["card"].read_text()
    for part in ("# tiny", "| integers |", made.sets.digest[:16], "seed 0", card.commit(), "mix:"):
        assert part in text, part
    plan = said[0].split("\n")
    assert plan[1].split()[:2] == ["now", "teacher"] and plan[4].split()[0] == "left"
    assert "about 00:0" in "".join(said) and "left" not in plan[0] + said[-1]
    assert [line.split()[0] for line in said[-1].split("\n")[1:]] == ["done"] * 4


def test_finished_stages_are_not_run_again(recipe, tmp_path, monkeypatch):
    first = project(recipe(), tmp_path / "s").finish(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "Run", lambda *_: pytest.fail("there is a result"))
        again = project(recipe(), tmp_path / "s").finish(tmp_path / "b")
    assert first == again
    for kind in ("float.npz", "ckpt.npz", "clipq.npz"):
        assert (tmp_path / f"a/tiny.{kind}").read_bytes() == (
            tmp_path / f"b/tiny.{kind}"
        ).read_bytes()


def keys(path, seed=None):
    made = project(path, Path("nowhere"), seed=seed)
    return {name: made.key(name) for name in made.stages}


def changed(path, other):
    a, b = keys(path) if isinstance(path, Path) else path, keys(other)
    return [name for name in a if a[name] != b[name]]


def test_a_stage_is_named_after_what_decides_it(recipe, tmp_path, monkeypatch):
    before = keys(recipe())
    tune = {**RECIPE["fine_tune"], "rate": 0.02}
    assert changed(before, recipe(fine_tune=tune)) == ["fine_tune"]
    quantize = {**RECIPE["quantize"], "affine": True}
    assert changed(before, recipe(quantize=quantize)) == ["quantize", "fine_tune"]
    teacher = {**RECIPE["teacher"], "rate": 0.02}
    assert changed(before, recipe(teacher=teacher)) == list(stages.STAGES)
    full = {**RECIPE["full_precision"], "labels": 0.4}
    assert changed(before, recipe(full_precision=full)) == list(stages.STAGES)[1:]
    assert changed(before, recipe(name="another")) == []
    assert changed(before, recipe(shift=0)) == list(stages.STAGES)
    path = recipe()
    assert all(keys(path, seed=3)[name] != key for name, key in before.items())
    batch = images(80, seed=1, shape=(3, 8, 8))
    np.savez(tmp_path / "x.npz", images=batch.pixels.numpy(), labels=batch.labels.numpy())
    assert changed(before, path) == list(stages.STAGES)
    monkeypatch.setattr(stages, "RESULTS", 0)
    assert changed(before, path) == list(stages.STAGES)


def run_slowly(arguments):
    """The command, in a process of its own, with time to be killed in each stage."""
    engine.SAVE_SECONDS = 0
    step, quantize = engine.Run.update, stages.quantize

    def slow_step(*batch):
        time.sleep(0.15)
        return step(*batch)

    def slow_quantize(*given):
        time.sleep(0.7)
        return quantize(*given)

    engine.Run.update, stages.quantize = slow_step, slow_quantize
    main(arguments)


def test_a_run_that_is_ended_in_each_stage_comes_to_the_same_files(recipe, tmp_path):
    """By SIGKILL and by SIGTERM in turn."""
    path, folder = recipe(), tmp_path / "b"
    project(path, tmp_path / "a").finish(tmp_path / "out-a")
    made = project(path, folder)
    arguments = ["run", "--recipe", path, "--stages", folder, "--out", tmp_path / "out-b"]
    arguments = [*map(str, arguments), "--threads", "1"]
    for number, stage in enumerate([*stages.STAGES, None]):
        process = PROCESSES.Process(target=run_slowly, args=(arguments,))
        process.start()
        if stage:
            end = (signal.SIGKILL, signal.SIGTERM)[number % 2]
            _wait_for(process, folder, stage)
            os.kill(process.pid, end)
        process.join()
        if stage:
            assert process.exitcode == {signal.SIGKILL: -9, signal.SIGTERM: 143}[end], stage
            assert made.seconds(stage) is None, "it was too late"
    assert process.exitcode == 0
    for kind in KINDS:
        ours, theirs = (tmp_path / f"out-{run}/tiny.{kind}.npz" for run in "ab")
        assert ours.read_bytes() == theirs.read_bytes(), kind


def _wait_for(process, folder, stage):
    """Until the process is in the midst of a stage."""
    while not list(folder.glob(f"{stage}-*")):
        assert process.is_alive()
        time.sleep(0.02)
    time.sleep(0.35)


def test_processes_quantize_and_tell_once(recipe, tmp_path):
    """Two, as torchrun starts them."""
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "train", "run", "--recipe", recipe(), "--out", tmp_path / "out"]
    command += ["--stages", tmp_path / "s", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, *together, *map(str, command)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(part) for part in ("integers: ", "wrote ")] == [1, 1]
    assert [done.stderr.count(part) for part in ("conv1: ", "now   fine_tune")] == [1, 1]
    assert "- Hardware: 2 x 1 threads" in (tmp_path / "out/tiny.card.md").read_text()


def test_a_damaged_state_ends_the_run_at_once(recipe, tmp_path):
    made = project(recipe(), tmp_path / "s")
    state = made.state("fine_tune")
    state.parent.mkdir(parents=True)
    state.write_bytes(b"PK")
    with pytest.raises(UserError, match="state.npz: "):
        made.run()
    assert not made.state("teacher").parent.exists()


def test_outputs_are_tried_before_the_work(recipe, tmp_path):
    made = project(recipe(), tmp_path / "s")
    (tmp_path / "out" / "tiny.card.md").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="tiny.card.md"):
        made.finish(tmp_path / "out")
    assert not (tmp_path / "s").exists()


def test_a_network_that_differs_between_the_models_is_not_written(recipe, tmp_path, monkeypatch):
    made = project(recipe(), tmp_path / "s")
    wrong = lambda net, x: run_integer(net, x) + 1
    monkeypatch.setattr(stages, "run_integer", wrong)
    with pytest.raises(UserError, match="not written: the NumPy model's logits differ"):
        made.finish(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("method", ["clipq", "fixed", "ternary", "binary", "paper"])
def test_every_method_leads_to_a_network(method, recipe, tmp_path):
    path = recipe(quantize={"method": method}, teacher=None, full_precision={"epochs": 1})
    table = yaml.safe_load(path.read_text())
    table["fine_tune"] = {"epochs": 1, "batch": 20}
    path.write_text(yaml.safe_dump(table))
    made = project(path, tmp_path / "s")
    if method == "fixed":
        with pytest.raises(UserError, match="cannot hold the weights of fixed"):
            made.finish(tmp_path / "out")
        assert not (tmp_path / "s").exists()  # nothing is trained for it
        return
    made.finish(tmp_path / "out")
    network = load_network(tmp_path / "out" / "tiny.clipq.npz")
    convs = [layer for layer in network.layers if layer.op == "conv"]
    if method == "paper":
        assert all((c.mult == 1).all() and (c.shift == 5).all() for c in convs)


def test_evaluation_of_both_checkpoints(recipe, tmp_path):
    path = recipe()
    found = project(path, tmp_path / "s").finish(tmp_path / "out")
    for kind, way in (("float", "full precision"), ("ckpt", "integers")):
        arguments = [tmp_path / f"out/tiny.{kind}.npz", "--recipe", path, "--threads", "1"]
        done = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
        assert done.exit_code == 0, done.output
        assert f"top-1 {found[way]['test']:.2%} in {way}" in done.output
    strange = tmp_path / "out/a\nb.ckpt.npz"
    shutil.copy(arguments[0], strange)
    for command in (["export", strange], ["evaluate", strange, *arguments[1:]]):
        done = CliRunner().invoke(main, list(map(str, command)))
        assert done.exit_code == 0 and "a\\nb.ckpt.npz" in done.output
    np.savez(tmp_path / "x.npz", images=np.zeros((90, 3, 8, 8), np.uint8), labels=np.arange(90) % 9)
    done = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert done.exit_code == 1 and "made for other classes or images" in done.output


class Filled(Small):
    """First weights of one value."""

    def __init__(self, classes, value):
        super().__init__(classes)
        torch.nn.init.constant_(next(self.parameters()), value)


def factory(classes):
    return Small(classes)


def test_first_weights_decide_a_stage(recipe):
    net = {"net": "train.tests.test_stages:Filled"}
    before = keys(recipe(**net, arguments={"value": 0.0}))
    assert changed(before, recipe(**net, arguments={"value": 0.0})) == []
    other = recipe(**net, arguments={"value": 1.0})
    assert changed(before, other) == list(stages.STAGES)[1:]


def test_a_function_may_make_the_teacher(recipe):
    """Its address decides nothing."""
    by_class = keys(recipe())
    teacher = {**RECIPE["teacher"], "net": "train.tests.test_stages:factory"}
    assert changed(by_class, recipe(teacher=teacher)) == []


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"arguments": {"widht": 1}}, "tiny.yaml: the network of full_precision: TypeError"),
        ({"net": "train.tests.test_stages:nine"}, "full_precision has 9 outputs for 10 classes"),
    ],
)
def test_a_network_that_does_not_fit_the_recipe_is_named(changes, culprit, recipe, tmp_path):
    with pytest.raises(UserError, match=culprit):
        project(recipe(**changes), tmp_path / "s").finish(tmp_path / "out")


def nine(classes):
    return Small(9)


def test_tables_are_measured_once_and_gone_on_with(recipe, tmp_path, monkeypatch):
    path, said = recipe(), []
    base = project(path, tmp_path / "s", said)
    page = tables.write(base, "bits", 1, tmp_path / "t")
    column = lambda page, number: [
        line.split("|")[number].strip() for line in page.read_text().split("\n")[6:-1]
    ]
    bits = [f"{bits}-bit fixed point" for bits in (8, 7, 6, 5, 4)]
    assert column(page, 1) == ["full precision", *bits]
    assert column(page, 5) == [""] * 6  # the paper's figures are of CIFAR
    monkeypatch.setattr(engine, "Run", lambda *_: pytest.fail("there is a result"))
    monkeypatch.setattr(Project, "accuracies", lambda *_: pytest.fail("it was measured"))
    assert tables.write(base, "bits", 1, tmp_path / "t").read_text() == page.read_text()
    cifar = replace(base, recipe=replace(base.recipe, data=Data(cifar="cifar10")))
    assert column(tables.write(cifar, "bits", 1, tmp_path / "t"), 5)[:2] == ["90.88", "89.82"]


@pytest.mark.parametrize("name", ["digits", "smoke"])
def test_from_data_to_the_rtl(name, tmp_path):
    """The shipped recipes for a quick look: torch, int and RTL give the same logits."""
    done = CliRunner().invoke(
        main, ["run", "--recipe", name, "--stages", str(tmp_path), "--threads", "2"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("full precision: ") and "left" in done.stderr
    (path,) = tmp_path.glob("*/*.clipq.npz")
    network, found = load_network(path), read(name)
    sets = sources.load(found.data, Path(found.path).parent)
    x = pixels_to_input(network, sets.test.pixels.numpy())
    expected = run_integer(network, x)[:, :, 0, 0]
    stages.check_equal(network, torch.from_numpy(x).float())
    if name == "digits":
        assert (expected.argmax(1) == sets.test.labels.numpy()).mean() >= 0.97
    if reason := runner.missing("verilator"):
        pytest.skip(reason)
    assert np.array_equal(run_rtl(network, x[:2], 4)["y"][:, :, 0, 0], expected[:2])
