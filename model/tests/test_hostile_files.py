"""Files that somebody wrote by mistake or on purpose: refused by name, at once, in little memory"""

import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from model.common import archive
from model.common.archive import Archive, ArchiveError
from model.compiler import CompileError, compile_network
from model.data.images import ImageError, load_images, pixels_to_input
from model.network import Layer, Network, NetworkError, load_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from model.tests.test_network import parts, write

ROOT = Path(__file__).resolve().parents[2]


def refusal(path, edit):
    """Message with which the legal network of `parts` is refused after `edit(meta, layers,
    arrays)`."""
    meta, arrays = parts()
    edit(meta, {entry["name"]: entry for entry in meta["layers"]}, arrays)
    with pytest.raises(NetworkError) as caught:
        load_network(write(path / "x.clipq.npz", meta, arrays))
    return str(caught.value).removeprefix(f"{path / 'x.clipq.npz'}: ")


def npy(array):
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


# ------------------------------------------------------------------------------------- unknown keys


@pytest.mark.parametrize(
    "layer, key, value",
    [
        ("a", "dilation", [2, 2]),
        ("a", "dilations", [1, 1]),
        ("a", "group", 3),
        ("a", "pads", [1, 1, 1, 1]),
        ("a", "padding", "same"),
        ("a", "auto_pad", "SAME_UPPER"),
        ("a", "zero_point", 3),
        ("a", "mult", [1]),
        ("b", "activation", "relu"),
        ("sum", "stride", [1, 1]),
        ("sum", "broadcast", True),
        ("pool", "ceil_mode", 1),
        ("pool", "dilation", [2, 2]),
        ("pool", "out_min", 0),
        ("gap", "count_include_pad", 0),
        ("gap", "divisor", 9),
        ("fc", "transpose", True),
        ("a", "X-y", 1),
    ],
)
def test_a_key_that_could_change_the_result_is_refused(tmp_path, layer, key, value):
    message = refusal(tmp_path, lambda m, n, v: n[layer].update({key: value}))
    assert message.startswith(f"layer '{layer}': {key}: unknown key")


@pytest.mark.parametrize("name", ["a.zero_point", "a.scale", "pool.mult", "sum.bias", "fc.weight"])
def test_an_array_that_could_change_the_result_is_refused(tmp_path, name):
    layer, key = name.split(".")
    message = refusal(tmp_path, lambda m, n, v: v.update({name: np.ones(4)}))
    assert message.startswith(f"layer '{layer}': {key}: unknown array")


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda m, n, v: n["a"].update(groups=3), "layer 'a': groups: only 1 is supported, not 3"),
        (
            lambda m, n, v: n["a"].update(groups=True),
            "layer 'a': groups: only 1 is supported, not True",
        ),
        (
            lambda m, n, v: n["a"].update(kernel=[5, 3]),
            "layer 'a': kernel: [5, 3] is not the index's [3, 5]",
        ),
    ],
)
def test_known_keys_must_be_true(tmp_path, edit, words):
    assert refusal(tmp_path, edit) == words


def test_notes_are_harmless(tmp_path):
    meta, arrays = parts()
    meta["layers"][0].update(
        groups=1,
        kernel=[3, 5],
        comment="c",
        doc="d",
        note="n",
        description="e",
        **{"x-origin": {"node": 3}},
    )
    arrays["a.x-float"] = arrays["unrelated"] = np.ones(2)
    assert load_network(write(tmp_path / "x.clipq.npz", meta, arrays)).layer("a").kernel == (3, 5)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": "clipq-net", "format": "clipq-net"}',
        '{"layers": [{"stride": [1, 1], "stride": [2, 2]}]}',
    ],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path, text):
    with pytest.raises(NetworkError, match="is there twice in one object"):
        load_network(write(tmp_path / "x.clipq.npz", text, {}))


# -------------------------------------------------------------------------------- numbers and names


@pytest.mark.parametrize(
    "edit, words",
    [
        (
            lambda m, n, v: m["input"].update(scale=[10**400, 1, 1]),
            "input: scale: must be 3 finite numbers",
        ),
        (
            lambda m, n, v: m["input"].update(offset=[1, -(10**4000), 1]),
            "input: offset: must be 3 finite numbers",
        ),
        (
            lambda m, n, v: m["input"].update(shape=[3, 10**400, 6]),
            "input: shape: must be an integer in",
        ),
        (
            lambda m, n, v: m["input"].update(shape=[60000, 60000, 60000]),
            "input: shape: [60000, 60000, 60000] has",
        ),
        (
            lambda m, n, v: n["gap"].update(shift=10**400),
            "layer 'gap': shift: must be an integer in 0..31",
        ),
        (
            lambda m, n, v: m.update(version=10**400),
            "version: this program reads version 1, not 1000",
        ),
        (
            lambda m, n, v: m.update(name="evil\nPASSED: all equal"),
            "name: must be a string of 1..255 printable characters",
        ),
        (
            lambda m, n, v: m.update(name="\x1b[2Jclear"),
            "name: must be a string of 1..255 printable characters",
        ),
        (
            lambda m, n, v: m.update(name="\ud800"),
            "name: must be a string of 1..255 printable characters",
        ),
        (
            lambda m, n, v: m.update(name="right\u202eleft"),
            "name: must be a string of 1..255 printable characters",
        ),
        (
            lambda m, n, v: m.update(classes=["x", "y\nz"]),
            "classes: must be a list of strings of 1..255 printable characters",
        ),
        (
            lambda m, n, v: m.update(classes=["x", ""]),
            "classes: must be a list of strings of 1..255 printable characters",
        ),
        (
            lambda m, n, v: n["a"].update(name="a\ud83d"),
            "layers[0]: name: must be a string of 1..255 printable characters",
        ),
        (
            lambda m, n, v: n["a"].update(name=["a"]),
            "layers[0]: name: must be a string of 1..255 printable characters",
        ),
        (lambda m, n, v: n["a"].update(op="\x1b[31m"), "layer 'a': op: '\\x1b[31m' is unknown"),
        (lambda m, n, v: n["a"].update({"\x07bell": 1}), "layer 'a': \\x07bell: unknown key"),
        (
            lambda m, n, v: n["sum"].update(inputs=["a\n", "b"]),
            "layer 'sum': inputs: there is no layer 'a\\n'",
        ),
    ],
)
def test_values_and_names(tmp_path, edit, words):
    message = refusal(tmp_path, edit)
    assert message.startswith(words) and message.isprintable() and len(message) < 400


def test_long_values_do_not_make_long_messages(tmp_path):
    for value in ([1] * 100_000, "s" * 100_000, [[[[[[[[[[3]]]]]]]]]], {"k" * 9999: 1}):
        assert len(refusal(tmp_path, lambda m, n, v: n["pool"].update(kernel=value))) < 400


def test_scales_beyond_float_are_clamped():
    pool = Layer(
        name="p", op="maxpool", inputs=("input",), kernel=(1, 1), stride=(1, 1), pad=(0, 0)
    )
    net = Network(
        name="n",
        input_shape=(2, 1, 1),
        input_signed=True,
        layers=[pool],
        scale=(1e308, -1e308),
        offset=(0, 1e308),
    )
    assert pixels_to_input(net, np.full((1, 2, 1, 1), 255, np.uint8)).ravel().tolist() == [
        127,
        -128,
    ]


# --------------------------------------------------------------------------------------------- cost


def limited(code, *arguments, gigabytes=1.0):
    """Output of Python code in a process of its own that may allocate so much and take 10
    seconds."""
    limit = int(gigabytes * 2**30)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        timeout=10,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD = """
import sys
from model.network import NetworkError, load_network
try:
    load_network(sys.argv[1])
except NetworkError as error:
    print(error)
"""


def test_a_large_meta_is_refused_before_it_is_read(tmp_path):
    path = write(tmp_path / "x.clipq.npz", np.array("[" + " " * 20_000_000 + "]"), {})
    assert "meta: 80,000,1" in refusal_text(path) and "at most 4,194,304 are read" in refusal_text(
        path
    )


def refusal_text(path):
    with pytest.raises(NetworkError) as caught:
        load_network(path)
    return str(caught.value)


@pytest.mark.parametrize("method, blocks", [(zipfile.ZIP_DEFLATED, 66), (zipfile.ZIP_BZIP2, 20)])
def test_a_bomb_takes_neither_time_nor_memory(tmp_path, method, blocks):
    """Many megabytes of zeros in a few kilobytes, as the header says or behind a header that says
    less."""
    path, size = tmp_path / "bomb.npz", blocks << 22
    with (
        zipfile.ZipFile(path, "w", method) as target,
        target.open("meta.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(np.array("{}")))
        for _ in range(blocks):
            member.write(bytes(1 << 22))
    assert "bytes, at most" in limited(LOAD, path)
    honest, lying = (size + 136).to_bytes(4, "little"), (136).to_bytes(4, "little")
    data = path.read_bytes()
    assert honest in data
    path.write_bytes(data.replace(honest, lying))
    assert "meta: array 'meta' cannot be read" in limited(LOAD, path)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    meta, arrays = parts()
    data = npy(arrays["a.index"]).replace(b"(4, 3, 3, 5), }", b"(9999999, 9999, 3, 5), }"[:15])
    assert len(data) == len(npy(arrays["a.index"]))
    with zipfile.ZipFile(
        write(tmp_path / "x.npz", meta, {k: v for k, v in arrays.items() if k != "a.index"}), "a"
    ) as target:
        target.writestr("a.index.npy", data)
    assert "layer 'a': index: array 'a.index' cannot be read" in limited(LOAD, tmp_path / "x.npz")
    header = npy(np.zeros((1, 2, 1, 3), np.int64))
    (tmp_path / "images.npy").write_bytes(
        header.replace(b"(1, 2, 1, 3)", b"(9**9, 2, 3)") + bytes(100)
    )
    with pytest.raises(ImageError, match="images.npy: not a readable .npy file"):
        load_images(tmp_path / "images.npy", load_network("model/zoo/nin-cifar10.clipq.npz"))
    (tmp_path / "images.npy").write_bytes(
        header.replace(b"(1, 2, 1, 3), }     ", b"(99999, 999, 9, 3)}"[:20].ljust(20)) + bytes(100)
    )
    with pytest.raises(ImageError, match="images.npy: not a readable .npy file"):
        load_images(tmp_path / "images.npy", load_network("model/zoo/nin-cifar10.clipq.npz"))


def test_archives_of_odd_members(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as target:
        target.writestr("a.npy", npy(np.zeros(1)))
        target.writestr("a.npy", npy(np.ones(1)))
    with pytest.raises(ArchiveError, match="array 'a' is there twice"):
        Archive(path)
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("text.npy", b"hello")
        target.writestr("object.npy", npy(np.array([{}])))
        target.writestr("good.npy", npy(np.arange(6, dtype=">i2").reshape(2, 3).T))
    with Archive(path) as found:
        assert list(found) == ["text", "object", "good"] and "good" in found and "bad" not in found
        np.testing.assert_array_equal(found["good"], np.arange(6).reshape(2, 3).T)
        for name in ("text", "object", "bad"):
            with pytest.raises(ArchiveError, match=f"array '{name}'"):
                found[name]
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    with pytest.raises(ArchiveError, match="3 arrays, at most 2 are read"):
        Archive(path)


WINDOWS = [
    ("avgpool", (1, 1, 1), (1, 8_000_000), (1, 1), (0, 4_000_000)),
    ("maxpool", (2, 4, 4), (3000, 3000), (1, 1), (1500, 1499)),
    ("maxpool", (1, 1, 3), (2**31 - 1, 1), (5, 2), (2**30 - 1, 0)),
    ("avgpool", (3, 40, 50), (900, 9), (3, 2), (899, 8)),
    ("maxpool", (2, 5, 5), (3, 3), (2**31 - 1, 2**31 - 1), (1, 1)),
    ("avgpool", (2, 3, 5), (2, 3), (7, 4), (1, 2)),
]


@pytest.mark.parametrize("op, shape, kernel, stride, pad", WINDOWS)
def test_windows_beyond_the_image_cost_nothing(op, shape, kernel, stride, pad):
    """Both implementations against sums over plain slices."""
    scaling = {"mult": 3, "shift": 7, "out_min": -128, "out_max": 127} if op == "avgpool" else {}
    layer = Layer(
        name="p", op=op, inputs=("input",), kernel=kernel, stride=stride, pad=pad, **scaling
    )
    net = Network(name="n", input_shape=shape, input_signed=True, layers=[layer])
    x = np.random.default_rng(1).integers(-128, 128, (2, *shape))
    spans = [
        [slice(max(0, at * s - p), max(0, at * s - p + k)) for at in range(size)]
        for size, k, s, p in zip(net.output.out_shape[1:], kernel, stride, pad)
    ]
    reduce = np.max if op == "maxpool" else np.sum
    want = np.stack(
        [
            np.stack([reduce(x[:, :, rows, cols], axis=(2, 3)) for cols in spans[1]], -1)
            for rows in spans[0]
        ],
        -2,
    )
    if op == "avgpool":
        want = ((want * 3 + 64) >> 7).clip(-128, 127)
    np.testing.assert_array_equal(run_integer(net, x), want)
    np.testing.assert_array_equal(TorchNet(net)(torch.from_numpy(x)).numpy(), want)


def test_a_tensor_without_bounds_is_refused():
    layer = Layer(
        name="p",
        op="avgpool",
        inputs=("input",),
        kernel=(2800, 2800),
        stride=(1, 1),
        pad=(2799, 2799),
        out="int32",
    )
    with pytest.raises(
        NetworkError,
        match=r"layer 'p': output: \[64, 2800, 2800\] has 501,760,000 values, at most 67,108,864",
    ):
        Network(name="n", input_shape=(64, 1, 1), input_signed=False, layers=[layer])


# ----------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "field, values",
    [
        ("pool_kernel_h: 65536", {"kernel": (65536, 1), "pad": (32768, 0)}),
        ("pool_stride_w: 65536", {"kernel": (1, 65535), "pad": (0, 65534), "stride": (1, 65536)}),
        ("pool_stride_h: 65537", {"kernel": (65535, 1), "pad": (65534, 0), "stride": (65537, 1)}),
    ],
)
def test_the_compiler_names_layer_and_field(field, values):
    geometry = {"kernel": (1, 1), "stride": (1, 1), "pad": (0, 0), **values}
    net = Network(
        name="n",
        input_shape=(3, 4, 4),
        input_signed=True,
        layers=[Layer(name="wide", op="avgpool", inputs=("input",), out="int32", **geometry)],
    )
    with pytest.raises(CompileError, match=f"layer 'wide': {field} does not fit in 16 bits"):
        compile_network(net)


@pytest.mark.parametrize(
    "start, found",
    [
        (b"\xff\xd8\xff\xe0JFIF", "a JPEG image"),
        (b"\x89PNG\r\n", "a PNG image"),
        (b"1,2,3\n", "starts with b'1,2,3"),
        (b"", "an empty file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x04K\x01.", "starts with b"),
    ],
)
def test_foreign_files_as_images(tmp_path, start, found):
    (tmp_path / "x").write_bytes(start)
    with pytest.raises(ImageError) as caught:
        load_images(tmp_path / "x", load_network("model/zoo/nin-cifar10.clipq.npz"))
    assert found in str(caught.value) and "pickle" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "line\nbreak").mkdir()
    net = load_network("model/zoo/nin-cifar10.clipq.npz")
    for name, words in (
        ("fifo", "not a regular file"),
        ("line\nbreak", "Is a directory"),
        ("absent", "No such file"),
        ("fifo/x", "Not a directory"),
    ):
        for load, error in (
            (load_network, NetworkError),
            (lambda path: load_images(path, net), ImageError),
        ):
            with pytest.raises(error, match=words) as caught:
                load(tmp_path / name)
            assert str(caught.value).isprintable()
    with pytest.raises(NetworkError, match="not a regular file"):
        load_network("/dev/zero")


def test_meta_is_read_as_text_only(tmp_path):
    for text in (np.array(b"{}"), np.array([json.dumps({})]), np.array(1.5)):
        with pytest.raises(NetworkError, match="meta: must be a 0-d string array"):
            load_network(write(tmp_path / "x.npz", text, {}))
