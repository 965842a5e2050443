"""Files of a run: states in PyTorch's format (*.pt) and results in JSON.

Written whole or not at all, and only with finite numbers. Read without trust: nothing in them is
executed, every field is checked, and a StateError names the file and the field.
"""

import json
import math
import os
import reprlib
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from model.common.errors import UserError, printable
from model.common.files import open_input, output, write_text

VERSION = 1
MAX_JSON = 1 << 26  # bytes
LARGEST = 2**63 - 1  # whole number
HUGE = 1e30  # no loss, time or rate comes near
TINY = torch.finfo(torch.float32).tiny
LOWEST = {"running_var": 0, "steps": TINY, "ratio": TINY}  # of a network's tensors
REMEDY = "put a whole copy in its place, or delete it to begin again"


class StateError(UserError, ValueError):
    """A file that is damaged, of another kind, or cannot be written; the message names it."""


def read(path: Path):
    """What `write` wrote, on the CPU. Raises StateError for anything else, or OSError."""
    with open_input(path) as handle:
        try:
            _check_archive(handle)
            return torch.load(handle, weights_only=True, map_location="cpu")
        except UnpicklingError as error:
            reason = "it holds Python objects, which are never read"
            raise _bad(path, f"{reason}; {REMEDY}") from error
        except Exception as error:  # an arbitrary file makes zipfile and torch raise many kinds
            reason = f"damaged, or not a file of a training ({str(error)[:200]})"
            raise _bad(path, f"{reason}; {REMEDY}") from error


def write(path: Path, state) -> None:
    """Write tensors and plain values. Raises StateError that names one that is not finite."""
    for field, numbers in _numbers(state):
        if not torch.isfinite(numbers).all():
            raise _bad(path, f"not written, since {field or 'its content'} is not finite")
    with output(path) as handle:
        torch.save(state, handle)


def _check_archive(handle):
    """PyTorch does not compare checksums, and believes the sizes that an archive states."""
    with zipfile.ZipFile(handle) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("its members are compressed")
        if sum(member.file_size for member in members) > os.fstat(handle.fileno()).st_size:
            raise ValueError("it states more bytes than it has")
        if damaged := archive.testzip():
            raise ValueError(f"wrong checksum of {damaged}")
    handle.seek(0)


def _numbers(state, field=""):
    if isinstance(state, torch.Tensor | float):
        yield field, torch.as_tensor(state)
    elif isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _numbers(value, f"{field}.{key}" if field else str(key))


# ------------------------------------------------------------------------------- parts of a state


class Fields:
    """The entries of a table that was read from a file. What is asked for is there, or
    StateError."""

    def __init__(self, path: Path, table, where: str = ""):
        self.path, self.where, self.table = path, where, table
        if not isinstance(table, dict):
            where = where.rstrip(".") or "its content"
            raise _bad(path, f"{where} must be a table, not {_show(table)}; {REMEDY}")

    def _refuse(self, key, what):
        value = _show(self.table[key]) if key in self.table else "missing"
        field = f"{self.where}{_short(key)}"
        raise _bad(self.path, f"{field} must be {what}, not {value}; {REMEDY}")

    def version(self) -> None:
        """Files without one are of the first."""
        if self.table.get("version", VERSION) != VERSION:
            self._refuse("version", f"{VERSION}, as this program reads it")

    def count(self, key: str) -> int:
        """A whole number, 0 or more."""
        value = self.table.get(key)
        if type(value) is not int or not 0 <= value <= LARGEST:
            self._refuse(key, "a whole number from 0 on")
        return value

    def number(self, key: str, low: float = -HUGE, high: float = HUGE) -> float:
        """A finite number in low..high."""
        value = self.table.get(key)
        if type(value) not in (int, float) or not low <= value <= high:
            self._refuse(key, f"a number in {low:g}..{high:g}")
        return value

    def numbers(self, key: str, count: int) -> list:
        """A list of so many finite numbers."""
        values = self.table.get(key)
        if not isinstance(values, list) or len(values) != count:
            self._refuse(key, f"a list of {count} numbers")
        fields = Fields(self.path, dict(enumerate(values)), f"{self.where}{_short(key)}.")
        return [fields.number(place) for place in range(count)]

    def text(self, key: str, choices) -> str:
        """One of `choices`."""
        value = self.table.get(key)
        if not isinstance(value, str) or value not in choices:
            self._refuse(key, f"one of {', '.join(choices)}")
        return value

    def inner(self, key: str) -> "Fields":
        """A table in the table."""
        if not isinstance(self.table.get(key), dict):
            self._refuse(key, "a table")
        return Fields(self.path, self.table[key], f"{self.where}{_short(key)}.")

    def history(self, wanted=("loss", "val"), epochs=None, key="history") -> list[dict]:
        """A row per epoch, of finite numbers with `wanted` among them."""
        rows = self.table.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self._refuse(key, "a list of tables")
        if epochs not in (None, len(rows)):
            self._refuse(key, f"of {epochs} epochs")
        for number, row in enumerate(rows):
            fields = Fields(self.path, row, f"{self.where}{_short(key)}.{number}.")
            for name in (*wanted, *row):
                fields.number(name)
        return rows

    def tensor(self, key, shape, dtype) -> torch.Tensor:
        """A dense tensor of this shape and type, finite."""
        value = self.table.get(key)
        if (
            not isinstance(value, torch.Tensor)
            or value.layout != torch.strided
            or value.device.type != "cpu"
            or value.dtype != dtype
            or value.shape != shape
        ):
            self._refuse(key, f"{dtype} {list(shape)}")
        if not torch.isfinite(value).all():
            self._refuse(key, "finite everywhere")
        return value

    def into_network(self, net: nn.Module) -> None:
        """Load the table, which is that of all parameters and buffers of `net`."""
        own = net.state_dict()
        if other := [key for key in self.table if key not in own]:
            self._refuse(other[0], "absent from this kind of network")
        for key, tensor in own.items():
            value = self.tensor(key, tensor.shape, tensor.dtype)
            lowest = LOWEST.get(key.rpartition(".")[2], -math.inf)
            if value.min() < lowest:
                self._refuse(key, f"at least {lowest:g}")
        net.load_state_dict(self.table)

    def into_optimizer(self, optimizer) -> None:
        """Load the momenta; the other numbers are those of the settings."""
        own = optimizer.state_dict()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        momenta = self.inner("state")
        for key in momenta.table:
            if type(key) is not int or not 0 <= key < len(parameters):
                momenta._refuse(key, f"absent: there are {len(parameters)} parameters")
            one = momenta.inner(key)
            one.tensor("momentum_buffer", parameters[key].shape, parameters[key].dtype)
        optimizer.load_state_dict({**own, "state": momenta.table})


def read_fields(path: Path) -> Fields:
    """The table in a *.pt file."""
    fields = Fields(path, read(path))
    fields.version()
    return fields


# ------------------------------------------------------------------------------------------- JSON


def parse_json(text: str):
    """The value of a JSON text. Raises ValueError for whatever is wrong, nan among it."""

    def refuse(word):
        raise ValueError(f"{word} is not a finite number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_json(path: Path, value) -> None:
    """Write a JSON file. Raises StateError if a number in it is not finite."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False)
    except ValueError as error:
        raise _bad(path, f"not written ({error})") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> Fields:
    """The table in a JSON file. Raises StateError, or OSError."""
    try:
        return Fields(path, parse_json(read_bytes(path, MAX_JSON).decode()))
    except StateError:
        raise
    except ValueError as error:
        raise _bad(path, f"damaged ({error}); {REMEDY}") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """What a file holds. Raises StateError for more than `limit` bytes, or OSError."""
    with open_input(path) as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise _bad(path, f"more than {limit:,} bytes")
    return data


def _short(key):
    return str(key)[:80]


def _show(value):
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}"
    return reprlib.repr(value)


def _bad(path, message):
    return StateError(f"{printable(path)}: {printable(message)}")
