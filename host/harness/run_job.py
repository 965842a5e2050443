"""cocotb module that runs one compiled network on images: the simulator's side of
`host.rtl_backend`.

The job (a pickle of host.rtl_backend.Job, written by the same user a moment before) is named by
CLIPQ_JOB, the results (of host.driver.Results) go to CLIPQ_OUT.
"""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume

from host.harness.engines import Host


@cocotb.test()
async def run(dut: Any) -> None:
    job = pickle.loads(Path(os.environ["CLIPQ_JOB"]).read_bytes())
    host = Host(dut)
    await host.start()
    totals = []  # counted by the harness, not by the accelerator

    async def note(number: int) -> None:
        totals.append(await host.measure())
        print(f"@image {number} {totals[-1]}", file=sys.stderr, flush=True)

    @bridge
    def drive() -> Any:
        accelerator = host.accelerator()
        accelerator.load(job.compiled)
        return accelerator.run(job.images, timeout=job.timeout, done=resume(note))

    results = replace(await drive(), total_cycles=np.array(totals, np.int64))
    Path(os.environ["CLIPQ_OUT"]).write_bytes(pickle.dumps(results))
