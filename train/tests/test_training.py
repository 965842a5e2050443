"""Batches, optimizer, threads, resumption within a stage."""

import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tqdm import tqdm

from model.common.errors import UserError
from train import data, engine
from train.engine import Run, learning_factor, piece_sizes
from train.muon import Muon, orthogonalize
from train.net import to_input
from train.quantize.start import quantize
from train.recipe import Quantization, Training
from train.tests.helpers import PROCESSES, START, images, inputs, nin, pieced, pixels
from train.workers import Workers, find_device, has_bfloat16

CPU = torch.device("cpu")


def test_augmentation_keeps_pixels_and_depends_on_the_seed_alone():
    x = pixels(20)
    one, same, other = (data.augment(x, data.generator(1, 2, s)) for s in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert set(one[0].flatten().tolist()) <= set(x[0].flatten().tolist())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 13)])
def test_augmentation_is_flip_and_shift(flip, shape):
    x = pixels(30, shape=shape)
    y = data.augment(x, data.generator(5), flip, 4)
    padded = F.pad(x.float(), (4,) * 4, mode="reflect")
    mirrored = 0
    for i in range(30):
        crops = [
            padded[i, :, t : t + shape[1], u : u + shape[2]] for t in range(9) for u in range(9)
        ]
        straight = any(torch.equal(y[i], c) for c in crops)
        assert straight or any(torch.equal(y[i], c.flip(2)) for c in _mirrored(x[i]))
        mirrored += not straight
    assert (mirrored > 5) == flip


def _mirrored(x):
    padded = F.pad(x[None].float().flip(3), (4,) * 4, mode="reflect")[0]
    height, width = x.shape[1:]
    return [padded[:, t : t + height, u : u + width].flip(2) for t in range(9) for u in range(9)]


def test_no_augmentation_is_none():
    x = pixels(5)
    assert torch.equal(data.augment(x, data.generator(1), flip=False, shift=0), x.float())


def test_images_are_resized_to_squares():
    assert data.resize(pixels(2, shape=(3, 24, 32)), 32).shape == (2, 3, 32, 32)
    x = pixels(2)
    assert data.resize(x, 32) is x and data.resize(x, None) is x


def test_cutout_blanks_a_square():
    x = torch.full((50, 3, 32, 32), 200, dtype=torch.uint8)
    x[:25] = 100
    cut = data.augment(x, data.generator(6), cutout=8) == 150
    assert cut[:, 0].flatten(1).sum(1).min() >= 16 and cut[:, 0].flatten(1).sum(1).max() == 64


def test_mixtures_are_of_two_images_by_any_share():
    x = torch.eye(200)[:, None, None].expand(-1, 3, 2, -1) * 100.0  # a bright column for each image
    drawn = data.mixture(200, data.generator(5))
    mixed = data.mix(x, *drawn)
    assert mixed.shape == x.shape and torch.allclose(mixed.sum(3), torch.tensor(100.0))
    own = mixed[:, 0, 0].diagonal() / 100
    bright = (mixed[:, 0, 0] > 0).sum(1)
    assert (bright <= 2).all() and (bright == 2).sum() > 190
    assert own.min() < 0.1 and own.max() > 0.9 and 0.4 < own.mean() < 0.6
    assert torch.equal(data.mix(x[:, 0, 0], *drawn), mixed[:, 0, 0])  # labels, as the images


def test_an_epoch_is_shuffled_by_seed_and_number():
    whole = data.order(107, 20, 0, 3)
    assert torch.equal(whole, data.order(107, 20, 0, 3)) and whole.shape == (5, 20)
    assert len(set(whole.flatten().tolist())) == 100 and int(whole.max()) > 99
    assert not torch.equal(whole, data.order(107, 20, 0, 4))


def test_orthogonalized_matrix_has_singular_values_near_one():
    for shape in ((30, 200), (200, 30)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(orthogonalize(matrix))
        assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("fixed", [True, False])
def test_muon_descends(fixed):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    target = F.normalize(torch.randn(8, 36), dim=1)
    optimizer = Muon([{"params": [weight], "fixed": fixed}], 0.05, 0.8)
    losses = []
    for _ in range(90):
        loss = (F.normalize(weight.flatten(1), dim=1) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.2 if fixed else 0.9) * losses[0]
    if not fixed:
        assert abs(weight.norm().item() - 8**0.5) > 1


def test_learning_rate_rises_and_falls_to_zero():
    values = [learning_factor(i / 100) for i in range(101)]
    assert values[0] == 0 and max(values) == values[10] == 1 and abs(values[100]) < 1e-12


# ------------------------------------------------------------------------------- threads, processes


def prepared(mode, seed=3):
    net = nin(seed)
    if mode != "float":
        quantize(net, inputs(net, 8), START)
    net.mode = mode
    return net


def pieces(net, count=24, size=8):
    batch = images(count)
    x = to_input(batch.pixels, net.spec["input"])
    y = engine.targets(batch.labels, 10, 0.1)
    return [(*part, None) for part in zip(x.split(size), y.split(size))]


def gradient(net, threads, **options):
    with Workers(net, CPU, threads) as workers:
        loss = workers.gradients(pieces(net), lambda z, _, t: F.cross_entropy(z, t), **options)
    statistics = net.nodes["conv4"].bn.running_var.clone()
    return loss, [p.grad.clone() for p in net.parameters()], statistics


@pytest.mark.parametrize("mode", ["float", "fake"])
def test_number_of_threads_changes_nothing(mode):
    one, two = (gradient(prepared(mode), threads) for threads in (1, 2))
    assert one[0] == two[0] and torch.equal(one[2], two[2])
    assert all(torch.equal(a, b) for a, b in zip(one[1], two[1]))


def test_one_piece_is_ordinary_backpropagation(monkeypatch):
    import contextlib

    monkeypatch.setattr("train.workers.autocast", lambda device: contextlib.nullcontext())
    net = prepared("fake", 4)
    (x, y, _), *_ = pieces(net, 6, 6)
    with Workers(net, CPU, 1) as workers:
        workers.gradients([(x, y, None)], lambda z, _, t: F.cross_entropy(z, t))
    ours = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    F.cross_entropy(net(x, pieced(net)), y).backward()
    for a, p in zip(ours, net.parameters()):
        assert torch.allclose(a, p.grad, rtol=1e-3, atol=1e-6 + 1e-3 * p.grad.abs().max())


def test_statistics_are_measured_anew(monkeypatch):
    """Those of the weights as they are, whatever ran before, on any number of threads."""
    import contextlib

    monkeypatch.setattr("train.workers.autocast", lambda device: contextlib.nullcontext())
    batch, found = images(250), []
    for threads in (1, 2):
        net = prepared("fake")
        for _, block in net.blocks():
            block.bn.running_mean.fill_(7)
        with Workers(net, CPU, threads) as workers:
            workers.measure(batch)
        found.append([block.bn.running_mean.clone() for _, block in net.blocks()])
    assert all(torch.equal(a, b) for a, b in zip(*found))
    block, x = net.nodes["conv1"], to_input(batch.pixels, net.spec["input"])
    sums = F.conv2d(x, block.integers(), None, 1, 2)
    assert torch.allclose(block.bn.running_mean, sums.mean((0, 2, 3)), rtol=1e-3, atol=1e-2)
    expected = sums.var((0, 2, 3), unbiased=False)
    assert torch.allclose(block.bn.running_var, expected, rtol=0.02)
    ends = net.nodes["conv9"].bn
    assert not ends.running_mean.eq(7).any()


def test_nothing_is_measured_without_batch_norm(monkeypatch):
    net = prepared("float")
    quantize(net, inputs(net, 8), Quantization("paper"))
    monkeypatch.setattr(net, "forward", lambda *_: pytest.fail("it is run"))
    with Workers(net, CPU, 1) as workers:
        workers.measure(images(20))


def test_when_statistics_are_measured(tmp_path, monkeypatch):
    """After each epoch of quantized training."""
    settings = Training(2, batch=10, statistics=10)
    run, seen = make_run(tmp_path, "fake", settings), []
    note = lambda: seen.append(run.at.epoch * run.steps + run.at.step)
    monkeypatch.setattr(run, "measure", note)
    run.fit()
    assert seen == [6, 12]
    floats = make_run(tmp_path / "f", "float", settings)
    monkeypatch.setattr(floats, "measure", lambda: pytest.fail("full precision tracks its own"))
    floats.fit()


def test_statistics_are_those_of_the_whole_batch(monkeypatch):
    import contextlib

    monkeypatch.setattr("train.workers.autocast", lambda device: contextlib.nullcontext())
    net = prepared("float")
    block = net.nodes["conv1"]
    x = torch.cat([x for x, *_ in pieces(net)])
    sums = F.conv2d(x / net.spec["input"]["unit"], block.weight, None, 1, 2).detach()
    gradient(net, 2)
    expected = torch.ones_like(block.bn.running_var).lerp(sums.var((0, 2, 3), unbiased=True), 0.1)
    assert torch.allclose(block.bn.running_var, expected, rtol=1e-3)
    before = block.bn.running_mean.clone()
    gradient(net, 1, tracking=False)
    assert torch.equal(block.bn.running_mean, before)


def _process(rank, port, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    find_device("cpu")
    loss, grads, statistics = gradient(prepared("fake"), 1)
    torch.save([torch.tensor(loss), *grads, statistics], f"{folder}/{rank}.pt")


def test_processes_share_a_batch(tmp_path):
    """Two processes, as torchrun starts them, come to what one does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        PROCESSES.Process(target=_process, args=(rank, port, str(tmp_path))) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    loss, grads, statistics = gradient(prepared("fake"), 1)
    alone = [torch.tensor(loss), *grads, statistics]
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*both))
    for a, b in zip(both[0], alone):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6 + 1e-4 * b.abs().max())


# -------------------------------------------------------------------------------------- whole runs

SETTINGS = Training(((16, 1), (None, 1)), batch=20, statistics=10)


def make_run(folder: Path, mode="float", settings=SETTINGS, **changes):
    folder.mkdir(exist_ok=True)
    settings, workers = changes.pop("settings", settings), Workers(prepared(mode, 5), CPU, 1)
    path, sets = folder / "state.npz", (images(60), images(20, 1))
    return Run(workers, settings, *sets, path, 0, name="stage", **changes)


def state(run):
    return run.net.state_dict(), run.at.history


def same(a, b):
    return a[1] == b[1] and all(torch.equal(x, b[0][key]) for key, x in a[0].items())


class Stop(Exception):
    """Stands for any end of a process."""


@pytest.mark.parametrize("mode", ["float", "fake"])
@pytest.mark.parametrize("stops", [(1,), (2, 4), (5,)])
def test_stopped_run_resumes_to_the_same_network(mode, stops, tmp_path, monkeypatch):
    settings = replace(SETTINGS, mix=0.5)
    straight = make_run(tmp_path / "a", mode, settings)
    straight.fit()
    monkeypatch.setattr(engine, "SAVE_SECONDS", 0)
    for stop in (*stops, None):
        run = make_run(tmp_path / "b", mode, settings)
        step, count = run.update, [0]

        def stopping(*batch):
            count[0] += 1
            if stop == count[0]:
                raise Stop
            return step(*batch)

        run.update = stopping
        if stop is None:
            run.fit()
        else:
            with pytest.raises(Stop):
                run.fit()
    assert same(state(straight), state(run))


def test_a_finished_run_does_nothing(tmp_path):
    run = make_run(tmp_path)
    run.fit()
    again = make_run(tmp_path)
    again.update = lambda *_: pytest.fail("it is over")
    again.fit()
    assert same(state(run), state(again))


def test_scales_of_batch_norm_stay_positive(tmp_path):
    run = make_run(tmp_path, "fake")
    run.net.nodes["conv2"].bn.weight.data[3] = -1
    run.update(*next(run.batches(None)))
    assert run.net.nodes["conv2"].bn.weight[3].item() == pytest.approx(engine.MIN_SCALE)


def test_what_is_learnt(tmp_path):
    """Labels, and the teachers' probabilities of the very inputs."""
    run = make_run(tmp_path, settings=replace(SETTINGS, labels=0.25, teachers=("teacher",)))
    run.teachers = [nin(7), nin(8)]
    x, logits = inputs(run.net, 3), torch.randn(3, 10)
    labels = engine.targets(torch.tensor([1, 2, 3]), 10)
    with torch.no_grad(), engine.autocast():
        soft = (run.teachers[0](x).softmax(1) + run.teachers[1](x).softmax(1)) / 2
    expected = F.cross_entropy(logits, 0.75 * soft + 0.25 * labels)
    assert torch.allclose(run.loss(logits, x, labels), expected)


@pytest.mark.parametrize(
    "kind, feature, fast",
    [
        ("Intel Xeon", "amx_bf16", True),
        ("Intel Xeon", "avx512_bf16", False),
        ("AMD Zen4", "avx512_bf16", True),
        ("AMD Zen3", "avx2", False),
    ],
)
def test_bfloat16_where_it_is_fast(kind, feature, fast, monkeypatch):
    own = {"cpu_name": kind, feature: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: own)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert has_bfloat16.__wrapped__() is fast


def test_smoothed_labels():
    found = engine.targets(torch.tensor([2]), 4, 0.2)
    assert torch.allclose(found, torch.tensor([[0.05, 0.05, 0.85, 0.05]]))


def test_mixed_batches_do_not_move_the_statistics(tmp_path):
    run = make_run(tmp_path, settings=replace(SETTINGS, mix=0.5, epochs=20))
    tracking = [follows for epoch in range(20) for _, follows in _epoch(run, epoch)]
    assert 15 < sum(tracking) < 45


def _epoch(run, epoch):
    run.at.epoch = epoch
    return list(run.batches(None))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    run = make_run(tmp_path)
    run.net.nodes["conv2"].bn.bias.data[0] = torch.nan
    with pytest.raises(UserError, match="stage: the loss is nan in epoch 1; a lower rate may help"):
        run.fit()
    assert not run.path.exists()


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"shift": 32}, "do not fit a shift of 32"),
        ({"settings": replace(SETTINGS, epochs=((2, 1),))}, "the sizes \\[2\\] or the network"),
    ],
)
def test_images_that_do_not_fit_are_named(changes, culprit, tmp_path):
    with pytest.raises(UserError, match=f"stage: .*{culprit}"):
        make_run(tmp_path, **changes).check()


def test_one_image_and_logits_of_a_map_are_named(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(UserError, match="one training image is too few"):
        replace(run, train=images(1)).check()
    del run.net.nodes["gap"]
    run.net.spec["layers"].pop()
    with pytest.raises(UserError, match="160 numbers for 10 classes"):
        run.check()


@pytest.mark.parametrize(
    "count, most, sizes",
    [
        (250, 125, [125, 125]),
        (126, 125, [126]),
        (251, 125, [125, 126]),
        (7, 3, [3, 4]),
        (8, 3, [3, 3, 2]),
        (2, 3, [2]),
    ],
)
def test_no_piece_is_one_image(count, most, sizes):
    assert piece_sizes(count, most) == sizes


def test_time_left_counts_pixels(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    run.at.epoch, run.at.step, bars = 1, 2, []
    monkeypatch.setattr(engine, "tqdm", lambda **given: bars.append(given) or tqdm(disable=True))
    run.fit()
    assert bars[0]["total"] == 3 * 16 * 16 + 3 * 32 * 32
    assert bars[0]["initial"] == 3 * 16 * 16 + 2 * 32 * 32


# ------------------------------------------------------------------------ processes that are killed


def run_slowly(folder, steps):
    """A run in a process of its own, which says of each step when it begins."""
    torch.set_num_threads(1)
    engine.SAVE_SECONDS = 0
    run = make_run(folder, "fake")
    step = run.update

    def slow(*batch):
        steps.put(run.at.step)
        time.sleep(0.3)
        return step(*batch)

    run.update = slow
    run.fit()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_a_state_to_go_on_from(end, tmp_path):
    straight = make_run(tmp_path / "a", "fake")
    straight.fit()
    steps = PROCESSES.Queue()
    process = PROCESSES.Process(target=run_slowly, args=(tmp_path / "b", steps))
    process.start()
    for _ in range(4):
        steps.get()
    os.kill(process.pid, end)
    process.join()
    assert process.exitcode == -end
    (left,) = [p for p in (tmp_path / "b").iterdir() if p.suffix == ".npz"]
    assert engine.standing(left).epoch == 1
    run = make_run(tmp_path / "b", "fake")
    run.fit()
    assert same(state(straight), state(run))
