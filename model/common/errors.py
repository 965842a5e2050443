"""Errors that the user can correct, and foreign text in a form that is safe to print."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a command, a file or the set-up of the machine.

    The message is complete: it names what is wrong, where, and where possible the remedy.
    """


def printable(text: object) -> str:
    """`text` on one line: characters that are not printable are written as Python escapes.

    Names and paths come from outside. A line break in one could fake a line of a report, an escape
    sequence could move the cursor, and a lone surrogate cannot be encoded.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
