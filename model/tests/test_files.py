"""Output files: whole or not there, whatever stands at the path and whatever happens meanwhile."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from model.common.archive import write_npz
from model.common.command import Command, OutputFile
from model.common.errors import UserError, printable
from model.common.files import check_output, file_name, open_input, output, write_text

ROOT = Path(__file__).resolve().parents[2]


def left(folder):
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_as_a_whole(tmp_path):
    target = tmp_path / "out"
    with output(target) as handle:
        handle.write(b"half")
        handle.flush()
        assert not target.exists()
    assert target.read_bytes() == b"half" and left(tmp_path) == ["out"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
        SystemExit(143),
        ValueError("x"),
    ],
)
def test_an_interrupted_writer_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(type(error)) as caught, output(target) as handle:
        handle.write(b"new")
        raise error
    assert target.read_bytes() == b"old" and left(tmp_path) == ["out"]
    if isinstance(error, OSError):
        assert caught.value.filename == str(target)


def test_a_full_disk_leaves_nothing(tmp_path):
    """The kernel's own limit on file sizes stands for a full disk."""
    code = (
        "import resource, signal, sys; from model.common.files import output\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with output(sys.argv[1]) as handle: handle.write(bytes(5000))"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode and str(tmp_path / "out") in done.stderr.splitlines()[-1]
    assert left(tmp_path) == []


def test_links_are_followed(tmp_path):
    (tmp_path / "deep").mkdir()
    real, link = tmp_path / "deep" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("second")
    (tmp_path / "second").symlink_to(real)
    write_text(link, "new ü")
    assert (
        link.is_symlink()
        and real.read_text("utf-8") == "new ü"
        and real.stat().st_mode & 0o777 == 0o640
    )
    (tmp_path / "dangling").symlink_to("deep/absent")
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "dangling").is_symlink() and (
        tmp_path / "deep" / "absent"
    ).read_text() == "made"
    assert left(tmp_path / "deep") == ["absent", "real"]


def test_devices_and_fifos_are_written_into(tmp_path):
    before = os.stat("/dev/null")
    for write in (
        lambda path: write_text(path, "x"),
        lambda path: write_npz(path, {"a": np.arange(3)}),
    ):
        write("/dev/null")
    assert (
        os.stat("/dev/null").st_ino == before.st_ino
        and os.stat("/dev/null").st_rdev == before.st_rdev
    )
    (tmp_path / "null").symlink_to("/dev/null")
    write_text(tmp_path / "null", "x")
    assert (tmp_path / "null").is_symlink()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="no process reads this FIFO"):
        write_text(fifo, "lost")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = threading.Thread(
        target=write_npz, args=(fifo, {"a": np.arange(40_000)})
    )  # more than a pipe holds
    writer.start()
    data = b""
    while writer.is_alive():
        with contextlib.suppress(BlockingIOError):
            data += os.read(reader, 1 << 16)
    while chunk := os.read(reader, 1 << 16):
        data += chunk
    os.close(reader)
    write_npz(tmp_path / "file", {"a": np.arange(40_000)})
    assert fifo.is_fifo() and data == (tmp_path / "file").read_bytes()


def test_full_devices_are_an_error():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_text("/dev/full", "x")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "Invalid argument"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.symlink_to("no/such"), "No such file or directory"),
        (lambda path: path.symlink_to("."), "Is a directory"),
    ],
)
def test_what_cannot_be_written_is_refused_before_and_kept(tmp_path, monkeypatch, make, words):
    monkeypatch.chdir(tmp_path)
    path = Path("out")
    make(path)
    before = os.lstat(path)
    with pytest.raises(OSError, match=words):
        check_output(path)
    with pytest.raises(OSError, match=words), output(path):
        raise AssertionError("not reached")
    assert os.lstat(path).st_ino == before.st_ino and left(tmp_path) == ["out"]


def test_missing_folders_are_named(tmp_path):
    (tmp_path / "file").touch()
    for path, words in (
        (tmp_path / "no" / "out", f"No such file or directory: '{tmp_path}/no'"),
        (tmp_path / "file" / "out", "Not a directory"),
    ):
        with pytest.raises(OSError, match=words):
            check_output(path)


def test_writers_of_the_same_path_do_not_meet(tmp_path):
    target = tmp_path / "out"
    contents = [bytes([number]) * 200_000 for number in range(8)]

    def write(content):
        for _ in range(5):
            with output(target) as handle:
                handle.write(content[:100_000])
                handle.write(content[100_000:])

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents and left(tmp_path) == ["out"]


def test_long_and_odd_names(tmp_path):
    for name in ("n" * 250, "a b", "-x", "é", "line\nbreak", os.fsdecode(b"\xff\xfe")):
        write_text(tmp_path / name, "x")
        assert open_input(tmp_path / name).read() == b"x"


def test_names_are_counted_in_bytes(tmp_path):
    for name in ("漢" * 84, "x" * 255):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    for name in ("n" * 255, "漢字" * 40, "a/b c"):
        kept = file_name(name)
        assert 0 < len(kept.encode()) <= 120 and "/" not in kept and " " not in kept
    with pytest.raises(FileNotFoundError):
        check_output("")


def test_inputs_do_not_wait(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            open_input(path)
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)


# ------------------------------------------------------------------------------------------ command


def run(function, *arguments, options=()):
    command = click.command(cls=Command)(function)
    for option in options:
        command.params.append(option)
    return CliRunner().invoke(command, list(arguments))


def fail(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    "error, line",
    [
        (UserError("layer 'a': bad"), "error: layer 'a': bad"),
        (UserError("evil \x1b[2J \u202e"), "error: evil \\x1b[2J \\u202e"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a\nb"), "error: a\\nb: No such file"),
        (OSError("odd"), "error: odd"),
        (MemoryError(), "error: not enough memory (allocation failed)"),
    ],
)
def test_errors_are_one_line(error, line):
    result = run(fail(error))
    assert result.exit_code == 1 and result.output == f"{line}\n"


@pytest.mark.parametrize(
    "number, status", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_signals_run_the_clean_up(number, status):
    done, callers = [], signal.getsignal(number)
    # The caller may have started this process to ignore the signal (nohup, a background job).
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, before)

    def function():
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 5)
        finally:
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)  # timeout and make both send one
            done.append(True)

    try:
        assert (
            run(function).exit_code == status
            and done == [True]
            and signal.getsignal(number) == before
        )
    finally:
        signal.signal(number, callers)


def test_an_ignored_signal_stays_ignored():
    callers = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGHUP)).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, callers)


def test_a_reader_that_leaves_is_no_error():
    code = (
        "import click; from model.common.command import Command\n"
        "@click.command(cls=Command)\n"
        "def main():\n"
        "    while True: print('line' * 1000)\n"
        "main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(20) == 141 and process.stderr.read() == b""


def test_text_that_the_terminal_cannot_show_is_escaped():
    code = (
        "import click; from model.common.command import "
        "Command\n@click.command(cls=Command)\ndef main(): print('é\\ud800')\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\\xe9\\ud800\n"


def test_output_options_are_checked_before_the_run(tmp_path):
    def function(out):
        raise AssertionError("not reached")

    result = run(
        function, "--out", str(tmp_path), options=[click.Option(["--out"], type=OutputFile())]
    )
    assert result.exit_code == 2 and f"{tmp_path}: Is a directory" in result.output


def test_printable():
    assert printable("a é\n\t\x1b\ud800\u2028\u202e") == "a é\\n\\t\\x1b\\ud800\\u2028\\u202e"
    assert printable(Path("x")) == "x"
