"""CIFAR files, on synthetic ones in the official format (with their own MD5), and the accuracy
command that reads them."""

import hashlib
import io
import json
import os
import pickle
import socketserver
import subprocess
import sys
import tarfile
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from host import accuracy, run
from host.accuracy import main, predict
from model.data import cifar
from model.data.cifar import CifarError, class_names, load_cifar
from model.data.images import ImageError
from model.network import Layer, Network, save_network

NAMES = [
    b"airplane",
    b"automobile",
    b"bird",
    b"cat",
    b"deer",
    b"dog",
    b"frog",
    b"horse",
    b"ship",
    b"truck",
]


def make_files(rng):
    """{name: bytes} of a tiny CIFAR-10: 3 images a training batch, 40 test images; pixels of
    channel 0 carry the label."""
    files = {"batches.meta": pickle.dumps({b"label_names": NAMES}, protocol=3)}
    for name, count in (*((f"data_batch_{n}", 3) for n in range(1, 6)), ("test_batch", 40)):
        labels = rng.integers(0, 10, count)
        images = rng.integers(0, 256, (count, 3, 1024)).astype(np.uint8)
        images[:, 0] = labels[:, None]
        files[name] = pickle.dumps(
            {b"data": images.reshape(count, 3072), b"labels": labels.tolist()}, protocol=3
        )
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
    monkeypatch.setattr(
        cifar, "MD5", {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    )
    monkeypatch.setitem(
        cifar.SETS["cifar10"], "archive_md5", hashlib.md5(blob.getvalue()).hexdigest()
    )
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
    expected = np.concatenate(
        [pickle.loads(official[f"data_batch_{n}"])[b"labels"] for n in range(1, 6)]
    )
    assert images.shape == (15, 3, 32, 32) and labels.tolist() == expected.tolist()
    assert class_names("cifar10") == [name.decode() for name in NAMES]


def test_damaged_file_is_named(official, tmp_path):
    load_cifar("cifar10", "test")
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(
        CifarError, match=f"{path}: MD5 is .*, expected {cifar.MD5['test_batch']}; delete it"
    ):
        load_cifar("cifar10", "test")


def test_missing_file_is_named(official, tmp_path, monkeypatch):
    load_cifar("cifar10", "test")
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "data_batch_3"
    path.unlink()
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    with pytest.raises(
        CifarError,
        match=f"{path} .MD5 {cifar.MD5['data_batch_3']}. is missing and file:///nowhere/",
    ):
        load_cifar("cifar10", "train")


def test_failed_downloads_are_explained(official, monkeypatch):
    monkeypatch.setitem(cifar.SETS["cifar10"], "archive_md5", "0" * 32)
    with pytest.raises(
        CifarError, match="cifar-10-python.tar.gz: MD5 is .*, expected 0{32}.*set CIFAR_ROOT"
    ):
        load_cifar("cifar10", "test")
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    with pytest.raises(
        CifarError,
        match="file:///nowhere/cifar-10-python.tar.gz cannot be downloaded .*MD5 0{32}.*set "
        "CIFAR_ROOT",
    ):
        load_cifar("cifar10", "test")


@pytest.fixture
def answer(official, monkeypatch):
    """Makes a server the site: it answers with the bytes given, then it closes or stalls."""
    servers = []
    stalled = threading.Event()

    def start(reply, stall=False):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(reply)
                if stall:
                    self.wfile.flush()
                    stalled.wait(20)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None  # the client may have gone
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        monkeypatch.setattr(cifar, "SITE", f"http://127.0.0.1:{server.server_address[1]}/")

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # keeps the first download's proxies
    yield start
    stalled.set()
    for server in servers:
        server.shutdown()
        server.server_close()


OK = b"HTTP/1.0 200 OK\r\n"


def archive_of(tmp_path):
    return (tmp_path / "site" / "cifar-10-python.tar.gz").read_bytes()


@pytest.mark.parametrize("header", [b"", b"Content-Length: many\r\n", b"Content-Length: -1\r\n"])
def test_download_without_a_length(answer, tmp_path, header):
    answer(OK + header + b"\r\n" + archive_of(tmp_path))
    assert load_cifar("cifar10", "test")[0].shape == (40, 3, 32, 32)


@pytest.mark.parametrize(
    "reply, reason",
    [
        (b"", "closed connection without response"),
        (b"nonsense\r\n\r\n", "nonsense"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404"),
        (b"HTTP/1.0 302 Found\r\nLocation: /again\r\n\r\n", "infinite loop"),
        (b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "not allowed"),
        (b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:port/\r\n\r\n", "nonnumeric port"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "IncompleteRead"),
        (OK + b"Content-Length: 20\r\n\r\n123", "after 3 of 20 bytes"),
        (OK + b"Content-Length: 9" + b"9" * 5000 + b"\r\n\r\n123", "digits"),
        (OK + b"\r\n" + b"x" * 3_000_000, "more than 1,000,000 bytes"),
        (OK + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000, "more than 1,000,000 bytes"),
    ],
)
def test_bad_answers_are_explained(answer, tmp_path, monkeypatch, reply, reason):
    monkeypatch.setattr(cifar, "LIMIT", 1_000_000)
    answer(reply)
    check_failed_download(tmp_path, reason)


@pytest.mark.parametrize("sent", [b"", OK, OK + b"Content-Length: 20\r\n\r\n123"])
def test_servers_that_stall_are_left(answer, tmp_path, monkeypatch, sent):
    monkeypatch.setattr(cifar, "TIMEOUT", 0.2)
    answer(sent, stall=True)
    check_failed_download(tmp_path, "timed out")


@pytest.mark.parametrize(
    "proxy, reason",
    [
        ("http://127.0.0.1:abc", "nonnumeric port: 'abc'"),
        ("://", "nonnumeric port"),
        ("http://", "no host"),
        ("http://a b:1", "control characters"),
        ("x" * 70, "label too long"),
        ("socks5://127.0.0.1:1", "refused"),
    ],
)
def test_bad_proxies_are_explained(answer, tmp_path, monkeypatch, proxy, reason):
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setattr(cifar, "SITE", "https://127.0.0.1:9/")
    check_failed_download(tmp_path, f"through https_proxy .*{reason}")


def check_failed_download(tmp_path, reason):
    """One line names the address, the reason and the remedy, and nothing is left behind."""
    words = f"{cifar.SITE}cifar-10-python.tar.gz.*{reason}.*set CIFAR_ROOT"
    with pytest.raises(CifarError, match=words) as caught:
        load_cifar("cifar10", "test")
    assert "\n" not in str(caught.value) and not (tmp_path / "root").exists()


def test_archive_in_the_root_is_used(official, tmp_path, monkeypatch):
    root = tmp_path / "root" / "deep"
    root.mkdir(parents=True)
    (root / "cifar-10-python.tar.gz").write_bytes(archive_of(tmp_path))
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    assert load_cifar("cifar10", "test")[0].shape == (40, 3, 32, 32)
    folder = root / "cifar-10-batches-py"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == official


def test_damaged_archive_in_the_root_is_named(official, tmp_path):
    archive = tmp_path / "root" / "deep" / "cifar-10-python.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(archive_of(tmp_path)[:100])
    with pytest.raises(CifarError, match=f"{archive}: MD5 is .*delete it"):
        load_cifar("cifar10", "test")
    assert not (archive.parent / "cifar-10-batches-py").exists()


@pytest.mark.parametrize(
    "value",
    [
        "{root}/cifar-10-batches-py",
        "{root}/cifar-10-batches-py/",
        "{root}/cifar-10-batches-py/.",
        "{root}/cifar-100-python",
        "root/../root/deep/cifar-10-batches-py",
        "root/deep",
        "~/deep",
        "~/deep/cifar-10-batches-py",
    ],
)
def test_ways_to_write_the_root(official, tmp_path, monkeypatch, value):
    load_cifar("cifar10", "test")
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "root"))
    value = value.format(root=os.environ["CIFAR_ROOT"])
    assert len(load_cifar("cifar10", "test", root=value)[0]) == 40
    monkeypatch.setenv("CIFAR_ROOT", value)
    assert len(load_cifar("cifar10", "test")[0]) == 40


def test_root_may_have_the_name_of_what_it_holds(official, tmp_path):
    load_cifar("cifar10", "test", root=tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "cifar-10-batches-py")
    cifar.SITE = "file:///nowhere/"  # the fixture restores it
    assert len(load_cifar("cifar10", "test", root=tmp_path / "cifar-10-batches-py")[0]) == 40


@pytest.mark.parametrize("place", ["cifar-10-batches-py/test_batch", "cifar-10-python.tar.gz"])
def test_special_files_are_not_waited_for(official, tmp_path, place):
    path = tmp_path / "root" / "deep" / place
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(CifarError, match=f"{path}: not a regular file; .*CIFAR_ROOT"):
        load_cifar("cifar10", "test")


def test_folder_in_the_place_of_a_file(official, tmp_path):
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "test_batch"
    path.mkdir(parents=True)
    with pytest.raises(CifarError, match=f"{path}: Is a directory; .*CIFAR_ROOT"):
        load_cifar("cifar10", "test")


def test_oversized_file_is_not_read(official, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "LIMIT", 1_000_000)
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CifarError, match=f"{path}: more than 1,000,000 bytes, .*CIFAR_ROOT"):
        load_cifar("cifar10", "test")


def test_root_that_is_a_file_fails_before_the_download(official, tmp_path, monkeypatch):
    root = tmp_path / "cifar-10-python.tar.gz"
    root.write_bytes(archive_of(tmp_path))
    monkeypatch.setattr(cifar, "_fetch", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(CifarError, match=f"written .*Not a directory: '{root}.*CIFAR_ROOT"):
        load_cifar("cifar10", "test", root=root)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        b"\x80\x03}",
        b"\x80\x03" + b"]" * 100_000,
        b"\x80\x03\x8a\xff",
        pickle.dumps([1])[:-1],
        b"\x80\x03cnumpy\nndarray\n\x8a\x08" + b"\xff" * 7 + b"\x1f\x85R.",
    ],
)  # the last: a huge array
def test_damaged_pickles_are_named(official, tmp_path, monkeypatch, data):
    path = tmp_path / "root" / "deep" / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    monkeypatch.setitem(cifar.MD5, "test_batch", hashlib.md5(data).hexdigest())
    with pytest.raises(CifarError, match=f"{path}: not a CIFAR file"):
        load_cifar("cifar10", "test")


def test_foreign_paths_stay_on_one_line(official, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "SITE", "file:///nowhere/")
    with pytest.raises(CifarError, match=r"a\\nb\\x1b\[2J/cifar-10") as caught:
        load_cifar("cifar10", "test", root=tmp_path / "a\nb\x1b[2J")
    assert str(caught.value).isprintable()


def test_unknown_names(official):
    for call in (
        lambda: load_cifar("mnist", "test"),
        lambda: class_names("mnist"),
        lambda: load_cifar("cifar10", "validation"),
    ):
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
    assert cifar.cifar_root() == Path(cifar.__file__).parents[2] / "data"


def label_reader(outputs=10, **fields):
    """Reads the label p hidden in channel 0 of an image: score[o] = 2*o*p - o*o is largest at o =
    p. Ten copies of p, o of them with weight 2."""
    copies = np.zeros((10, 3, 1, 1), np.uint8)
    copies[:, 0] = 1
    counted = np.zeros((outputs, 10, 1, 1), np.uint8)
    for o in range(outputs):
        counted[o, :o] = 1
    crop = Layer(
        name="crop", op="maxpool", inputs=("input",), kernel=(32, 32), stride=(32, 32), pad=(0, 0)
    )
    ones, zeros = np.ones(10, np.int32), np.zeros(10, np.uint8)
    copy = Layer(
        name="copy",
        op="conv",
        inputs=("crop",),
        stride=(1, 1),
        pad=(0, 0),
        out_min=0,
        out_max=255,
        index=copies,
        codebook=np.array([0, 1, 0, 0], np.int8),
        bias=np.zeros(10, np.int32),
        mult=ones,
        shift=zeros,
    )
    score = Layer(
        name="score",
        op="conv",
        inputs=("copy",),
        stride=(1, 1),
        pad=(0, 0),
        out="int32",
        index=counted,
        codebook=np.array([0, 2, 0, 0], np.int8),
        bias=np.array([-o * o for o in range(outputs)], np.int32),
    )
    return Network(
        name="labels",
        input_shape=(3, 32, 32),
        input_signed=False,
        layers=[crop, copy, score],
        scale=(1,) * 3,
        offset=(0,) * 3,
        **fields,
    )


def run_command(tmp_path, net, *options):
    save_network(net, tmp_path / "net.clipq.npz")
    return CliRunner().invoke(
        main, ["--net", str(tmp_path / "net.clipq.npz"), "--dataset", "cifar10", *options]
    )


@pytest.mark.parametrize("backend", ["int", "torch"])
def test_accuracy_command(official, tmp_path, backend, monkeypatch):
    monkeypatch.setattr(accuracy, "FOLDER", tmp_path / "accuracy")
    monkeypatch.setattr(run, "BATCH", 6)
    result = run_command(tmp_path, label_reader(), "--backend", backend)
    assert result.exit_code == 0 and result.stdout.endswith("top-1 100.00 % (40 of 40)\n")
    images, labels = load_cifar("cifar10", "test")
    wrong = images.copy()
    wrong[:7, 0] = (labels[:7, None, None] + 1) % 10
    assert (predict(label_reader(), wrong, backend) == labels).sum() == 33
    result = run_command(tmp_path, label_reader(), "--backend", backend, "--limit", "7")
    assert result.stdout.endswith("top-1 100.00 % (7 of 7)\n")
    kept = [json.loads(p.read_text())["images"] for p in (tmp_path / "accuracy").glob("*")]
    assert kept == ([40] if backend == "int" else [])  # of the integers and all images


def test_accuracy_errors(official, tmp_path, monkeypatch):
    """They are told before images are read, or even downloaded."""
    monkeypatch.delattr(accuracy, "load_cifar")
    result = run_command(tmp_path, label_reader(outputs=11))
    assert (
        result.exit_code == 1
        and "network 'labels' has 11 outputs, but cifar10 has 10 classes" in result.output
    )
    result = run_command(tmp_path, label_reader(classes=["cat"] * 10))
    assert result.exit_code == 1 and "not those of cifar10" in result.output
    result = CliRunner().invoke(
        main, ["--net", str(tmp_path / "absent.npz"), "--dataset", "cifar10"]
    )
    assert result.exit_code == 1 and "absent.npz: No such file" in result.output
    pool = Layer(
        name="pool", op="maxpool", inputs=("input",), kernel=(1, 1), stride=(1, 1), pad=(0, 0)
    )
    net = Network(
        name="map",
        input_shape=(3, 32, 32),
        input_signed=False,
        layers=[pool],
        scale=(1,) * 3,
        offset=(0,) * 3,
    )
    with pytest.raises(ImageError, match="network 'map' ends in a map"):
        predict(net, np.zeros((1, 3, 32, 32), np.uint8))


def test_the_reference_needs_no_torch():
    code = (
        "import sys, model.reference.integer, model.data.images, model.data.cifar, "
        "host.accuracy, model.network.random_networks; sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(cifar.__file__).parents[2]).returncode
        == 0
    )
