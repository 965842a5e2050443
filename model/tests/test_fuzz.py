"""Mutated network files and images: refused with a message, or the same integers in both models."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COUNT = 1500 if os.environ.get("NIGHTLY") == "1" else 300


def test_mutated_files():
    done = subprocess.run(
        [sys.executable, "-m", "model.tests.fuzz", "1", str(COUNT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files, accepted = int(done.stdout.split()[0]), int(done.stdout.split()[2])
    assert files == COUNT and COUNT / 40 < accepted < COUNT / 2  # both ways are taken
