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
from train import checkpoint
from train.net import to_network
from train.tests.helpers import nin, quantized
from train.tests.test_damaged_files import run_in

COUNT = 700 if os.environ.get("NIGHTLY") == "1" else 40  # of each kind
SECONDS = 10
NUMBERS = (0, 1, -1, 1e-38, 6e4, -1e30, 3e38, float("nan"), float("inf"), -float("inf"))


class Checkpoints:
    """*.ckpt.npz, *.float.npz or a stage's result of a small network."""

    def __init__(self, folder: Path, kind: str):
        self.path = folder / "nin.npz"
        facts = {"classes": list("abcdefghij"), "seed": 1, "validation": 0.5, "name": "x"}
        net = nin() if kind == "full precision" else quantized()
        checkpoint.write(net, self.path, facts)
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
            return net(torch.zeros(1, *net.spec["input"]["shape"]))
        return to_network(net, "x", tuple(facts.get("classes", ())))


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


class States(Checkpoints):
    """A run's state."""

    def __init__(self, folder: Path, kind: str):
        self.run = run_in(folder)
        self.run.at.epoch, self.run.at.history = (2, [{"loss": 2.0, "val": 0.5}] * 2)
        for weight in self.run.net.parameters():
            self.run.optimizer.state[weight]["momentum_buffer"] = torch.ones_like(weight)
        self.run.save()
        self.path = self.run.path
        self.whole = self.path.read_bytes()
        with np.load(self.path) as archive:
            self.arrays = dict(archive)

    def use(self):
        self.run.resume()
        self.run.save()


def late(*_):
    raise AssertionError(f"no end after {SECONDS} s")


KINDS = {"quantized": Checkpoints, "full precision": Checkpoints, "state": States}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind, tmp_path):
    file, accepted = KINDS[kind](tmp_path, kind), 0
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
