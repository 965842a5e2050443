"""Why a network cannot become a program."""

from model.common.errors import UserError


class CompileError(UserError, ValueError):
    """A network that is legal but that the accelerator cannot run.

    The message names the layer, the field and why.
    """
