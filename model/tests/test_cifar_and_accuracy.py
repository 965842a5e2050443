"""CIFAR files, on synthetic ones in the official format (with their own MD5), and the accuracy command that reads them."""
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from model import cifar
from model.accuracy import main, predict
from model.cifar import CifarError, class_names, load_cifar
from model.images import ImageError
from model.network import Layer, Network, save_network

NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]


def make_files(rng):
    """{name: bytes} of a tiny CIFAR-10: 3 images a training batch, 40 test images; pixels of channel 0 carry the label."""
    files = {"batches.meta": pickle.dumps({b"label_names": NAMES}, protocol=3)}
    for name, count in (*((f"data_batch_{n}", 3) for n in range(1, 6)), ("test_batch", 40)):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 256, (count, 3, 1024)).astype(np.uint8)
        images[:, 0] = labels[:, None]
        files[name] = pickle.dumps({b"data": images.reshape(count, 3072), b"labels": labels.tolist()}, protocol=3)
    return files


@pytest.fixture
def official(tmp_path, monkeypatch):
    """The site as a folder with the archive; CIFAR_ROOT is empty. Returns the files."""
    files = make_files(np.random.default_rng(0))
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w:gz") as archive:
        for name, data in {**files, "../../outside": b"x"}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    site = tmp_path / "site"
    site.mkdir()
    (site / "cifar-10-python.tar.gz").write_bytes(blob.getvalue())
    monkeypatch.setattr(cifar, "SITE", site.as_uri() + "/")
    monkeypatch.setattr(cifar, "MD5", {name: hashlib.md5(data).hexdigest() for name, data in files.items()})
    monkeypatch.setitem(cifar.SETS["cifar10"], "archive_md5", hashlib.md5(blob.getvalue()).hexdigest())
    monkeypatch.setenv("CIFAR_ROOT", str(tmp_path / "root" / "deep"))
    return files


def test_downloads_checks_and_reads(official, tmp_path):
    images, labels = load_cifar("cifar10", "test")
    assert images.shape == (40, 3, 32, 32) and images.dtype == np.uint8 and labels.dtype == np.int64
    np.testing.assert_array_equal(images[:, 0, 5, 7], labels)
    folder = tmp_path / "root" / "deep" / "cifar-10-batches-py"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == official
    assert not list(tmp_path.rglob("outside"))
    cifar.SITE = "file:///nowhere/"  # from here on nothing is downloaded (the fixture restores it)
    images, labels = load_cifar("cifar10", "train")
    expected = np.concatenate([pickle.loads(official[f"data_batch_{n}"])[b"labels"] for n in range(1, 6)])
    assert images.shape == (15, 3, 32, 32) and labels.tolist() == expected.tolist()
    assert class_names("cifar10") == [name.decode() for name in NAMES]


def test_damaged_file_is_named(official, tmp_path):
    load_cifar("cifar10", "test")
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CifarError, match=f"{path}: MD5 is .*, expected {cifar.MD5['test_batch']}; delete it"):
        load_cifar("cifar10", "test")


def test_missing_file_is_named(official, tmp_path, monkeypatch):
    load_cifar("cifar10", "test")
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "data_batch_3"
    path.unlink()
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    with pytest.raises(CifarError, match=f"{path} .MD5 {cifar.MD5['data_batch_3']}. is missing and file:///nowhere/"):
        load_cifar("cifar10", "train")


def test_failed_downloads_are_explained(official, monkeypatch):
    monkeypatch.setitem(cifar.SETS["cifar10"], "archive_md5", "0" * 32)
    with pytest.raises(CifarError, match="cifar-10-python.tar.gz: MD5 is .*, expected 0{32}.*set CIFAR_ROOT"):
        load_cifar("cifar10", "test")
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    with pytest.raises(CifarError, match="file:///nowhere/cifar-10-python.tar.gz cannot be downloaded .*MD5 0{32}.*set CIFAR_ROOT"):
        load_cifar("cifar10", "test")


def test_unknown_names(official):
    for call in (lambda: load_cifar("mnist", "test"), lambda: class_names("mnist"), lambda: load_cifar("cifar10", "validation")):
        with pytest.raises(CifarError, match="unknown .*there are"):
            call()


def test_pickles_cannot_call_functions(official, tmp_path, monkeypatch):
    load_cifar("cifar10", "test")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    data = pickle.dumps({b"data": Evil()}, protocol=3)
    (tmp_path / "root" / "deep" / "cifar-10-batches-py" / "test_batch").write_bytes(data)
    monkeypatch.setitem(cifar.MD5, "test_batch", hashlib.md5(data).hexdigest())
    with pytest.raises(CifarError, match="the pickle asks for .*mkdir"):
        load_cifar("cifar10", "test")
    assert not (tmp_path / "pwned").exists()


def test_root_defaults_to_the_repository(monkeypatch):
    monkeypatch.delenv("CIFAR_ROOT", raising=False)
    assert cifar.cifar_root() == Path(cifar.__file__).parent.parent / "data"


def label_reader(outputs=10, **fields):
    """Reads the label p hidden in channel 0 of a picture: score[o] = 2*o*p - o*o is largest at o = p. Ten copies of p, o of them with weight 2."""
    copies = np.zeros((10, 3, 1, 1), np.uint8)
    copies[:, 0] = 1
    counted = np.zeros((outputs, 10, 1, 1), np.uint8)
    for o in range(outputs):
        counted[o, :o] = 1
    crop = Layer(name="crop", op="maxpool", inputs=("input",), kernel=(32, 32), stride=(32, 32), pad=(0, 0))
    ones, zeros = np.ones(10, np.int32), np.zeros(10, np.uint8)
    copy = Layer(name="copy", op="conv", inputs=("crop",), stride=(1, 1), pad=(0, 0), out_min=0, out_max=255, index=copies,
                 codebook=np.array([0, 1, 0, 0], np.int8), bias=np.zeros(10, np.int32), mult=ones, shift=zeros)
    score = Layer(name="score", op="conv", inputs=("copy",), stride=(1, 1), pad=(0, 0), out="int32", index=counted,
                  codebook=np.array([0, 2, 0, 0], np.int8), bias=np.array([-o * o for o in range(outputs)], np.int32))
    return Network(name="labels", input_shape=(3, 32, 32), input_signed=False, layers=[crop, copy, score], scale=(1,) * 3, offset=(0,) * 3, **fields)


def run_command(tmp_path, net, *options):
    save_network(net, tmp_path / "net.clipq.npz")
    return CliRunner().invoke(main, ["--net", str(tmp_path / "net.clipq.npz"), "--dataset", "cifar10", *options])


@pytest.mark.parametrize("backend", ["int", "torch"])
def test_accuracy_command(official, tmp_path, backend):
    result = run_command(tmp_path, label_reader(), "--backend", backend)
    assert result.exit_code == 0 and result.stdout.endswith("top-1 100.00 % (40 of 40)\n")
    images, labels = load_cifar("cifar10", "test")
    wrong = images.copy()
    wrong[:7, 0] = (labels[:7, None, None] + 1) % 10
    assert (predict(label_reader(), wrong, backend, batch=6) == labels).sum() == 33
    result = run_command(tmp_path, label_reader(), "--backend", backend, "--limit", "7")
    assert result.stdout.endswith("top-1 100.00 % (7 of 7)\n")


def test_accuracy_errors(official, tmp_path):
    result = run_command(tmp_path, label_reader(outputs=11))
    assert result.exit_code == 1 and "network 'labels' has 11 outputs, but cifar10 has 10 classes" in result.output
    result = run_command(tmp_path, label_reader(classes=["cat"] * 10))
    assert result.exit_code == 1 and "not those of cifar10" in result.output
    result = CliRunner().invoke(main, ["--net", str(tmp_path / "absent.npz"), "--dataset", "cifar10"])
    assert result.exit_code == 1 and "absent.npz: not a readable .npz archive" in result.output
    pool = Layer(name="pool", op="maxpool", inputs=("input",), kernel=(1, 1), stride=(1, 1), pad=(0, 0))
    net = Network(name="map", input_shape=(3, 32, 32), input_signed=False, layers=[pool], scale=(1,) * 3, offset=(0,) * 3)
    with pytest.raises(ImageError, match="network 'map' ends in a map"):
        predict(net, np.zeros((1, 3, 32, 32), np.uint8))


def test_the_reference_needs_no_torch():
    code = "import sys, model.integer, model.images, model.cifar, model.accuracy, model.random_networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(cifar.__file__).parent.parent).returncode == 0
