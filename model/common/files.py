"""Opens the files that a user names: outputs are complete or absent, inputs cannot block."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

StrPath = str | os.PathLike[str]

SPECIAL = {stat.S_IFCHR: "device", stat.S_IFIFO: "FIFO"}
REFUSED = {stat.S_IFDIR: errno.EISDIR, stat.S_IFBLK: errno.EINVAL, stat.S_IFSOCK: errno.EINVAL}


def file_name(name: str) -> str:
    """A name as part of a file's, at most 120 bytes: what is not a letter, a digit or one of -_.
    becomes -."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    return kept.encode()[:120].decode(errors="ignore")


def check_output(path: StrPath) -> None:
    """Raise OSError, with the path, where `output` could not write: for use before a long run."""
    if not os.fspath(path):
        raise _error(errno.ENOENT, path)
    kind = _kind(path)
    if kind in REFUSED:
        raise _error(REFUSED[kind], path)
    target = os.path.realpath(path)
    if kind is not None and not os.access(target if kind not in SPECIAL else path, os.W_OK):
        raise _error(errno.EACCES, path)
    if kind not in SPECIAL:
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            raise _error(errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT, folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _error(errno.EACCES, folder)


@contextlib.contextmanager
def output(path: StrPath) -> Iterator[IO[bytes]]:
    """Open `path` for binary writing; what is written appears there as a whole at the end, or not
    at all.

    A regular file is made beside the target under a unique name and then renamed, so that an error,
    a full disk or another writer of the same path never leaves half a file. Links are followed: the
    file that they lead to is replaced. A device or a FIFO is written into at the end. Raises
    OSError with the path for a folder, a socket, a FIFO that nobody reads, and for whatever fails.
    """
    check_output(path)
    try:
        with _into_special(path) if _kind(path) in SPECIAL else _replacement(path) as handle:
            yield handle
    except OSError as error:
        if error.filename is None:  # of a write: say which file
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_text(path: StrPath, text: str) -> None:
    """Write a text file in UTF-8 through `output`."""
    with output(path) as handle:
        handle.write(text.encode())


def open_input(path: StrPath) -> IO[bytes]:
    """Open a regular file for binary reading. Raises OSError with the path; never waits for a
    FIFO."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise _error(errno.EISDIR, path)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


@contextlib.contextmanager
def _replacement(path: StrPath) -> Iterator[IO[bytes]]:
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb") as handle:
            yield handle
            if target.exists():
                os.fchmod(handle.fileno(), stat.S_IMODE(target.stat().st_mode))
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _into_special(path: StrPath) -> Iterator[IO[bytes]]:
    # Writers of archives seek, which a device or a FIFO cannot.
    with tempfile.TemporaryFile() as whole:
        yield whole
        whole.seek(0)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            reason = "no process reads this FIFO" if error.errno == errno.ENXIO else error.strerror
            raise OSError(error.errno, reason, str(path)) from error
        os.set_blocking(handle, True)
        with os.fdopen(handle, "wb") as special:
            shutil.copyfileobj(whole, special)


def _kind(path: StrPath) -> int | None:
    """Type bits of what is at the end of all links, None if nothing is there."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def _error(number: int, path: StrPath) -> OSError:
    return OSError(number, os.strerror(number), str(path))
