"""Seeded mutations of checkpoints, states and results: refused with a message, or usable."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from model.common.errors import UserError
from model.tests.fuzz import DTYPES, HOSTILE, damage, nodes, pick
from train import checkpoint, plots, run_files, teacher
from train.export import to_network
from train.nin import NIN, to_input
from train.parallel import Workers
from train.teacher import Teacher
from train.tests.pictures import pictures
from train.train import Phase, Trainer

COUNT = 700 if os.environ.get("NIGHTLY") == "1" else 40  # of each kind
SECONDS = 10
ROW = {"epoch": 1, "size": 16, "loss": 2.0, "val": 0.5, "seconds": 1.0}
NUMBERS = (0, 1, -1, 1e-38, 6e4, -1e30, 3e38, float("nan"), float("inf"), -float("inf"))


class Checkpoints:
    """*.ckpt.npz or *.float.npz of a small network."""

    def __init__(self, folder: Path, quantized: bool):
        torch.manual_seed(0)
        net, self.path = NIN(10), folder / "nin.npz"
        if quantized:
            net.calibrate(to_input(pictures(4)[0], "cifar10"))
            net = checkpoint.snapped(net)
        facts = {"classes": list("abcdefghij"), "seed": 1, "validation": 0.5, "phase": "exact"}
        checkpoint.write(net, "cifar10", self.path, facts)
        self.whole = self.path.read_bytes()
        with np.load(self.path) as archive:
            self.arrays = dict(archive)

    def mutate(self, rng):
        if rng.random() < 0.2:
            return self.path.write_bytes(damage(rng, self.whole))
        arrays = dict(self.arrays)
        for _ in range(rng.integers(1, 3)):
            change_arrays(rng, arrays)
        with np.errstate(all="ignore"):
            np.savez(self.path, **arrays)

    def use(self):
        net, facts = checkpoint.read(self.path)
        if net.mode == "float":
            return net(torch.zeros(1, 3, 8, 8))
        return to_network(net, facts["dataset"], tuple(facts.get("classes", ())))


def change_arrays(rng, arrays):
    name = pick(rng, sorted(arrays))
    array, kind = arrays[name], rng.integers(8)
    if name == "meta" or kind == 0:
        facts = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
        places = list(nodes(facts))
        container, key = places[rng.integers(len(places))] if places else (facts, "seed")
        container[key] = pick(rng, HOSTILE)
        arrays["meta"] = np.array(json.dumps(facts))
    elif kind == 1:
        del arrays[name]
    elif kind == 2:
        with np.errstate(all="ignore"):
            arrays[name] = array.astype(pick(rng, DTYPES))
    elif kind == 3:
        shapes = ((), (0,), (3,), array.shape[::-1], (1, *array.shape))
        arrays[name] = np.resize(array, pick(rng, shapes))
    elif kind == 4:
        other = pick(rng, sorted(arrays))
        arrays[name], arrays[other] = arrays[other], arrays[name]
    elif kind == 5:
        arrays[pick(rng, ("x", "conv1.scale", "conv10.weight", f"{name}.npy"))] = array
    elif array.size:
        array = arrays[name] = array.copy()
        with np.errstate(all="ignore"):
            array.flat[rng.integers(array.size)] = np.array(pick(rng, NUMBERS)).astype(array.dtype)


class States:
    """float.pt of a run, or the file of a teacher: a tree of tables, numbers and tensors."""

    def __init__(self, folder: Path, of_teacher: bool):
        torch.manual_seed(0)
        sets = {"train": pictures(40), "val": pictures(20, 1)}
        phase = Phase("float", ((16, 2),), batch=20)
        self.trainer = Trainer(Workers(NIN(10), 1), phase, sets, "cifar10", 0, folder)
        self.trainer.epoch, self.trainer.history = 2, [ROW, {**ROW, "epoch": 2}]
        for optimizer in (self.trainer.muon, self.trainer.sgd):
            for weight in optimizer.param_groups[0]["params"]:
                optimizer.state[weight]["momentum_buffer"] = torch.ones_like(weight)
        self.trainer.save()
        self.path, self.of_teacher = self.trainer.checkpoint, of_teacher
        if of_teacher:
            teacher.write(Teacher(10), "cifar10", self.path)
        self.whole = self.path.read_bytes()

    def mutate(self, rng):
        if rng.random() < 0.3:
            return self.path.write_bytes(damage(rng, self.whole))
        self.path.write_bytes(self.whole)
        tree = torch.load(self.path, weights_only=True)
        for _ in range(rng.integers(1, 3)):
            places = list(nodes(tree))
            container, key = places[rng.integers(len(places))]
            if rng.random() < 0.2:
                del container[key]
            else:
                container[key] = self._other(rng, container[key])
        torch.save(tree, self.path)

    @staticmethod
    def _other(rng, value):
        if not isinstance(value, torch.Tensor) or rng.random() < 0.2:
            return pick(rng, (*HOSTILE, torch.zeros(2), torch.tensor(1.0), value))
        if rng.random() < 0.5:
            changed = value.clone().flatten()
            numbers = NUMBERS if changed.is_floating_point() else NUMBERS[:5]
            changed[rng.integers(len(changed))] = pick(rng, numbers)
            return changed.view_as(value)
        return pick(
            rng,
            (
                value.double(),
                value[None],
                value.flatten()[:3],
                value.to("meta"),
                value.float().to_sparse(),
                torch.zeros(()).expand(value.shape),
                -value,
            ),
        )

    def use(self):
        if self.of_teacher:
            return teacher.read(self.path, "cifar10")(torch.zeros(1, 3, 8, 8))
        assert self.trainer.resume()
        self.trainer.save()
        return plots.histories(self.path.parent)


class Results:
    """results.json of a run."""

    def __init__(self, folder: Path, _):
        self.path = folder / "results.json"
        entry = {"history": [ROW, ROW], "validation": 0.5, "test": 0.25}
        run_files.write_json(self.path, {"float": entry, "exact": entry})
        self.whole = self.path.read_bytes()

    def mutate(self, rng):
        if rng.random() < 0.4:
            return self.path.write_bytes(damage(rng, self.whole))
        tree = json.loads(self.whole)
        places = list(nodes(tree))
        container, key = places[rng.integers(len(places))]
        container[key] = pick(rng, HOSTILE)
        self.path.write_text(json.dumps(tree))

    def use(self):
        plots.plt.close(plots.curves(plots.histories(self.path.parent)))


def late(*_):
    raise AssertionError(f"no end after {SECONDS} s")


KINDS = {
    "quantized": (Checkpoints, True),
    "full precision": (Checkpoints, False),
    "state": (States, False),
    "teacher": (States, True),
    "results": (Results, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind, small, tmp_path, monkeypatch):
    made_by, flag = KINDS[kind]
    few = [(name, min(i, 8), o and min(o, 8), kernel) for name, i, o, kernel in teacher.LAYERS]
    monkeypatch.setattr(teacher, "LAYERS", tuple(few))
    file, accepted = made_by(tmp_path, flag), 0
    previous = signal.signal(signal.SIGALRM, late)
    for number in range(COUNT):
        file.mutate(np.random.default_rng(number))
        signal.alarm(SECONDS)
        try:
            file.use()
            accepted += 1
        except UserError as error:
            lines = str(error).split("\n")
            assert len(str(error)) < 1000 and all(map(str.isprintable, lines)), f"file {number}"
            assert str(tmp_path) in str(error) or kind == "quantized", f"file {number}: {error}"
        except Exception as error:
            raise AssertionError(f"{kind}: file {number}") from error
        finally:
            signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    assert 0 < accepted < COUNT * 0.8  # both ways are taken
