"""One device, and several processes that share a batch (gloo on the CPU, as torchrun starts
them)."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp

from train.loss import Loss
from train.nin import NIN
from train.parallel import Workers
from train.replica import Replica, join_group


def batch():
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (8, 3, 16, 16), generator=rng).float(), torch.arange(8) % 10


def replica(mode):
    torch.manual_seed(2)
    torch.set_num_threads(1)
    net = NIN(10)
    if mode != "float":
        net.calibrate(batch()[0] - 128)
    net.mode = mode
    return Replica(net, torch.device("cpu"))


def step(workers, piece=8):
    loss = workers.gradients(*batch(), None, piece, Loss(), lambda p: p - 128)
    return (
        loss,
        [p.grad.clone() for p in workers.net.parameters()],
        workers.net.conv5.bn.running_mean.clone(),
    )


@pytest.mark.parametrize("mode", ["float", "fake", "exact"])
def test_one_device_does_what_the_threads_do(mode):
    """Batch norm over the whole batch, as the threads do with a single piece."""
    mine = replica(mode)
    theirs = Workers(replica(mode).net, 1)
    loss, grads, _ = step(mine)
    loss2, grads2, _ = step(theirs)
    assert loss == pytest.approx(loss2, rel=1e-5)
    assert all(
        torch.allclose(a, b, rtol=1e-2, atol=1e-6 + 1e-2 * b.abs().max())
        for a, b in zip(grads, grads2)
    )


@pytest.mark.parametrize("make", [lambda: replica("fake"), lambda: Workers(replica("fake").net, 1)])
def test_statistics_follow_where_they_should(make):
    workers, moved = make(), []
    for tracking in (True, False, True):
        workers.net.conv5.bn.running_var *= 2  # far from the batch's
        before = workers.net.conv5.bn.running_var.clone()
        workers.gradients(*batch(), None, 8, Loss(), lambda p: p - 128, tracking)
        moved.append(not torch.equal(before, workers.net.conv5.bn.running_var))
    assert moved == [True, False, True]


def test_evaluation_agrees():
    mine = replica("exact")
    pixels = batch()[0].to(torch.uint8)
    theirs = Workers(mine.net, 1)
    assert torch.equal(
        mine.logits(pixels, lambda p: p.float() - 128),
        theirs.logits(pixels, lambda p: p.float() - 128),
    )


def one_of_two(rank, port, folder):
    os.environ.update(
        WORLD_SIZE="2",
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    assert join_group("cpu") == torch.device("cpu")
    torch.save(step(replica("fake")), folder / f"{rank}.pt")


def test_two_processes_share_a_batch(tmp_path):
    """Both end with the same gradients, those of two half batches that are normalized by
    themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_of_two, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{r}.pt") for r in range(2))
    assert first[0] == second[0] and torch.equal(first[2], second[2])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1]))
    loss, grads, _ = step(Workers(replica("fake").net, 1), piece=4)
    assert first[0] == pytest.approx(loss, rel=1e-4)
    assert all(
        torch.allclose(a, b, rtol=1e-2, atol=1e-6 + 1e-2 * b.abs().max())
        for a, b in zip(first[1], grads)
    )
