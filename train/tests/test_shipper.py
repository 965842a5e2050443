"""Only a better network replaces one that is there, and accuracies are those of the files."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from model.reference.integer import run_integer
from train import checkpoint, parallel, shipper
from train.export import to_network
from train.nin import NIN, to_input
from train.parallel import Workers
from train.shipper import Shipper, integer_accuracy
from train.tests.pictures import pictures


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = NIN(10)
    net.calibrate(to_input(pictures(8)[0], "cifar10"))
    return net


@pytest.fixture
def ship(tmp_path):
    return Shipper("cifar10", tmp_path / "zoo", list("abcdefghij"), 0)


def test_the_network_with_the_better_integers_stays(net, ship, monkeypatch):
    written = []
    for integer in (0.0, 0.5, 0.4, 0.6):
        monkeypatch.setattr(shipper, "integer_accuracy", lambda *_: integer)
        net.conv1.bn.bias.data += 1
        assert ship.offer(net, {"phase": "clipq", "epoch": 1}, None, None) == integer
        written.append(ship.network.read_bytes())
    assert ship.best() == 0.6 and written[1] == written[2] and len(set(written)) == 3
    facts = checkpoint.read(ship.checkpoint)[1]
    assert facts["phase"] == "clipq" and facts["seed"] == 0 and facts["validation"] == 0.6


def test_an_epoch_far_from_the_best_is_not_worth_the_time(net, ship, monkeypatch):
    seen = []
    monkeypatch.setattr(ship, "best", lambda: 0.6)
    monkeypatch.setattr(ship, "offer", lambda net, facts, *_: seen.append(facts["epoch"]) or 0.61)
    for epoch, val in enumerate((0.594, 0.596, 0.7), 1):
        row = {"val": val, "epoch": epoch}
        ship.after_epoch(
            SimpleNamespace(
                net=net,
                workers=None,
                val_set=None,
                phase=SimpleNamespace(name="clipq"),
                history=[row],
            )
        )
        assert row.get("integer") == (0.61 if epoch > 1 else None)
    assert seen == [2, 3]


def test_a_better_full_precision_network_stays(ship):
    kept = []
    for phase, facts in (
        ("float", {}),
        ("float", {"validation": 0.5}),
        ("refine", {"validation": 0.4}),
        ("refine", {"validation": 0.6}),
    ):
        ship.offer_float(NIN(10), {"phase": phase, **facts})
        read = checkpoint.read(ship.full_precision)[1]
        kept.append((read["phase"], read.get("validation")))
    assert kept == [("float", None), ("float", 0.5), ("float", 0.5), ("refine", 0.6)]


def test_integer_accuracy_is_that_of_the_file(net, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "autocast", contextlib.nullcontext)
    path = tmp_path / "net.ckpt.npz"
    net = checkpoint.snapped(net)
    checkpoint.write(net, "cifar10", path, {})
    pixels, labels = pictures(8)
    scores = run_integer(
        to_network(checkpoint.read(path)[0], "cifar10"), to_input(pixels, "cifar10").long().numpy()
    ).reshape(len(labels), -1)
    labels = torch.from_numpy(scores.argmax(1))
    labels[:2] = (labels[:2] + 1) % 10
    assert integer_accuracy(net, "cifar10", Workers(net, 1), (pixels, labels), count=5) == 0.75
