"""`make speed`: the speed of RTL simulation against that of another commit, side by side.

Both checkouts run the shipped NIN with `make run BACKEND=rtl`, in turns, on one image and on
several. The difference of the two is the time of the images without start-up. On one core it is
processor time, which other programs change little; on all cores it is wall time.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from host.simulation import process
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.cores import cores
from model.common.errors import UserError, printable

NETWORK = ROOT / "model" / "zoo" / "nin-cifar10.clipq.npz"
IMAGES = ROOT / "model" / "zoo" / "cifar10-test-images.npz"
FOLDER = ROOT / "build" / "speed"  # checkouts of other commits
TIMEOUT = 3600.0
CORES = cores()


def call(command: list[str], folder: Path) -> None:
    """Run a command in `folder`. Raises UserError with the end of its output."""
    with tempfile.TemporaryFile() as log:
        code = process.run(command, log, cwd=folder, timeout=TIMEOUT)
        log.seek(0)
        if code:
            end = log.read().decode(errors="replace").splitlines()[-5:]
            raise UserError("\n".join([f"{' '.join(command)} failed in {folder}:", *end]))


def checkout(commit: str) -> Path:
    """The folder of a checkout of `commit`, made if there is none."""
    names = ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    found = subprocess.run(names, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        raise UserError(f"--base {printable(commit)}: there is no such commit")
    folder = FOLDER / found.stdout.strip()
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        call(["git", "worktree", "prune"], ROOT)
        call(["git", "worktree", "add", "--detach", str(folder), commit], ROOT)
    return folder


def used() -> float:
    """Processor seconds of all commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(folder: Path, images: Path, out: Path, one_core: bool) -> tuple[float, int]:
    """Time of one run, and the cycles of all its images."""
    run = ["make", "run", f"NET={NETWORK}", f"IMAGES={images}", "BACKEND=rtl", "PIXELS=1"]
    core = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))] if one_core else []
    clock = used if one_core else time.monotonic
    start = clock()
    call([*core, *run, f"OUT={out}"], folder)
    passed = clock() - start
    with np.load(out) as results:
        return passed, int(results["total_cycles"].sum())


def speed(folder: Path, work: Path, count: int, one_core: bool) -> float:
    """Cycles a second of `count` images after the first one, on each core; the images are in
    `work`."""
    cores = 1 if one_core else CORES
    (one, first), (all_, cycles) = (
        seconds(folder, work / f"{n * cores}.npy", work / "out.npz", one_core)
        for n in (1, count + 1)
    )
    if all_ <= one:
        raise UserError(f"{all_:.1f} s for {count + 1} images, {one:.1f} s for one: too much noise")
    return (cycles - first) / (all_ - one)


@click.command(cls=Command, help=__doc__)
@click.option("--base", required=True, help="commit to compare with")
@click.option("--images", "count", type=click.IntRange(1, 100), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
def main(base: str, count: int, rounds: int) -> None:
    trees = {"this checkout": ROOT, base: checkout(base)}
    ratios: dict[str, list[float]] = {"one core": [], "all cores": []}
    with np.load(IMAGES) as shipped, process.folder() as work:
        for n in {cores * n for cores in (1, CORES) for n in (1, count + 1)}:
            np.save(work / f"{n}.npy", np.resize(shipped["images"], (n, 3, 32, 32)))
        for tree in trees.values():  # set up, compile
            seconds(tree, work / "1.npy", work / "out.npz", False)
        for number in range(rounds):
            for cores, found in ratios.items():
                speeds = {
                    name: speed(tree, work, count, cores == "one core")
                    for name, tree in trees.items()
                }
                found.append(speeds["this checkout"] / speeds[base])
                each = ", ".join(f"{name} {value / 1000:,.0f}" for name, value in speeds.items())
                click.echo(
                    f"round {number + 1}, {cores}: thousand cycles a second: {each}; "
                    f"{found[-1]:.2f} x"
                )
    for cores, found in ratios.items():
        click.echo(f"{cores}: median {statistics.median(found):.2f} x of {base}")


if __name__ == "__main__":
    main()
