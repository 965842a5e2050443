"""Damaged, foreign and hostile files: a line that names file and field, and nothing is lost."""

import copy
import io
import json
import os
import pickle
import shutil
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from model.common.errors import UserError
from model.network import Layer, Network, save_network
from train import (
    checkpoint,
    data,
    evaluate,
    export,
    memory,
    paper_mode,
    plots,
    reconstruct,
    run_files,
    shipper,
    tables,
    tail,
    teacher,
    teacher_training,
    train,
)
from train.export import ZOO
from train.fold import FoldError
from train.nin import NIN, to_input
from train.parallel import Workers
from train.run_files import StateError
from train.shipper import Shipper
from train.teacher import Teacher
from train.tests.pictures import pictures
from train.train import Phase, Trainer
from train.trial import load_full_precision

CKPT, FLOAT = ZOO / "nin-cifar10.ckpt.npz", ZOO / "nin-cifar10.float.npz"


@pytest.fixture(scope="module")
def quantized():
    """The shipped checkpoint's arrays."""
    with np.load(CKPT) as archive:
        return dict(archive)


@pytest.fixture(autouse=True)
def no_data_set(monkeypatch):
    """Files are refused before the data set is read."""
    monkeypatch.setattr(data, "load", lambda dataset: pytest.fail("the data set is read"))
    for module in (train, tail, reconstruct, plots):
        monkeypatch.setattr(module, "class_names", lambda dataset: list("abcdefghij"))


def refuses(command, *arguments, status=1):
    """The one line with which a command ends."""
    done = CliRunner().invoke(command, [str(a) for a in arguments])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == status, done.output
    line = done.output.strip().split("\n")[-1]
    assert line.lower().startswith("error: ") and len(line) < 1000
    return line


# --------------------------------------------------------- checkpoints, *.ckpt.npz and *.float.npz


def meta(**changes):
    known = json.loads(str(np.load(CKPT)["meta"]))
    return np.array(json.dumps({**known, **changes}))


def element(name, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name].flat[3] = value

    return change


DAMAGED = {
    "classes is a number": ("meta", meta(classes=5), "classes"),
    "classes is a text": ("meta", meta(classes="ten names"), "classes"),
    "one class too few": ("meta", meta(classes=["a"] * 9), "classes"),
    "a class without a name": ("meta", meta(classes=["a"] * 9 + [""]), "classes"),
    "a class that moves the cursor": ("meta", meta(classes=["a"] * 9 + ["\x1b[2J"]), "classes"),
    "an unknown data set": ("meta", meta(dataset="mnist"), "dataset"),
    "a list of data sets": ("meta", meta(dataset=["cifar10"]), "dataset"),
    "accuracy above 1": ("meta", meta(validation=93.1), "validation"),
    "accuracy nan": ("meta", meta(validation=float("nan")), "NaN"),
    "accuracy in words": ("meta", meta(validation="high"), "validation"),
    "a seed below 0": ("meta", meta(seed=-1), "seed"),
    "a later version": ("meta", meta(version=2), "version"),
    "meta is a list": ("meta", np.array("[1]"), "table"),
    "meta is cut off": ("meta", np.array('{"dataset": '), "meta"),
    "meta is a number": ("meta", np.array(3), "meta"),
    "meta nests too deeply": ("meta", np.array("[" * 100_000), "meta"),
    "nan weight": (element("conv4.weight", np.nan), None, "conv4.weight"),
    "infinite weight": (element("conv1.weight", np.inf), None, "conv1.weight"),
    "nan batch norm": (element("conv2.bn.bias", np.nan), None, "conv2.bn.bias"),
    "infinite mean": (element("conv9.bn.running_mean", -np.inf), None, "conv9.bn.running_mean"),
    "negative variance": (element("conv9.bn.running_var", -1), None, "conv9.bn.running_var"),
    "float32 weights": ("conv3.weight", np.zeros((96, 160, 1, 1), np.float32), "conv3.weight"),
    "integer batch norm": ("conv3.bn.weight", np.ones(96, np.int32), "conv3.bn.weight"),
    "transposed weights": ("conv3.weight", np.zeros((160, 96, 1, 1), np.float16), "conv3.weight"),
    "a channel too few": ("conv3.bn.weight", np.ones(95, np.float32), "conv3.bn.weight"),
    "steps of 0": ("conv6.steps", np.float32(0), "conv6.steps"),
    "steps of nan": ("conv6.steps", np.float32("nan"), "conv6.steps"),
    "many steps": ("conv6.steps", np.ones(2, np.float32), "conv6.steps"),
    "descending edges": ("conv5.edges", np.array([1.0, 0, -1]), "conv5.edges"),
    "nan edge": ("conv5.edges", np.array([-1, np.nan, 1]), "conv5.edges"),
    "four edges": ("conv5.edges", np.arange(4.0), "conv5.edges"),
    "a fifth segment is zero": ("conv5.zero", np.int64(4), "conv5.zero"),
    "half a segment is zero": ("conv5.zero", np.float64(0.5), "conv5.zero"),
    "complex steps": ("conv6.steps", np.complex64(1), "conv6.steps"),
    "pickled weights": ("conv7.weight", np.array([{}], object), "conv7.weight"),
    "an unknown array": ("conv7.zero_point", np.int8(3), "conv7.zero_point"),
    "a scale beside the steps": ("conv1.scale", np.float32(1), "conv2.scale"),
    "no layers": (lambda arrays: [arrays.pop(k) for k in list(arrays)[1:]], None, "conv1"),
    "one array too few": (lambda arrays: arrays.pop("conv8.bn.bias"), None, "conv8.bn.bias"),
}


def altered(quantized, change, value, path):
    arrays = dict(quantized)
    if callable(change):
        change(arrays)
    else:
        arrays[change] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_checkpoint_names_what_is_wrong(case, quantized, tmp_path):
    change, value, culprit = DAMAGED[case]
    path = tmp_path / "bad.ckpt.npz"
    altered(quantized, change, value, path)
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
    "picture": lambda whole: b"\xff\xd8\xff\xe0 JFIF",
    "headless": lambda whole: whole[100:],
}
FLOAT_COMMANDS = {
    "export": (export.main, []),
    "evaluate": (evaluate.main, []),
    "train": (train.main, ["--run", "run", "--phase", "clipq", "--start"]),
    "teacher": (train.main, ["--run", "run", "--teacher"]),
    "tail": (tail.main, ["--out", "run", "--start"]),
    "tail's": (tail.main, ["--out", "run", "--teacher"]),
    "reconstruct": (reconstruct.main, ["--out", "run", "--start"]),
    "tables": (tables.main, ["bits", "--start"]),
    "paper": (paper_mode.main, ["--start"]),
    "histograms": (plots.main, ["--full", FLOAT, "--ckpt"]),
}


@pytest.mark.parametrize("damage", BYTES)
def test_bytes_that_are_no_checkpoint(damage, tmp_path):
    path = tmp_path / "bad.ckpt.npz"
    path.write_bytes(BYTES[damage](CKPT.read_bytes()))
    assert f"{path}: " in refuses(export.main, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", FLOAT_COMMANDS)
def test_every_command_names_the_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, options = FLOAT_COMMANDS[name]
    path = tmp_path / "bad.ckpt.npz"
    path.write_bytes(flipped(CKPT.read_bytes()))
    assert str(path) in refuses(command, *options, path)
    path.unlink()
    os.mkfifo(path)  # nobody writes into it
    if "start" in "".join(map(str, options)) or command is plots.main:
        assert str(path) in refuses(command, *options, path)
    path.unlink()
    path.mkdir()
    own_check = command in (tables.main, paper_mode.main)
    assert path.name in refuses(command, *options, path, status=1 if own_check else 2)


# ---------------------------------------------------------------------------- states of runs, *.pt


def trainer_in(folder):
    torch.manual_seed(0)
    sets = {"train": pictures(40), "val": pictures(20, 1)}
    phase = Phase("float", ((16, 2),), batch=20)
    return Trainer(Workers(NIN(10), 1), phase, sets, "cifar10", 0, folder)


ROW = {"epoch": 1, "size": 16, "loss": 2.0, "val": 0.5, "seconds": 1.0}
WEIGHT = ("net", "conv4.conv.weight")
MOMENTUM = ("muon", "state", 0, "momentum_buffer")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(a trainer with a checkpoint after two epochs, the state in it)."""
    trainer = trainer_in(tmp_path_factory.mktemp("run"))
    trainer.epoch, trainer.history = 2, [ROW, ROW]
    for optimizer in (trainer.muon, trainer.sgd):
        for weight in optimizer.param_groups[0]["params"]:
            optimizer.state[weight]["momentum_buffer"] = torch.ones_like(weight)
    trainer.save()
    assert trainer_in(trainer.folder).resume()
    return trainer, torch.load(trainer.checkpoint, weights_only=True)


STATES = {
    "epoch -1": (("epoch",), -1),
    "epoch of a text": (("epoch",), "1"),
    "true epochs": (("epoch",), True),
    "half a step": (("step",), 0.5),
    "no seconds": (("seconds",), None),
    "seconds of nan": (("seconds",), float("nan")),
    "history of numbers": (("history",), [1, 2]),
    "history is a table": (("history",), {"loss": 1}),
    "one epoch too few": (("history",), [ROW]),
    "an epoch without a loss": (("history", 0), {"val": 0.5}),
    "a loss of nan": (("history", 1, "loss"), float("nan")),
    "settings of a text": (("settings",), "seed 0"),
    "settings of tensors": (("settings", "seed"), torch.zeros(2)),
    "version 2": (("version",), 2),
    "net is a tensor": (("net",), torch.zeros(3)),
    "no net": (("net",), None),
    "nan weight": (WEIGHT, torch.full((192, 96, 5, 5), torch.nan)),
    "infinite weight": (WEIGHT, torch.full((192, 96, 5, 5), torch.inf)),
    "other shape": (WEIGHT, torch.zeros(192, 96, 3, 3)),
    "other type": (WEIGHT, torch.zeros(192, 96, 5, 5, dtype=torch.float64)),
    "sparse": (WEIGHT, torch.zeros(192, 96, 5, 5).to_sparse()),
    "without memory": (WEIGHT, torch.zeros(192, 96, 5, 5, device="meta")),
    "weight of a text": (WEIGHT, "heavy"),
    "negative variance": (("net", "conv1.bn.running_var"), -torch.ones(192)),
    "steps of 0": (("net", "conv1.steps"), torch.tensor(0.0)),
    "an unknown weight": (("net", "conv10"), torch.zeros(1)),
    "muon is a list": (("muon",), [1]),
    "sgd has no state": (("sgd", "state"), None),
    "momentum of another shape": (MOMENTUM, torch.zeros(3)),
    "nan momentum": (MOMENTUM, torch.full((192, 3, 5, 5), torch.nan)),
    "momentum of a text": (("sgd", "state", 0, "momentum_buffer"), "fast"),
    "an unknown parameter": (("muon", "state", 9), {}),
}


def replaced(tree, keys, value):
    """A copy of `tree` with `value` where `keys` lead to."""
    copied = dict(tree) if isinstance(tree, dict) else list(tree)
    copied[keys[0]] = replaced(tree[keys[0]], keys[1:], value) if keys[1:] else value
    return copied


@pytest.mark.parametrize("case", STATES)
def test_a_state_names_what_is_wrong(case, saved, tmp_path):
    trainer, state = saved
    keys, value = STATES[case]
    trainer.folder = tmp_path
    torch.save(replaced(state, keys, value), trainer.checkpoint)
    with pytest.raises(UserError) as caught:
        trainer.resume()
    message = str(caught.value)
    assert f"{trainer.checkpoint}" in message and str(keys[-1]) in message and len(message) < 1000


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("old", ["resume", "curves", "tables"])
def test_bytes_that_are_no_state(damage, old, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(saved[1], tmp_path / "float.pt")
    (tmp_path / "float.pt").write_bytes(BYTES[damage]((tmp_path / "float.pt").read_bytes()))
    command = {
        "resume": (train.main, "--run", tmp_path),
        "curves": (plots.main, "--run", tmp_path),
        "tables": (tables.main, "point", "--start", tmp_path / "float.pt"),
    }[old]
    assert f"{tmp_path / 'float.pt'}: " in refuses(*command)


class Harmful:
    def __reduce__(self):
        return (exec, ("open('executed', 'w')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickle_is_executed(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"net": Harmful()}, "float.pt", _use_new_zipfile_serialization=zipped)
    assert "float.pt: " in refuses(train.main, "--run", tmp_path)
    assert "float.pt: " in refuses(tables.main, "bits", "--start", "float.pt")
    Path("float.pt").write_bytes(pickle.dumps(Harmful()))
    assert "float.pt: " in refuses(train.main, "--run", tmp_path)
    assert not Path("executed").exists()


def test_compressed_states_are_not_unpacked(tmp_path):
    path, plain = tmp_path / "soft.pt", io.BytesIO()
    torch.save(torch.zeros(1 << 20), plain)
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(plain) as source, packed as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(StateError, match="soft.pt: .*compressed"):
        run_files.read(path)


@pytest.mark.parametrize(
    "soft",
    [
        torch.zeros(3, 5).half(),
        torch.zeros(3, 10),
        torch.full((3, 10), torch.nan).half(),
        -torch.ones(3, 10).half(),
        2 * torch.ones(3, 10).half(),
        [1, 2],
        "soft",
    ],
)
def test_kept_probabilities_are_checked(soft, tmp_path):
    torch.save(soft, tmp_path / "soft.pt")
    with pytest.raises(UserError, match="soft.pt: probabilities"):
        tail.kept_in(tmp_path / "soft.pt", (3, 10), lambda: pytest.fail("computed anew"))
    with pytest.raises(UserError, match="soft.pt: probabilities"):
        train.teach(None, None, pictures(3)[0], "cifar10", tmp_path / "soft.pt")


def test_a_teacher_names_what_is_wrong(tmp_path):
    path, state = tmp_path / "teacher.pt", Teacher(10).state_dict()
    nan = {**state, "conv3.conv.weight": torch.full_like(state["conv3.conv.weight"], torch.nan)}
    small = {**state, "conv3.conv.weight": torch.zeros(2)}
    for change, culprit in (
        ({"net": nan}, "conv3.conv"),
        ({"net": small}, "conv3.conv"),
        ({"dataset": 10}, "dataset"),
        ({"version": "1"}, "version"),
        ({"net": [state]}, "net"),
    ):
        torch.save({"dataset": "cifar10", "net": state, **change}, path)
        with pytest.raises(UserError, match=f"teacher.pt: .*{culprit}"):
            teacher.read(path, "cifar10")
    torch.save(nan, path)
    with pytest.raises(UserError, match="teacher.pt: net must be a table"):
        load_full_precision(path, "cifar10")


def test_the_best_state_of_a_tail_is_there_before_it_goes_on(tmp_path):
    trainer = tail.TailTrainer.__new__(tail.TailTrainer)  # no more than `resume` needs of it
    trainer.folder, trainer.history = tmp_path, [ROW]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "resume", lambda self, ended: True)
        with pytest.raises(FileNotFoundError, match="best.pt"):
            trainer.resume()
        (tmp_path / "best.pt").write_bytes(b"")
        with pytest.raises(UserError, match="best.pt: "):
            trainer.resume()


# --------------------------------------------------------------------------------- results in JSON

RESULTS = {
    "empty": "",
    "no JSON": "{'float': 1}",
    "cut": '{"float": {"history": [',
    "a list": "[]",
    "a phase of a number": '{"float": 3}',
    "no history": '{"float": {"validation": 0.5}}',
    "history of numbers": '{"float": {"history": [1]}}',
    "no accuracy": '{"float": {"history": [{"loss": 1.0}]}}',
    "nan": '{"float": {"history": [{"loss": NaN, "val": 0}]}}',
    "infinite": '{"float": {"history": [{"loss": 1e999, "val": 0}]}}',
    "text": '{"float": {"history": [{"loss": "1", "val": 0}]}}',
    "accuracy above 1": '{"float": {"history": [], "test": 92.8}}',
    "nested": "[" * 100_000,
    "Latin": b'{"\xe9": 1}',
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_name_what_is_wrong(case, tmp_path):
    text, path = RESULTS[case], tmp_path / "results.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert f"{path}: " in refuses(plots.main, "--run", tmp_path, "--out", tmp_path / "plots")
    assert f"{path}: " in refuses(train.main, "--run", tmp_path)
    assert path.read_bytes() == (text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "",
        '{"validation": 0.5}',
        '{"validation": 0.5, "test": NaN}',
        '{"validation": 0.5, "test": 0.5, "history": {"fake": [{"loss": 1}]}}',
    ],
)
def test_a_trials_result_names_what_is_wrong(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match="result.json: "):
        run_files.read_result(tmp_path / "result.json")


def test_results_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    assert "results.json: not a regular file" in refuses(plots.main, "--run", tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").mkdir()
    assert "results.json: Is a directory" in refuses(plots.main, "--run", tmp_path)
    assert "results.json: Is a directory" in refuses(train.main, "--run", tmp_path)


# ----------------------------------------------------------------------------- folders and outputs


@pytest.mark.parametrize(
    "command, option",
    [
        (train.main, "--run"),
        (train.main, "--out"),
        (tail.main, "--out"),
        (teacher_training.main, "--out"),
        (reconstruct.main, "--out"),
        (plots.main, "--run"),
        (plots.main, "--out"),
        (export.main, "--out"),
    ],
)
def test_a_file_where_a_folder_is_expected(command, option, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    assert "'" + str(file) + "' is a file" in refuses(command, option, file, status=2)
    rest = ["--net", ZOO / "nin-cifar10.clipq.npz"] if command is plots.main else []
    if option == "--out" and command is not train.main:
        assert str(file) in refuses(command, option, file / "below", *rest)
    assert file.read_text() == "kept"


def test_outputs_are_tried_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "float.pt").mkdir()
    assert "float.pt: Is a directory" in refuses(train.main, "--run", tmp_path)
    (tmp_path / "teacher-cifar100.pt").mkdir()
    refused = refuses(teacher_training.main, "--out", tmp_path)
    assert "teacher-cifar100.pt: Is a directory" in refused
    (tmp_path / "x.clipq.npz").mkdir()
    assert "x.clipq.npz: Is a directory" in refuses(paper_mode.main, "--out", "x.clipq.npz")
    (tmp_path / "cifar10-curves.png").mkdir()
    refused = refuses(plots.main, "--run", tmp_path, "--out", tmp_path)
    assert "cifar10-curves.png: Is a directory" in refused
    shutil.copy(CKPT, tmp_path / "x.ckpt.npz")
    assert "x.clipq.npz: Is a directory" in refuses(export.main, tmp_path / "x.ckpt.npz")
    (tmp_path / "nin-cifar10.clipq.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="nin-cifar10.clipq.npz"):
        Shipper("cifar10", tmp_path, [], 0)


def test_a_damaged_network_is_not_shipped_over(tmp_path):
    (tmp_path / "nin-cifar10.ckpt.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="nin-cifar10.ckpt.npz: "):
        Shipper("cifar10", tmp_path, [], 0)
    assert (tmp_path / "nin-cifar10.ckpt.npz").read_bytes() == b"PK"


# ----------------------------------------------------------------------------- what is not written


@cache
def network(mode):
    torch.manual_seed(0)
    net = NIN(10)
    if mode == "fake":
        net.calibrate(to_input(pictures(4)[0], "cifar10"))
        net = checkpoint.snapped(net)
    return net


@pytest.mark.parametrize("mode", ["float", "fake"])
@pytest.mark.parametrize(
    "layer, part, value",
    [
        ("conv4", "conv.weight", torch.nan),
        ("conv1", "conv.weight", torch.inf),
        ("conv5", "bn.bias", torch.nan),
        ("conv9", "bn.running_var", -1.0),
        ("conv2", "bn.running_mean", torch.inf),
    ],
)
def test_networks_with_bad_numbers_are_not_written(mode, layer, part, value, tmp_path):
    net, path = copy.deepcopy(network(mode)), tmp_path / "nin.npz"
    path.write_bytes(b"old")
    net.state_dict()[f"{layer}.{part}"].view(-1)[5] = value
    array = f"{layer}.{part.removeprefix('conv.')}"
    with pytest.raises(UserError, match=f"nin.npz is not written: .*{array}"):
        checkpoint.write(net, "cifar10", path, {})
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    "field, value, culprit",
    [
        ("conv.weight", torch.nan, "weights that are not finite"),
        ("conv.weight", torch.inf, "weights that are not finite"),
        ("bn.weight", torch.nan, "channel 5: scale nan"),
        ("bn.weight", torch.inf, "channel 5: scale inf"),
        ("bn.bias", 1e30, "channel 5: bias"),
    ],
)
def test_integers_of_bad_numbers_do_not_exist(field, value, culprit):
    """In one layer of a network that was never in a file."""
    net = copy.deepcopy(network("fake"))
    net.state_dict()[f"conv6.{field}"].view(-1)[5] = value
    with pytest.raises(FoldError, match=f"layer conv6: {culprit}"):
        export.to_network(net, "cifar10")


def test_a_layer_of_zeros_is_kept(tmp_path):
    for mode in ("float", "fake"):
        net = copy.deepcopy(network(mode))
        net.conv3.conv.weight.data.zero_()
        checkpoint.write(net, "cifar10", tmp_path / "x.npz", {})
        assert not checkpoint.read(tmp_path / "x.npz")[0].conv3.conv.weight.any()


def test_a_run_is_not_saved_over_by_bad_numbers(tmp_path):
    trainer = trainer_in(tmp_path)
    trainer.save()
    before = trainer.checkpoint.read_bytes()
    trainer.net.conv7.bn.bias.data[0] = torch.nan
    with pytest.raises(UserError, match="float.pt: not written, since net.conv7.bn.bias"):
        trainer.save()
    trainer.net.conv7.bn.bias.data[0] = 0
    trainer.history = [{**ROW, "divergence": float("nan")}]
    with pytest.raises(UserError, match="float.pt: not written, since history.0.divergence"):
        trainer.save()
    assert trainer.checkpoint.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["float.pt"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: run_files.write_json(path, {"test": float("nan")}),
        lambda path: run_files.write(path, torch.tensor([torch.inf])),
        lambda path: tail.kept_in(path, (2,), lambda: torch.tensor([0, torch.nan])),
        lambda path: teacher.write(_nan_teacher(), "cifar10", path),
    ],
)
def test_bad_numbers_are_not_written(write, tmp_path):
    with pytest.raises(UserError, match="file: not written"):
        write(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def _nan_teacher():
    net = Teacher(10)
    net.conv1.bn.bias.data[0] = torch.nan
    return net


def test_export_takes_quantized_checkpoints_only(tmp_path):
    """By its name a file could otherwise be its own output."""
    for name in ("nin.npz", "nin.float.npz", "nin.clipq.npz"):
        shutil.copy(CKPT, tmp_path / name)
        refused = refuses(export.main, tmp_path / name, status=2)
        assert f"{name}: the name must end in .ckpt.npz" in refused
        assert (tmp_path / name).read_bytes() == CKPT.read_bytes()
    shutil.copy(FLOAT, tmp_path / "full.ckpt.npz")
    assert "full.ckpt.npz is in full precision" in refuses(export.main, tmp_path / "full.ckpt.npz")
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):
        shutil.copy(CKPT, folder / "x.ckpt.npz")
    both = [folder / "x.ckpt.npz" for folder in (tmp_path, tmp_path / "a")]
    twice = refuses(export.main, *both, "--out", tmp_path, status=2)
    assert "another one becomes" in twice and not (tmp_path / "x.clipq.npz").exists()


def test_a_network_of_pooling_has_no_weights_to_measure(tmp_path):
    size = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0)}
    pool = Layer(name="pool", op="maxpool", inputs=("input",), **size)
    net = Network(name="p", input_shape=(1, 4, 4), input_signed=True, layers=(pool,))
    save_network(net, tmp_path / "p.clipq.npz")
    assert "p.clipq.npz: there is no convolution" in refuses(memory.main, tmp_path / "p.clipq.npz")
    (tmp_path / "p.clipq.npz").write_bytes(b"")
    assert "p.clipq.npz: " in refuses(memory.main, tmp_path / "p.clipq.npz")


def test_histograms_are_of_the_right_networks(tmp_path):
    other = ZOO / "nin-cifar100.ckpt.npz"
    for full, ckpt, culprit in ((CKPT, CKPT, CKPT), (FLOAT, FLOAT, FLOAT), (FLOAT, other, other)):
        options = ("--full", full, "--ckpt", ckpt, "--out", tmp_path)
        assert str(culprit) in refuses(plots.main, *options)
    assert "nothing to draw" in refuses(plots.main, "--full", FLOAT, status=2)


def test_a_network_of_other_classes_has_no_confusion(tmp_path, monkeypatch):
    no_pictures = np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.int64)
    monkeypatch.setattr(plots, "load_cifar", lambda dataset, split: no_pictures)
    net = ZOO / "nin-cifar100.clipq.npz"
    assert f"{net} has 100 outputs" in refuses(plots.main, "--net", net, "--out", tmp_path)


def test_what_is_shipped_is_checked_once_more(tmp_path, monkeypatch):
    """A network whose integers differ between the models is not written."""
    monkeypatch.setattr(shipper, "run_integer", lambda *_: np.zeros((4, 10), np.int64))
    with pytest.raises(UserError, match="not written: the integer model's logits differ"):
        net = network("fake")
        Shipper("cifar10", tmp_path, [], 0).offer(net, {"phase": "x"}, Workers(net, 1), pictures(4))
    assert not list(tmp_path.iterdir())
