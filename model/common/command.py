"""What every command of the project shares: errors in one line, signals that clean up, safe output,
progress on standard error."""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from model.common.errors import UserError, printable
from model.common.files import check_output

LOGGING_FOLDERS = ("ci", "host", "model")  # whose progress and diagnostics are shown
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Command(click.Command):
    """A click command: `@click.command(cls=Command)`.

    UserError and OSError become one line on standard error and exit status 1. SIGTERM and SIGHUP
    end the command as Ctrl-C does, through every `finally`; the status is 128 + the signal's
    number. Text that the terminal cannot show is escaped.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        spec = getattr(sys.modules["__main__"], "__spec__", None)  # None for a script
        name = spec.name if spec and self.callback.__module__ == "__main__" else ""
        if name and not name.endswith(".__main__"):  # `python -m ci.sim` would do nothing
            folder = name.partition(".")[0]
            sys.exit(f"error: {name} is no program; python -m {folder} --help lists the commands")

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _set_up_output()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        previous = {
            number: signal.signal(number, _end)
            for number in ENDING_SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN
        }  # nohup
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            _abandon_output()
            sys.exit(128 + signal.SIGPIPE)
        except UserError as error:
            sys.exit(f"error: {_lines(error)}")
        except OSError as error:
            sys.exit(f"error: {_describe(error)}")
        except MemoryError as error:
            sys.exit(f"error: not enough memory ({str(error) or 'allocation failed'})")
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class CommandGroup(click.Group):
    """The commands of a folder: `python -m FOLDER COMMAND`.

    modules: {command: module whose `main` it is}. A module is imported when its command is called.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = modules

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _set_up_output()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        return importlib.import_module(self._modules[cmd_name]).main


class OutputFile(click.ParamType):
    """Path of a file that the command will write; checked before the command runs."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            check_output(value)
        except OSError as error:
            self.fail(_describe(error), param, ctx)
        return value


def _end(number: int, _frame: object) -> NoReturn:
    for other in ENDING_SIGNALS:  # one is enough: the next would interrupt the clean-up
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _set_up_output() -> None:
    """Escape text that the terminal cannot show; log what the project says to standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may put another kind there
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s")
    for folder in LOGGING_FOLDERS:
        logging.getLogger(folder).setLevel(logging.INFO)


def _abandon_output() -> None:
    """The reader of standard output is gone: nothing may be flushed into it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _describe(error: OSError) -> str:
    where = f"{printable(error.filename)}: " if error.filename is not None else ""
    return where + printable(error.strerror or error)


def _lines(error: UserError) -> str:
    """The message's own line breaks stay; foreign text in it has been escaped where it was read."""
    return "\n".join(printable(line) for line in str(error).split("\n"))
