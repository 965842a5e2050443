"""Values of a simulator's signals, read so that an X is an error."""


def is_high(handle) -> bool:
    """Whether a single bit is 1; raises ValueError for X or Z, which `handle.value == 1` would take
    for 0."""
    return int(handle.value) == 1
