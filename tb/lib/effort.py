"""How much a test does on each simulator: Icarus, the slower one, gets fewer and smaller cases."""

import cocotb


def scaled(icarus, verilator):
    """The argument for the simulator that runs: a number of cases, a size, a list of them."""
    return icarus if cocotb.SIM_NAME.startswith("Icarus") else verilator
