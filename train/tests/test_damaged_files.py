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
from train import checkpoint, export, files, sources, stages
from train.__main__ import main
from train.engine import Job, Run
from train.export import ZOO
from train.files import StateError
from train.quantize.fold import FoldError
from train.recipe import Training
from train.tests.helpers import images, nin, quantized
from train.workers import Workers

CKPT, FLOAT = ZOO / "nin-cifar10.ckpt.npz", ZOO / "nin-cifar10.float.npz"
EXPORT, EVALUATE = main.commands["export"], main.commands["evaluate"]


@pytest.fixture(scope="module")
def arrays():
    """The shipped checkpoint's arrays."""
    with np.load(CKPT) as archive:
        return dict(archive)


@pytest.fixture(autouse=True)
def no_data_set(monkeypatch):
    """Files are refused before the data set is read."""
    monkeypatch.setattr(sources, "load", lambda *_: pytest.fail("the data set is read"))


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
    "no description, no data set": ("meta", np.array("{}"), "dataset"),
    "a description of a number": ("meta", meta(net=3), "net must be a table"),
    "no layers": (lambda arrays: [arrays.pop(k) for k in list(arrays)[1:]], None, "conv1"),
    "one array too few": (lambda arrays: arrays.pop("conv8.bn.bias"), None, "conv8.bn.bias"),
}


def altered(original, change, value, path):
    arrays = dict(original)
    if callable(change):
        change(arrays)
    else:
        arrays[change] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_checkpoint_names_what_is_wrong(case, arrays, tmp_path):
    change, value, culprit = DAMAGED[case]
    path = tmp_path / "bad.ckpt.npz"
    altered(arrays, change, value, path)
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


@pytest.mark.parametrize("damage", BYTES)
@pytest.mark.parametrize("command", [EXPORT, EVALUATE], ids=["export", "evaluate"])
def test_bytes_that_are_no_checkpoint(command, damage, tmp_path):
    path = tmp_path / "bad.ckpt.npz"
    path.write_bytes(BYTES[damage](CKPT.read_bytes()))
    assert f"{path}: " in refuses(command, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    path.unlink()
    path.mkdir()
    assert path.name in refuses(command, path, status=2)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "bad.ckpt.npz")
    assert "bad.ckpt.npz" in refuses(EXPORT, tmp_path / "bad.ckpt.npz")


# ----------------------------------------------------------------- descriptions of other networks

SPECS = {
    "no layers": (("layers",), [], "layers"),
    "layers of a text": (("layers",), "conv1", "layers"),
    "a layer of a number": (("layers", 0), 3, "layers[0].op"),
    "an unknown op": (("layers", 0, "op"), "softmax", "layers[0].op"),
    "a list of ops": (("layers", 0, "op"), ["conv"], "layers[0].op"),
    "no name": (("layers", 0, "name"), None, "layers[0].name"),
    "a name that is a method": (("layers", 0, "name"), "pop", "layers[0].name"),
    "a name with a dot": (("layers", 0, "name"), "a.b", "layers[0].name"),
    "a name twice": (("layers", 1, "name"), "conv1", "two layers conv1"),
    "a later input": (("layers", 0, "inputs"), ["conv5"], "layers[0].inputs"),
    "two inputs": (("layers", 1, "inputs"), ["conv1", "conv1"], "layers[1].inputs"),
    "no input": (("layers", 1, "inputs"), [], "layers[1].inputs"),
    "inputs of numbers": (("layers", 1, "inputs"), [[1]], "layers[1].inputs"),
    "channels that do not fit": (("layers", 1, "channels"), [7, 8], "layers[1] conv2: channels"),
    "a kernel of 0": (("layers", 0, "kernel"), [0, 5], "'kernel' of conv1"),
    "a kernel of 12": (("layers", 0, "kernel"), [12, 5], "'kernel' of conv1"),
    "half a stride": (("layers", 0, "stride"), [0.5, 1], "'stride' of conv1"),
    "a true pad": (("layers", 0, "pad"), [True, 1], "'pad' of conv1"),
    "a norm of its own": (("layers", 0, "norm"), "layer", "'norm' of conv1"),
    "an unhashable norm": (("layers", 0, "norm"), [], "'norm' of conv1"),
    "eps of nan": (("layers", 0, "eps"), "x", "'eps' of conv1"),
    "an unknown field": (("layers", 0, "groups"), 2, "'groups' of conv1"),
    "a window that does not fit": (("layers", 3, "kernel"), [99, 1], "pool1: kernel"),
    "too much padding": (("layers", 3, "pad"), [2, 0], "pool1: pad"),
    "signs in words": (("layers", 3, "signed"), "no", "'signed' of pool1"),
    "too many weights": (("layers", 0, "channels"), [3, 65537], "'channels' of conv1"),
    "no input at all": (("input",), {}, "net.input must be"),
    "two dimensions": (("input", "shape"), [3, 32], "net.input.shape"),
    "no pixels": (("input", "shape"), [3, 0, 32], "net.input.shape"),
    "two scales": (("input", "scale"), [1.0, 1.0], "net.input.scale"),
    "offset in words": (("input", "offset"), [0.0, 0.0, "x"], "net.input.offset"),
    "unit of 0": (("input", "unit"), 0, "net.input.unit"),
    "huge images": (("input", "shape"), [3, 65536, 65536], "net.input.unit"),
}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The arrays of a checkpoint with a description."""
    path = tmp_path_factory.mktemp("described") / "x.ckpt.npz"
    checkpoint.write(quantized(), path, {"seed": 0})
    with np.load(path) as archive:
        return dict(archive)


@pytest.mark.parametrize("case", SPECS)
def test_a_description_names_what_is_wrong(case, described, tmp_path):
    keys, value, culprit = SPECS[case]
    facts = json.loads(str(described["meta"]))
    tree = {"net": replaced(facts["net"], keys, value)}
    path = tmp_path / "bad.ckpt.npz"
    np.savez(path, **{**described, "meta": np.array(json.dumps(tree))})
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    message = str(caught.value)
    assert str(path) in message and culprit in message and len(message) < 1000


# ---------------------------------------------------------------------------- states of runs, *.pt


def run_in(folder):
    job = Job(nin(), Training(((16, 2),), batch=20), images(40), images(20, 1), 0)
    return Run(job, Workers(job.net, torch.device("cpu"), 1), folder / "state.pt")


ROW = {"epoch": 1, "loss": 2.0, "val": 0.5}
WEIGHT = ("net", "nodes.conv4.conv.weight")
SHAPE = tuple(nin().nodes["conv4"].conv.weight.shape)
MOMENTUM = ("weights", "state", 0, "momentum_buffer")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(a run with a state after two epochs, what is in it)."""
    run = run_in(tmp_path_factory.mktemp("run"))
    run.epoch, run.history = 2, [ROW, ROW]
    for optimizer in (run.weights, run.others):
        for weight in optimizer.param_groups[0]["params"]:
            optimizer.state[weight]["momentum_buffer"] = torch.ones_like(weight)
    run.save()
    run_in(run.path.parent).resume()
    return run, torch.load(run.path, weights_only=True)


STATES = {
    "epoch -1": (("epoch",), -1),
    "epoch of a text": (("epoch",), "1"),
    "true epochs": (("epoch",), True),
    "half a step": (("step",), 0.5),
    "no seconds": (("seconds",), None),
    "seconds of nan": (("seconds",), float("nan")),
    "a loss of a text": (("loss",), "low"),
    "three losses": (("loss",), [1.0, 2.0, 3.0]),
    "a loss sum of nan": (("loss",), [float("nan"), 1.0]),
    "history of numbers": (("history",), [1, 2]),
    "history is a table": (("history",), {"loss": 1}),
    "one epoch too few": (("history",), [ROW]),
    "an epoch without a loss": (("history", 0), {"val": 0.5}),
    "a loss of nan": (("history", 1, "loss"), float("nan")),
    "version 2": (("version",), 2),
    "net is a tensor": (("net",), torch.zeros(3)),
    "no net": (("net",), None),
    "nan weight": (WEIGHT, torch.full(SHAPE, torch.nan)),
    "infinite weight": (WEIGHT, torch.full(SHAPE, torch.inf)),
    "other shape": (WEIGHT, torch.zeros(192, 96, 3, 3)),
    "other type": (WEIGHT, torch.zeros(SHAPE, dtype=torch.float64)),
    "sparse": (WEIGHT, torch.zeros(SHAPE).to_sparse()),
    "without memory": (WEIGHT, torch.zeros(SHAPE, device="meta")),
    "weight of a text": (WEIGHT, "heavy"),
    "negative variance": (("net", "nodes.conv1.bn.running_var"), -torch.ones(10)),
    "steps of 0": (("net", "nodes.conv1.steps"), torch.tensor(0.0)),
    "an unknown weight": (("net", "nodes.conv10"), torch.zeros(1)),
    "weights are a list": (("weights",), [1]),
    "others have no state": (("others", "state"), None),
    "momentum of another shape": (MOMENTUM, torch.zeros(3)),
    "nan momentum": (MOMENTUM, torch.full((10, 3, 5, 5), torch.nan)),
    "momentum of a text": (("others", "state", 0, "momentum_buffer"), "fast"),
    "an unknown parameter": (("weights", "state", 9), {}),
}


def replaced(tree, keys, value):
    """A copy of `tree` with `value` where `keys` lead to."""
    copied = dict(tree) if isinstance(tree, dict) else list(tree)
    copied[keys[0]] = replaced(tree[keys[0]], keys[1:], value) if keys[1:] else value
    return copied


@pytest.mark.parametrize("case", STATES)
def test_a_state_names_what_is_wrong(case, saved, tmp_path):
    run, state = saved
    keys, value = STATES[case]
    run.path = tmp_path / "state.pt"
    torch.save(replaced(state, keys, value), run.path)
    with pytest.raises(UserError) as caught:
        run.resume()
    message = str(caught.value)
    assert f"{run.path}" in message and str(keys[-1]) in message and len(message) < 1000


@pytest.mark.parametrize("damage", BYTES)
def test_bytes_that_are_no_state(damage, saved, tmp_path):
    path = tmp_path / "state.pt"
    torch.save(saved[1], path)
    path.write_bytes(BYTES[damage](path.read_bytes()))
    with pytest.raises(StateError, match=f"{path}: "):
        files.read_fields(path)


RESULTS = {
    "no description": (("spec",), None, "spec"),
    "a description of a text": (("spec",), "nin", "spec"),
    "a layer less": (("spec", "layers"), [], "layers"),
    "an unknown mode": (("mode",), "half", "mode"),
    "no quantizers": (("quantizers",), {}, "conv1"),
    "an unknown quantizer": (("quantizers", "conv2"), {"kind": "Cubes"}, "Cubes"),
    "clip of 2": (("quantizers", "conv2", "clip"), 2.0, "clip 2.0"),
    "no weights": (("net",), {}, "conv1"),
}


@pytest.mark.parametrize("case", RESULTS)
def test_a_stages_result_names_what_is_wrong(case, tmp_path):
    keys, value, culprit = RESULTS[case]
    path = tmp_path / "result.pt"
    stages.write_net(path, quantized(), seconds=1.0)
    assert stages.read_net(path)[0].mode == "fake"
    torch.save(replaced(torch.load(path, weights_only=True), keys, value), path)
    with pytest.raises(StateError) as caught:
        stages.read_net(path)
    assert str(path) in str(caught.value) and culprit in str(caught.value)


class Harmful:
    def __reduce__(self):
        return (exec, ("open('executed', 'w')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_pickle_is_executed(zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"net": Harmful()}, "state.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(StateError, match="state.pt: "):
        files.read(Path("state.pt"))
    Path("state.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(StateError, match="state.pt: "):
        files.read(Path("state.pt"))
    assert not Path("executed").exists()


def test_compressed_states_are_not_unpacked(tmp_path):
    path, plain = tmp_path / "soft.pt", io.BytesIO()
    torch.save(torch.zeros(1 << 20), plain)
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(plain) as source, packed as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(StateError, match="soft.pt: .*compressed"):
        files.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{'val': 1}",
        '{"val": ',
        "[]",
        '{"val": NaN}',
        '{"val": 1e999}',
        '{"val": "1"}',
        '{"val": 92.8}',
        "[" * 100_000,
        b'{"\xe9": 1}',
    ],
)
def test_results_name_what_is_wrong(text, tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="accuracy.json: "):
        files.read_json(path).number("val", 0, 1)


# ----------------------------------------------------------------------------- folders and outputs


def test_a_file_where_a_folder_is_expected(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    for command, options in (
        (EXPORT, ["--out"]),
        (main.commands["run"], ["--recipe", "digits", "--out"]),
        (main.commands["run"], ["--recipe", "digits", "--stages"]),
        (main.commands["tables"], ["--out"]),
    ):
        assert f"'{file}' is a file" in refuses(command, *options, file, status=2)
    assert str(file) in refuses(EXPORT, "--out", file / "below")
    assert file.read_text() == "kept"


def test_outputs_are_tried_before_the_work(tmp_path):
    shutil.copy(CKPT, tmp_path / "x.ckpt.npz")
    (tmp_path / "x.clipq.npz").mkdir()
    assert "x.clipq.npz: Is a directory" in refuses(EXPORT, tmp_path / "x.ckpt.npz")


# ----------------------------------------------------------------------------- what is not written


@cache
def network(mode):
    return nin() if mode == "float" else quantized()


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
    net.state_dict()[f"nodes.{layer}.{part}"].view(-1)[5] = value
    array = f"{layer}.{part.removeprefix('conv.')}"
    with pytest.raises(UserError, match=f"nin.npz is not written: .*{array}"):
        checkpoint.write(net, path, {})
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
    net.state_dict()[f"nodes.conv6.{field}"].view(-1)[5] = value
    with pytest.raises(FoldError, match=f"layer conv6: {culprit}"):
        export.to_network(net, "net")


def test_a_layer_of_zeros_is_kept(tmp_path):
    for mode in ("float", "fake"):
        net = copy.deepcopy(network(mode))
        net.nodes["conv3"].conv.weight.data.zero_()
        checkpoint.write(net, tmp_path / "x.npz", {})
        assert not checkpoint.read(tmp_path / "x.npz")[0].nodes["conv3"].conv.weight.any()


def test_a_run_is_not_saved_over_by_bad_numbers(tmp_path):
    run = run_in(tmp_path)
    run.save()
    before = run.path.read_bytes()
    run.net.nodes["conv7"].bn.bias.data[0] = torch.nan
    with pytest.raises(UserError, match="state.pt: not written, since net.nodes.conv7.bn.bias"):
        run.save()
    run.net.nodes["conv7"].bn.bias.data[0] = 0
    run.history = [{**ROW, "val": float("nan")}]
    with pytest.raises(UserError, match="state.pt: not written, since history.0.val"):
        run.save()
    assert run.path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_json(path, {"test": float("nan")}),
        lambda path: files.write(path, torch.tensor([torch.inf])),
    ],
)
def test_bad_numbers_are_not_written(write, tmp_path):
    with pytest.raises(UserError, match="file: not written"):
        write(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_export_takes_quantized_checkpoints_only(tmp_path):
    """By its name a file could otherwise be its own output."""
    for name in ("nin.npz", "nin.float.npz", "nin.clipq.npz"):
        shutil.copy(CKPT, tmp_path / name)
        refused = refuses(EXPORT, tmp_path / name, status=2)
        assert f"{name}: the name must end in .ckpt.npz" in refused
        assert (tmp_path / name).read_bytes() == CKPT.read_bytes()
    shutil.copy(FLOAT, tmp_path / "full.ckpt.npz")
    assert "full.ckpt.npz is in full precision" in refuses(EXPORT, tmp_path / "full.ckpt.npz")
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):
        shutil.copy(CKPT, folder / "x.ckpt.npz")
    both = [folder / "x.ckpt.npz" for folder in (tmp_path, tmp_path / "a")]
    twice = refuses(EXPORT, *both, "--out", tmp_path, status=2)
    assert "another one becomes" in twice and not (tmp_path / "x.clipq.npz").exists()
