"""A browser, and a module of a few lines with cocotb tests for it, made in a temporary folder, to
try the runner on."""

import os
import shutil
import textwrap

import pytest

from host.simulation import runner

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
RTL = """
`timescale 1ns/1ps
module toy #(parameter int WIDTH = 8, parameter int COMPLAIN = 0) (
    input  wire logic             clk_i,
    input  wire logic [WIDTH-1:0] a_i,
    output      logic [WIDTH-1:0] y_o
);
  always_ff @(posedge clk_i) y_o <= a_i + 1'b1;
  initial begin
    if (COMPLAIN == 1) $error("planted error");
    if (COMPLAIN == 2) assert (COMPLAIN == 0);
  end
endmodule
"""
TESTS = """
import os, time
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

@cocotb.test()
async def test_adds_one(dut):
    Clock(dut.clk_i, 10, unit="ns").start()
    for a in range(5):
        dut.a_i.value = a
        await FallingEdge(dut.clk_i)
        await FallingEdge(dut.clk_i)
        assert dut.y_o.value.to_unsigned() == a + 1
    print("COLOUR", os.environ.get("COLOUR"))

@cocotb.test()
async def test_fails(dut):
    assert False, "planted failure"

@cocotb.test()
async def test_hangs(dut):
    time.sleep(1000)

@cocotb.test()
async def test_dies(dut):
    os._exit(3)
"""


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium: sudo apt-get install chromium")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=BROWSER, args=options) as chromium,
    ):
        yield chromium


@pytest.fixture
def own_build_folder(tmp_path_factory, monkeypatch):
    """Keep the models of a test, but not the compiled Verilator runtime, out of build/."""
    folder = tmp_path_factory.getbasetemp() / "build"
    (folder / "sim").mkdir(parents=True, exist_ok=True)
    runtime = folder / "sim" / "verilator-runtime"
    shared = runner.BUILD / "sim" / "verilator-runtime"
    if not runtime.is_symlink():
        shared.mkdir(parents=True, exist_ok=True)
        runtime.symlink_to(shared)
    monkeypatch.setattr(runner, "BUILD", folder)


@pytest.fixture(scope="module", params=["verilator", "icarus"])
def toy(request, tmp_path_factory):
    """Folder with toy.sv and a cocotb module, and a function that builds and runs it on one
    simulator."""
    sim = request.param
    if reason := runner.missing(sim):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.sv").write_text(RTL)
    name = f"cocotb_toy_{sim}"
    (folder / f"{name}.py").write_text(textwrap.dedent(TESTS))
    return Toy(folder, name, sim)


class Toy:
    """The toy module on one simulator; models and runs stay in its own folder."""

    def __init__(self, folder, module, sim):
        self.folder, self.module, self.sim = folder, module, sim
        self.source = folder / "toy.sv"

    def build(self, **parameters):
        """Model of toy.sv as it is now."""
        return runner.build("toy", [self.source], parameters, self.sim)

    def run(self, which, seed=1, timeout=60.0, module=None, env=None, **parameters):
        """Result of the test functions that match `which`."""
        env = {"PYTHONPATH": str(self.folder), **(env or {})}
        return runner.simulate(
            self.build(**parameters),
            module or self.module,
            seed=seed,
            env=env,
            filter=which,
            run_dir=self.folder / "run",
            timeout=timeout,
        )
