"""Generates everything that follows from rtl/control/clipq_regs.rdl, the one source of the
registers and error codes.

    rtl/generated/clipq_regs_block.sv register block (PeakRDL-etana)
    rtl/generated/clipq_regs.sv       the block behind rtl/control/axil_slave.sv
    rtl/generated/clipq_error_pkg.sv  error codes for the RTL
    tb/uvm/generated/register_model.py        UVM register model (PeakRDL-pyuvm)
    host/register_map.py                offsets, fields and error codes for Python
    host/c/clipq_regs.h                 the same for C
    docs/registers.md                         the same to read

With --check nothing is written: exit status 1 and the names of the files that are not what the
source gives.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from peakrdl_etana import RegblockExporter
from peakrdl_etana.cpuif.passthrough import PassthroughCpuif
from peakrdl_etana.udps import ALL_UDPS
from peakrdl_pyuvm.exporter import PyUVMExporter
from systemrdl import RDLCompileError, RDLCompiler
from systemrdl.node import AddrmapNode, FieldNode

from ci import generated
from host.simulation.rtl_index import ROOT
from model.common.command import Command

SOURCE = ROOT / "rtl" / "control" / "clipq_regs.rdl"
ERROR_ENUM_FIELD = "ERROR.CODE"
AXIL_ADDRESS_WIDTH = (
    12  # one 4 KiB page, so that there are unmapped addresses to answer with SLVERR
)
AXIL_SIGNALS = [
    "awvalid",
    "awready",
    "awaddr",
    "wvalid",
    "wready",
    "wdata",
    "wstrb",
    "bvalid",
    "bready",
    "bresp",
    "arvalid",
    "arready",
    "araddr",
    "rvalid",
    "rready",
    "rdata",
    "rresp",
]
TEMPLATES = {
    "rtl/generated/clipq_regs.sv": "clipq_regs.sv.j2",
    "rtl/generated/clipq_error_pkg.sv": "clipq_error_pkg.sv.j2",
    "host/register_map.py": "register_map.py.j2",
    "host/c/clipq_regs.h": "clipq_regs.h.j2",
    "docs/registers.md": "registers.md.j2",
}
BLOCK = "rtl/generated/clipq_regs_block.sv"
MODEL = "tb/uvm/generated/register_model.py"
_BLOCK_PORT = re.compile(r"^ *(input|output) (?:wire|logic) (\[\d+:0\] )?(hwif_\w+)", re.M)


@dataclass(frozen=True)
class Field:
    """One field: bits high:low, access ("r", "rw", "w", "w1c", "w1p" = write-one pulse) and reset
    value (None: live input)."""

    name: str
    high: int
    low: int
    access: str
    reset: int | None
    desc: str


@dataclass(frozen=True)
class Register:
    """One 32-bit register at byte offset `offset`."""

    name: str
    offset: int
    title: str
    desc: str
    fields: tuple[Field, ...]

    @property
    def is_flags(self) -> bool:
        """Whether every field is a single bit."""
        return all(field.high == field.low for field in self.fields)

    @property
    def class_name(self) -> str:
        """Of its flags in Python: IRQ_STATUS is IrqStatus."""
        return "".join(word.capitalize() for word in self.name.split("_"))


@dataclass(frozen=True)
class Port:
    """A port of the register block towards the hardware: "input" or "output", range like "[7:0] "
    or "", name."""

    direction: str
    range: str
    name: str


@dataclass(frozen=True)
class ErrorCode:
    """One value of the ERROR.CODE field, 8 bits."""

    name: str
    value: int
    desc: str


def compile_rdl(source: Path = SOURCE) -> AddrmapNode:
    """Elaborate the register description; RDLCompileError (already printed with file and line) if
    it is wrong."""
    compiler = RDLCompiler()
    for definition in ALL_UDPS:
        compiler.register_udp(definition)
    compiler.compile_file(str(source))
    return compiler.elaborate().top


def registers(top: AddrmapNode) -> list[Register]:
    """All registers in address order."""
    return [
        Register(
            r.inst_name,
            r.absolute_address,
            r.get_property("name"),
            r.get_property("desc") or "",
            tuple(_field(f) for f in r.fields()),
        )
        for r in top.registers()
    ]


def _field(node: FieldNode) -> Field:
    reset = node.get_property("reset")
    assert reset is None or isinstance(reset, int), f"{node.inst_name}: a reset value is a number"
    return Field(
        node.inst_name, node.high, node.low, _access(node), reset, node.get_property("desc") or ""
    )


def _access(node: FieldNode) -> str:
    if node.get_property("singlepulse"):
        return "w1p"
    if node.get_property("onwrite") is not None:
        return "w1c"
    return node.get_property("sw").name


def error_codes(top: AddrmapNode) -> list[ErrorCode]:
    """The values of the enum that encodes ERROR.CODE."""
    field = top.find_by_path(ERROR_ENUM_FIELD)
    assert isinstance(field, FieldNode), f"there is no field {ERROR_ENUM_FIELD}"
    enum = field.get_property("encode")
    assert enum is not None, f"{ERROR_ENUM_FIELD} is not encoded by an enum"
    return [ErrorCode(m.name, m.value, m.rdl_desc or "") for m in enum]


def generate(top: AddrmapNode) -> dict[str, str]:
    """Contents of all generated files by path below the project root."""
    block = _register_block(top)
    data = {
        "title": top.get_property("name"),
        "desc": top.get_property("desc"),
        "registers": registers(top),
        "errors": error_codes(top),
        "ports": [Port(*p) for p in _BLOCK_PORT.findall(block)],
        "axil": AXIL_SIGNALS,
        "axil_addr_w": AXIL_ADDRESS_WIDTH,
        "addr_w": (top.size - 1).bit_length(),
    }
    return {BLOCK: block, MODEL: _register_model(top), **generated.render(TEMPLATES, **data)}


def _register_block(top: AddrmapNode) -> str:
    # Its own AXI4-Lite front end joins arbitration, decoding and the read multiplexer in one cycle
    # (115 MHz on an ECP5, where the rest of the accelerator reaches more), hence the plain request
    # port and axil_slave.
    name = Path(BLOCK).stem
    with tempfile.TemporaryDirectory() as directory:
        RegblockExporter().export(
            top,
            directory,
            cpuif_cls=PassthroughCpuif,
            module_name=name,
            default_reset_activelow=True,
            default_reset_async=False,
            in_str="hwif_in",
            out_str="hwif_out",
            err_if_bad_addr=True,
            err_if_bad_rw=True,
        )
        text = (Path(directory) / f"{name}.sv").read_text(encoding="utf-8")
    # the generator leaves decoder strobes of registers without storage unused: one pragma for all
    # of the file
    text = "\n".join(line.rstrip() for line in text.splitlines() if "verilator lint_" not in line)
    return f"/* verilator lint_off UNUSEDSIGNAL */\n{text}\n/* verilator lint_on UNUSEDSIGNAL */\n"


def _register_model(top: AddrmapNode) -> str:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.py"
        PyUVMExporter().export(top, str(path))
        return (
            "\n".join(
                line.rstrip() for line in path.read_text(encoding="utf-8").strip().splitlines()
            )
            + "\n"
        )


@click.command(cls=Command, help=__doc__.split("\n\n")[0])
@click.option("--check", is_flag=True, help="write nothing; fail if a generated file is stale")
def main(check: bool) -> None:
    try:
        files = generate(compile_rdl())
    except RDLCompileError as error:
        raise SystemExit(f"error: {SOURCE.relative_to(ROOT)}: {error}") from None
    generated.update(files, check, "generate-regs")
