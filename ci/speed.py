"""`make speed`: the speed of RTL simulation against that of another commit, side by side.

Both checkouts run the shipped NIN with `make run BACKEND=rtl`, in turns, on one image and on
several. The difference of the two is the time of the images without start-up.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from host.simulation import process
from host.simulation.rtl_index import ROOT
from model.common.command import Command
from model.common.errors import UserError

NETWORK = ROOT / "model" / "zoo" / "nin-cifar10.clipq.npz"
IMAGES = ROOT / "model" / "zoo" / "cifar10-test-images.npz"
FOLDER = ROOT / "build" / "speed"  # checkouts of other commits
TIMEOUT = 3600.0


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
    folder = FOLDER / commit
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        call(["git", "worktree", "prune"], ROOT)
        call(["git", "worktree", "add", "--detach", str(folder), commit], ROOT)
    return folder


def seconds(folder: Path, images: Path, out: Path) -> tuple[float, int]:
    """Wall time of one run, and the cycles of all its images."""
    run = [f"NET={NETWORK}", f"IMAGES={images}", "BACKEND=rtl", "PIXELS=1", f"OUT={out}"]
    start = time.monotonic()
    call(["make", "run", *run], folder)
    passed = time.monotonic() - start
    with np.load(out) as results:
        return passed, int(results["total_cycles"].sum())


@click.command(cls=Command, help=__doc__)
@click.option("--base", required=True, help="commit to compare with")
@click.option("--images", "count", type=click.IntRange(1, 100), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
def main(base: str, count: int, rounds: int) -> None:
    trees = {"this checkout": ROOT, base: checkout(base)}
    with np.load(IMAGES) as shipped, process.folder() as work:
        for n in (1, count + 1):
            np.save(work / f"{n}.npy", shipped["images"][:n])
        for tree in trees.values():  # set up, compile
            seconds(tree, work / "1.npy", work / "out.npz")
        ratios = []
        for number in range(rounds):
            speed = {}
            for name, tree in trees.items():
                (one, first), (all_, cycles) = (
                    seconds(tree, work / f"{n}.npy", work / "out.npz") for n in (1, count + 1)
                )
                speed[name] = (cycles - first) / (all_ - one)
            ratios.append(speed["this checkout"] / speed[base])
            each = ", ".join(f"{name} {value / 1000:,.0f}" for name, value in speed.items())
            click.echo(f"round {number + 1}: thousand cycles a second: {each}; {ratios[-1]:.2f} x")
    click.echo(f"median {statistics.median(ratios):.2f} x of {base}")


if __name__ == "__main__":
    main()
