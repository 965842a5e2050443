"""The larger teacher: its shape, its file, and that a tail can learn from it."""

import contextlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from train import checkpoint, parallel, teacher_training
from train.nin import INPUT_UNIT, NIN
from train.parallel import Workers
from train.teacher import Teacher, read, read_any, write
from train.teacher_training import PHASE, main
from train.tests.pictures import pictures


@torch.no_grad()
def test_skips_where_the_widths_agree():
    torch.manual_seed(0)
    net, x = Teacher(7).eval(), torch.randn(2, 3, 16, 16)
    y = net.conv2(net.conv1(x / INPUT_UNIT))
    y = F.max_pool2d(y, 2)
    y = net.conv4(y + net.conv3(y))
    y = F.max_pool2d(y, 2)
    y = net.conv6(y + net.conv5(y))
    y = F.max_pool2d(y, 2)
    y = net.conv9(net.conv8(y + net.conv7(y)))
    assert torch.allclose(net(x), y.mean((2, 3)), atol=1e-5) and net(x).shape == (2, 7)
    assert (y < 0).any()  # no ReLU after the last


def test_workers_give_its_gradient(monkeypatch):
    monkeypatch.setattr(parallel, "autocast", contextlib.nullcontext)
    torch.manual_seed(0)
    net = Teacher(10).eval()
    for _, block in net.blocks():
        block.bn.weight.data.fill_(0.5)
    x, labels = torch.randn(4, 3, 8, 8), torch.tensor([1, 2, 3, 4])
    Workers(net, 1).gradients(x, labels, None, 4, PHASE.loss, lambda x: x)
    ours = [p.grad.clone() for p in net.parameters()]
    net.train()
    expected = torch.autograd.grad(F.cross_entropy(net(x), labels), list(net.parameters()))
    for a, b in zip(ours, expected):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_file_keeps_the_network_and_names_what_is_wrong(tmp_path):
    net, path = Teacher(10).eval(), tmp_path / "teacher.pt"
    write(net, "cifar10", path)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(read(path, "cifar10")(x), net(x))
        assert torch.equal(read_any(path, "cifar10")(x), net(x))
    with pytest.raises(ValueError, match="teacher.pt is a network for cifar10, not for cifar100"):
        read(path, "cifar100")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="teacher.pt: "):
            read(path, "cifar10")
    for state in (
        {"dataset": "cifar10"},
        {"dataset": "cifar10", "net": {}},
        {"net": net.state_dict()},
        {"dataset": "cifar1", "net": {}},
        [1],
        torch.zeros(3),
    ):
        torch.save(state, path)
        with pytest.raises(ValueError, match="teacher.pt: "):
            read(path, "cifar10")


def test_a_nin_can_teach_as_well(tmp_path):
    path = tmp_path / "nin.float.npz"
    checkpoint.write(NIN(10), "cifar10", path, {})
    assert isinstance(read_any(path, "cifar10"), NIN)
    with pytest.raises(
        ValueError, match="nin.float.npz is not a full-precision network for cifar100"
    ):
        read_any(path, "cifar100")


def test_command_trains_and_goes_on(tmp_path, monkeypatch):
    sets = {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)}
    monkeypatch.setattr(teacher_training.data, "load", lambda dataset: sets)
    monkeypatch.setattr(teacher_training, "PHASE", replace(PHASE, batch=20, cutout=2))

    def run(out, *stages):
        options = [
            str(part) for stage in stages or ((8, 1), (16, 1)) for part in ("--stage", *stage)
        ]
        return CliRunner().invoke(
            main,
            [
                "--dataset",
                "cifar10",
                "--threads",
                "1",
                "--device",
                "cpu",
                "--out",
                str(tmp_path / out),
                *options,
            ],
        )

    done = run("a")
    assert done.exit_code == 0, done.output
    assert "wrote" in done.output and "teacher-cifar10.pt" in done.output
    assert (
        "epoch 1 8x8" in done.output
        and "epoch 2 16x16" in done.output
        and "epoch 3" not in done.output
    )
    other = run("a", (8, 2))
    assert other.exit_code == 1 and "stages ((8, 1), (16, 1)), not ((8, 2),)" in other.output
    odd = run("c", (8, 1), (12, 1))
    assert odd.exit_code == 2 and "12 is not a multiple of 8" in odd.output
    assert not (tmp_path / "c").exists()
    step, count = teacher_training.Trainer._step, []

    def stop_at_the_fourth(self, *batch):
        count.append(1)
        self.stopping = len(count) == 4
        return step(self, *batch)

    monkeypatch.setattr(teacher_training.Trainer, "_step", stop_at_the_fourth)
    stopped = run("b")
    assert (
        stopped.exit_code == 1
        and "epoch 2, step 1" in stopped.output
        and not (tmp_path / "b" / "teacher-cifar10.pt").exists()
    )
    assert run("b").exit_code == 0 and len(count) == 6
    one, other = (
        read(tmp_path / out / "teacher-cifar10.pt", "cifar10").state_dict() for out in "ab"
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    torch.manual_seed(0)
    assert not torch.equal(
        one["conv4.conv.weight"], Teacher(10).conv4.conv.weight
    )  # it was trained
