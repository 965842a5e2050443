"""CIFAR-10 and CIFAR-100 from the official "python version" folders, every file checked against its published MD5.

The folders are looked for in ``$CIFAR_ROOT`` (default: ``data/`` in the repository) and downloaded there when absent.
Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""
import hashlib
import io
import os
import pickle
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
from tqdm import tqdm

SITE = "https://www.cs.toronto.edu/~kriz/"
SETS = {
    "cifar10": {
        "folder": "cifar-10-batches-py", "archive": "cifar-10-python.tar.gz", "archive_md5": "c58f30108f718f92721af3b95e74349a",
        "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"), "test": ("test_batch",),
        "meta": "batches.meta", "labels": b"labels", "names": b"label_names"},
    "cifar100": {
        "folder": "cifar-100-python", "archive": "cifar-100-python.tar.gz", "archive_md5": "eb9058c3a382ffc7106e4002c42a8d85",
        "train": ("train",), "test": ("test",), "meta": "meta", "labels": b"fine_labels", "names": b"fine_label_names"},
}
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888", "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc", "meta": "7973b15100ade9c7d40fb424638fde48",
}


class CifarError(RuntimeError):
    """The data set is absent and cannot be downloaded, or a file is not the official one."""


def load_cifar(dataset, split, root=None):
    """dataset: "cifar10" or "cifar100"; split: "train" or "test"; root: folder that holds the official one (default cifar_root()).

    Returns (images uint8 [N, 3, 32, 32], labels int64 [N]) in the official order. Downloads what is absent. Raises CifarError.
    """
    facts = _facts(dataset)
    if split not in ("train", "test"):
        raise CifarError(f"unknown split '{split}'; there are train, test")
    batches = [_load(dataset, name, root) for name in facts[split]]
    images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([batch[facts["labels"]] for batch in batches]).astype(np.int64)


def class_names(dataset, root=None):
    """The data set's class names, in label order. Downloads what is absent. Raises CifarError."""
    facts = _facts(dataset)
    return [name.decode() for name in _load(dataset, facts["meta"], root)[facts["names"]]]


def cifar_root():
    """$CIFAR_ROOT, or data/ in the repository."""
    return Path(os.environ.get("CIFAR_ROOT") or Path(__file__).resolve().parent.parent / "data")


def _facts(dataset):
    if dataset not in SETS:
        raise CifarError(f"unknown data set '{dataset}'; there are {', '.join(SETS)}")
    return SETS[dataset]


def _load(dataset, name, root):
    path = Path(root or cifar_root()) / SETS[dataset]["folder"] / name
    if not path.exists():
        _download(dataset, path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CifarError(f"{path}: {error.strerror}") from error
    _check_md5(path, data, MD5[name], "delete it to download it again, or point CIFAR_ROOT at the official files")
    return _Unpickler(io.BytesIO(data), encoding="bytes").load()


def _check_md5(path, data, expected, advice):
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise CifarError(f"{path}: MD5 is {found}, expected {expected}; {advice}")


def _download(dataset, missing):
    """Fetch the official archive and unpack the files that, as ``missing``, are not in its folder."""
    facts, folder = SETS[dataset], missing.parent
    url = SITE + facts["archive"]
    hint = (f"MD5 {facts['archive_md5']}; download it elsewhere, unpack it and set CIFAR_ROOT to the folder that contains "
            f"{facts['folder']}/ (now {folder.parent})")
    try:
        data = _fetch(url, facts["archive"])
    except OSError as error:
        raise CifarError(f"{missing} (MD5 {MD5[missing.name]}) is missing and {url} cannot be downloaded ({error}); expected {hint}") from error
    _check_md5(url, data, facts["archive_md5"], f"expected {hint}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for name in (*facts["train"], *facts["test"], facts["meta"]):
                path = folder / name
                if not path.exists():
                    partial = path.with_name(name + ".part")
                    partial.write_bytes(archive.extractfile(f"{facts['folder']}/{name}").read())
                    partial.replace(path)
    except OSError as error:
        raise CifarError(f"cannot write {folder} ({error}); set CIFAR_ROOT to a folder that can be written") from error


def _fetch(url, label):
    with urllib.request.urlopen(url, timeout=60) as response:
        size, data = int(response.headers.get("Content-Length") or 0), bytearray()
        with tqdm(total=size or None, unit="B", unit_scale=True, desc=label) as bar:
            while chunk := response.read(1 << 16):
                data += chunk
                bar.update(len(chunk))
    if size and len(data) != size:
        raise OSError(f"connection closed after {len(data)} of {size} bytes")
    return bytes(data)


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, bytes, numbers and NumPy arrays, and refuses everything else a pickle could call."""

    def find_class(self, module, name):
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        raise CifarError(f"the pickle asks for {module}.{name}, which is not part of a CIFAR file")


def _empty_array(kind, shape, dtype):
    """What NumPy's own _reconstruct does for plain arrays; the contents follow in the pickle."""
    if kind is not np.ndarray:
        raise CifarError("the pickle holds an array of a foreign type")
    return np.ndarray.__new__(kind, shape, dtype)
