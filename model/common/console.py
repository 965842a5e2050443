"""The console on which commands print tables."""

from rich.console import Console

WIDTH = 160  # columns outside a terminal


def wide_console() -> Console:
    """A console that in files and pipes is wider than rich's 80 columns."""
    width = None if Console().is_terminal else WIDTH
    return Console(width=width, emoji=False)
