"""Types of the commands' options: each number has a range and is refused outside it at once."""

from pathlib import Path

import click

SEED = click.IntRange(0, 2**63 - 1)
THREADS = click.IntRange(1, 1024)
EPOCHS = click.IntRange(1, 100_000)
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
