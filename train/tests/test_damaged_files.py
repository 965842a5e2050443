"""Damaged, foreign and hostile files: a line that names the file and what is wrong."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from model.common.errors import UserError
from train import checkpoint
from train.__main__ import main
from train.checkpoint import ZOO, CheckpointError
from train.engine import Run
from train.quantize.codebooks import ClipQ
from train.recipe import Training
from train.tests.helpers import images, nin, quantized
from train.workers import Workers

CKPT, FLOAT = ZOO / "nin-cifar10.ckpt.npz", ZOO / "nin-cifar10.float.npz"
EXPORT, EVALUATE = main.commands["export"], main.commands["evaluate"]


def refuses(command, *arguments, status=1):
    """The one line with which a command ends."""
    done = CliRunner().invoke(command, [str(a) for a in arguments])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == status, done.output
    line = done.output.strip().split("\n")[-1]
    assert line.lower().startswith("error: ") and len(line) < 1000
    return line


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Those of a small quantized network's checkpoint."""
    path = tmp_path_factory.mktemp("small") / "x.ckpt.npz"
    checkpoint.write(quantized(), path, {"classes": list("abcdefghij")})
    with np.load(path) as archive:
        return dict(archive)


def meta(arrays, *keys, value):
    """The description with another value where keys lead."""
    facts = json.loads(str(arrays["meta"]))
    at = facts
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return {**arrays, "meta": np.array(json.dumps(facts))}


def element(arrays, name, value):
    changed = arrays[name].copy()
    changed.flat[3] = value
    return {**arrays, name: changed}


LAYER = ("net", "layers", 1)
DAMAGED = {
    "classes is a text": (lambda a: meta(a, "classes", value="ten"), "classes"),
    "one class too few": (lambda a: meta(a, "classes", value=["a"] * 9), "classes"),
    "a net of a number": (lambda a: meta(a, "net", value=3), "no network"),
    "no net": (lambda a: {**a, "meta": np.array("{}")}, "net"),
    "meta is a list": (lambda a: {**a, "meta": np.array("[1]")}, "no network"),
    "meta is cut off": (lambda a: {**a, "meta": np.array('{"net": ')}, "JSON"),
    "meta nests deeply": (lambda a: {**a, "meta": np.array("[" * 100_000)}, "recursion"),
    "an unknown op": (lambda a: meta(a, *LAYER, "op", value="softmax"), "softmax"),
    "a later input": (lambda a: meta(a, *LAYER, "inputs", value=["conv5"]), "conv5"),
    "other channels": (lambda a: meta(a, *LAYER, "shape", value=[8, 7, 1, 1]), "no network"),
    "huge channels": (
        lambda a: meta(a, "net", "layers", 8, "shape", 0, value=1 << 30),
        "no network",
    ),
    "a kernel of 0": (lambda a: meta(a, *LAYER, "shape", 2, value=0), "no network"),
    "nan weight": (lambda a: element(a, "conv4.weight", np.nan), "conv4.weight"),
    "infinite mean": (lambda a: element(a, "conv9.bn.running_mean", np.inf), "running_mean"),
    "negative variance": (lambda a: element(a, "conv9.bn.running_var", -1), "running_var"),
    "integer weights": (lambda a: {**a, "conv3.weight": np.int8(a["conv3.weight"])}, "conv3"),
    "weights of another shape": (lambda a: {**a, "conv3.weight": a["conv3.weight"][1:]}, "conv3"),
    "steps of 0": (lambda a: {**a, "conv6.steps": np.float32(0)}, "conv6.steps"),
    "steps of nan": (lambda a: {**a, "conv6.steps": np.float32("nan")}, "conv6.steps"),
    "clip of 1": (lambda a: meta(a, "quantizers", "conv6", "clip", value=1.0), "conv6"),
    "clip of a text": (lambda a: meta(a, "quantizers", "conv6", "clip", value="x"), "conv6"),
    "edges descend": (
        lambda a: meta(a, "quantizers", "conv5", value={"edges": [1.0, 0, 2], "zero": 0}),
        "edges must ascend",
    ),
    "no quantizer": (lambda a: meta(a, "quantizers", value={"conv1": {"clip": 0.2}}), "conv2"),
    "pickled": (lambda a: {**a, "conv7.weight": np.array([{}], object)}, "pickled"),
    "unknown": (lambda a: {**a, "conv7.zero_point": np.int8(3)}, "zero_point"),
    "missing": (lambda a: {k: v for k, v in a.items() if k != "conv8.bn.bias"}, "conv8.bn.bias"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_checkpoint_names_what_is_wrong(case, arrays, tmp_path):
    change, culprit = DAMAGED[case]
    path = tmp_path / "bad.ckpt.npz"
    np.savez(path, **change(arrays))
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    message = str(caught.value)
    assert str(path) in message and culprit in message and len(message) < 1000


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf])
def test_a_full_precision_scale_is_checked(scale, tmp_path):
    arrays = {**np.load(FLOAT), "conv4.scale": np.float32(scale)}
    np.savez(tmp_path / "bad.float.npz", **arrays)
    with pytest.raises(UserError, match="bad.float.npz.*conv4.scale"):
        checkpoint.read(tmp_path / "bad.float.npz")


def flipped(whole):
    data = bytearray(whole)
    data[len(data) // 2] ^= 16
    return bytes(data)


BYTES = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[: len(whole) // 2],
    "flipped": flipped,
    "text": lambda whole: b"network\n",
    "headless": lambda whole: whole[100:],
}


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("command", [EXPORT, EVALUATE], ids=["export", "evaluate"])
def test_bytes_that_are_no_checkpoint(command, damage, tmp_path):
    path = tmp_path / "bad.ckpt.npz"
    path.write_bytes(BYTES[damage](CKPT.read_bytes()))
    assert f"{path}: " in refuses(command, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "bad.ckpt.npz")
    assert "bad.ckpt.npz" in refuses(EXPORT, tmp_path / "bad.ckpt.npz")


def run_in(folder):
    settings, workers = Training(((16, 2),), batch=20), Workers(nin(), torch.device("cpu"), 1)
    return Run(workers, settings, images(40), images(20, 1), folder / "state.npz", 0)


def weight_of(shape):
    return lambda a: {**a, "conv3.weight.momentum": np.zeros(shape, np.float32)}


STATES = {
    "another network": (lambda a: {**a, "conv3.weight": a["conv3.weight"][1:]}, "conv3"),
    "no network": (lambda a: meta(a, "net", value=None), "no network"),
    "another momentum": (weight_of(3), "shape"),
    "epoch of a text": (lambda a: meta(a, "epoch", value="one"), "epoch"),
    "epoch -1": (lambda a: meta(a, "epoch", value=-1), "epoch"),
    "losses of a text": (lambda a: meta(a, "losses", value="much"), "losses"),
    "history of a number": (lambda a: meta(a, "history", value=3), "history"),
    "seconds of a list": (lambda a: meta(a, "seconds", value=[1]), "seconds"),
    "unknown": (lambda a: meta(a, "validation", value=0.5), "validation"),
}


@pytest.mark.parametrize("case", STATES)
def test_a_state_of_something_else_is_named(case, tmp_path):
    run, (change, culprit) = run_in(tmp_path), STATES[case]
    run.save()
    run.resume()
    with np.load(run.path) as archive:
        arrays = dict(archive)
    np.savez(run.path, **change(arrays))
    with pytest.raises(CheckpointError, match="state.npz: .*damaged: .*; delete it") as caught:
        run.resume()
    assert culprit in str(caught.value)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


@pytest.mark.parametrize("damage", [*BYTES, "pickle"])
def test_bytes_that_are_no_state(damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_in(tmp_path)
    run.save()
    if damage == "pickle":
        np.savez(run.path, meta=np.array([Hostile()], object))
    else:
        run.path.write_bytes(BYTES[damage](run.path.read_bytes()))
    with pytest.raises(CheckpointError, match=f"{run.path}: .*; delete it to make it again"):
        run.resume()
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("damage", BYTES)
def test_bytes_that_are_no_result(damage, tmp_path):
    """What a stage leaves behind, in single precision."""
    path, net = tmp_path / "result.npz", quantized()
    net.nodes["conv3"].weight.data *= 1.1
    checkpoint.write(net, path, {"seconds": 1.0}, {})
    read, facts = checkpoint.read(path)
    assert read.blocks()[0][1].quantizer == ClipQ(0.2) and facts["seconds"] == 1
    assert torch.equal(read.nodes["conv3"].weight, net.nodes["conv3"].weight)
    path.write_bytes(BYTES[damage](path.read_bytes()))
    with pytest.raises(UserError, match=f"{path}: .*; delete it to make it again"):
        checkpoint.read(path)


@pytest.mark.parametrize("mode", ["float", "fake"])
@pytest.mark.parametrize(
    "layer, part, value",
    [
        ("conv4", "weight", torch.nan),
        ("conv5", "bn.bias", torch.nan),
        ("conv9", "bn.running_var", -1),
    ],
)
def test_networks_with_bad_numbers_are_not_written(mode, layer, part, value, tmp_path):
    net, path = nin() if mode == "float" else quantized(), tmp_path / "nin.npz"
    path.write_bytes(b"old")
    net.state_dict()[f"nodes.{layer}.{part}"].view(-1)[5] = value
    with pytest.raises(UserError, match=f"nin.npz is not written: .*{layer}"):
        checkpoint.write(net, path, {})
    assert path.read_bytes() == b"old"


def test_a_full_disk_keeps_the_old_state(tmp_path, monkeypatch):
    run = run_in(tmp_path)
    run.save()
    before = run.path.read_bytes()
    full = lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    monkeypatch.setattr("zipfile.ZipFile.writestr", full)
    with pytest.raises(OSError, match="full"):
        run.save()
    assert run.path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_of_other_images_than_the_recipes_is_named():
    """Nobody has given a data set, so none is complained of."""
    message = refuses(EVALUATE, CKPT, "--recipe", "digits")
    assert "made for other classes or images than those of the recipe digits" in message


def test_export_takes_quantized_checkpoints_only(tmp_path):
    """By its name a file could otherwise be its own output."""
    shutil.copy(CKPT, tmp_path / "nin.npz")
    refused = refuses(EXPORT, tmp_path / "nin.npz", status=2)
    assert "nin.npz: the name must end in .ckpt.npz" in refused
    shutil.copy(FLOAT, tmp_path / "full.ckpt.npz")
    assert "full.ckpt.npz is in full precision" in refuses(EXPORT, tmp_path / "full.ckpt.npz")
    (tmp_path / "a").mkdir()
    both = [folder / "x.ckpt.npz" for folder in (tmp_path, tmp_path / "a")]
    for path in both:
        shutil.copy(CKPT, path)
    twice = refuses(EXPORT, *both, "--out", tmp_path, status=2)
    assert "another one becomes" in twice and not (tmp_path / "x.clipq.npz").exists()
