"""Verilator must start registers without a reset at random values that depend on the seed; Icarus
must start them as X."""

import pytest

from host.simulation import runner

RTL = """
`timescale 1ns/1ps
module holder (input wire logic clk_i, input wire logic we_i, output logic [63:0] held_o);
  logic [63:0] held_q;
  always_ff @(posedge clk_i) if (we_i) held_q <= '0;
  assign held_o = held_q;
endmodule
"""
TESTS = """
import cocotb
from pathlib import Path
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

@cocotb.test()
async def test_look(dut):
    dut.we_i.value = 0
    Clock(dut.clk_i, 10, unit="ns").start()
    await ClockCycles(dut.clk_i, 3)
    Path("held.txt").write_text(str(dut.held_o.value))
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A function that gives the 64 bits of a register that nothing has ever written, for a
    simulator and a seed."""
    folder = tmp_path_factory.mktemp("holder")
    (folder / "holder.sv").write_text(RTL)
    (folder / "cocotb_holder.py").write_text(TESTS)

    def look(sim, seed):
        if reason := runner.missing(sim):
            pytest.skip(reason)
        model = runner.build("holder", [folder / "holder.sv"], sim=sim)
        result = runner.simulate(
            model,
            "cocotb_holder",
            seed=seed,
            env={"PYTHONPATH": str(folder)},
            run_dir=folder / "run",
            timeout=60.0,
        )
        assert result.passed, result.error
        return (folder / "run" / "held.txt").read_text()

    return look


def test_verilator_starts_at_random(held):
    values = [held("verilator", seed) for seed in (1, 2, 3)]
    assert len(set(values)) == 3, values
    assert all(8 < value.count("1") < 56 for value in values), values
    assert held("verilator", 2) == values[1]


def test_icarus_starts_unknown(held):
    assert set(held("icarus", 1)) <= set("Xx")
