"""The environment of the commands that the flow starts: simulators, compilers, tools, suites.

It contains only what this module defines, so no other variable of the caller changes a build or a
result.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# Handed on if they are set: who and where the user is, where libraries and data lie, and settings
# of numeric libraries, with which one checks that results do not depend on them.
PASSED = (
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "CIFAR_ROOT",
    "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
)
PASSED_PREFIXES = ("OMP_", "MKL_", "OPENBLAS_", "ONEDNN_")
# How much a test bench does, and on which network; handed on by `make sim` only.
BENCH_SETTINGS = ("NETWORKS", "FAULTS", "UVM_NETWORKS", "UVM_RUNS", "CLIPQ_NIN")


def child(own: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command; `own` variables come on top."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES)
    }
    path = os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)))
    return {
        **passed,
        "PATH": path,
        "LC_ALL": "C.UTF-8",
        "YOWASP_CACHE_DIR": str(Path(sys.prefix) / "yowasp-cache"),
        **(own or {}),
    }


def bench_settings() -> dict[str, str]:
    """Those of BENCH_SETTINGS that the caller has set."""
    return {name: os.environ[name] for name in BENCH_SETTINGS if os.environ.get(name)}


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Make it this process's own environment for a moment, as long as it has one thread."""
    callers = dict(os.environ)
    _replace(child())
    try:
        yield
    finally:
        _replace(callers)


def _replace(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
