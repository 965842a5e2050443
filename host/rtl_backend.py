"""The RTL backend: compiles a network, simulates the accelerator and decodes the results."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from host.driver import Results
from host.simulation import environment, process, runner
from host.simulation.progress import Heartbeat
from model.common.cores import cores
from model.common.errors import UserError
from model.compiler import Compiled, compile_network
from model.compiler.hardware import Hardware
from model.network import Network
from model.performance.cycle_model import predict

with environment.applied():  # cocotb reads its variables as it is imported
    from host.harness import clocking

HARNESS = "accel_harness"
CYCLE = clocking.PERIOD_NS / 1e9  # seconds
DMA_WORDS = 1 << 20  # depth of the harness's stream memories, 64-bit words


class SimulationError(UserError):
    """The simulation failed; the message ends with the log's last lines."""


@dataclass(frozen=True)
class Job:
    """The input of host/harness/run_job.py: streams, images [N, C, H, W] and simulated seconds for
    an image."""

    compiled: Compiled
    images: np.ndarray
    timeout: float


def build_harness(
    hardware: Hardware,
    sim: str = "verilator",
    jobs: int = 2,
    stream_words: int = 0,
    result_words: int = 0,
) -> runner.Model:
    """The simulation model of an accelerator with these parameters, built if there is none
    (progress is logged every ten seconds).

    stream_words, result_words: words of the longest stream to the accelerator and of an image's
    results, in the DMA memories; more than DMA_WORDS needs a model of its own.
    """
    parameters = {"NUM_MODULES": hardware.num_modules}
    if stream_words > DMA_WORDS:
        parameters["WEIGHT_DEPTH"] = 1 << stream_words.bit_length()
    if result_words > DMA_WORDS:
        parameters["RESULT_DEPTH"] = 1 << result_words.bit_length()
    default = Hardware()
    for name, value, usual in (
        ("BANK_WORDS", hardware.bank_words, default.bank_words),
        ("WEIGHT_WORDS", hardware.weight_words, default.weight_words),
        ("PLANES", hardware.planes, default.planes),
    ):
        if value != usual:
            parameters[name] = value
    with Heartbeat(
        lambda: (
            f"building the {sim} model of the accelerator with {hardware.num_modules} modules "
            "(once)"
        )
    ):
        return runner.build(HARNESS, parameters=parameters, sim=sim, jobs=jobs)


def run_rtl(
    net: Network,
    images: np.ndarray,
    hardware: Hardware = Hardware(),
    *,
    sim: str = "verilator",
    debug: bool = False,
    seed: int = 1,
    compiled: Compiled | None = None,
    timeout: float = 3600.0,
    show: bool = False,
    simulations: int | None = None,
) -> Results:
    """Drive the simulated accelerator with integer images [N, C, H, W].

    debug        every layer's tensor is returned, not only the last one's
    timeout      seconds of wall time for each image
    show         log the number of finished images every ten seconds
    simulations  at most so many run at a time, each on a share of the images; by default one on
                 each core. The results do not depend on it.
    Raises CompileError if the network does not fit, SimulationError if a simulation fails: the
    first in the order of the images.
    """
    compiled = compiled or compile_network(net, hardware, debug)
    model = build_harness(
        hardware,
        sim,
        stream_words=max(len(compiled.program), len(compiled.weights)),
        result_words=compiled.total_result_beats,
    )
    count = max(1, min(simulations or cores(), len(images)))
    jobs = [Job(compiled, share, _limit(compiled)) for share in np.array_split(images, count)]
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(process.folder(runner.BUILD / "run")) for _ in jobs]
        pool = stack.enter_context(process.pool(count))
        if show:
            stack.enter_context(Heartbeat(lambda: _progress(folders, len(images))))
        begun = [
            pool.submit(_simulate, job, model, seed, timeout, folder)
            for job, folder in zip(jobs, folders)
        ]
        return _joined([simulation.result() for simulation in begun])


def _limit(compiled: Compiled) -> float:
    """Simulated seconds in which an image surely ends."""
    return 0.2 + 4 * predict(compiled).total_cycles * CYCLE


def _simulate(job: Job, model: runner.Model, seed: int, timeout: float, folder: Path) -> Results:
    """One simulation of host/harness/run_job.py, in a folder of its own."""
    given, out, run_dir = folder / "job.pickle", folder / "out.pickle", folder / "run"
    given.write_bytes(pickle.dumps(job))
    result = runner.simulate(
        model,
        "host.harness.run_job",
        seed=seed,
        env={"CLIPQ_JOB": str(given), "CLIPQ_OUT": str(out)},
        run_dir=run_dir,
        timeout=timeout * max(1, len(job.images)),
    )
    if not result.passed:
        log = folder.with_suffix(".log")  # it stays, tens of megabytes go
        (run_dir / "sim.log").rename(log)
        raise SimulationError(f"{result.error}\n{_reason(log)}\n(log: {log})")
    return pickle.loads(out.read_bytes())


def _joined(parts: Sequence[Results]) -> Results:
    """The results of all images, in their order."""
    tables = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("total_cycles", "counters", "seconds")
    }
    names = parts[0].tensors
    return Results(
        {name: np.concatenate([part.tensors[name] for part in parts]) for name in names}, **tables
    )


def _progress(folders: Sequence[Path], images: int) -> str:
    logs = [folder / "run" / "sim.log" for folder in folders]
    texts = [log.read_text(errors="replace") for log in logs if log.exists()]
    return f"simulating, {sum(text.count('@image ') for text in texts)} of {images} images done"


def _reason(log: Path) -> str:
    """The lines of the log that say what went wrong, without the traceback."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.strip() for line in lines if "Error" in line and "Traceback" not in line]
    return "\n".join(errors[-3:] or lines[-10:])


def first_mismatch(name: str, expected: np.ndarray, got: np.ndarray) -> str:
    """Empty if the tensors [N, C, H, W] are equal, else where they first differ: layer, image,
    channel, row, column, expected, got."""
    if expected.shape != got.shape:
        return f"layer {name!r}: shape {got.shape}, expected {expected.shape}"
    where = np.argwhere(expected != got)
    if not len(where):
        return ""
    image, channel, row, column = where[0]
    return (
        f"layer {name!r}: {len(where)} of {expected.size} values differ, first at image {image}, "
        f"channel {channel}, row {row}, "
        f"column {column}: expected {expected[tuple(where[0])]}, got {got[tuple(where[0])]}"
    )
