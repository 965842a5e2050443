"""Files that are whole or not there."""

import os
from pathlib import Path

import torch


def save_atomically(path: Path, state) -> None:
    """Write next to `path`, then rename: an interrupted run leaves the old checkpoint whole."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
