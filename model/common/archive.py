"""Reads .npy and .npz files of unknown origin: nothing is executed, and every size is compared with
the bytes that are there before it is used. Writes .npz files that depend on their content only."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Self

import numpy as np

from model.common.errors import UserError, printable
from model.common.files import StrPath, open_input, output

MAX_BYTES = 1 << 28  # of all arrays of an .npz file, uncompressed
MAX_MEMBERS = 1 << 16
CHUNK = (
    4096  # compressed bytes a step: bzip2 expands each step at once, whatever the zip header says
)
NPY, ZIP = b"\x93NUMPY", b"PK"


class ArchiveError(UserError, ValueError):
    """Not an array file, or a damaged or oversized one. The message names the array, not the
    file."""


class Archive(Mapping[str, np.ndarray]):
    """The arrays of an .npz file by name, in its order, read-only; a context manager.

    Raises ArchiveError for anything but a zip archive of plain .npy members with at most `limit`
    bytes, OSError for a file that cannot be opened.
    """

    def __init__(self, path: StrPath, limit: int = MAX_BYTES) -> None:
        with contextlib.ExitStack() as stack:
            handle = stack.enter_context(open_input(path))
            _expect(handle, ZIP, ".npz archive")
            try:
                self._zip = stack.enter_context(zipfile.ZipFile(handle))
            except Exception as error:  # an arbitrary file makes zipfile raise many kinds
                raise ArchiveError(f"not a readable .npz archive ({_reason(error)})") from error
            self._members = _members(self._zip.infolist(), limit)
            self._close = stack.pop_all().close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def size(self, name: str) -> int:
        """Bytes of the array `name`, header included; 0 where it is missing."""
        return self._members[name].file_size if name in self._members else 0

    def __getitem__(self, name: str) -> np.ndarray:
        """The array `name`, read-only. Raises ArchiveError where it is missing or damaged."""
        if name not in self._members:
            raise ArchiveError(f"array '{printable(name)}' is missing")
        try:
            return _decode(self._bytes(self._members[name]))
        except Exception as error:  # truncated, corrupted and encrypted members fail in many ways
            raise ArchiveError(
                f"array '{printable(name)}' cannot be read ({_reason(error)})"
            ) from error

    def _bytes(self, member: zipfile.ZipInfo) -> bytes:
        with self._zip.open(member) as stream:
            return b"".join(iter(lambda: stream.read(CHUNK), b""))


def read_array(path: StrPath) -> np.ndarray:
    """The array of an .npy file, mapped into memory read-only. Raises ArchiveError and OSError."""
    with open_input(path) as handle:
        _expect(handle, NPY, ".npy file")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever an arbitrary header makes the decoder raise
        raise ArchiveError(f"not a readable .npy file ({_reason(error)})") from error


def write_npz(path: StrPath, arrays: Mapping[str, np.ndarray], compressed: bool = True) -> None:
    """Write a dict of arrays as an .npz whose bytes depend on its content only (little endian, C
    order, fixed times, bzip2 where `compressed`)."""
    with output(path) as handle, zipfile.ZipFile(handle, "w") as archive:
        for name, array in arrays.items():
            array = np.asarray(array)
            data = io.BytesIO()
            np.lib.format.write_array(
                data,
                array.astype(array.dtype.newbyteorder("<"), order="C"),
                version=(1, 0),
                allow_pickle=False,
            )
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type, member.create_system, member.external_attr = (
                zipfile.ZIP_BZIP2 if compressed else zipfile.ZIP_STORED,
                3,
                0o644 << 16,
            )
            archive.writestr(member, data.getvalue())


def _expect(handle: IO[bytes], magic: bytes, what: str) -> None:
    start = handle.read(8)
    handle.seek(0)
    if not start.startswith(magic):
        kinds = {
            NPY: "a single array (.npy)",
            ZIP: "a zip archive",
            b"\xff\xd8\xff": "a JPEG image",
            b"\x89PNG": "a PNG image",
        }
        found = next((kind for sign, kind in kinds.items() if start.startswith(sign)), None)
        found = found or (f"a file that starts with {start!r}" if start else "an empty file")
        raise ArchiveError(f"not a readable {what}: it is {found}")


def _members(infos: Sequence[zipfile.ZipInfo], limit: int) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > MAX_MEMBERS:
        raise ArchiveError(f"{len(infos)} arrays, at most {MAX_MEMBERS} are read")
    members, total = {}, 0
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise ArchiveError(f"array '{printable(name)}' is there twice")
        members[name] = info
        total += info.file_size
    if total > limit:
        largest = max(members, key=lambda name: members[name].file_size)
        raise ArchiveError(
            f"arrays of {total:,} bytes, at most {limit:,} are read; the largest is "
            f"'{printable(largest)}' with {members[largest].file_size:,}"
        )
    return members


def _decode(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format is not read")
    shape, fortran_order, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("holds pickled Python objects, which are never read")
    count, start = math.prod(shape), stream.tell()
    if min(shape, default=1) < 0 or count * dtype.itemsize != len(data) - start:
        raise ValueError(f"{len(data) - start} bytes do not make {dtype} {list(shape)}")
    array = np.frombuffer(data, dtype, count, start)
    return array.reshape(shape, order="F" if fortran_order else "C")


def _reason(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}")[:500]
