"""CIFAR-10 and CIFAR-100 from the official "python version" folders. Every file is checked against
its published MD5.

The folders are looked for in ``$CIFAR_ROOT`` (default: ``data/`` in the repository). A missing file
comes from the official archive: the local one, or else a download.
Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import pickle
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model.common.errors import UserError, printable
from model.common.files import StrPath, check_output, open_input, output

SITE = "https://www.cs.toronto.edu/~kriz/"
TIMEOUT = 60  # seconds without a byte
LIMIT = 200_000_000  # bytes of a file; the largest, an archive, has 170,498,071
_Facts = Mapping[str, Any]  # names in the archive, of one data set

SETS: dict[str, _Facts] = {
    "cifar10": {
        "folder": "cifar-10-batches-py",
        "archive": "cifar-10-python.tar.gz",
        "archive_md5": "c58f30108f718f92721af3b95e74349a",
        "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
        "test": ("test_batch",),
        "meta": "batches.meta",
        "labels": b"labels",
        "names": b"label_names",
        "classes": 10,
    },
    "cifar100": {
        "folder": "cifar-100-python",
        "archive": "cifar-100-python.tar.gz",
        "archive_md5": "eb9058c3a382ffc7106e4002c42a8d85",
        "train": ("train",),
        "test": ("test",),
        "meta": "meta",
        "labels": b"fine_labels",
        "names": b"fine_label_names",
        "classes": 100,
    },
}
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
ADVICE = "delete it to download it again, or point CIFAR_ROOT at the official files"


class CifarError(UserError):
    """The data set is absent and cannot be downloaded, or a file is not the official one."""


def load_cifar(
    dataset: str, split: str, root: StrPath | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """dataset: "cifar10" or "cifar100"; split: "train" or "test"; root: folder that holds the
    official one (default cifar_root()).

    Returns (images uint8 [N, 3, 32, 32], labels int64 [N]) in the official order. Downloads what is
    absent. Raises CifarError.
    """
    facts = _facts(dataset)
    if split not in ("train", "test"):
        raise CifarError(f"unknown split '{split}'; there are train, test")
    batches = [_load(dataset, name, root) for name in facts[split]]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([batch[facts["labels"]] for batch in batches]).astype(np.int64)


def class_names(dataset: str, root: StrPath | None = None) -> list[str]:
    """The data set's class names, in label order. Downloads what is absent. Raises CifarError."""
    facts = _facts(dataset)
    return [name.decode() for name in _load(dataset, facts["meta"], root)[facts["names"]]]


def cifar_root(root: StrPath | None = None) -> Path:
    """The folder of the official ones: ``root``, $CIFAR_ROOT or data/ in the repository.

    Where that path names an official folder, the folder around it is meant.
    """
    root = root or os.environ.get("CIFAR_ROOT") or Path(__file__).resolve().parents[2] / "data"
    root = Path(os.path.abspath(os.path.expanduser(root)))
    official = root.name in [facts["folder"] for facts in SETS.values()]
    return root.parent if official and not os.path.isdir(root / root.name) else root


def _facts(dataset: str) -> _Facts:
    if dataset not in SETS:
        raise CifarError(f"unknown data set '{dataset}'; there are {', '.join(SETS)}")
    return SETS[dataset]


def _load(dataset: str, name: str, root: StrPath | None) -> dict[bytes, Any]:
    path = cifar_root(root) / SETS[dataset]["folder"] / name
    if not os.path.exists(path):
        _unpack(dataset, path)
    data = _read(path, MD5[name])
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # whatever a wrong file makes a pickle raise
        raise CifarError(f"{printable(path)}: not a CIFAR file ({_reason(error)})") from error


def _read(path: StrPath, md5: str) -> bytes:
    """Contents of the official file ``path``."""
    try:
        with open_input(path) as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise CifarError(f"{printable(path)}: {error.strerror}; {ADVICE}") from error
    return _checked(path, data, md5, ADVICE)


def _checked(source: object, data: bytes, md5: str, advice: str) -> bytes:
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        what = f"more than {LIMIT:,} bytes" if len(data) > LIMIT else f"MD5 is {found}"
        raise CifarError(f"{printable(source)}: {what}, expected {md5}; {advice}")
    return data


def _unpack(dataset: str, missing: Path) -> None:
    """Extract the missing files of the folder of ``missing`` from the archive beside it, or from a
    download."""
    facts, folder = SETS[dataset], missing.parent
    archive = folder.parent / facts["archive"]
    try:
        check_output(next(p for p in missing.parents if os.path.exists(p)) / missing.name)
        if os.path.exists(archive):
            data = _read(archive, facts["archive_md5"])
        else:
            data = _download(facts, missing)
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as members:
            for name in (*facts["train"], *facts["test"], facts["meta"]):
                if not os.path.exists(folder / name):
                    member = members.extractfile(f"{facts['folder']}/{name}")
                    assert member is not None, "the archive's MD5 says that it is a file"
                    with output(folder / name) as file:
                        file.write(member.read())
    except OSError as error:
        raise CifarError(
            f"{printable(missing)} is missing and cannot be written "
            f"({_reason(error)}); set CIFAR_ROOT to another folder"
        ) from error


def _download(facts: _Facts, missing: Path) -> bytes:
    """The official archive, which holds the file ``missing``."""
    url = SITE + facts["archive"]
    advice = (
        f"download it elsewhere and set CIFAR_ROOT to the folder that contains it or "
        f"{facts['folder']}/ (now {printable(missing.parent.parent)})"
    )
    try:
        data = _fetch(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        scheme = url.partition(":")[0]
        proxy = f"through {scheme}_proxy " if scheme in urllib.request.getproxies() else ""
        raise CifarError(
            f"{printable(missing)} (MD5 {MD5[missing.name]}) is missing and {url} "
            f"cannot be downloaded {proxy}({_reason(error)}); expected MD5 "
            f"{facts['archive_md5']}; {advice}"
        ) from error
    return _checked(url, data, facts["archive_md5"], advice)


def _fetch(url: str) -> bytes:
    """What ``url`` holds, but no more than one byte above the limit."""
    data = bytearray()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        size = response.headers.get("Content-Length") or ""
        size = int(size) if size.isdecimal() else None
        label = url.rpartition("/")[2]
        with tqdm(total=size, unit="B", unit_scale=True, desc=label, disable=None) as bar:
            while chunk := response.read(min(1 << 16, LIMIT + 1 - len(data))):
                data += chunk
                bar.update(len(chunk))
    if size and len(data) < min(size, LIMIT):
        raise OSError(f"connection closed after {len(data)} of {size} bytes")
    return bytes(data)


def _reason(error: BaseException) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, bytes, numbers and NumPy arrays, and refuses everything else a pickle
    could call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}")


def _empty_array(kind: type, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """What NumPy's own _reconstruct does for plain arrays; the contents follow in the pickle."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("the pickle holds an array of a foreign type")
    return np.ndarray.__new__(kind, shape, dtype)
