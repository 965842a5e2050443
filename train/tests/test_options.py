"""All options of all commands of train/: numbers have ranges, and outside they are refused at once.

The commands and their options are found by looking, so that a new one without a range fails here.
"""

import importlib
import math
import pkgutil

import click
import pytest
import torch
from click.testing import CliRunner

import train as package
from model.common.command import Command
from train import ablate, paper_mode, plots, tables, tail, teacher_training, train


def commands():
    """{module: its command}."""
    names = [found.name for found in pkgutil.iter_modules(package.__path__) if not found.ispkg]
    modules = {name: importlib.import_module(f"train.{name}") for name in names}
    return {
        name: value
        for name, module in modules.items()
        for value in vars(module).values()
        if isinstance(value, click.Command) and value.callback.__module__ == module.__name__
    }


COMMANDS = commands()


def leaves(kind):
    return kind.types if isinstance(kind, click.Tuple) else [kind]


def is_number(kind):
    return isinstance(kind, type(click.INT) | type(click.FLOAT))


NUMBERS = {
    f"{name} {param.opts[-1]} {place}": (command, param, place)
    for name, command in COMMANDS.items()
    for param in command.params
    for place, kind in enumerate(leaves(param.type))
    if is_number(kind)
}


def test_the_commands_are_found():
    assert set(COMMANDS) == {
        "ablate",
        "evaluate",
        "export",
        "memory",
        "paper_mode",
        "plots",
        "reconstruct",
        "tables",
        "tail",
        "teacher_training",
        "train",
    }
    assert len(NUMBERS) > 40
    for name, command in COMMANDS.items():
        assert type(command) is Command, name


def values_of(param, place, value):
    """Option and arguments, with `value` in its place and allowed ones in the others."""

    def allowed(kind):
        return kind.choices[0] if isinstance(kind, click.Choice) else kind.min

    values = [value if i == place else allowed(kind) for i, kind in enumerate(leaves(param.type))]
    return [param.opts[-1], *map(str, values)]


def run(command, *arguments):
    """Result of a command that does nothing, and what it would have been given."""
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "callback", lambda **values: given.append(values))
        for param in command.params:
            patch.setattr(param, "required", False)
        done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    return done, given


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_a_range(name):
    command, param, place = NUMBERS[name]
    kind = leaves(param.type)[place]
    assert isinstance(kind, click.IntRange | click.FloatRange), f"{name} takes any number"
    assert kind.min is not None and kind.max is not None, f"{name} has no limit"
    outside = [kind.min - 1, kind.max + 1, -(10**400), 10**400, "nan", "-nan", "inf", "-inf"]
    outside += ["1e999", "x", "", "0x10"] + [kind.min] * kind.min_open + [kind.max] * kind.max_open
    for value in outside:
        done, given = run(command, *values_of(param, place, value))
        assert isinstance(done.exception, SystemExit), value
        assert done.exit_code == 2, done.output
        assert param.opts[-1] in done.output and not given, value
    inside = [(kind.min + kind.max) / 2] * isinstance(kind, click.FloatRange)
    inside += [kind.min] * (not kind.min_open) + [kind.max] * (not kind.max_open)
    for value in inside:
        done, given = run(command, *values_of(param, place, value))
        assert done.exit_code == 0 and given, done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_allowed(name):
    done, given = run(COMMANDS[name])
    assert done.exit_code == 0 and given, done.output
    for value in given[0].values():
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(
    "command, option, value",
    [
        (train.main, "--end", "-1"),
        (train.main, "--end", "0"),
        (train.main, "--end", "nan"),
        (train.main, "--minutes", "0"),
        (train.main, "--minutes", "-1"),
        (train.main, "--seed", "-1"),
        (train.main, "--threads", "0"),
        (train.main, "--threads", "1000000"),
        (train.main, "--lr", "nan"),
        (train.main, "--bn-lr", "inf"),
        (train.main, "--seed", str(2**64)),
        (tail.main, "--minutes", "nan"),
        (tail.main, "--seed", "-1"),
        (tail.main, "--threads", "-2"),
        (tail.main, "--pull", "nan"),
        (tail.main, "--labels", "nan"),
        (tail.main, "--epochs", str(10**15)),
        (tail.main, "--zeros", "conv5 nan"),
        (tail.main, "--further", "cifar100 0"),
        (teacher_training.main, "--stage", "8 0"),
        (teacher_training.main, "--stage", "20 1"),
        (teacher_training.main, "--seed", "-1"),
        (tables.main, "--seed", "-1"),
        (ablate.main, "--size", "9"),
        (ablate.main, "--size", "4000"),
        (ablate.main, "--pictures", "0"),
        (paper_mode.main, "--clip", "nan"),
        (plots.main, "--limit", str(10**30)),
    ],
)
def test_what_was_let_through_once(command, option, value):
    done, given = run(command, option, *value.split())
    assert done.exit_code == 2 and option in done.output and not given


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, command in COMMANDS.items()
        if any(param.name == "device" for param in command.params)
    ],
)
def test_a_gpu_that_is_not_there_is_named(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("train.data.load", lambda dataset: pytest.fail("the data set is read"))
    table = ["bits"] if name == "tables" else []
    done = CliRunner().invoke(COMMANDS[name], [*table, "--device", "cuda"])
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    assert "--device cuda: " in done.output
