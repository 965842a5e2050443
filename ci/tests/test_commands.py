"""The commands that simulate or run a network: results from file to file, and one line that names
what is wrong."""

import re
import subprocess
import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

from ci import registry, results
from ci.__main__ import main as ci_commands
from ci.sim import main as sim
from host.__main__ import main as host_commands
from host.run import main as run_network
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from model.network import save_network
from model.network.random_networks import random_input, random_network
from model.reference.integer import run_integer


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """(folder with net.clipq.npz and images.npy, network, images) that the accelerator can run,
    with a 32-bit output."""
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(5)
    net = random_network(
        rng,
        stride=(1,),
        ops=("conv", "maxpool"),
        sizes=((6, 5),),
        channels=(3, 5),
        kernels=(1, 2, 3),
        max_layers=3,
        max_macs=20_000,
    )
    images = random_input(rng, net, 2)
    save_network(net, folder / "net.clipq.npz")
    np.save(folder / "images.npy", images)
    return folder, net, images


def run(folder, backend, images="images.npy", net="net.clipq.npz"):
    """Result of `make run` on the files of a folder, writing out.npz."""
    return CliRunner().invoke(
        run_network,
        [
            "--net",
            str(folder / net),
            "--images",
            str(folder / images),
            "--backend",
            backend,
            "--out",
            str(folder / "out.npz"),
        ],
    )


@pytest.mark.parametrize("backend", ["int", "torch", "rtl"])
def test_backends_write_the_same_integers(job, backend):
    folder, net, images = job
    if backend == "rtl" and (reason := runner.missing("verilator")):
        pytest.skip(reason)
    result = run(folder, backend)
    assert result.exit_code == 0, result.output
    with np.load(folder / "out.npz") as out:
        assert out["y"].dtype == np.int32 and np.array_equal(out["y"], run_integer(net, images))
        if backend == "rtl":
            assert (
                out["cycles"].shape == (2, len(net.layers))
                and out["cycles"].dtype == np.int64
                and (out["cycles"] > 0).all()
            )
            assert (
                out["total_cycles"].shape == (2,)
                and (out["total_cycles"] >= out["cycles"].sum(1)).all()
            )


def test_images_out_of_range_are_an_error(job):
    folder, net, images = job
    np.save(folder / "large.npy", images + 1000)
    result = run(folder, "int", images="large.npy")
    assert (
        result.exit_code == 1
        and len(result.output.strip().splitlines()) == 1
        and "error" in result.output
    )


def test_missing_network_is_one_line(job):
    folder, _, _ = job
    (folder / "broken.clipq.npz").write_bytes(b"no network")
    for name in ("broken.clipq.npz", "none.clipq.npz"):
        result = run(folder, "int", net=name)
        assert result.exit_code == 1 and len(result.output.strip().splitlines()) == 1, result.output


def test_unknown_test_lists_those_there_are():
    result = CliRunner().invoke(sim, ["--test", "no_such_test"])
    assert result.exit_code != 0 and "no test named 'no_such_test'" in result.output
    assert all(name in result.output for name in registry.load().tests)


@pytest.mark.parametrize(
    "arguments, modules",
    [
        (["conv3x3"], ["--modules=4"]),
        (["conv3x3", "--modules", "8"], ["--modules=8"]),
        (["config_16_small"], []),  # its only case has 16
        (["config_16_small", "--modules", "8"], ["--modules=8"]),
    ],
)
def test_modules_of_a_single_test(monkeypatch, arguments, modules):
    calls = []
    monkeypatch.setattr(results, "run_pytest", lambda words, env: calls.append(words) or 0)
    done = CliRunner().invoke(sim, ["--test", *arguments])
    assert done.exit_code == 0 and [w for w in calls[0] if w.startswith("--modules")] == modules


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["sim", "SIM=vcs"], "must be one of verilator icarus"),
        (["sim", "MODULES=5"], "must be one of 4 8 16"),
        (["run", "NET=none.npz", "IMAGES=none.npy", "OUT=x"], "no such file"),
        (["run"], "NET is missing"),
        (["regress", "SEED=abc"], "must be a whole number"),
    ],
)
def test_wrong_variables_are_named(arguments, words):
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode and words in done.stderr


def test_help_names_the_variables_of_each_command():
    """make warns of others by these lines."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    learning = re.search(r"^learning = (.*)$", text, re.M).group(1)
    targets = re.findall(r"^([a-z-]+): ## (.*)\n((?:\t.*\n)*)", text, re.M)
    assert len(targets) > 25
    for target, line, commands in targets:
        commands = commands.replace("$(learning)", learning)
        used = re.findall(r"\$\(call (?:option|flag|given),([A-Z]+)|\$\(([A-Z]+)\)", commands)
        said = set(re.findall(r"\b([A-Z]+)=", line)) - {"NAME"}
        assert said == {a or b for a, b in used}, target


@pytest.mark.parametrize(
    "arguments, idle", [(("perf", "PLANES=2", "NET=x"), ["PLANES"]), (("sim", "TEST=x"), [])]
)
def test_variables_without_effect_are_named(arguments, idle):
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.findall(r": (\w+) has no effect on make \w+", done.stderr) == idle


def test_help_lists_the_commands():
    text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(
        f"make {name}" in text
        for name in (
            "demo",
            "sim",
            "regress",
            "run",
            "accuracy",
            "train",
            "vectors",
            "perf",
            "lint",
        )
    )


@pytest.mark.parametrize("group", [ci_commands, host_commands], ids=lambda group: group.name)
def test_every_command_of_a_folder_explains_itself(group):
    names = group.list_commands(click.Context(group))
    shown = CliRunner().invoke(group, ["--help"])
    assert names and shown.exit_code == 0 and all(f"\n  {name} " in shown.output for name in names)
    for name in names:
        result = CliRunner().invoke(group, [name, "--help"])
        assert result.exit_code == 0 and f" {name} [OPTIONS]" in result.output, result.output


@pytest.mark.parametrize("module", ["ci.regress", "host.run", "model.interchange.checking"])
def test_the_module_of_a_command_is_no_program(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    folder = module.partition(".")[0]
    remedy = f"python -m {folder} --help lists the commands"
    assert done.returncode == 1 and done.stderr == f"error: {module} is no program; {remedy}\n"


def test_an_unknown_command_is_named():
    result = CliRunner().invoke(host_commands, ["walk"])
    assert result.exit_code == 2 and "No such command 'walk'" in result.output


PROGRESS = """
import time, click
from host.simulation.progress import Heartbeat
from model.common.command import Command

@click.command(cls=Command)
def main():
    with Heartbeat(lambda: "halfway", 0.05):
        time.sleep(0.5)
    print("result")

main()
"""


def test_progress_is_logged_to_standard_error():
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "result\n" and "s: halfway\n" in done.stderr
