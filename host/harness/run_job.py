"""cocotb module that runs one compiled network on images: the simulator's side of
`host.rtl_backend`.

The job (a pickle of host.rtl_backend.Job, written by the same user a moment before) is named by
CLIPQ_JOB, the results go to CLIPQ_OUT.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import cocotb
import numpy as np

from host.driver import Host


@cocotb.test()
async def run(dut: Any) -> None:
    job = pickle.loads(Path(os.environ["CLIPQ_JOB"]).read_bytes())
    host = Host(dut)
    await host.start()
    host.set_traffic(job.prog_traffic, job.image_traffic, job.result_stall)
    await host.load_network(job.compiled, job.images)
    await host.start_run()
    beats, totals, counters, seconds = [], [], [], []
    for number in range(len(job.images)):
        start = time.perf_counter()
        result, total = await host.run_image(number, job.limit_cycles)
        counters.append(await host.layer_counters(len(job.compiled.net.layers)))
        seconds.append(time.perf_counter() - start)
        beats.append(result)
        totals.append(total)
        print(f"@image {number + 1} {total}", file=sys.stderr, flush=True)
    await host.stop_run()
    np.savez(
        os.environ["CLIPQ_OUT"],
        beats=np.array(beats),
        totals=np.array(totals, np.int64),
        counters=np.array(counters),
        seconds=np.array(seconds),
    )
