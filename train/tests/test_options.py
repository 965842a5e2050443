"""All options of all commands: numbers have ranges, and outside they are refused at once.

The commands and their options are found by looking, so that a new one without a range fails here.
"""

import click
import pytest
import torch
from click.testing import CliRunner

from model.common.command import Command
from train.__main__ import main

COMMANDS = main.commands


def is_number(kind):
    return isinstance(kind, type(click.INT) | type(click.FLOAT))


NUMBERS = {
    f"{name} {param.opts[-1]}": (command, param)
    for name, command in COMMANDS.items()
    for param in command.params
    if is_number(param.type)
}


def test_the_commands_are_found():
    assert set(COMMANDS) == {"run", "export", "evaluate", "tables"}
    assert len(NUMBERS) > 6
    for name, command in COMMANDS.items():
        assert type(command) is Command and command.help, name


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
    command, param = NUMBERS[name]
    kind = param.type
    assert isinstance(kind, click.IntRange | click.FloatRange), f"{name} takes any number"
    assert kind.min is not None and kind.max is not None, f"{name} has no limit"
    outside = [kind.min - 1, kind.max + 1, -(10**400), 10**400, "nan", "inf", "-inf", "1e999", "x"]
    for value in [*outside, "", "0x10"]:
        done, given = run(command, param.opts[-1], value)
        assert isinstance(done.exception, SystemExit), value
        assert done.exit_code == 2, done.output
        assert param.opts[-1] in done.output and not given, value
    for value in (kind.min, kind.max):
        done, given = run(command, param.opts[-1], value)
        assert done.exit_code == 0 and given, done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_allowed(name):
    done, given = run(COMMANDS[name])
    assert done.exit_code == 0 and given, done.output


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
    monkeypatch.setattr("train.sources.load", lambda *_: pytest.fail("the data set is read"))
    from train.checkpoint import ZOO

    path = [str(ZOO / "nin-cifar10.ckpt.npz")] if name == "evaluate" else []
    done = CliRunner().invoke(COMMANDS[name], [*path, "--device", "cuda"])
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    assert "--device cuda: " in done.output
