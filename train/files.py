"""States of runs in PyTorch's format (*.pt): written whole or not at all, read without trust."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from model.common.errors import UserError, printable
from model.common.files import open_input, output
from train.quantize import KINDS


class StateError(UserError, ValueError):
    """A file that is damaged or of another kind; the message names it."""


def write(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, plain values and quantizers."""
    with output(path) as handle:
        torch.save(state, handle)


@contextmanager
def reading(path: Path) -> Iterator[dict[str, Any]]:
    """What `write` wrote, on the CPU; no code in it is run. Raises OSError, or StateError for
    whatever is wrong with it, there or in the block that takes it up."""
    with open_input(path) as handle:
        try:
            with zipfile.ZipFile(handle) as archive:  # PyTorch does not compare checksums
                if damaged := archive.testzip():
                    raise ValueError(f"wrong checksum of {damaged}")
            handle.seek(0)
            with torch.serialization.safe_globals(list(KINDS)):
                state = torch.load(handle, weights_only=True, map_location="cpu")
            yield state
        except Exception as error:  # arbitrary content makes zipfile and PyTorch raise many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise StateError(
                f"{printable(path)}: damaged, or not of this recipe ({printable(reason)}); "
                "delete it to begin again"
            ) from error
