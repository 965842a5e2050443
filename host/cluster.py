"""What the farm's commands share: a Dask cluster, and tasks that are kept in flight on it.

Workers run in checkouts of their own; a task's result counts only if its worker has the same
sources and tools as the client.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click

from host.simulation.progress import Heartbeat
from model.common.errors import UserError, printable

AHEAD = 4  # threads at least for which tasks are sent ahead, two for each
Task = TypeVar("Task")


def check_same(found: object, own: str) -> None:
    """Raises UserError if the digest of a worker's sources and tools is not the client's."""
    if found != own:
        raise UserError("a worker has other sources or tools: give all the same checkout")


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the cluster at this address, or of one of this machine's own with so many
    workers. Raises UserError, also if both are given."""
    if scheduler and workers:
        raise UserError("JOBS (--workers) counts without SCHEDULER only: leave one of them out")
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.WARNING)
    with contextlib.ExitStack() as stack:
        cluster: Any = scheduler
        if scheduler is None:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="localhost:0",
            )
            stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(cluster, timeout="20s"))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"no scheduler at {printable(scheduler)}: {reason}") from None
        click.echo(f"scheduler {client.scheduler.address}, dashboard {client.dashboard_link}")
        yield client


def completed(
    client: Any, todo: Sequence[Task], submit: Callable[[Task], Any], *, before: int, what: str
) -> Iterator[tuple[Task, Any]]:
    """Each task with its future, as they end. `submit` sends one; `before` are done already."""
    from distributed import as_completed

    total, begin, done = before + len(todo), time.monotonic(), 0

    def progress() -> str:
        left = (time.monotonic() - begin) / max(1, done) * (len(todo) - done)
        minutes = f"about {left / 60:.1f} min left" if done else "the first ones run"
        return f"{before + done} of {total} {what}, {before} of an earlier run; {minutes}"

    waiting, running = iter(todo), as_completed([])
    tasks: dict[str, Task] = {}

    def fill() -> None:
        """Keep two tasks a thread in flight; an elastic cluster may have got more threads."""
        count = 2 * max(AHEAD, sum(client.nthreads().values())) - len(tasks)
        for task in itertools.islice(waiting, max(0, count)):
            future = submit(task)
            tasks[future.key] = task
            running.add(future)

    with Heartbeat(progress):
        fill()
        for future in running:
            yield tasks.pop(future.key), future
            done += 1
            fill()


def result(future: Any) -> Any:
    """What a task has returned. Raises UserError if it failed or its workers died."""
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:  # a worker that died too often, or lacks the checkout
        raise UserError(f"a worker failed: {printable(error)}") from None
