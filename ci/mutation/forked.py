"""Loaded by cocotb behind a test module: runs its tests once for each number, each in a forked
process.

Python, cocotb and the test bench are loaded once (seconds) instead of once a mutant. A child begins
in a folder of its own with the number of its mutant in `mutant.txt`, which the model reads at time
0 (plant.py), and goes on as if it were alone. The parent watches the child's log, ends it at the
first failed test or past the limit, and appends a line to `verdicts.jsonl`.

The environment variable CLIPQ_MUTANTS holds {"folder": ..., "numbers": [...], "mutants": [...],
"limit": seconds}. `numbers` run in any case. Of `mutants` those run that number 0, the unmutated
design, reaches, if it passes; its time sets their limit.
"""

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

FAILED = re.compile(
    r"cocotb\.regression\s+(\S+) (?:failed|errored)\b|^(?:ERROR|FATAL|Assertion "
    r"failed)\b.*|^.*%(?:Error|Fatal)\b.*",
    re.M,
)
REACHED = re.compile(r"^mutant (\d+) reached$", re.M)
SUMMARY = re.compile(r"TESTS=(\d+) PASS=(\d+) FAIL=(\d+)")
POLL = 0.1  # seconds
LOST = "the system ended the simulator"  # for want of memory
GRACE = 5.0  # seconds from the summary to the end of the process


def limit_of(usual: float) -> float:
    """Time limit of a mutant in seconds: far above what the unmutated run took, `usual`."""
    return 15 + 4 * usual


def late(limit: float) -> str:
    """Why a run past the limit failed."""
    return f"no end after {limit:g} s"


def verdict(log: str, status: int | None, limit: float) -> str:
    """Why a run failed, empty if it passed: `status` is the exit status of its process, None past
    the limit.

    Behind a summary the status tells nothing: a forked model joins threads at its exit that only
    its parent has, and may wait for them or be aborted.
    """
    if match := FAILED.search(log):
        return f"{match[1]} failed" if match[1] else match[0].strip()
    if status is None:
        return late(limit)
    summary = SUMMARY.search(log)
    if not summary and status == -signal.SIGKILL:
        return LOST
    if not summary:
        return f"the simulator ended with status {status} before the tests did"
    if int(summary[3]) or not int(summary[2]):
        return summary[0]
    return ""


def _watch(child: int, log: Path, limit: float) -> str:
    start, summed_up = time.monotonic(), None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        text = log.read_text(errors="replace") if log.exists() else ""
        if ended:
            return verdict(text, os.waitstatus_to_exitcode(status), limit)
        now = time.monotonic()
        if summed_up is None and SUMMARY.search(text):
            summed_up = now
        # See `verdict`: the tests have been judged by then.
        over = summed_up is not None and now - summed_up > GRACE
        if over or now - start > limit or FAILED.search(text):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return verdict(text, 0 if over else None, limit)
        time.sleep(POLL)


def _begin(folder: Path, number: int) -> None:
    """In the child: its own folder and log."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    Path("mutant.txt").write_text(str(number))
    log = os.open("sim.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)


def run_all() -> None:
    """Fork for one number after the other; returns only in the children. What is late once, maybe
    for the load of the machine, is run again behind all others, and only then counts."""
    job = json.loads(os.environ["CLIPQ_MUTANTS"])
    folder, todo, limit = Path(job["folder"]), [*job["numbers"]], job["limit"]
    repeated: set[int] = set()
    for number in todo:
        sys.stdout.flush()
        start, log = time.monotonic(), folder / str(number) / "sim.log"
        child = os.fork()
        if not child:
            return _begin(folder / str(number), number)
        error = _watch(child, log, limit)
        seconds = time.monotonic() - start
        if error == late(limit) and number:
            if number not in repeated:
                repeated.add(number)
                todo.append(number)
                shutil.rmtree(folder / str(number))
                continue
            error = f"time-out, twice: {error}"
        found: set[int] = set()
        if number == 0 and not error:
            found = {int(n) for n in REACHED.findall(log.read_text(errors="replace"))}
            todo += [n for n in job["mutants"] if n in found]
            limit = min(limit, limit_of(seconds))
        line = {"number": number, "error": error, "seconds": seconds, "reached": sorted(found)}
        with open(folder / "verdicts.jsonl", "a") as verdicts:
            verdicts.write(json.dumps(line) + "\n")
    os._exit(0)


if "CLIPQ_MUTANTS" in os.environ:
    run_all()
