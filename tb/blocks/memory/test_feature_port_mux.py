"""Tests of rtl/memory/feature_port_mux.sv: the active reader and writer, the number of quads, the
region."""

import cocotb
import numpy as np
from cocotb.triggers import Timer

from model.compiler.program_format import (
    DESCRIPTOR,
    OP_ADD,
    OP_AVGPOOL,
    OP_CONV,
    OP_MAXPOOL,
    QUAD_ADDR_W,
)
from tb.lib.descriptors import random_port
from tb.lib.effort import scaled

READERS, WRITERS = ("conv", "pool", "emit"), ("image", "pool", "stage")
OTHER = "other"  # reads through the write port
FIELDS = ("read_quads", "vstep", "pair", "out_base", "out_end")
WR_BITS = {"addr": QUAD_ADDR_W, "mask": 8, "data": 256}


def bits(rng, width):
    """A random number of `width` bits."""
    return int.from_bytes(rng.bytes(-(-width // 8)), "little") & (1 << width) - 1


class Bench:
    """Random values on all inputs; at most one unit reads and one writes, "" is nobody."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.op = int(rng.choice([OP_CONV, OP_MAXPOOL, OP_AVGPOOL, OP_ADD]))
        self.reader = str(rng.choice([*READERS, ""]))
        self.writer = str(rng.choice([*WRITERS, OTHER, ""]))
        self.fields = {name: bits(rng, DESCRIPTOR.fields[name].width) for name in FIELDS}
        self.fields["op"] = self.op
        self.inputs = {f"{u}_rd_addr_i": bits(rng, QUAD_ADDR_W) for u in (*READERS, OTHER)}
        self.inputs |= {
            f"{unit}_wr_{what}_i": bits(rng, width)
            for unit in WRITERS
            for what, width in WR_BITS.items()
        }
        self.inputs |= {f"{unit}_rd_valid_i": int(unit == self.reader) for unit in READERS}
        self.inputs |= {f"{unit}_wr_valid_i": int(unit == self.writer) for unit in WRITERS}
        self.inputs["other_rd_valid_i"] = int(self.writer == OTHER)
        self.inputs |= {
            "conv_busy_i": bits(rng, 1),
            "image_base_i": bits(rng, QUAD_ADDR_W),
            "image_end_addr_i": bits(rng, QUAD_ADDR_W + 1),
        }

    async def drive(self):
        for port, value in self.inputs.items():
            getattr(self.dut, port).value = value
        self.dut.desc_i.value = random_port(self.rng, self.fields)
        for level in (0, 1, 0, 1):  # the number of quads is a register before those of the outputs
            self.dut.clk_i.value = level
            await Timer(1, "ns")

    def expected(self):
        """{output: value}; addresses, data and counts of an unused port are not compared."""
        image, quads = self.writer == "image", int(self.dut.NUM_MODULES.value) // 4
        counts = {OP_AVGPOOL: quads, OP_ADD: quads, OP_MAXPOOL: 8}
        counts[OP_CONV] = self.fields["read_quads"]
        want = {
            "rd_valid_o": int(self.reader != ""),
            "wr_valid_o": int(self.writer in WRITERS),
            "wr_read_o": int(self.writer == OTHER),
            "rd_pair_o": self.fields["pair"],
            "rd_vstep_o": self.fields["vstep"] if self.inputs["conv_busy_i"] else 0,
            "wr_base_o": self.inputs["image_base_i"] if image else self.fields["out_base"],
            "wr_end_o": self.inputs["image_end_addr_i"] if image else self.fields["out_end"],
        }
        if self.reader:
            want["rd_addr_o"] = self.inputs[f"{self.reader}_rd_addr_i"]
            want["rd_count_o"] = 2 if self.reader == "emit" else counts[self.op]
        if self.writer == OTHER:
            want["wr_addr_o"] = self.inputs["other_rd_addr_i"]
        elif self.writer:
            want |= {f"wr_{what}_o": self.inputs[f"{self.writer}_wr_{what}_i"] for what in WR_BITS}
        return want


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def random_inputs(dut):
    """One reader and one writer, or none, with descriptors of all operations: every output."""
    rng = np.random.default_rng(cocotb.RANDOM_SEED)
    seen = set()
    dut.rst_ni.value = 1
    for _ in range(scaled(500, 2000)):
        bench = Bench(dut, rng)
        await bench.drive()
        for port, want in bench.expected().items():
            got = int(str(getattr(dut, port).value), 2)
            units = f"op {bench.op}, reads {bench.reader!r}, writes {bench.writer!r}"
            assert got == want, f"{port} is {got:#x}, expected {want:#x}: {units}"
        seen |= {(bench.op, "reads", bench.reader), (bench.op, "writes", bench.writer)}
    assert len(seen) == 4 * 4 + 4 * 5, f"only {len(seen)} cases"
