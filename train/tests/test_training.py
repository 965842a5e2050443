"""Batches, optimizer, threads and resumption."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from model.common.errors import UserError
from train import checkpoint, data, shipper, train
from train.clipq import Setting
from train.export import ZOO
from train.kmeans import KMeans
from train.loss import Loss, teacher_probabilities
from train.muon import Muon, orthogonalize
from train.nin import NIN, to_input
from train.parallel import Workers
from train.segments import Segments
from train.teacher import Teacher, write
from train.tests.pictures import pictures
from train.train import Phase, Trainer, learning_factor


def test_augmentation_keeps_pixels_and_depends_on_the_seed_alone():
    x, _ = pictures(20)
    one, same, other = (data.augment(x, data.generator(1, 2, s)) for s in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert set(one[0].flatten().tolist()) <= set(x[0].flatten().tolist())


def test_augmentation_is_flip_and_shift():
    x, _ = pictures(30)
    y = data.augment(x, data.generator(5))
    padded = F.pad(x.float(), (4,) * 4, mode="reflect")
    for i in range(30):
        crops = [padded[i, :, t : t + 32, u : u + 32] for t in range(9) for u in range(9)]
        assert any(torch.equal(y[i], c) for c in crops) or any(
            torch.equal(y[i].flip(2), c) for c in crops
        )


def test_cutout_blanks_a_square():
    x = torch.full((50, 3, 32, 32), 200, dtype=torch.uint8)
    x[:25] = 100
    cut = data.augment(x, data.generator(6), cutout=8) == 150
    assert cut[:, 0].flatten(1).sum(1).min() >= 16 and cut[:, 0].flatten(1).sum(1).max() == 64


def test_mixtures_are_of_two_pictures_by_any_share():
    x = (
        torch.eye(200)[:, None, None].expand(-1, 3, 2, -1) * 100.0
    )  # a picture for each bright column
    drawn = data.draw_mixture(200, data.generator(5))
    mixed = data.mix(x, *drawn)
    assert mixed.shape == x.shape and torch.allclose(mixed.sum(3), torch.tensor(100.0))
    own = mixed[:, 0, 0].diagonal() / 100
    assert ((mixed[:, 0, 0] > 0).sum(1) <= 2).all() and (
        (mixed[:, 0, 0] > 0).sum(1) == 2
    ).sum() > 190
    assert own.min() < 0.1 and own.max() > 0.9 and 0.4 < own.mean() < 0.6
    assert torch.equal(data.mix(x[:, 0, 0], *drawn), mixed[:, 0, 0])  # labels, as the pictures
    assert torch.equal(
        mixed, data.mix(x, *data.draw_mixture(200, data.generator(5)))
    ) and not torch.equal(mixed, data.mix(x, *data.draw_mixture(200, data.generator(6))))


def test_resumed_epoch_sees_the_same_batches():
    x, _ = pictures(100)
    whole = list(data.batches(x, 20, 0, 3, 16))
    rest = list(data.batches(x, 20, 0, 3, 16, first=3))
    assert [s for s, *_ in rest] == [3, 4]
    for (_, a, la), (_, b, lb) in zip(whole[3:], rest):
        assert torch.equal(a, b) and torch.equal(la, lb)


def test_orthogonalized_matrix_has_singular_values_near_one():
    for shape in ((30, 200), (200, 30)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(orthogonalize(matrix))
        assert values.min() > 0.5 and values.max() < 1.3


def test_muon_descends():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    target = F.normalize(torch.randn(8, 36), dim=1)
    optimizer = Muon([weight], lr=0.05)
    losses = []
    for _ in range(60):
        loss = (F.normalize(weight.flatten(1), dim=1) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_learning_rate_rises_and_falls_to_zero():
    values = [learning_factor(i / 100, 0.1) for i in range(101)]
    assert values[0] == 0 and max(values) == values[10] == 1 and abs(values[100]) < 1e-12


def scaled_gradient(net, threads):
    x, y = pictures(24)
    workers = Workers(net, threads)
    loss = workers.gradients(x.float(), y, None, 8, Loss(), lambda p: p - 128)
    return loss, [p.grad.clone() for p in net.parameters()], net.conv4.bn.running_var.clone()


@pytest.mark.parametrize("mode", ["float", "fake", "exact"])
def test_number_of_threads_changes_nothing(mode):
    results = []
    for threads in (1, 2):
        torch.manual_seed(3)
        net = NIN(10)
        if mode != "float":
            net.calibrate(pictures(8)[0].float() - 128)
        net.mode = mode
        results.append(scaled_gradient(net, threads))
    (loss, grads, variance), (loss2, grads2, variance2) = results
    assert loss == loss2 and torch.equal(variance, variance2)
    assert all(torch.equal(a, b) for a, b in zip(grads, grads2))


def test_one_piece_is_ordinary_backpropagation(monkeypatch):
    import contextlib

    monkeypatch.setattr("train.parallel.autocast", contextlib.nullcontext)
    torch.manual_seed(4)
    net = NIN(10)
    net.calibrate(pictures(8)[0].float() - 128)
    x, y = pictures(6, seed=1)
    Workers(net, 1).gradients(x.float(), y, None, 6, Loss(), lambda p: p - 128)
    ours = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net.train()
    F.cross_entropy(net(x.float() - 128), y, label_smoothing=0.1).backward()
    for a, p in zip(ours, net.parameters()):
        assert torch.allclose(a, p.grad, rtol=1e-3, atol=1e-6 + 1e-3 * p.grad.abs().max())


def make_trainer(folder):
    torch.manual_seed(5)
    phase = Phase("float", ((16, 2),), batch=20)
    sets = {"train": pictures(60), "val": pictures(20, seed=1)}
    return Trainer(Workers(NIN(10), 1), phase, sets, "cifar10", 0, folder)


def test_stopped_run_resumes_to_the_same_network(tmp_path):
    straight = make_trainer(tmp_path / "a")
    straight.run()
    stopped = make_trainer(tmp_path / "b")
    step, count = stopped._step, []

    def stop_after_four(*batch):
        count.append(1)
        stopped.stopping = len(count) == 4
        return step(*batch)

    stopped._step = stop_after_four
    with pytest.raises(UserError, match="epoch 2, step 1"):
        stopped.run()
    resumed = make_trainer(tmp_path / "b")
    assert resumed.resume() and (resumed.epoch, resumed.step) == (1, 1)
    resumed.run()
    for a, b in zip(straight.net.state_dict().values(), resumed.net.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "quantizer, bounded",
    [(Setting(), True), (KMeans(), True), (Segments((-1.0, 0.5, 1.5), 1), False)],
)
def test_outliers_are_clamped_unless_the_boundaries_are_fixed(quantizer, bounded, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.phase = replace(trainer.phase, mode="fake")
    for _, block in trainer.net.blocks():
        block.quantizer = quantizer
    trainer.net.calibrate(to_input(pictures(8)[0], "cifar10"))
    trainer.net.mode = "fake"
    weights = trainer.net.conv1.conv.weight.data
    weights[0, 0, 0, 0] = 50 * weights.std()
    trainer._step(*next((x, chosen) for _, x, chosen in trainer._batches(16)))
    assert (weights.abs().max() < 10 * weights.square().mean().sqrt()) == bounded


def test_other_settings_are_refused(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.sources = {"--teacher": "abc"}
    trainer.save()
    assert trainer.resume()
    trainer.seed, trainer.phase, trainer.sources = (
        1,
        replace(trainer.phase, lr=0.01),
        {"--start": "def"},
    )
    with pytest.raises(
        UserError,
        match="float.pt was made with seed 0, not 1; --start None, not def; lr 0.05, not 0.01; "
        "--teacher abc, not None: another folder",
    ):
        trainer.resume()
    with pytest.raises(UserError, match="made with seed 0, not 1: another folder"):
        trainer.resume(ended=True)
    trainer.seed = 0
    assert trainer.resume(ended=True)


@pytest.fixture
def bars(monkeypatch):
    """The progress bars that are made."""
    made = []

    class Bar(train.tqdm):
        def __init__(self, **options):
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(train, "tqdm", Bar)
    return made


def test_clock_may_end_a_phase(tmp_path, bars, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    trainer = make_trainer(tmp_path)
    trainer.phase, trainer.seconds = replace(trainer.phase, minutes=1), 20.0
    rates, step = [], trainer._step

    def ten_seconds(*batch):
        now[0] += 10
        rates.append(trainer.muon.param_groups[0]["lr"])
        return step(*batch)

    trainer._step = ten_seconds
    trainer.run()
    assert len(rates) == 4 and trainer.seconds == 60
    assert bars[0].total == 60 and bars[0].initial == 20 and bars[0].n == 60


def test_phase_may_end_inside_an_epoch(tmp_path, bars):
    trainer = make_trainer(tmp_path)
    trainer.phase = replace(trainer.phase, end=1.4)
    rates, step = [], trainer._step
    trainer._step = lambda *batch: (step(*batch), rates.append(trainer.muon.param_groups[0]["lr"]))[
        0
    ]
    trainer.run()
    assert len(rates) == 5 and trainer.epoch == 2 and len(trainer.history) == 2
    assert rates[-1] < 0.1 * max(rates)
    assert bars[0].total == pytest.approx(5 * 16 * 16 / 1000)  # so that its time left is right


def test_teacher_pulls_the_loss():
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    assert Loss(0.0)(logits, labels) == F.cross_entropy(logits, labels)
    same = F.softmax(logits / 2, 1)
    alone = Loss(share=1.0)
    assert alone(logits, labels, same) < alone(logits, labels, same.flip(1))
    grown = logits.clone().requires_grad_()
    alone(grown, labels, same).backward()
    assert grown.grad.abs().max() < 1e-6  # a network that agrees with its teacher is at the minimum


def test_teacher_sees_both_sides():
    pixels = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    pixels[..., 0] = 4
    soft = teacher_probabilities(lambda p: p[:, 0, 0].float(), pixels, 2.0)
    assert torch.allclose(soft, torch.tensor([[0.5, 0.5]]))


def test_all_phases_and_their_resumption(tmp_path, monkeypatch):
    """Two runs of every phase on few pictures, one of them interrupted in each phase, ship the same
    bytes."""
    monkeypatch.setattr(
        train.data,
        "load",
        lambda dataset: {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)},
    )
    monkeypatch.setattr(train, "class_names", lambda dataset: list("abcdefghij"))
    monkeypatch.setitem(
        train.RECIPES, "smoke", tuple(replace(p, batch=20) for p in train.RECIPES["smoke"])
    )
    run_main = lambda folder: CliRunner().invoke(
        train.main, ["--recipe", "smoke", "--run", str(folder), "--threads", "1"]
    )
    straight = run_main(tmp_path / "a")
    assert straight.exit_code == 0, straight.output
    step, count, stops_at = Trainer._step, [], (2, 4, 7, 10)

    def stop_now_and_then(self, *batch):
        count.append(1)
        self.stopping = len(count) in stops_at
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "_step", stop_now_and_then)
    stops = [run_main(tmp_path / "b").exit_code for _ in range(len(stops_at) + 1)]
    assert stops == [1] * len(stops_at) + [0]
    names = [f"nin-cifar10.{kind}.npz" for kind in ("float", "ckpt", "clipq")]
    assert all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names
    )


def test_start_from_a_file(tmp_path, monkeypatch):
    """The quantized phases begin from a full-precision file, then from the quantized one that they
    left; other files are refused by name."""
    monkeypatch.setattr(
        train.data,
        "load",
        lambda dataset: {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)},
    )
    monkeypatch.setattr(train, "class_names", lambda dataset: list("abcdefghij"))
    monkeypatch.setitem(
        train.RECIPES, "smoke", tuple(replace(p, batch=20) for p in train.RECIPES["smoke"])
    )
    monkeypatch.setattr(shipper, "integer_accuracy", lambda *_: 0.5)
    source, out = tmp_path / "nin-cifar10.float.npz", tmp_path / "out"
    torch.manual_seed(4)
    checkpoint.write(NIN(10), "cifar10", source, {})

    def run(start, run_folder, *more):
        arguments = [
            "--recipe",
            "smoke",
            "--phase",
            "clipq",
            "--threads",
            "1",
            "--start",
            start,
            "--run",
            tmp_path / run_folder,
            "--out",
            out,
            *more,
        ]
        return CliRunner().invoke(train.main, [str(a) for a in arguments])

    assert run(source, "a").exit_code == 0
    assert (out / source.name).read_bytes() != b"" and not (tmp_path / "a" / "float.pt").exists()
    quantized = out / "nin-cifar10.ckpt.npz"
    for other, culprit in (
        (run(quantized, "a"), "--start"),
        (run(source, "a", "--teacher", source), "--teacher None"),
        (run(source, "a", "--lr", "0.5"), "not 0.5"),
    ):
        assert (
            other.exit_code == 1
            and "clipq.pt was made with" in other.output
            and culprit in other.output
        ), other.output
    first = checkpoint.read(quantized)[0].state_dict()
    assert run(quantized, "b").exit_code == 0
    second = torch.load(tmp_path / "b" / "clipq.pt", weights_only=True)["net"]
    assert all(
        torch.equal(first[f"{name}.steps"], second[f"{name}.steps"]) for name, _ in NIN(10).blocks()
    )  # not calibrated anew
    damaged = tmp_path / "damaged.ckpt.npz"
    damaged.write_bytes(quantized.read_bytes()[:5000])
    for refused in (run(damaged, "c"), run(source, "d", "--dataset", "cifar100")):
        assert (
            refused.exit_code == 1
            and ".npz" in refused.output
            and not isinstance(refused.exception, (ValueError, KeyError))
        )
    assert run(source, "e", "--phase", "float").exit_code == 2
    (out / source.name).unlink()  # which teaches a quantized start
    refused = run(quantized, "f")
    assert refused.exit_code == 1 and str(out / source.name) in refused.output


@pytest.mark.parametrize(
    "options, expected",
    [
        ((), (0.05, 0.05)),
        (("--lr", "0.02"), (0.02, 0.02)),
        (("--lr", "0.02", "--bn-lr", "0.3"), (0.02, 0.3)),
    ],
)
def test_peak_rates_of_the_last_phase(options, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(
        train.data,
        "load",
        lambda dataset: {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)},
    )
    monkeypatch.setattr(train, "class_names", lambda dataset: list("abcdefghij"))
    seen = []
    monkeypatch.setattr(
        train,
        "run_phase",
        lambda trainer, *_: (
            seen.append((trainer.phase.lr, trainer.sgd.param_groups[0]["lr"])) or {"phase": "float"}
        ),
    )
    result = CliRunner().invoke(
        train.main, ["--phase", "float", "--run", str(tmp_path), "--threads", "1", *options]
    )
    assert result.exit_code == 0 and seen == [expected]


def test_refine_phase_begins_from_full_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(
        train.data,
        "load",
        lambda dataset: {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)},
    )
    monkeypatch.setattr(train, "class_names", lambda dataset: list("abcdefghij"))
    result = CliRunner().invoke(
        train.main, ["--recipe", "full", "--phase", "refine", "--run", str(tmp_path)]
    )
    assert result.exit_code == 2 and "--recipe full has no phase refine" in result.output
    start = ZOO / "nin-cifar10.ckpt.npz"
    result = CliRunner().invoke(
        train.main,
        ["--phase", "refine", "--start", str(start), "--run", str(tmp_path), "--threads", "1"],
    )
    assert result.exit_code == 2 and f"{start} is quantized" in result.output


@pytest.mark.parametrize(
    "phase, kind", [("refine", "float"), ("clipq", "float"), ("clipq", "ckpt")]
)
def test_another_network_can_teach(phase, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(
        train.data,
        "load",
        lambda dataset: {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)},
    )
    monkeypatch.setattr(train, "class_names", lambda dataset: list("abcdefghij"))
    larger, path, seen = Teacher(10).eval(), tmp_path / "teacher.pt", []
    write(larger, "cifar10", path)
    monkeypatch.setattr(
        train, "run_phase", lambda trainer, *_: seen.append(trainer.soft) or {"phase": phase}
    )

    def run(*options):
        fixed = [
            "--phase",
            phase,
            "--start",
            ZOO / f"nin-cifar10.{kind}.npz",
            "--run",
            tmp_path / "run",
            "--threads",
            "1",
            *options,
        ]
        return CliRunner().invoke(train.main, [str(a) for a in fixed])

    done = run("--teacher", path)
    assert done.exit_code == 0, done.output
    assert torch.equal(
        seen[0],
        train.teach(Workers(larger, 1), larger, pictures(60)[0], "cifar10", tmp_path / "soft.pt"),
    )
    path.write_bytes(b"")
    refused = run("--teacher", path)
    assert refused.exit_code == 1 and str(path) in refused.output
