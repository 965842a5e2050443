"""Training of the last layers: they are the network's own, get what the first layers give, and
nothing else changes."""

import contextlib

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from model.common.errors import UserError
from model.network import load_network
from train import checkpoint, tail
from train.loss import teacher_probabilities
from train.nin import NIN, to_input
from train.parallel import Workers
from train.segments import Segments
from train.tail import (
    ShiftingTrainer,
    Tail,
    TailTrainer,
    Views,
    certain,
    clear,
    first_layers,
    kept_in,
    main,
    store,
    store_views,
    teach_pictures,
    teach_views,
)
from train.teacher import Teacher, write
from train.tests.pictures import pictures
from train.train import CLIP, quantize_network


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = NIN(10)
    quantize_network(net, to_input(pictures(20)[0], "cifar10"))
    return net.eval()


class Corner:
    """A teacher whose ten logits are pixels from the upper left corner, far apart where pictures
    differ."""

    def logits(self, x, prepare):
        return prepare(x)[:, 0, :2, :5].flatten(1) / 20


@pytest.mark.parametrize("first", ["conv1", "conv2", "conv4", "conv5", "conv9"])
def test_first_and_last_layers_make_up_the_network(net, first, monkeypatch):
    monkeypatch.setattr(tail, "autocast", contextlib.nullcontext)
    x = to_input(pictures(3)[0], "cifar10")
    with torch.no_grad():
        assert torch.equal(Tail(net, first)(first_layers(net, x, first).float()), net(x))


def test_tail_shares_its_layers(net):
    last = Tail(net, "conv5")
    assert [name for name, _ in last.blocks()] == ["conv5", "conv6", "conv7", "conv8", "conv9"]
    assert last.conv7 is net.conv7 and last.mode == "fake"


def test_views_are_augmented_pictures(net, monkeypatch):
    net.mode = "exact"  # integers do not depend on the size of the pieces
    pixels, _ = pictures(7)
    kept = store_views(net, Views(pixels, 3, 0), "cifar10", "conv4", 2)
    soft = teach_views([Corner()], Views(pixels, 3, 0), "cifar10")
    plain = store(net, pixels, "cifar10", "conv4", 1)
    assert kept.shape == (3, *plain.shape) and kept.dtype == torch.uint8
    assert not torch.equal(kept[0], kept[1]) and not torch.equal(kept[0], plain)
    assert torch.equal(kept, store_views(net, Views(pixels, 3, 0), "cifar10", "conv4", 1))
    assert (
        soft.shape == (3, 7, 10)
        and soft.dtype == torch.float16
        and not torch.equal(soft[0], soft[1])
    )
    monkeypatch.setattr(tail.data, "augment", lambda pixels, rng: pixels)
    monkeypatch.setattr(tail, "PIECE", 2)
    assert torch.equal(
        store_views(net, Views(pixels, 1, 0), "cifar10", "conv4", 2)[0], plain
    )  # in the order of the pictures, whatever the pieces
    soft = teach_views([Corner()], Views(pixels, 1, 0), "cifar10")
    taught = (
        sum(
            Corner().logits(view, lambda x: to_input(x, "cifar10")).softmax(1)
            for view in (pixels, pixels.flip(3))
        )
        / 2
    )
    assert torch.allclose(soft[0].float(), taught, atol=1e-3)


def test_every_other_view_mixes_pictures(net, monkeypatch):
    pixels, _ = pictures(5)
    monkeypatch.setattr(tail.data, "augment", lambda pixels, rng: pixels.float())
    monkeypatch.setattr(tail.data, "mix", lambda x, *mixture: 255 - x)
    kept = store_views(net, Views(pixels, 4, 0), "cifar10", "conv4", 1)
    soft = teach_views([Corner()], Views(pixels, 4, 0), "cifar10")
    for view, seen in enumerate((pixels, 255 - pixels, pixels, 255 - pixels)):
        assert torch.equal(kept[view], store(net, seen.float(), "cifar10", "conv4", 1))
        assert torch.equal(soft[view], soft[view % 2])
    assert not torch.equal(soft[0], soft[1])


def test_labels_are_mixed_as_the_pictures_are():
    """Pictures of one brightness each, by which what is in a mixed view shows: label 0 dark, label
    1 bright."""
    labels = torch.arange(60) % 2
    pixels = (200 * labels).to(torch.uint8).view(60, 1, 1, 1).expand(-1, 3, 32, 32)
    views = Views(pixels, 4, 0, pixels[:1], 2)
    said = views.labels(labels, 3)
    assert said.shape == (4, 60, 3) and said.dtype == torch.float16 and said[:, :, 2].max() == 0
    for view, chosen, seen in views:
        if view < 4:
            assert torch.allclose(seen[:, 0, 0, 0] / 200, said[view, chosen, 1].float(), atol=1e-3)
    assert (
        torch.equal(said[0], certain(labels, 3))
        and ((said[1, :, 1] > 0.1) & (said[1, :, 1] < 0.9)).sum() > 10
    )


def test_net_and_teacher_see_the_same_views(net):
    pixels, _ = pictures(6)
    inputs = store_views(net, Views(pixels, 2, 3), "cifar10", "conv1", 1).float()
    soft = teach_views([Corner()], Views(pixels, 2, 3), "cifar10")
    for view, seen in enumerate(inputs):
        taught = (
            sum(Corner().logits(x, lambda part: part).softmax(1) for x in (seen, seen.flip(3))) / 2
        )
        assert torch.allclose(
            soft[view].float(), taught, atol=0.02
        )  # the teacher's own inputs are not rounded
    assert not torch.allclose(soft[0], soft[1], atol=0.2)


def first_pixels(views):
    """The first pixel of each picture, float32 [N], of each view in turn."""
    seen = {}
    for view, chosen, x in views:
        seen.setdefault(view, torch.empty(len(views.pixels)))[chosen] = x[:, 0, 0, 0]
    return [seen[view] for view in range(views.count)]


def test_further_views_hold_pictures_of_others(monkeypatch):
    monkeypatch.setattr(tail.data, "augment", lambda pixels, rng: pixels.float())
    monkeypatch.setattr(tail, "PIECE", 1)  # so that a view comes in several slices
    own, others = torch.arange(120), torch.arange(200, 230)
    pixels, strange = (
        numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
        for numbers in (own, others)
    )
    seen = first_pixels(Views(pixels, 2, 5, strange, 3))
    assert all(torch.equal(a, b) for a, b in zip(seen, first_pixels(Views(pixels, 2, 5))))
    for view in (2, 4):
        foreign = seen[view] >= 200
        assert (
            torch.equal(seen[view][~foreign], own[~foreign].float())
            and 0.35 < foreign.double().mean() < 0.65
        )
        assert len(seen[view][foreign].unique()) > 15 and seen[view].max() < 230
    both = (seen[2] >= 200) & (seen[4] >= 200)
    assert both.any() and not torch.equal(seen[2][both], seen[4][both])  # other ones each time
    assert ((seen[3] > 120) & (seen[3] < 200)).any()  # mixed with one another


def test_a_picture_comes_with_its_own_view_and_label(net, tmp_path):
    views, count = 3, 40
    number = torch.arange(views * count)
    kept = number.to(torch.uint8)[:, None, None, None].expand(-1, 192, 8, 8)
    phase = tail.replace(tail.PHASE, batch=20)
    trainer = TailTrainer(
        Workers(Tail(net, "conv7"), 1),
        phase,
        {"train": (kept, number % count), "val": None},
        "cifar10",
        0,
        tmp_path,
        views,
    )
    seen = set()
    for trainer.epoch in range(6):
        steps = list(trainer._batches(32))
        assert [step for step, *_ in steps] == [0, 1]
        chosen = torch.cat([numbers for *_, numbers in steps])
        assert torch.equal((chosen % count).sort().values, torch.arange(count))  # each picture once
        for _, activations, numbers in steps:
            assert torch.equal(activations[:, 0, 0, 0].long(), numbers)
            (view,) = (numbers // count).unique().tolist()
            seen.add(view)
    assert seen == set(range(views))


def test_only_plain_views_set_the_running_statistics(net, tmp_path):
    count = 20
    kept = torch.randint(0, 256, (4 * count, 192, 8, 8), dtype=torch.uint8)
    phase = tail.replace(tail.PHASE, batch=20)
    sets = {"train": (kept, torch.zeros(4 * count, dtype=torch.long)), "val": None}
    trainer = TailTrainer(
        Workers(Tail(net, "conv7"), 1), phase, sets, "cifar10", 0, tmp_path, 4, further=2
    )
    trainer.soft = torch.full((4 * count, 10), 0.1)
    for view, follows in ((1, False), (0, True), (2, False), (3, False), (1, False)):
        before = net.conv8.bn.running_mean.clone(), net.conv8.bn.bias.detach().clone()
        chosen = torch.arange(view * count, (view + 1) * count)
        trainer._step(kept[chosen].float(), chosen)
        assert torch.equal(net.conv8.bn.running_mean, before[0]) != follows
        trainer.step += 1
    assert not torch.equal(net.conv8.bn.bias, before[1])  # but it was trained


@pytest.mark.parametrize("first", ["conv1", "conv4"])
def test_shifted_views_pass_through_the_first_layers(net, first, tmp_path, monkeypatch):
    monkeypatch.setattr(tail, "autocast", contextlib.nullcontext)
    pixels, labels = pictures(20)
    inputs = store_views(net, Views(pixels, 2, 0), "cifar10", "conv1", 1).flatten(0, 1)
    phase = tail.replace(tail.PHASE, batch=10)
    trainer = ShiftingTrainer(
        Workers(Tail(net, first), 1),
        phase,
        {"train": (inputs, labels.repeat(2)), "val": None},
        "cifar10",
        0,
        tmp_path,
        2,
        net=net,
        first=first,
        shift=1,
    )
    seen = [(chosen, x) for trainer.epoch in range(2) for _, x, chosen in trainer._batches(32)]
    assert not any((x == inputs[chosen]).flatten(1).all(1).all() for chosen, x in seen)
    for chosen, x in seen:
        around = torch.nn.functional.pad(inputs[chosen].float(), (1,) * 4, mode="reflect")
        crops = torch.stack(
            [
                v[..., i : i + 32, j : j + 32]
                for v in (around, around.flip(3))
                for i in range(3)
                for j in range(3)
            ]
        )
        assert (
            (crops == x).flatten(2).all(2).any(0).all()
        )  # each the view itself or its mirror image, moved by a pixel at most
        with torch.no_grad():
            assert torch.equal(Tail(net, first)(trainer._prepare(x)), net(x))
    again = [x for _, x, _ in trainer._batches(32)]
    assert all(torch.equal(a, b) for a, (_, b) in zip(again, seen[2:]))
    before, front = net.conv4.conv.weight.clone(), net.conv1.conv.weight.clone()
    trainer.soft = torch.full((40, 10), 0.1)
    trainer._step(seen[0][1], seen[0][0])
    assert not torch.equal(net.conv4.conv.weight, before)
    assert torch.equal(net.conv1.conv.weight, front) == (first == "conv4")


@pytest.mark.parametrize("pull", [0.0, 0.5])
def test_weights_are_pulled_from_the_first_step_on(net, pull, tmp_path):
    kept, conv7 = torch.randint(0, 256, (20, 192, 8, 8), dtype=torch.uint8), net.conv7

    def distance():
        weights = conv7.conv.weight.detach()
        integers = conv7.quantizer.integers(weights)
        scale = (weights * integers).sum() / integers.square().sum()
        return ((weights - scale * integers).norm() / weights.norm()).item()

    phase = tail.replace(tail.PHASE, batch=20, lr=1e-9, bn_lr=1e-9, pull=pull, settle=0.0)
    trainer = TailTrainer(
        Workers(Tail(net, "conv7"), 1),
        phase,
        {"train": (kept, torch.zeros(20, dtype=torch.long)), "val": None},
        "cifar10",
        0,
        tmp_path,
        1,
    )
    trainer.soft, before = torch.full((20, 10), 0.1), distance()
    trainer._step(kept.float(), torch.arange(20))
    assert distance() < 0.8 * before if pull else distance() == pytest.approx(before, rel=1e-3)


@pytest.fixture
def run(net, tmp_path, monkeypatch):
    """run(*options) -> result of the command on 60 pictures, from the network `quantized` with the
    teacher `original`."""
    sets = {
        "cifar10": {"train": pictures(60), "val": pictures(20, 1), "test": pictures(20, 2)},
        "cifar100": {"train": pictures(30, 3)},
    }
    monkeypatch.setattr(tail.data, "load", sets.get)
    monkeypatch.setattr(tail, "class_names", lambda dataset: list("abcdefghij"))
    monkeypatch.setattr(tail, "PHASE", tail.replace(tail.PHASE, batch=20))

    def run(*options):
        fixed = ["--first", "conv7", "--views", "2", "--epochs", "2", "--threads", "1"]
        return CliRunner().invoke(main, [*fixed, *(str(o) for o in options)])

    run.quantized, run.original = tmp_path / "nin.ckpt.npz", tmp_path / "nin.float.npz"
    checkpoint.write(checkpoint.snapped(net), "cifar10", run.quantized, {})
    checkpoint.write(NIN(10), "cifar10", run.original, {})
    return run


def test_only_the_last_layers_change(run, tmp_path):
    done = run("--start", run.quantized, "--teacher", run.original, "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    with (
        np.load(run.quantized) as before,
        np.load(tmp_path / "a" / "nin-cifar10.ckpt.npz") as after,
    ):
        changed = {
            key.split(".")[0]
            for key in before
            if key != "meta" and not np.array_equal(before[key], after[key])
        }
    assert changed == {"conv7", "conv8", "conv9"}
    assert 0 <= checkpoint.read(tmp_path / "a" / "nin-cifar10.ckpt.npz")[1]["validation"] <= 1
    for start, teacher, culprit in (
        (run.original, run.original, run.original),
        (run.quantized, run.quantized, run.quantized),
    ):
        refused = run("--start", start, "--teacher", teacher, "--out", tmp_path / "b")
        assert refused.exit_code == 1 and str(culprit) in refused.output


def test_shifted_views_are_trained_on(run, tmp_path):
    """What is stored is the inputs, not conv7's: the run would stop at the wrong shape."""
    options = ("--start", run.quantized, "--teacher", run.original)
    for out, shift in (("a", ()), ("b", ("--shift", 2)), ("c", ("--shift", 2))):
        done = run(*options, *shift, "--out", tmp_path / out)
        assert done.exit_code == 0, done.output
    files = [(tmp_path / out / "nin-cifar10.ckpt.npz").read_bytes() for out in "abc"]
    assert files[0] != files[1] == files[2]


@pytest.mark.parametrize("shift", [(), ("--shift", 1)])
def test_pictures_of_another_data_set_teach_as_well(run, tmp_path, shift):
    options = ("--start", run.quantized, "--teacher", run.original, "--out", tmp_path / "a", *shift)
    done = run(*options, "--further", "cifar100", 3)
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "a").glob("run-*")
    soft = torch.load(folder / "soft.pt", weights_only=True)
    assert soft.shape == (5, 60, 10)
    assert torch.equal(
        soft,
        teach_views(
            [Workers(checkpoint.read(run.original)[0], 1)],
            Views(pictures(60)[0], 2, 0, pictures(30, 3)[0], 3),
            "cifar10",
        ),
    )
    assert (
        run(*options, "--further", "cifar100", 2).exit_code == 0
        and len(list((tmp_path / "a").glob("run-*"))) == 2
    )  # another run


def test_further_views_of_the_same_data_set_are_refused(run, tmp_path):
    refused = run(
        "--start",
        run.quantized,
        "--teacher",
        run.original,
        "--out",
        tmp_path / "a",
        "--further",
        "cifar10",
        2,
    )
    assert (
        refused.exit_code == 2
        and "--further cifar10" in refused.output
        and not (tmp_path / "a").exists()
    )


def test_zeros_are_raised_where_they_are_too_few(run, tmp_path):
    done = run(
        "--start",
        run.quantized,
        "--teacher",
        run.original,
        "--zeros",
        "conv7",
        "0.6",
        "--zeros",
        "conv9",
        "0.7",
        "--out",
        tmp_path / "a",
    )
    assert done.exit_code == 0, done.output
    shares = {
        layer.name: np.mean(layer.index == 0)
        for layer in load_network(tmp_path / "a" / "nin-cifar10.clipq.npz").layers
        if layer.op == "conv"
    }
    for name, share in shares.items():
        assert share == pytest.approx({"conv7": 0.6, "conv9": 0.7}.get(name, CLIP), abs=0.01), name


def test_zeros_that_cannot_be_name_the_layer(net):
    net.conv8.quantizer = Segments((-1.0, -0.4, 0.5), 2)
    with pytest.raises(UserError, match="conv8: 99 % zeros"):
        clear(net, {"conv7": 0.99, "conv8": 0.99})


def test_zeros_of_layers_that_stay_are_refused(run, tmp_path):
    refused = run(
        "--start",
        run.quantized,
        "--teacher",
        run.original,
        "--zeros",
        "conv6",
        "0.6",
        "--out",
        tmp_path / "a",
    )
    assert (
        refused.exit_code == 2 and "--zeros conv6: the layers before conv7 stay" in refused.output
    )


def test_zeros_of_a_layer_given_twice_are_refused(run, tmp_path):
    refused = run(
        "--start",
        run.quantized,
        "--teacher",
        run.original,
        "--zeros",
        "conv7",
        "0.6",
        "--zeros",
        "conv8",
        "0.6",
        "--zeros",
        "conv7",
        "0.5",
        "--out",
        tmp_path / "a",
    )
    assert refused.exit_code == 2 and "--zeros conv7: given twice" in refused.output


def test_several_teachers_teach_their_mean():
    class Other(Corner):
        def logits(self, x, prepare):
            return -super().logits(x, prepare)

    pixels = pictures(6)[0]
    one, two, mean = (
        teach_views(teachers, Views(pixels, 2, 0), "cifar10").float()
        for teachers in ([Corner()], [Other()], [Corner(), Other()])
    )
    assert torch.allclose(mean, (one + two) / 2, atol=1e-3) and not torch.allclose(
        one, two, atol=0.1
    )


def test_a_teacher_given_twice_counts_twice_and_is_asked_once():
    asked = []

    class Other(Corner):
        def logits(self, x, prepare):
            asked.append(len(x))
            return -super().logits(x, prepare)

    pixels, once, twice = pictures(6)[0], Corner(), Other()
    one, two = (teach_pictures([teacher], pixels, "cifar10").float() for teacher in (once, twice))
    asked.clear()
    mean = teach_pictures([twice, once, twice], pixels, "cifar10").float()
    assert torch.allclose(mean, (one + 2 * two) / 3, atol=1e-3)
    assert len(asked) == 2  # the pictures and their mirror images


def test_a_teacher_named_twice_is_read_once(run, tmp_path, monkeypatch):
    taught_by = []
    monkeypatch.setattr(
        tail,
        "teach_pictures",
        lambda teachers, *rest: taught_by.append(teachers) or teach_pictures(teachers, *rest),
    )
    write(Teacher(10).eval(), "cifar10", tmp_path / "teacher.pt")
    options = [
        option
        for path in (tmp_path / "teacher.pt", run.original, tmp_path / "teacher.pt")
        for option in ("--teacher", path)
    ]
    assert run("--start", run.quantized, *options, "--out", tmp_path / "a").exit_code == 0
    first, second, third = taught_by[0]
    assert first is third is not second


def test_larger_networks_can_teach(run, tmp_path):
    larger = Teacher(10).eval()
    write(larger, "cifar10", tmp_path / "teacher.pt")
    done = run(
        "--start",
        run.quantized,
        "--teacher",
        tmp_path / "teacher.pt",
        "--teacher",
        run.original,
        "--out",
        tmp_path / "a",
    )
    assert done.exit_code == 0, done.output
    (folder,) = (tmp_path / "a").glob("run-*")
    teachers = [Workers(net, 1) for net in (larger, checkpoint.read(run.original)[0])]
    for name, taught in (
        ("soft", teach_views(teachers, Views(pictures(60)[0], 2, 0), "cifar10")),
        ("val-soft", teach_pictures(teachers, pictures(20, 1)[0], "cifar10")),
    ):
        assert torch.equal(torch.load(folder / f"{name}.pt", weights_only=True), taught), name


def test_a_stopped_run_goes_on_to_the_same_result(run, tmp_path, monkeypatch):
    options = ("--start", run.quantized, "--teacher", run.original)
    assert run(*options, "--out", tmp_path / "a").exit_code == 0
    step, count = TailTrainer._step, []

    def stop_at_the_fifth(self, *batch):
        count.append(1)
        self.stopping = len(count) == 5
        return step(self, *batch)

    monkeypatch.setattr(TailTrainer, "_step", stop_at_the_fifth)
    asked = []
    monkeypatch.setattr(
        tail, "teacher_probabilities", lambda *a: asked.append(1) or teacher_probabilities(*a)
    )
    stopped = run(*options, "--out", tmp_path / "b")
    assert stopped.exit_code == 1 and "epoch 2, step 2" in stopped.output
    assert len(asked) == 3  # once a view, once of the validation pictures
    assert run(*options, "--out", tmp_path / "b").exit_code == 0 and len(count) == 6
    assert len(asked) == 3
    for kind in ("ckpt", "clipq"):
        assert (tmp_path / "a" / f"nin-cifar10.{kind}.npz").read_bytes() == (
            tmp_path / "b" / f"nin-cifar10.{kind}.npz"
        ).read_bytes()
    assert (
        run(*options, "--lr", "0.01", "--out", tmp_path / "b").exit_code == 0 and len(count) == 12
    )  # another run, not the old one's end
    assert (
        run(*options, "--pull", "0.01", "--out", tmp_path / "b").exit_code == 0 and len(count) == 18
    )
    assert (
        run(*options, "--zeros", "conv7", "0.6", "--out", tmp_path / "b").exit_code == 0
        and len(count) == 24
    )
    assert (
        run(*options, "--shift", "0", "--out", tmp_path / "b").exit_code == 0 and len(count) == 30
    )


def test_labels_are_learnt_of_own_pictures(run, tmp_path, monkeypatch):
    """Beside the teachers, by the share that is said; further views have none."""
    learnt, options = (
        [],
        (
            "--start",
            run.quantized,
            "--teacher",
            run.original,
            "--further",
            "cifar100",
            1,
            "--out",
            tmp_path / "a",
        ),
    )
    resume = TailTrainer.resume
    monkeypatch.setattr(TailTrainer, "resume", lambda self: learnt.append(self) or resume(self))
    for share in (0, 0.25):
        assert run(*options, "--labels", share).exit_code == 0
    assert len(list((tmp_path / "a").glob("run-*"))) == 2
    taught, labelled = learnt
    (pixels, labels), (_, val_labels) = pictures(60), pictures(20, 1)
    said = Views(pixels, 2, 0).labels(labels, 10).flatten(0, 1)
    assert torch.allclose(labelled.soft[:120], 0.75 * taught.soft[:120] + 0.25 * said, atol=1e-3)
    assert torch.equal(labelled.soft[120:], taught.soft[120:])
    assert torch.allclose(
        labelled.val_soft, 0.75 * taught.val_soft + 0.25 * certain(val_labels, 10), atol=1e-3
    )
    assert run(*options, "--labels", 2).exit_code == 2


def test_what_was_computed_is_kept(tmp_path):
    soft = torch.rand(3, 2).half()
    assert torch.equal(soft, kept_in(tmp_path / "a.pt", (3, 2), lambda: soft))
    assert torch.equal(soft, kept_in(tmp_path / "a.pt", (3, 2), lambda: torch.zeros(1)))


def test_divergence_is_that_of_the_validation_pictures_from_the_teachers(net, tmp_path):
    """By hand: sum of p log(p / q), a picture at a time."""
    kept, labels = (
        torch.randint(0, 256, (6, 192, 8, 8), dtype=torch.uint8),
        torch.zeros(6, dtype=torch.long),
    )
    trainer = TailTrainer(
        Workers(Tail(net, "conv7"), 1),
        tail.PHASE,
        {"train": (kept, labels), "val": (kept, labels)},
        "cifar10",
        0,
        tmp_path,
        1,
    )
    with torch.no_grad():
        own = trainer.workers.logits(kept, torch.Tensor.float).double().softmax(1)
    trainer.val_soft = own.float()
    assert trainer.divergence() == pytest.approx(0, abs=1e-6)
    trainer.val_soft = torch.rand(6, 10).softmax(1)
    trainer.val_soft[0] = torch.eye(10)[3]  # a probability of zero adds nothing
    by_hand = (
        sum(
            float(p) * float(torch.log(p / q))
            for row, mine in zip(trainer.val_soft.double(), own)
            for p, q in zip(row, mine)
            if p > 0
        )
        / 6
    )
    assert trainer.divergence() == pytest.approx(by_hand, rel=1e-4)


def test_as_many_pictures_as_said_share_their_statistics(net, tmp_path, monkeypatch):
    monkeypatch.setattr(tail, "STATISTICS", 10)
    kept, sizes, forward = (
        torch.randint(0, 256, (20, 192, 8, 8), dtype=torch.uint8),
        [],
        Tail.forward,
    )
    monkeypatch.setattr(Tail, "forward", lambda self, x: sizes.append(len(x)) or forward(self, x))
    trainer = TailTrainer(
        Workers(Tail(net, "conv7"), 1),
        tail.replace(tail.PHASE, batch=20),
        {"train": (kept, torch.zeros(20, dtype=torch.long)), "val": None},
        "cifar10",
        0,
        tmp_path,
        1,
    )
    trainer.soft = torch.full((20, 10), 0.1)
    trainer._step(kept.float(), torch.arange(20))
    assert sizes == [10, 10]


@pytest.mark.parametrize("keep, kept", [((), 2), (("--keep", "last"), 4)])
def test_the_epoch_nearest_to_what_is_learnt_or_the_last_is_kept(
    run, tmp_path, monkeypatch, keep, kept
):
    divergences, states = iter((0.5, 0.3, 0.3, 0.4)), []

    def divergence(self):
        states.append({key: value.clone() for key, value in self.net.state_dict().items()})
        return next(divergences)

    monkeypatch.setattr(TailTrainer, "divergence", divergence)
    done = run(
        "--start",
        run.quantized,
        "--teacher",
        run.original,
        "--epochs",
        "4",
        *keep,
        "--out",
        tmp_path,
    )
    assert done.exit_code == 0, done.output
    shipped, facts = checkpoint.read(tmp_path / "nin-cifar10.ckpt.npz")
    assert facts["epoch"] == kept
    same = [torch.equal(shipped.conv7.bn.bias, state["conv7.bn.bias"]) for state in states]
    assert same == [epoch == kept for epoch in range(1, 5)]
