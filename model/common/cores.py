"""How much may run at a time."""

import os


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0))
