"""The farm: workers and clients that are killed lose nothing, and nothing is computed twice."""

import json
import os
import re
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
from model.data.images import ZOO
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
        (("--images", images, "--scheduler", "x", "--workers", 2), "counts without SCHEDULER only"),
    ):
        found = run(tmp_path, net, *arguments)
        assert found.returncode and words in found.stderr.splitlines()[-1], found.stderr
    chain = Chain(np.random.default_rng(3), (3, 32, 32), True, "a map")
    save_network(chain.conv(10, (1, 1), raw=True).network(), net)
    found = run(tmp_path, net, "--dataset", "cifar10")
    assert found.returncode and "ends in a map" in found.stderr, found.stderr
    ten = ZOO / "nin-cifar10.clipq.npz"
    found = run(tmp_path, ten, "--dataset", "cifar100")
    assert found.returncode and "has 10 outputs, but cifar100 has 100 classes" in found.stderr, (
        found.stderr
    )


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
        store.put(0, {"y": np.zeros(1), "simulation": np.array("0" * 64)})
    assert not store.path(0).exists()


def test_what_drives_the_simulation_decides_a_piece(tmp_path, monkeypatch):
    path, x = files(tmp_path)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "driver.py").write_text("other\n")
    monkeypatch.setattr(farm, "ROOT", tmp_path)
    monkeypatch.setattr(farm, "design", lambda: "0")
    other = farm.simulation()
    before = farm.Store(path.read_bytes(), np.load(x), 4).path(0)
    (tmp_path / "host" / "driver.py").write_text("another\n")
    assert farm.simulation() != other
    assert farm.Store(path.read_bytes(), np.load(x), 4).path(0) != before


def test_an_elastic_cluster_is_kept_busy(tmp_path, monkeypatch):
    """Workers that join later get pieces, too: two a thread."""
    path, x = files(tmp_path)
    images = np.repeat(np.load(x), 6, 0)
    store = farm.Store(path.read_bytes(), images, 4)
    monkeypatch.setattr(store, "put", lambda piece, results: None)
    client = Joining()
    monkeypatch.setattr("distributed.as_completed", Completed)
    farm.compute(client, store, "x", b"", 4)
    assert client.most == 2 * client.threads and client.count == len(store.pieces)


class Joining:
    """A cluster that grows by a thread with each piece."""

    def __init__(self):
        self.threads = self.count = self.most = 0

    def nthreads(self):
        return {"one": self.threads}

    def submit(self, *_, **__):
        self.threads, self.count = min(20, self.threads + 1), self.count + 1
        return Done(str(self.count), self)


class Done:
    """A piece that is computed at once."""

    def __init__(self, key, client):
        self.key, self.client = key, client

    def result(self):
        return {}


class Completed:
    """Futures in the order of their submission."""

    def __init__(self, _):
        self.futures = []

    def add(self, future):
        self.futures.append(future)
        future.client.most = max(future.client.most, len(self.futures))

    def __iter__(self):
        while self.futures:
            yield self.futures.pop(0)


@pytest.mark.timeout(600)
def test_the_documented_command_starts_a_worker():
    """It imports the project, which is not installed."""
    from distributed import Client, LocalCluster

    text = (ROOT / "docs" / "driver.md").read_text()
    (shown,) = re.findall(r"`(\.venv/bin/python -m dask worker) tcp://HOST:8786`", text)
    words = [sys.executable, *shown.split()[1:]]
    with (
        LocalCluster(n_workers=0, dashboard_address="localhost:0") as cluster,
        Client(cluster) as client,
        subprocess.Popen([*words, cluster.scheduler_address, "--no-dashboard"], cwd=ROOT) as worker,
    ):
        try:
            assert client.submit(farm.simulation).result(timeout=PATIENCE) == farm.simulation()
        finally:
            worker.terminate()


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
