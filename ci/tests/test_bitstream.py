"""The flow to a board's bitstream, on the board's design without the accelerator."""

import re

import pytest
from click.testing import CliRunner

from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.errors import UserError
from syn import bitstream, measure

BAUD = 2_000_000  # of syn/boards/README.md
IDCODE = bytes.fromhex("41113043")  # of the LFE5U-85F


@pytest.fixture
def small(monkeypatch):
    """The index of the board's design with some registers in the accelerator's place."""
    monkeypatch.setattr(measure, "FOLDER", measure.FOLDER / "test")
    folder = measure.FOLDER / "small"
    folder.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "rtl" / "clipq_accel.sv").read_text()
    header = text[: text.index(");", text.index("m_axis_result_tlast")) + 2]
    inputs, outputs = (
        ", ".join(re.findall(rf"{way} +wire logic +(?:\[.*\] +)?(\w+)", header))
        for way in ("input", "output")
    )
    body = f"  logic [199:0] q;\n  always_ff @(posedge clk_i) q <= {{q, ^{{{inputs}}}}};\n"
    source = f"{header}\n{body}  assign {{{outputs}}} = $bits({{{outputs}}})'(q);\nendmodule\n"
    (folder / "clipq_accel.sv").write_text(source)
    return RtlIndex(folder, ROOT / "syn", ROOT / "rtl" / "common", ROOT / "rtl" / "generated")


def test_a_bitstream_is_built_for_the_part_and_the_clock_of_the_board(small):
    built = bitstream.build(small, "ulx3s", {"NUM_MODULES": 4}, 1)
    assert IDCODE in built.path.read_bytes()
    top = (ROOT / "syn" / "boards" / "ulx3s" / "ulx3s.sv").read_text()
    divisor = int(re.search(r"CLOCKS_PER_BIT = (\d+)", top)[1])
    asked = {round(asked, 2) for _, asked in built.mhz.values()}
    assert asked == {BAUD * divisor / 1e6}
    assert built.used["EHXPLLL"][0] == 1 and built.used["TRELLIS_IO"][0] == 9


def test_a_pin_that_is_not_placed_stops_the_flow(small, tmp_path, monkeypatch):
    lines = (bitstream.BOARDS / "ulx3s" / "ulx3s.lpf").read_text().splitlines()
    boards = measure.FOLDER / "boards"
    (boards / "ulx3s").mkdir(parents=True, exist_ok=True)
    (boards / "boards.yaml").write_text((bitstream.BOARDS / "boards.yaml").read_text())
    kept = [line for line in lines if "ftdi_txd" not in line]
    (boards / "ulx3s" / "ulx3s.lpf").write_text("\n".join(kept))
    monkeypatch.setattr(bitstream, "BOARDS", boards)
    with pytest.raises(UserError, match="ftdi_txd"):
        bitstream.build(small, "ulx3s", {"NUM_MODULES": 4}, 1)


@pytest.mark.parametrize("setting", ["BANK_WORDS", "BANK_WORDS=x", "=4"])
def test_a_setting_that_is_none_is_named(setting):
    result = CliRunner().invoke(bitstream.main, ["--set", setting])
    assert result.exit_code != 0 and f"--set {setting}: must be NAME=NUMBER" in result.output


def test_a_build_that_there_is_not_is_refused():
    result = CliRunner().invoke(bitstream.main, ["--set", "NUM_MODULES=5"])
    assert result.exit_code != 0 and "MODULES must be one of (4, 8, 16), got 5" in result.output


def test_a_parameter_that_the_top_level_has_not_is_named(small):
    with pytest.raises(UserError, match="FOO"):
        bitstream.build(small, "ulx3s", {"FOO": 1}, 1)


@pytest.mark.parametrize(
    "setting",
    ["WEIGHT_WORDS=100", "WEIGHT_WORDS=8", "BANK_WORDS=1", "BANK_WORDS=16385"]
    + ["CLOCKS_PER_BIT=3", "GAP_CYCLES=1"],
)
def test_a_setting_that_the_rtl_refuses_is_named(setting, monkeypatch):
    monkeypatch.delattr(bitstream, "build")
    result = CliRunner().invoke(bitstream.main, ["--set", setting])
    assert result.exit_code == 1 and setting.split("=")[0] in result.output
