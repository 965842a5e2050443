"""Types of the commands' options: each number has a range and is refused outside it at once."""

import math
from pathlib import Path

import click


class Real(click.FloatRange):
    """A finite number in a range; click's own type takes nan anywhere."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Multiple(click.IntRange):
    """A multiple of `step` in a range."""

    def __init__(self, step: int, min: int, max: int):
        super().__init__(min, max)
        self.step = step

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if number % self.step:
            self.fail(f"{value} is not a multiple of {self.step}.", param, ctx)
        return number


SEED = click.IntRange(0, 2**63 - 1)
THREADS = click.IntRange(1, 1024)
EPOCHS = click.IntRange(1, 100_000)
MINUTES = Real(0, 1e6, min_open=True)
RATE = Real(0, 100, min_open=True)  # of learning
PICTURES = click.IntRange(1, 50_000)
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
