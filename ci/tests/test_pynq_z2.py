"""Vivado's script for the PYNQ-Z2, run with Tcl: what it connects."""

import re
from collections import Counter

import pytest

from host import board
from host.simulation.rtl_index import ROOT, RtlIndex

tkinter = pytest.importorskip("tkinter", reason="Tcl is missing (apt-get install python3-tk)")

PYNQ = ROOT / "syn" / "boards" / "pynq_z2"
WRAPPER = (PYNQ / "clipq_axi.v").read_text()
FULL = {"s_axis_prog": "weights_dma/M_AXIS_MM2S", "s_axis_image": "images_dma/M_AXIS_MM2S"}
FULL |= {"m_axis_result": "results_dma/S_AXIS_S2MM", "s_axil": "control/M00_AXI"}


class Vivado:
    """Runs a script with Tcl and notes what it asks Vivado for; a command that Vivado does not have
    is an error."""

    def __init__(self, slack: str = "0.1") -> None:
        self.cells, self.properties, self.nets, self.files = {}, {}, [], []
        self.done = []
        self.tcl = tkinter.Tcl()
        for name in ("get_bd_cells", "get_bd_pins", "get_bd_intf_pins", "get_files", "get_runs"):
            self.tcl.createcommand(name, lambda name: name)
        for name in ("create_project", "create_bd_design", "update_compile_order", "make_wrapper"):
            self.tcl.createcommand(name, lambda *arguments: "")
        for name in ("assign_bd_address", "validate_bd_design", "save_bd_design", "launch_runs"):
            self.tcl.createcommand(name, lambda *_, name=name: self.done.append(name) or "")
        self.tcl.createcommand("wait_on_run", lambda run: self.done.append(run) or "")
        self.tcl.createcommand("current_fileset", lambda: "sources_1")
        self.tcl.createcommand("get_property", lambda *_: slack)
        self.tcl.createcommand("create_bd_cell", self._cell)
        self.tcl.createcommand("set_property", self._property)
        self.tcl.createcommand("connect_bd_net", lambda *pins: self.nets.append(pins) or "")
        self.tcl.createcommand("connect_bd_intf_net", lambda *pins: self.nets.append(pins) or "")
        self.tcl.createcommand("add_files", lambda _, files: self.files.extend(self._list(files)))
        self.tcl.eval("rename file _file")
        self.tcl.createcommand("file", self._file)

    def run(self, path, *arguments):
        """Run a script with these arguments."""
        self.tcl.setvar("argv", arguments)
        self.tcl.eval(f"proc info_script {{}} {{ return {{{path}}} }}")
        self.tcl.eval(path.read_text().replace("[info script]", "[info_script]"))
        return self

    def _list(self, text):
        return self.tcl.splitlist(text)

    def _file(self, *arguments):
        if arguments[0] == "copy":
            return self.done.append(arguments[-1]) or ""
        return self.tcl.call("_file", *arguments)

    def _cell(self, _, kind, __, reference, name):
        self.cells[name] = reference
        return name

    def _property(self, *arguments):
        pairs = self._list(arguments[1]) if arguments[0] == "-dict" else arguments[:2]
        for key, value in zip(pairs[::2], pairs[1::2]):
            self.properties[arguments[-1], key.removeprefix("CONFIG.")] = str(value)
        return ""


@pytest.fixture(scope="module")
def vivado():
    return Vivado().run(PYNQ / "project.tcl", "16", "80")


def test_the_block_design_has_the_cells_that_the_driver_asks_for(vivado):
    asked = set(re.findall(r"overlay\.(\w+)", (ROOT / "host" / "board.py").read_text())) - {"bit"}
    assert {"clipq_accel", "weights_dma", "images_dma", "results_dma"} <= asked <= {*vivado.cells}
    assert vivado.cells["clipq_accel"] == re.search(r"^module (\w+)", WRAPPER, re.M)[1]
    assert vivado.properties["clipq_accel", "NUM_MODULES"] == "16"
    assert vivado.properties["ps", "PCW_FPGA0_PERIPHERAL_FREQMHZ"] == "80"


def test_the_engines_are_as_the_driver_describes_them(vivado):
    text = " ".join(board.__doc__.split())
    bits, width = (re.search(p, text)[1] for p in (r"register of (\d+) bits", r"(\d+) bits wide"))
    for name, way in (("weights", "mm2s"), ("images", "mm2s"), ("results", "s2mm")):
        found = {k: v for (cell, k), v in vivado.properties.items() if cell == f"{name}_dma"}
        assert found["c_include_sg"] == "0" and found["c_sg_length_width"] == bits
        assert found["c_include_mm2s"] == str(int(way == "mm2s"))
        assert found["c_include_s2mm"] == str(int(way == "s2mm"))
        assert found[f"c_m_axi_{way}_data_width"] == width
        assert found.get("c_m_axis_mm2s_tdata_width", width) == width


def test_every_interface_of_the_block_is_connected_once(vivado):
    signals = re.findall(r'INTERFACE_INFO = "xilinx.com:(\w+):(\w+):1.0 (\w+) \w+"', WRAPPER)
    interfaces = {name for kind, _, name in signals if kind == "interface"}
    assert interfaces == {*FULL}
    pins = {name for kind, _, name in signals if kind == "signal"}
    assert pins == {"aclk", "aresetn", "irq"}
    ends = Counter(pin for net in vivado.nets for pin in net if pin.startswith("clipq_accel/"))
    assert ends == Counter(f"clipq_accel/{name}" for name in interfaces | pins)
    for interface, partner in FULL.items():
        pin = f"clipq_accel/{interface}"
        assert [set(net) for net in vivado.nets if pin in net] == [{pin, partner}]


def test_every_cell_has_a_clock_and_names_that_exist(vivado):
    cells = {pin.split("/")[0] for net in vivado.nets for pin in net}
    assert cells == {*vivado.cells}
    clocked = {b.split("/")[0] for a, b in vivado.nets if a == "ps/FCLK_CLK0"}
    assert clocked == {*vivado.cells} - {"interrupts"}
    sinks = Counter(net[1] for net in vivado.nets)
    assert max(sinks.values()) == 1, "a pin has two drivers"


def test_the_project_holds_all_sources(vivado):
    asked = {str(path) for path in RtlIndex(ROOT / "rtl", PYNQ).files("clipq_axi")}
    files = {*vivado.files} - {"clipq.bd", ""}
    assert asked <= files
    assert files - asked <= {str(path) for path in (ROOT / "rtl").rglob("*.sv")}


def test_every_port_of_the_block_is_named_to_its_interface():
    ports = re.findall(r"^    (?:input|output) +wire +(?:\[[\d:]+\])? *(\w+),?$", WRAPPER, re.M)
    found = re.findall(
        r'1\.0 (\w+) (\w+)"[^*]*\*\)\s+(?:input|output) +wire[^\n]*?(\w+),?\n', WRAPPER
    )
    axi = [(f"{interface}_{signal.lower()}", port) for interface, signal, port in found]
    assert [port for _, port in axi] == ports
    assert all(name == port for name, port in axi if "_ax" in port)


def test_a_design_that_misses_its_clock_gives_no_bitstream():
    late = Vivado(slack="-0.2")
    with pytest.raises(tkinter.TclError, match="misses 100 MHz: give a lower clock"):
        late.run(PYNQ / "project.tcl")
    assert not [path for path in late.done if str(path).endswith(".bit")]


def test_the_bitstream_and_its_description_are_left_for_the_driver(vivado):
    names = [str(path).rsplit("/", 1)[-1] for path in vivado.done[-2:]]
    assert names == ["clipq.bit", "clipq.hwh"]
    assert vivado.done[:4] == [
        "assign_bd_address",
        "validate_bd_design",
        "save_bd_design",
        "launch_runs",
    ]
