"""The amount of work of a test on each simulator: Icarus is slower and gets fewer and smaller
cases."""

import cocotb


def scaled(icarus, verilator):
    """The argument for the simulator that runs: a number of cases, a size, a list of them."""
    return icarus if cocotb.SIM_NAME.startswith("Icarus") else verilator
