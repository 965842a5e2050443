"""The driver in C (host/c/) on the registers and DMA channels of a Python one."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_int,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

import numpy as np

from host.driver import SETTLE, Accelerator
from host.simulation.rtl_index import ROOT

FLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-shared", "-fPIC")
WORDS = POINTER(c_uint64)
CALLBACKS = {
    "read": CFUNCTYPE(c_uint32, c_void_p, c_uint32),
    "write": CFUNCTYPE(None, c_void_p, c_uint32, c_uint32),
    "transfer": CFUNCTYPE(None, c_void_p, c_int, WORDS, c_size_t),
    "done": CFUNCTYPE(c_bool, c_void_p, c_int),
    "stop": CFUNCTYPE(None, c_void_p, c_int),
    "pause": CFUNCTYPE(None, c_void_p),
}


class Struct(ctypes.Structure):
    """struct clipq"""

    _fields_ = [
        ("context", c_void_p),
        *CALLBACKS.items(),
        ("patience", c_uint32),
        ("layer", c_uint32),
    ]


class Counters(ctypes.Structure):
    """struct clipq_counters"""

    _fields_ = [(name, c_uint32) for name in ("cycles", "stalls", "reads", "writes", "weights")]


def span(words: np.ndarray) -> tuple[Any, c_size_t]:
    """An array as `uint64_t *` and `size_t`."""
    return words.ctypes.data_as(WORDS), c_size_t(len(words))


class CDriver:
    """Calls the functions of host/c/clipq.h; `close` at the end. An exception in what C calls is
    raised as soon as C returns."""

    def __init__(self, accelerator: Accelerator, patience: int = 100_000) -> None:
        self._accelerator = accelerator
        self._channels = (accelerator._weights, accelerator._images, accelerator._results)
        self._buffers: dict[int, tuple[Any, np.ndarray]] = {}  # {stream: (the engine's, C's)}
        self._problem: BaseException | None = None
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "clipq.so"
            source = ROOT / "host" / "c" / "clipq.c"
            subprocess.run(["gcc", *FLAGS, "-o", library, source], check=True)
            self._library = ctypes.CDLL(str(library))
        self._library.clipq_layer.restype = Counters
        self._library.clipq_text.restype = c_char_p
        self._library.clipq_encode.restype = c_size_t
        functions = {
            name: kind(self._guarded(getattr(self, f"_{name}"))) for name, kind in CALLBACKS.items()
        }
        self.struct = Struct(patience=patience, **functions)

    def call(self, name: str, *arguments: Any) -> Any:
        """clipq_<name>(accelerator, ...)"""
        result = getattr(self._library, f"clipq_{name}")(ctypes.byref(self.struct), *arguments)
        if self._problem:
            raise self._problem
        return result

    def encode(self, image: np.ndarray, words: int) -> np.ndarray:
        """clipq_encode of integers [C, H, W], which gives this many words."""
        values, out = image.astype(np.uint8), np.full(words, ~np.uint64(0))
        sizes = map(c_size_t, image.shape)
        got = self._library.clipq_encode(c_void_p(values.ctypes.data), *sizes, span(out)[0])
        assert got == words, f"{got} words of an image, not {words}"
        return out

    def text(self, result: int) -> str:
        """clipq_text"""
        return self._library.clipq_text(result).decode()

    def close(self) -> None:
        """Free the buffers of the engines."""
        for stream in list(self._buffers):
            self._free(stream)

    def _guarded(self, function: Callable) -> Callable:
        def wrapper(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except BaseException as problem:
                self._problem = self._problem or problem
                return 0 if function.__name__ != "_done" else True

        return wrapper

    def _read(self, _: int, offset: int) -> int:
        return self._accelerator.mmio.read(offset)

    def _write(self, _: int, offset: int, value: int) -> None:
        self._accelerator.mmio.write(offset, value)

    def _pause(self, _: int) -> None:
        self._accelerator._clock.sleep(SETTLE)

    def _transfer(self, _: int, stream: int, words: Any, count: int) -> None:
        self._free(stream)
        memory = np.ctypeslib.as_array(words, (count,))
        buffer = self._accelerator._allocate(count, np.uint64)
        self._buffers[stream] = buffer, memory
        buffer[:] = memory
        self._channels[stream].transfer(buffer)

    def _done(self, _: int, stream: int) -> bool:
        channel = self._channels[stream]
        if not channel.idle:
            return False
        channel.wait()
        buffer, memory = self._buffers[stream]
        memory[:] = buffer
        return True

    def _stop(self, _: int, stream: int) -> None:
        self._channels[stream].stop()
        self._channels[stream].start()
        self._free(stream)

    def _free(self, stream: int) -> None:
        buffer, _ = self._buffers.pop(stream, (None, None))
        if hasattr(buffer, "freebuffer"):
            buffer.freebuffer()
