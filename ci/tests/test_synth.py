"""The synthesis flow: the harness around a block, the baseline, and one block placed and routed."""

import json

import pytest
import yaml
from click.testing import CliRunner

from host.simulation import process
from host.simulation.locks import locked
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.errors import UserError
from syn import __main__ as synth
from syn import baseline, block_registers, floorplan, measure, yosys
from syn.__main__ import PLAN, WHOLE, chosen
from syn.harness import Port, harness
from syn.measure import Area, Routed

AREA = Area("pe", {}, lc=100, lut=120, ff=80, dsp=0, ramb36=0.5)
ROUTED = Routed("pe", {}, lut4=100, ff=80, mult18=0, ebr=0, mhz={"1": 90.0, "2": 100.0, "3": 120.0})


def test_every_measured_block_is_a_module_of_the_rtl():
    plan = yaml.safe_load(PLAN.read_text())
    index = RtlIndex()
    for block in [*plan["blocks"], plan["whole"]["module"]]:
        assert index.files(block)
    assert chosen(plan, ["quick"]) == plan["quick"]
    assert chosen(plan, ["all"]) == [*plan["blocks"], WHOLE]


def test_a_block_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="no block named 'array'; there are quick, all"):
        chosen({"blocks": {"pe": {}}, "quick": []}, ["array"])


def test_the_harness_connects_every_port_once():
    ports = [Port("clk_i", "input", 1), Port("a_i", "input", 3), Port("b_o", "output", 2)]
    text = harness("pe", [*ports, Port("c_i", "input", 1), Port("d_o", "output", 1)], "clk_i")
    for line in (".clk_i(clk_i)", ".a_i(in_q[0+:3])", ".c_i(in_q[3+:1])"):
        assert line in text
    assert ".b_o(outputs[0+:2])" in text and ".d_o(outputs[2+:1])" in text
    assert "reg [4:0] in_q" in text and "reg [3:0] out_q" in text


def test_the_baseline_finds_what_got_worse(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline, "FILE", tmp_path / "baseline.json")
    with pytest.raises(UserError, match="baseline.json has no xc7/4/pe, ecp5/4/pe: name blocks"):
        baseline.require(["xc7/4/pe", "ecp5/4/pe"], 1)
    baseline.update("xc7", 4, [AREA])
    baseline.update("ecp5", 4, [ROUTED])
    entry = {"cells": 100, "mhz": 100.0, "seeds": 3}
    assert json.loads(baseline.FILE.read_text())["ecp5/4/pe"] == entry
    with pytest.raises(UserError, match="--seeds 1 is not that of baseline.json: 3 for ecp5/4/pe"):
        baseline.require(["xc7/4/pe", "ecp5/4/pe"], 1)
    baseline.require(["xc7/4/pe", "ecp5/4/pe"], 3)
    baseline.check("xc7", 4, [AREA])
    baseline.check("ecp5", 4, [ROUTED])
    with pytest.raises(baseline.Worse, match=r"xc7/4/pe: 103 cells, 100 in the baseline"):
        baseline.check("xc7", 4, [Area("pe", {}, 103, 120, 80, 0, 0.5)])
    slow = Routed("pe", {}, 101, 80, 0, 0, mhz={"1": 94.0})
    with pytest.raises(baseline.Worse, match=r"ecp5/4/pe: 94.0 MHz, 100.0 in the baseline"):
        baseline.check("ecp5", 4, [slow])


def test_figures_that_the_baseline_has_not_are_named_before_a_measurement(monkeypatch):
    monkeypatch.setattr(synth, "Measurement", None)
    done = CliRunner().invoke(synth.main, ["--check"])
    assert done.exit_code == 1 and "baseline.json has no ecp5/4/conv_array, " in done.output


def _ram_and_register(**changes):
    """A RAM, two bits of whose port B go to flip-flops; changes to the second one."""
    ram = {"CLKB": [2], "DOB0": [10], "DOB1": [11], "DOB2": [12], "DOA0": [13], "CLKA": [2]}
    cells = {"ram": _cell("DP16KD", ram, REGMODE_A="NOREG", REGMODE_B="NOREG")}
    for name, data, q in (("first", 10, 20), ("second", 11, 21)):
        pins = {"CLK": [2], "DI": [data], "LSR": ["0"], "Q": [q]}
        cells[name] = _cell("TRELLIS_FF", pins, CEMUX="1 ", CLKMUX="CLK", REGSET="RESET")
    cells["second"]["connections"] |= {k: v for k, v in changes.items() if k != k.lower()}
    cells["second"]["parameters"] |= changes.get("parameters", {})
    return cells


def _cell(kind, pins, **parameters):
    directions = {
        pin: "output" if pin[0] in "QP" or pin.startswith("DO") else "input" for pin in pins
    }
    return {
        "type": kind,
        "connections": pins,
        "port_directions": directions,
        "parameters": parameters,
    }


def test_a_register_behind_a_ram_becomes_the_rams_own():
    cells = _ram_and_register()
    assert block_registers.move(cells, {20, 21}) == 1
    assert list(cells) == ["ram"]
    assert cells["ram"]["connections"]["DOB0"] == [20] and cells["ram"]["connections"]["DOB1"] == [
        21
    ]
    assert cells["ram"]["parameters"] == {"REGMODE_A": "NOREG", "REGMODE_B": "OUTREG"}


@pytest.mark.parametrize(
    "changes",
    [
        {"CLK": [3]},
        {"LSR": [5]},
        {"CE": [5], "parameters": {"CEMUX": "CE"}},
        {"parameters": {"CLKMUX": "INV"}},
        {"parameters": {"REGSET": "SET"}},
        {"DI": [20], "M": [11]},
        {"DI": [20]},
    ],
)
def test_other_registers_stay_behind_a_ram(changes):
    cells = _ram_and_register(**changes)
    leaves = {11, 20, 21} if changes == {"DI": [20]} else {20, 21}
    cells["second"]["port_directions"] |= {pin: "input" for pin in changes if pin.isupper()}
    before = json.dumps(cells)
    assert block_registers.move(cells, leaves) == 0 and json.dumps(cells) == before


def test_a_bit_that_also_goes_elsewhere_keeps_its_register():
    cells = _ram_and_register()
    cells["lut"] = _cell("LUT4", {"A": [10]})
    assert block_registers.move(cells, {20, 21}) == 0 and len(cells) == 4


def _multiplier_and_register(clock):
    """A multiplier, both bits of whose product go to flip-flops, the second one of this clock."""
    cells = _ram_and_register(CLK=[clock])
    del cells["ram"]
    cells["mult"] = _cell("MULT18X18D", {"A0": [5], "P0": [10], "P1": [11], "P2": [12]})
    return cells


def test_a_register_behind_a_multiplier_becomes_the_multipliers_own():
    cells = _multiplier_and_register(2)
    assert block_registers.move(cells, {20, 21}) == 1 and list(cells) == ["mult"]
    pins = {"A0": [5], "P0": [20], "P1": [21], "P2": [12], "CLK0": [2], "CE0": ["1"], "RST0": ["0"]}
    assert cells["mult"]["connections"] == pins
    assert cells["mult"]["parameters"]["REG_OUTPUT_CLK"] == "CLK0"
    directions = cells["mult"]["port_directions"]
    assert {pin for pin in pins if directions[pin] == "output"} == {"P0", "P1", "P2"}


def test_registers_of_two_clocks_stay_behind_a_multiplier():
    cells = _multiplier_and_register(3)
    before = json.dumps(cells)
    assert block_registers.move(cells, {20, 21}) == 0 and json.dumps(cells) == before


def test_a_tool_that_does_not_end_is_named_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(yosys, "TIMEOUT", 0.1)
    with pytest.raises(yosys.SynthesisError, match=r"sleep failed: no end after 0.1 s .*/log\)"):
        yosys.call(["sleep", "60"], tmp_path / "log")


def test_one_command_at_a_time_measures_in_a_folder(monkeypatch):
    def run(script, folder):
        with pytest.raises(BlockingIOError), locked(folder / "lock", wait=False):
            pass
        design = {"num_cells_by_type": {}, "estimated_num_lc": 7}
        (folder / "stat.json").write_text(json.dumps({"design": design}))

    monkeypatch.setattr(yosys, "run", run)
    with process.folder(measure.FOLDER) as folder:
        monkeypatch.setattr(measure, "FOLDER", folder)
        assert measure.area(RtlIndex(), "loop_counter", {}).lc == 7


def test_a_block_is_mapped_placed_and_routed(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "FOLDER", measure.FOLDER / "test")
    index = RtlIndex()
    area = measure.area(index, "loop_counter", {"WIDTH": 16})
    assert 10 < area.lc < 100 and area.ff >= 16 and area.dsp == 0
    routed = measure.routed(index, "loop_counter", {"WIDTH": 16}, [1])
    assert routed.lut4 > 16 and 50 < routed.median_mhz < 600 and routed.path["ns"] > 0


def test_the_whole_has_figures_of_the_same_names(tmp_path, monkeypatch):
    """Of both targets, in the file that other programs read."""
    area = Area("clipq_accel", {}, 9000, 8000, 7000, 60, 10.5)
    path = {"from": "a", "to": "b", "ns": 1, "logic_ns": 1}
    routed = Routed("clipq_accel", {}, 6000, 5000, 40, 30, {"1": 70.0, "2": 80.0, "3": 75.0}, path)
    monkeypatch.setattr(measure, "area", lambda *_: area)
    monkeypatch.setattr(measure, "routed", lambda *_, **__: routed)
    monkeypatch.setattr(measure, "FOLDER", tmp_path / "build" / "synth")
    (tmp_path / "build" / "synth").mkdir(parents=True)
    monkeypatch.setattr(synth, "ROOT", tmp_path)
    for target in ("xc7", "ecp5"):
        done = CliRunner().invoke(synth.main, ["--block", "whole", "--target", target])
        assert done.exit_code == 0, done.output
    found = [
        json.loads((tmp_path / f"build/synth-{t}-4.json").read_text()) for t in ("xc7", "ecp5")
    ]
    keys = {"lc", "lc_per_pe", "lut", "ff", "dsp", "bram36", "fmax_mhz"}
    assert all(set(one) == keys for one in found)
    assert found[0]["lc_per_pe"] == 22.5 and found[0]["fmax_mhz"] is None
    assert found[1]["fmax_mhz"] == 75.0 and found[1]["lc"] is None


@pytest.mark.parametrize("words", [1, 11, 22, 43])
def test_the_partial_sum_memorys_rams_are_spread_over_two_rows(words):
    cells = {
        f"u_block.u_psum_memory.u_{copy}_ram.mem.0.{word}": _cell("DP16KD", {}) | {"attributes": {}}
        for word in range(words)
        for copy in ("acc", "drain")
    }
    cells["u_block.u_weight_buffer.u_ram.mem.0.0"] = _cell("DP16KD", {}) | {"attributes": {}}
    assert floorplan.spread(cells) == 2 * words
    places = [cell["attributes"].get("BEL") for cell in cells.values()]
    assert places.pop() is None and len(set(places)) == 2 * words
    rows = [int(place.split("/")[1][1:]) for place in places]
    assert set(rows) == set(floorplan.ROWS[:words]) and rows[0::2] == rows[1::2]
    columns = [int(place.split("/")[0][1:]) for place in places]
    assert columns[0::2] == sorted(columns[0::2]) and set(columns) <= set(floorplan.COLUMNS)


def test_the_floorplan_names_the_instances_of_the_rtl():
    rtl = ROOT / "rtl" / "conv_unit"
    assert ") u_psum_memory (" in (rtl / "conv_unit.sv").read_text()
    memory = (rtl / "psum_memory.sv").read_text()
    assert ") u_acc_ram (" in memory and ") u_drain_ram (" in memory
