"""What the commands write and print: the result file as a whole, and text that cannot mislead."""

import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from host.demo import main as demo
from host.run import main as run_network
from host.simulation.rtl_index import ROOT
from model.network import Layer, Network, save_network
from model.reference.integer import run_integer

NAME = "[bold]évil[/x] :smile:"


@pytest.fixture
def job(tmp_path):
    """(arguments of `make run` but for --out, expected y); the network's name is rich's markup."""
    pool = Layer(
        name="pool", op="maxpool", inputs=("input",), kernel=(1, 1), stride=(1, 1), pad=(0, 0)
    )
    net = Network(name=NAME, input_shape=(1, 2, 2), input_signed=True, layers=[pool])
    images = np.arange(8).reshape(2, 1, 2, 2)
    save_network(net, tmp_path / "net.clipq.npz")
    np.save(tmp_path / "images.npy", images)
    return [
        "--net",
        str(tmp_path / "net.clipq.npz"),
        "--images",
        str(tmp_path / "images.npy"),
    ], run_integer(net, images)


def results(path):
    with np.load(path) as out:
        return out["y"]


def test_a_device_stays_a_device(job):
    arguments, _ = job
    result = CliRunner().invoke(run_network, [*arguments, "--out", "/dev/null"])
    assert result.exit_code == 0 and os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


def test_the_target_of_a_link_is_written(job, tmp_path):
    arguments, expected = job
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    assert (
        CliRunner().invoke(run_network, [*arguments, "--out", str(tmp_path / "link")]).exit_code
        == 0
    )
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(results(tmp_path / "real"), expected)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "no process reads this FIFO"),
        (lambda path: path.symlink_to("no/where"), "No such file or directory"),
    ],
)
def test_what_is_no_file_is_refused_and_kept(job, tmp_path, make, words):
    arguments, _ = job
    make(tmp_path / "out")
    before = os.lstat(tmp_path / "out")
    result = CliRunner().invoke(run_network, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code != 0 and words in result.output and "Traceback" not in result.output
    assert os.lstat(tmp_path / "out").st_ino == before.st_ino and len(list(tmp_path.iterdir())) == 3


def test_runs_with_the_same_target_at_once(job, tmp_path):
    arguments, expected = job
    command = [sys.executable, "-m", "host", "run", *arguments, "--out", str(tmp_path / "same.npz")]
    runs = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(4)
    ]
    for run in runs:
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 0, output
    np.testing.assert_array_equal(results(tmp_path / "same.npz"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "images.npy",
        "net.clipq.npz",
        "same.npz",
    ]


def test_a_terminal_without_the_letters_does_not_break_a_run(job, tmp_path):
    arguments, expected = job
    out = tmp_path / "Ergebnis-ü\n.npz"
    done = subprocess.run(
        [sys.executable, "-m", "host", "run", *arguments, "--out", str(out)],
        cwd=ROOT,
        text=True,
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert "Ergebnis-\\xfc\\n.npz" in done.stdout and len(done.stdout.splitlines()) == 1
    np.testing.assert_array_equal(results(out), expected)


def test_the_demo_refuses_other_networks(job):
    arguments, _ = job
    result = CliRunner().invoke(demo, arguments[:2])
    assert (
        result.exit_code == 1
        and "the demo needs a network with the 10 classes of CIFAR-10" in result.output
    )
