"""The farm: workers and clients that are killed lose nothing, and nothing is computed twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from host import farm, rtl_backend
from host.simulation.rtl_index import ROOT
from model.common.errors import UserError
from model.compiler.hardware import Hardware
from model.network import load_network
from model.network.file import save_network
from model.reference.integer import run_integer
from tb.lib.chain import Chain

IMAGES = 80
PATIENCE = 240  # seconds for a few pieces


def test_refused_in_one_line(tmp_path):
    net, images = files(tmp_path)
    for arguments, words in (
        ((), "give either IMAGES or DATASET"),
        (("--images", images, "--dataset", "cifar10"), "give either IMAGES or DATASET"),
        (("--images", images, "--scheduler", "tcp://127.0.0.1:9"), "no scheduler at"),
    ):
        found = run(tmp_path, net, *arguments)
        assert found.returncode and words in found.stderr.splitlines()[-1], found.stderr


def files(folder: Path) -> tuple[Path, Path]:
    """A small network and images for it."""
    chain = Chain(np.random.default_rng(3), (3, 16, 16), True, "farmed")
    net = chain.conv(12, (3, 3), (1, 1), stride=(2, 2)).conv(10, (8, 8), raw=True).network()
    save_network(net, folder / "farmed.clipq.npz")
    images = np.random.default_rng(1).integers(-128, 128, (IMAGES, 3, 16, 16))
    np.save(folder / "x.npy", images.astype(np.int8))
    return folder / "farmed.clipq.npz", folder / "x.npy"


def command(folder: Path, net: Path, *arguments: object) -> list[str]:
    out = ["--out", str(folder / "record.json")]
    words = [sys.executable, "-m", "host", "farm", "--net", str(net), *map(str, arguments)]
    return words + out


def run(folder: Path, net: Path, *arguments: object) -> subprocess.CompletedProcess:
    words = command(folder, net, *arguments)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


def done(store: farm.Store) -> dict[Path, int]:
    """The files of the pieces that are done, and when they were written."""
    paths = [store.path(piece) for piece in store.pieces]
    return {path: path.stat().st_mtime_ns for path in paths if path.exists()}


def forget(store: farm.Store) -> None:
    """Remove what is done."""
    for path in done(store):
        path.unlink()


def wait_for(store: farm.Store, count: int) -> None:
    """Until so many pieces are done."""
    limit = time.monotonic() + PATIENCE
    while len(done(store)) < count:
        assert time.monotonic() < limit, f"{len(done(store))} pieces of {count} are done"
        time.sleep(0.05)


def test_results_of_another_design_are_refused(tmp_path):
    path, x = files(tmp_path)
    store = farm.Store(path.read_bytes(), np.load(x), 4)
    with pytest.raises(UserError, match="give all the same checkout"):
        store.put(0, {"y": np.zeros(1), "design": np.array("0" * 64)})
    assert not store.path(0).exists()


@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(rtl_backend.runner.missing("verilator")), reason="no simulator")
def test_killed_worker_and_client(tmp_path):
    """Two workers, one killed when half of the pieces are done, and then the client, which is
    started again: each image's output comes once, as the integer model's, and no piece that was
    done is computed again."""
    from distributed import LocalCluster

    path, x = files(tmp_path)
    rtl_backend.build_harness(Hardware())
    images = np.load(x)
    store = farm.Store(path.read_bytes(), images, 4)
    half = len(store.pieces) // 2
    forget(store)
    two = dict(n_workers=2, threads_per_worker=1, processes=True)
    with LocalCluster(**two, dashboard_address="localhost:0") as cluster:
        arguments = ("--images", x, "--scheduler", cluster.scheduler_address)
        with subprocess.Popen(command(tmp_path, path, *arguments), cwd=ROOT) as first:
            wait_for(store, half)
            at_kill = len(done(store))
            os.kill(cluster.workers[0].process.pid, signal.SIGKILL)
            wait_for(store, at_kill + 1)
            first.kill()
        before = done(store)
        assert at_kill <= half + 1, "the worker was not killed half-way"
        assert at_kill < len(before) < len(store.pieces), "the client was not killed after it"
        second = run(tmp_path, path, *arguments)
    assert second.returncode == 0, second.stderr
    after = done(store)
    assert len(after) == len(store.pieces) and all(after[p] == before[p] for p in before)
    net = load_network(path)
    expected = run_integer(net, images.astype(np.int32))
    assert len({row.tobytes() for row in expected}) == IMAGES, "an image could stand for another"
    assert np.array_equal(store.gather()["y"], expected)
    report = json.loads((tmp_path / "record.json").read_text())
    assert report["images"] == report["equal_to_integer_model"] == IMAGES
    third = run(tmp_path, path, "--images", x)  # nothing is left to do, and no cluster needed
    assert third.returncode == 0 and "scheduler" not in third.stdout, third.stderr
    wrong = done(store).popitem()[0]
    with np.load(wrong) as data:
        spoiled = {**data, "y": data["y"] + 1}
    np.savez_compressed(wrong, **spoiled)
    found = run(tmp_path, path, "--images", x)
    assert found.returncode and "differs from the integer model" in found.stderr, found.stderr
    forget(store)
