"""`python -m model import|check`: networks in other formats."""

import importlib

import click

from model.common.command import Group

MODULES = {"import": "importing", "check": "checking"}


class Formats(Group):
    """Loads only the command that is called."""

    def list_commands(self, ctx):
        return list(MODULES)

    def get_command(self, ctx, name):
        if name not in MODULES:
            return None
        return importlib.import_module(f"model.interchange.{MODULES[name]}").main


@click.command(cls=Formats)
def main():
    """Networks from other formats and to them, and whether they run on the accelerator."""


if __name__ == "__main__":
    main(prog_name="python -m model")
