"""What is compared to the bit depends neither on the processor and its kernels nor on threads.

`processors.py` beside it, which the nightly regression runs, repeats all tests under more settings.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ["test_export.py", "test_fold.py", "test_segments.py", "test_edges.py"]
# Kernels of oneDNN, ATen, MKL and OpenBLAS, threads of OpenMP and MKL.
OLD = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
COMMON = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OMP_NUM_THREADS": "2",
    "MKL_NUM_THREADS": "2",
}


def run(setting: dict[str, str], *command: str) -> str:
    """Standard output of a Python command under a setting."""
    env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **setting}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def here():
    return json.loads(run({}, "-m", "train.tests.products"))


@pytest.mark.parametrize("setting", [OLD, COMMON], ids=["SSE4.1", "AVX2"])
def test_products_are_the_same(setting, here):
    there = json.loads(run(setting, "-m", "train.tests.products"))
    assert len(there) > 40 and there.keys() == here.keys()
    assert [name for name in here if here[name] != there[name]] == []


def test_the_integers_hold_on_another_processor():
    """Every test that compares sums, exports and files to the bit."""
    tests = [f"train/tests/{name}" for name in CORE]
    run(COMMON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
