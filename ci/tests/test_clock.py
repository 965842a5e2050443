"""The clock of a bench: what a callback sees at an edge, and that the main program of Verilator's
models (host/simulation/verilator_main.cpp) calls all that cocotb's own calls, in the same order."""

import json
from pathlib import Path

import cocotb_tools.config
import pytest

from host.simulation import runner, simulators

RTL = """
`timescale 1ns/1ps
module edges (
    input  wire logic       clk_i,
    input  wire logic [7:0] a_i,
    output wire logic [7:0] q_o,
    output wire logic [7:0] sum_o
);
  logic [7:0] q_q;
  initial q_q = 8'd0;
  always_ff @(posedge clk_i) q_q <= a_i;
  assign q_o   = q_q;
  assign sum_o = q_q + a_i;
endmodule
"""
TESTS = '''
import itertools, json, os
import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.handle import Immediate
from cocotb.triggers import (
    FallingEdge, NextTimeStep, ReadOnly, ReadWrite, RisingEdge, Timer, ValueChange
)
from cocotb.utils import get_sim_time
from host.harness import clocking

TRACE = []


def start(dut):
    if os.environ["CLOCK"] == "cocotb":
        Clock(dut.clk_i, clocking.PERIOD_NS, unit="ns", impl="gpi").start()
    else:
        clocking.start_clock(dut.clk_i)


@cocotb.test()
async def test_samples_before_the_edge(dut):
    """A monitor sees what registers and wires were before the edge; what it drives comes after."""
    dut.a_i.value = 0
    start(dut)
    for _ in range(2):
        await RisingEdge(dut.clk_i)
    sent = [0]
    for a in (7, 9, 200, 3, 3, 8):
        dut.a_i.value = a
        await RisingEdge(dut.clk_i)
        assert int(dut.clk_i.value) == 1
        seen = (int(dut.a_i.value), int(dut.q_o.value), int(dut.sum_o.value))
        assert seen == (a, sent[-1], (a + sent[-1]) % 256)
        sent.append(a)
        await ReadOnly()
        assert int(dut.q_o.value) == a
        await NextTimeStep()
    assert get_sim_time("ns") % clocking.PERIOD_NS == clocking.PERIOD_NS / 2


@cocotb.test()
async def test_a_clock_has_one_bit(dut):
    try:
        clocking.start_clock(dut.a_i)
    except ValueError as error:
        assert "edges.a_i" in str(error)
    else:
        assert False, "a_i is a clock"


@cocotb.test()
@cocotb.parametrize(half_cycles=[31, 40])
async def test_trace(dut, half_cycles):
    """Everything that wakes a coroutine, some at the same time, and all ways to change an input.
    The clock of the test before stopped at either level."""
    rng = np.random.default_rng(half_cycles)

    def note(what):
        values = [int(h.value) for h in (dut.clk_i, dut.a_i, dut.q_o, dut.sum_o)]
        TRACE.append([get_sim_time("step"), what, *values])

    async def on(name, triggers, action):
        for number, trigger in enumerate(itertools.cycle(triggers)):
            await trigger()
            note(f"{name} {number}")
            if action and rng.random() < 0.5:
                dut.a_i.value = action(int(rng.integers(256)))
                note(f"{name} {number} has put")

    plain = lambda value: value
    tasks = [
        on("rising", [lambda: RisingEdge(dut.clk_i)], plain),
        on("falling", [lambda: FallingEdge(dut.clk_i)], plain),
        on("change", [lambda: ValueChange(dut.q_o)], plain),
        on("at edges", [lambda: Timer(5, "ns")], plain),
        on("between", [lambda: Timer(3, "ns")], Immediate),
        on("both", [lambda: Timer(15, "ns")], Immediate),
        on("synchronous", [lambda: RisingEdge(dut.clk_i), ReadWrite], plain),
        on("settled", [lambda: RisingEdge(dut.clk_i), ReadOnly, NextTimeStep], None),
        on("half", [lambda: ValueChange(dut.clk_i), ReadWrite, ReadOnly], None),
    ]
    dut.a_i.value = 1
    start(dut)
    for task in tasks:
        cocotb.start_soon(task)
    await Timer(5 * half_cycles - 1, "ns")
    with open("trace.json", "w") as file:
        json.dump(TRACE, file)
'''


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    """A function that runs the tests above on a simulator, with a clock, and gives the trace."""
    folder = tmp_path_factory.mktemp("edges")
    (folder / "edges.sv").write_text(RTL)
    (folder / "cocotb_edges.py").write_text(TESTS)

    def run(sim, clock):
        if reason := runner.missing(sim):
            pytest.skip(reason)
        result = runner.simulate(
            runner.build("edges", [folder / "edges.sv"], sim=sim),
            "cocotb_edges",
            seed=1,
            env={"PYTHONPATH": str(folder), "CLOCK": clock},
            run_dir=folder / "run",
            timeout=60.0,
        )
        assert result.passed, result.error
        return json.loads((folder / "run" / "trace.json").read_text())

    return run


@pytest.fixture
def main_of_cocotb(monkeypatch):
    """Models get cocotb's main program, as its own runner builds them."""
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    for module in (runner, simulators):
        monkeypatch.setattr(module, "VERILATOR_MAIN", Path(main))


def test_a_monitor_samples_before_the_edge_in_icarus(edges):
    assert len(edges("icarus", "own")) > 500


def test_main_programs_call_the_same(edges, request):
    own, with_their_clock = edges("verilator", "own"), edges("verilator", "cocotb")
    request.getfixturevalue("main_of_cocotb")
    theirs = edges("verilator", "cocotb")
    assert len(own) > 500
    assert own == with_their_clock == theirs
