"""Waves: recorded in the best format there is, shown by block with states by name, and as text
around a failure."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ci import test_benches, waves
from host.simulation import runner
from host.simulation.rtl_index import RtlIndex
from model.common.errors import UserError

pytestmark = pytest.mark.usefixtures("own_build_folder")

RTL = """
`timescale 1ns/1ps
module machine (
    input  wire logic       clk_i,
    input  wire logic       rst_ni,
    input  wire logic       start_i,
    output logic            err_o,
    output logic      [7:0] err_code_o
);
  localparam logic [1:0] IDLE = 2'd0, RUN = 2'd1,
                         DONE = 2'd2;
  logic [1:0] state_q;
  logic half_valid;
  always_ff @(posedge clk_i)
    if (!rst_ni) state_q <= IDLE;
    else case (state_q)
      IDLE: if (start_i) state_q <= RUN;
      RUN: if (half_valid) state_q <= DONE;
      default: state_q <= DONE;
    endcase
  genvar g;
  for (g = 0; g < 1; g = g + 1) begin : g_part
    half u_half (.clk_i(clk_i), .start_i(state_q == RUN), .valid_o(half_valid));
  end
  assign err_o = state_q == DONE;
  assign err_code_o = err_o ? 8'h04 : 8'h00;
endmodule
"""
HALF = """
`timescale 1ns/1ps
module half (input wire logic clk_i, input wire logic start_i, output logic valid_o);
  localparam logic [1:0] ST_WAIT = 2'd1;
  localparam logic [1:0] ST_SENT = 2'd2;
  logic [1:0] state_q;
  always_ff @(posedge clk_i) state_q <= start_i ? ST_SENT : ST_WAIT;
  always_ff @(posedge clk_i) valid_o <= start_i;
endmodule
"""
TEST = """
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

@cocotb.test()
async def fails(dut):
    dut.start_i.value = dut.rst_ni.value = 0
    Clock(dut.clk_i, 10, unit="ns").start()
    await ClockCycles(dut.clk_i, 10)
    dut.rst_ni.value = 1
    await ClockCycles(dut.clk_i, 10)
    dut.start_i.value = 1
    await ClockCycles(dut.clk_i, 6)
    assert not int(dut.err_o.value), "planted failure"
"""


@pytest.fixture(params=["icarus", "verilator", "vcd"])
def failed(request, tmp_path, monkeypatch):
    """Source and result of a failed simulation with waves, and their format."""
    sim = "verilator" if request.param == "vcd" else request.param
    if reason := runner.missing(sim):
        pytest.skip(reason)
    if request.param == "vcd":
        monkeypatch.setattr(runner, "waves_format", lambda sim: "vcd")
    sources = [tmp_path / "machine.sv", tmp_path / "half.sv"]
    for source, text in zip(sources, (RTL, HALF)):
        source.write_text(text)
    (tmp_path / "fails_in_waves.py").write_text(TEST)
    model = runner.build("machine", sources, {}, sim, waves=True)
    result = runner.simulate(
        model, "fails_in_waves", seed=1, env={"PYTHONPATH": str(tmp_path)}, run_dir=tmp_path / "run"
    )
    assert not result.passed and "planted failure" in result.error
    monkeypatch.setattr(waves, "RtlIndex", lambda: RtlIndex(*sources))
    return result, runner.waves_format(sim)


def test_recorded_and_shown(failed, tmp_path, monkeypatch):
    result, form = failed
    assert result.waves.name == f"dump.{form}"
    view = waves.groups(result.waves, "machine")
    assert list(view) == ["machine", "machine.g_part[0].u_half"], list(view)
    names = {s.path.rpartition(".")[2]: s.names for s in view["machine"]}
    assert names["state_q"] == {0: "IDLE", 1: "RUN", 2: "DONE"}
    half = next(s for s in view["machine.g_part[0].u_half"] if s.path.endswith("state_q"))
    assert half.names == {1: "WAIT", 2: "SENT"}
    assert names["err_code_o"][4] == "PACKET_CRC" and not names["err_o"]

    files = waves.gtkwave(result.waves, view)
    lines = files["view.gtkw"].splitlines()
    begin, end = lines.index("-machine"), lines.index("@1000200")
    state = next(n for n, line in enumerate(lines) if line.endswith("machine.state_q[1:0]"))
    assert begin < state < end and lines[state - 2] == "@2022"
    _, table = lines[state - 1].split()
    assert files[table] == "0 IDLE\n1 RUN\n2 DONE\n"

    files = waves.surfer(view)
    commands = files["view.sucl"].splitlines()
    form = commands[commands.index("item_focus state_q") + 1].split()[1]
    assert files[f".surfer/mappings/{form}.txt"].endswith("Bits = 2\n0 IDLE\n1 RUN\n2 DONE\n")

    test = SimpleNamespace(name="fails", toplevel="machine")
    shown = test_benches._waves(SimpleNamespace(test=test), result, result.log.read_text())
    rows = {row[0]: row[1:] for row in map(str.split, shown.splitlines()[1:-1])}
    times = [int(time) for time in rows["ns"]]
    assert times == list(range(times[0], times[0] + 100, 10)) and times[-1] in (250, 260), shown
    values = " ".join(rows["state_q"])
    assert "IDLE IDLE RUN RUN DONE DONE" in values and len(rows["state_q"]) == 10, shown
    assert rows["err_code_o"][-1] == "PACKET_CRC" and "make waves TEST=fails" in shown
    assert "0 1 1 0" in " ".join(rows["g_part[0].u_half.valid_o"]), shown

    start = next(s.wave for s in view["machine"] if s.path.endswith("start_i"))
    risen = next(time for time, value in start if value == 1) / 1000
    first = next(t for t, value in zip(times, rows["start_i"]) if value == "1")
    assert first - 10 <= risen < first, f"start_i rose at {risen} ns\n{shown}"
    early = waves.excerpt(result.waves, "machine", 155.0).splitlines()[0].split()
    assert early[-1] == "150" and len(early) == 11

    folder = runner.BUILD / "run" / "fails-verilator-waves"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / result.waves.name).write_bytes(result.waves.read_bytes())
    monkeypatch.setattr(waves.registry, "load", lambda: SimpleNamespace(named=lambda name: test))
    monkeypatch.setattr(waves.shutil, "which", lambda name: None)
    found = CliRunner().invoke(waves.main, ["--test", "fails"])
    assert found.exit_code and "no viewer is installed" in str(found.exception or found.output)
    assert (folder / "view.gtkw").exists() and list((folder / ".surfer/mappings").iterdir())


def test_no_waves_is_one_line():
    with pytest.raises(UserError, match="make sim TEST=conv3x3 WAVES=1"):
        waves.last_dump("conv3x3")


def test_states_of_the_design():
    units = RtlIndex().units
    controller = waves.states(units["main_controller"].path.read_text())
    assert controller[0] == "IDLE" and len(controller) > 8
    loader = waves.states(units["image_loader"].path.read_text())
    assert loader == {0: "IDLE", 1: "LOAD", 2: "DONE", 3: "DROP"}
