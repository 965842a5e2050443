"""The network file: what is kept, and that every breach of the contract is refused with the layer,
the field and the reason."""

import json
import re
import zipfile

import numpy as np
import pytest

from model.network import Network, NetworkError, load_network, save_network
from model.network.random_networks import random_network

LIMIT = (
    2**31 - 1 - 128 * 11 * (128 + 3 + 127)
)  # largest |bias| of layer a's channel 0 below: its 45 indices are 0 1 2 3 0 1 ... 0


def parts():
    """meta and arrays of a legal network with every op: a, b (conv), sum (add), pool (maxpool), gap
    (avgpool), fc (conv, int32)."""
    meta = {
        "format": "clipq-net",
        "version": 1,
        "name": "every-op",
        "classes": ["x", "y"],
        "input": {
            "shape": [3, 8, 6],
            "signed": True,
            "scale": [1.0, 0.5, 0.25],
            "offset": [-128.0, 0.0, 1.5],
        },
        "layers": [
            {
                "name": "a",
                "op": "conv",
                "inputs": ["input"],
                "stride": [1, 1],
                "pad": [1, 2],
                "out_min": 0,
                "out_max": 255,
            },
            {
                "name": "b",
                "op": "conv",
                "inputs": ["input"],
                "stride": [1, 1],
                "pad": [1, 2],
                "out_min": -128,
                "out_max": 127,
            },
            {
                "name": "sum",
                "op": "add",
                "inputs": ["a", "b"],
                "mult": [1, 2],
                "shift": 1,
                "out_min": 0,
                "out_max": 255,
            },
            {
                "name": "pool",
                "op": "maxpool",
                "inputs": ["sum"],
                "kernel": [3, 3],
                "stride": [2, 2],
                "pad": [1, 1],
            },
            {
                "name": "gap",
                "op": "avgpool",
                "inputs": ["pool"],
                "kernel": [4, 3],
                "stride": [4, 3],
                "pad": [0, 0],
                "mult": 7,
                "shift": 6,
                "out_min": 0,
                "out_max": 255,
            },
            {
                "name": "fc",
                "op": "conv",
                "inputs": ["gap"],
                "stride": [1, 1],
                "pad": [0, 0],
                "out": "int32",
            },
        ],
    }
    arrays = {}
    for name, shape in (("a", (4, 3, 3, 5)), ("b", (4, 3, 3, 5)), ("fc", (2, 4, 1, 1))):
        arrays[f"{name}.index"] = (np.arange(np.prod(shape)) % 4).astype(np.uint8).reshape(shape)
        arrays[f"{name}.codebook"] = np.array([0, -128, 3, 127], np.int8)
        arrays[f"{name}.bias"] = np.arange(shape[0], dtype=np.int32)
        if name != "fc":
            arrays[f"{name}.mult"] = np.full(shape[0], 32767, np.int32)
            arrays[f"{name}.shift"] = np.full(shape[0], 31, np.uint8)
    return meta, arrays


def write(path, meta, arrays):
    text = (
        meta
        if isinstance(meta, np.ndarray)
        else np.array(meta if isinstance(meta, str) else json.dumps(meta))
    )
    np.savez(path, meta=text, **arrays)
    return path


@pytest.fixture
def legal(tmp_path):
    return write(tmp_path / "legal.clipq.npz", *parts())


def test_legal_file(legal):
    net = load_network(legal)
    assert (net.name, net.input_shape, net.input_signed, net.classes) == (
        "every-op",
        (3, 8, 6),
        True,
        ("x", "y"),
    )
    assert (net.scale, net.offset) == ((1.0, 0.5, 0.25), (-128.0, 0.0, 1.5))
    shapes = {
        layer.name: (layer.in_shape, layer.out_shape, layer.in_signed_all, layer.out_signed)
        for layer in net.layers
    }
    assert shapes == {
        "a": ((3, 8, 6), (4, 8, 6), (True,), False),
        "b": ((3, 8, 6), (4, 8, 6), (True,), True),
        "sum": ((4, 8, 6), (4, 8, 6), (False, True), False),
        "pool": ((4, 8, 6), (4, 4, 3), (False,), False),
        "gap": ((4, 4, 3), (4, 1, 1), (False,), False),
        "fc": ((4, 1, 1), (2, 1, 1), (False,), True),
    }
    a = net.layer("a")
    assert (
        a.kernel == (3, 5)
        and a.macs == 4 * 8 * 6 * 45
        and a.weights.tolist() == a.codebook[a.index].tolist()
    )
    assert a.sum_bound[0] == 2**31 - 1 - LIMIT
    assert net.layer("fc").mult is None and net.output is net.layer("fc")
    with pytest.raises(KeyError):
        net.layer("input")


def test_round_trip_is_exact_and_deterministic(tmp_path, legal):
    first, second = tmp_path / "first.clipq.npz", tmp_path / "second.clipq.npz"
    save_network(load_network(legal), first)
    save_network(load_network(first), second)
    assert first.read_bytes() == second.read_bytes()
    meta, arrays = parts()
    with np.load(first, allow_pickle=False) as archive:
        assert json.loads(str(archive["meta"])) == meta
        assert set(archive.files) == {"meta", *arrays}
        for name, array in arrays.items():
            assert archive[name].dtype == array.dtype
            np.testing.assert_array_equal(archive[name], array)
    assert {member.date_time for member in zipfile.ZipFile(first).infolist()} == {
        (1980, 1, 1, 0, 0, 0)
    }


@pytest.mark.parametrize("seed", range(10))
def test_random_networks_survive_the_file(tmp_path, seed):
    net = random_network(np.random.default_rng(seed))
    save_network(net, tmp_path / "net.clipq.npz")
    back = load_network(tmp_path / "net.clipq.npz")
    for key in ("name", "input_shape", "input_signed", "scale", "offset", "classes"):
        assert getattr(back, key) == getattr(net, key)
    for old, new in zip(net.layers, back.layers, strict=True):
        for key, value in vars(old).items():
            np.testing.assert_array_equal(getattr(new, key), value, err_msg=f"{old.name}.{key}")
            assert type(getattr(new, key)) is type(value)


def test_optional_and_unknown_parts(tmp_path):
    meta, arrays = parts()
    del meta["classes"], meta["input"]["scale"], meta["input"]["offset"]
    meta["comment"] = meta["layers"][0]["comment"] = meta["input"]["comment"] = "ignored"
    meta["layers"][0]["groups"] = 1
    meta["layers"][-1].update(
        out_min=999, out_max="ignored"
    )  # an int32 output ignores its scaling, right or wrong
    arrays["fc.mult"] = np.zeros(1)
    arrays["extra"] = np.zeros(3)
    arrays["a.bias"] = arrays["a.bias"].astype(">i4")
    arrays["a.index"] = np.asfortranarray(arrays["a.index"])
    net = load_network(write(tmp_path / "x.npz", meta, arrays))
    assert net.classes == () and net.scale is None and net.output.out_min is None
    assert net.layer("a").bias.dtype.isnative and net.layer("a").index.flags.c_contiguous
    with pytest.raises(ValueError):
        net.layer("a").index[0] = 1  # read-only


# One edit each, and what the message must say. m: meta, n: layer entries by name, v: arrays.
REJECTED = {
    "format": (lambda m, n, v: m.update(format="onnx"), "format: must be 'clipq-net', not 'onnx'"),
    "no format": (lambda m, n, v: m.pop("format"), "format: must be 'clipq-net', not None"),
    "version": (
        lambda m, n, v: m.update(version=2),
        "version: this program reads version 1, not 2",
    ),
    "version true": (
        lambda m, n, v: m.update(version=True),
        "version: this program reads version 1, not True",
    ),
    "no name": (lambda m, n, v: m.pop("name"), "meta: name: missing"),
    "empty name": (
        lambda m, n, v: m.update(name=""),
        "name: must be a string of 1..255 printable characters, not ''",
    ),
    "classes": (
        lambda m, n, v: m.update(classes=["x", 1]),
        "classes: must be a list of strings of 1..255 printable characters, not ['x', 1]",
    ),
    "no input": (lambda m, n, v: m.pop("input"), "meta: input: missing"),
    "input list": (lambda m, n, v: m.update(input=[3, 8, 6]), "input: must be a JSON object"),
    "no shape": (lambda m, n, v: m["input"].pop("shape"), "input: shape: missing"),
    "shape of two": (
        lambda m, n, v: m["input"].update(shape=[8, 6]),
        "input: shape: must be a list of 3 integers, not [8, 6]",
    ),
    "shape zero": (
        lambda m, n, v: m["input"].update(shape=[3, 0, 6]),
        "input: shape: must be an integer in 1..2147483647, not 0",
    ),
    "shape float": (
        lambda m, n, v: m["input"].update(shape=[3, 8.0, 6]),
        "input: shape: must be an integer in 1..2147483647, not 8.0",
    ),
    "no signed": (lambda m, n, v: m["input"].pop("signed"), "input: signed: missing"),
    "signed": (
        lambda m, n, v: m["input"].update(signed=1),
        "input: signed: must be true or false, not 1",
    ),
    "scale alone": (
        lambda m, n, v: m["input"].pop("offset"),
        "input: scale and offset: give both or neither",
    ),
    "scale length": (
        lambda m, n, v: m["input"].update(scale=[1.0]),
        "input: scale: must be 3 finite numbers",
    ),
    "scale text": (
        lambda m, n, v: m["input"].update(scale=[1, 2, "3"]),
        "input: scale: must be 3 finite numbers",
    ),
    "offset nan": (
        lambda m, n, v: m["input"].update(offset=[0, 0, float("nan")]),
        "input: offset: must be 3 finite numbers",
    ),
    "no layers key": (lambda m, n, v: m.pop("layers"), "meta: layers: missing"),
    "no layers": (lambda m, n, v: m.update(layers=[]), "layers: there must be at least one"),
    "layers object": (lambda m, n, v: m.update(layers={}), "layers: must be a list"),
    "layer text": (lambda m, n, v: m["layers"].append("relu"), "layers[6]: must be a JSON object"),
    "unnamed layer": (lambda m, n, v: n["pool"].pop("name"), "layers[3]: name: missing"),
    "layer name type": (
        lambda m, n, v: n["pool"].update(name=3),
        "layers[3]: name: must be a string of 1..255 printable characters, not 3",
    ),
    "long layer name": (
        lambda m, n, v: n["pool"].update(name="p" * 256),
        "layers[3]: name: must be a string of 1..255 printable characters, not 'ppp",
    ),
    "layer name input": (
        lambda m, n, v: n["pool"].update(name="input"),
        "layers[3]: name: 'input' is reserved",
    ),
    "duplicate": (lambda m, n, v: n["pool"].update(name="a"), "layer 'a': name: used twice"),
    "no op": (lambda m, n, v: n["pool"].pop("op"), "layer 'pool': op: missing"),
    "op": (
        lambda m, n, v: n["pool"].update(op="softmax"),
        "layer 'pool': op: 'softmax' is unknown; there are conv, maxpool, avgpool, add",
    ),
    "groups": (
        lambda m, n, v: n["a"].update(groups=3),
        "layer 'a': groups: only 1 is supported, not 3",
    ),
    "no inputs": (lambda m, n, v: n["a"].pop("inputs"), "layer 'a': inputs: missing"),
    "inputs text": (
        lambda m, n, v: n["a"].update(inputs="input"),
        "layer 'a': inputs: conv takes a list of 1 name, not 'input'",
    ),
    "two inputs": (
        lambda m, n, v: n["a"].update(inputs=["input", "input"]),
        "layer 'a': inputs: conv takes a list of 1 name",
    ),
    "one addend": (
        lambda m, n, v: n["sum"].update(inputs=["a"]),
        "layer 'sum': inputs: add takes a list of 2 names",
    ),
    "unknown input": (
        lambda m, n, v: n["pool"].update(inputs=["summ"]),
        "layer 'pool': inputs: there is no layer 'summ'",
    ),
    "later input": (
        lambda m, n, v: n["a"].update(inputs=["pool"]),
        "layer 'a': inputs: 'pool' comes after it",
    ),
    "own input": (
        lambda m, n, v: n["a"].update(inputs=["a"]),
        "layer 'a': inputs: 'a' comes after it or is the layer itself",
    ),
    "unread layer": (
        lambda m, n, v: n["sum"].update(inputs=["a", "a"]),
        "layer 'b': inputs: no layer reads this one",
    ),
    "addend shapes": (
        lambda m, n, v: n["sum"].update(inputs=["a", "input"]),
        "layer 'sum': inputs: 'a' is [4, 8, 6] but 'input' is [3, 8, 6]",
    ),
    "no stride": (lambda m, n, v: n["a"].pop("stride"), "layer 'a': stride: missing"),
    "stride 3": (
        lambda m, n, v: n["a"].update(stride=[1, 3]),
        "layer 'a': stride: must be an integer in 1..2, not 3",
    ),
    "stride 0": (
        lambda m, n, v: n["pool"].update(stride=[0, 1]),
        "layer 'pool': stride: must be an integer in 1..",
    ),
    "no pad": (lambda m, n, v: n["pool"].pop("pad"), "layer 'pool': pad: missing"),
    "pad negative": (
        lambda m, n, v: n["a"].update(pad=[-1, 0]),
        "layer 'a': pad: must be an integer in 0..",
    ),
    "pad conv": (
        lambda m, n, v: n["a"].update(pad=[3, 0]),
        "layer 'a': pad: vertical padding 3 must be smaller than the kernel (3)",
    ),
    "pad conv x": (
        lambda m, n, v: n["a"].update(pad=[1, 5]),
        "layer 'a': pad: horizontal padding 5 must be smaller than the kernel (5)",
    ),
    "pad maxpool": (
        lambda m, n, v: n["pool"].update(pad=[1, 2]),
        "layer 'pool': pad: horizontal padding 2 must be at most half the kernel (3)",
    ),
    "pad avgpool": (
        lambda m, n, v: n["gap"].update(pad=[4, 0]),
        "layer 'gap': pad: vertical padding 4 must be smaller than the kernel (4)",
    ),
    "no kernel": (lambda m, n, v: n["pool"].pop("kernel"), "layer 'pool': kernel: missing"),
    "kernel zero": (
        lambda m, n, v: n["pool"].update(kernel=[0, 2]),
        "layer 'pool': kernel: must be an integer in 1..",
    ),
    "kernel too large": (
        lambda m, n, v: n["gap"].update(kernel=[5, 3]),
        "layer 'gap': kernel: [5, 3] is larger than its padded input [4, 3]",
    ),
    "kernel sums": (
        lambda m, n, v: n["gap"].update(kernel=[2**12, 2**12], pad=[2**12 - 1] * 2),
        "layer 'gap': kernel: max|a| * window of output channel 0 is 4278190080, more than the "
        "32-bit sum holds",
    ),
    "kernel 12": (
        lambda m, n, v: v.update({"a.index": np.zeros((4, 3, 12, 1), np.uint8)}),
        "layer 'a': index: kernel height 12 is outside 1..11",
    ),
    "out": (
        lambda m, n, v: n["fc"].update(out="float"),
        "layer 'fc': out: must be 'int8' or 'int32', not 'float'",
    ),
    "int32 inside": (
        lambda m, n, v: n["gap"].update(out="int32"),
        "layer 'gap': out: only the last layer may be 'int32'",
    ),
    "int32 maxpool": (
        lambda m, n, v: (m["layers"].pop(), m["layers"].pop(), n["pool"].update(out="int32")),
        "layer 'pool': out: only conv and avgpool may be 'int32', not maxpool",
    ),
    "no out_min": (lambda m, n, v: n["a"].pop("out_min"), "layer 'a': out_min: missing"),
    "no out_max": (lambda m, n, v: n["sum"].pop("out_max"), "layer 'sum': out_max: missing"),
    "out_min low": (
        lambda m, n, v: n["a"].update(out_min=-129),
        "layer 'a': out_min: must be an integer in -128..255, not -129",
    ),
    "out_max high": (
        lambda m, n, v: n["gap"].update(out_max=256),
        "layer 'gap': out_max: must be an integer in -128..255, not 256",
    ),
    "out order": (
        lambda m, n, v: n["a"].update(out_min=9, out_max=8),
        "layer 'a': out_min: 9 is larger than out_max 8",
    ),
    "out mixed": (
        lambda m, n, v: n["b"].update(out_max=128),
        "layer 'b': out_max: -128..128 lies neither inside -128..127 nor inside 0..255",
    ),
    "avgpool no mult": (lambda m, n, v: n["gap"].pop("mult"), "layer 'gap': mult: missing"),
    "avgpool mult": (
        lambda m, n, v: n["gap"].update(mult=32768),
        "layer 'gap': mult: must be an integer in 1..32767, not 32768",
    ),
    "avgpool shift": (
        lambda m, n, v: n["gap"].update(shift=32),
        "layer 'gap': shift: must be an integer in 0..31, not 32",
    ),
    "avgpool kernel beyond 64 bits": (
        lambda m, n, v: n["gap"].update(
            kernel=[2**31 - 1] * 2, stride=[2**31 - 1] * 2, pad=[2**31 - 2] * 2
        ),
        "layer 'gap': kernel: max|a| * window of output channel 0 is",
    ),
    "add mult": (
        lambda m, n, v: n["sum"].update(mult=[1, 0]),
        "layer 'sum': mult: must be an integer in 1..32767, not 0",
    ),
    "add mult one": (
        lambda m, n, v: n["sum"].update(mult=1),
        "layer 'sum': mult: must be a list of 2 integers, not 1",
    ),
    "add shift": (
        lambda m, n, v: n["sum"].update(shift=True),
        "layer 'sum': shift: must be an integer in 0..31, not True",
    ),
    "no index": (lambda m, n, v: v.pop("a.index"), "layer 'a': index: array 'a.index' is missing"),
    "no shift array": (
        lambda m, n, v: v.pop("b.shift"),
        "layer 'b': shift: array 'b.shift' is missing",
    ),
    "index 4": (
        lambda m, n, v: v["a.index"].__setitem__((2, 1, 0, 3), 4),
        "layer 'a': index: 4 at [2, 1, 0, 3] is outside 0..3",
    ),
    "index type": (
        lambda m, n, v: v.update({"a.index": v["a.index"].astype(np.int64)}),
        "layer 'a': index: must be uint8, not int64",
    ),
    "index rank": (
        lambda m, n, v: v.update({"a.index": v["a.index"][..., 0]}),
        "layer 'a': index: must have shape [any, 3, any, any], not [4, 3, 3]",
    ),
    "index channels": (
        lambda m, n, v: v.update({"a.index": v["a.index"][:, :2]}),
        "layer 'a': index: must have shape [any, 3, any, any], not [4, 2, 3, 5]",
    ),
    "index empty": (
        lambda m, n, v: v.update({"a.index": v["a.index"][:0]}),
        "layer 'a': index: must have shape [any, 3, any, any], not [0, 3, 3, 5]",
    ),
    "codebook 0": (
        lambda m, n, v: v["a.codebook"].__setitem__(0, 1),
        "layer 'a': codebook: entry 0 must be 0, not 1",
    ),
    "codebook size": (
        lambda m, n, v: v.update({"a.codebook": np.zeros(5, np.int8)}),
        "layer 'a': codebook: must have shape [4], not [5]",
    ),
    "codebook type": (
        lambda m, n, v: v.update({"a.codebook": np.zeros(4)}),
        "layer 'a': codebook: must be int8, not float64",
    ),
    "bias size": (
        lambda m, n, v: v.update({"a.bias": np.zeros(3, np.int32)}),
        "layer 'a': bias: must have shape [4], not [3]",
    ),
    "bias type": (
        lambda m, n, v: v.update({"a.bias": np.zeros(4, np.uint32)}),
        "layer 'a': bias: must be int32, not uint32",
    ),
    "mult 0": (
        lambda m, n, v: v["a.mult"].__setitem__(2, 0),
        "layer 'a': mult: 0 of output channel 2 is outside 1..32767",
    ),
    "mult high": (
        lambda m, n, v: v["a.mult"].__setitem__(1, 32768),
        "layer 'a': mult: 32768 of output channel 1 is outside 1..32767",
    ),
    "shift high": (
        lambda m, n, v: v["a.shift"].__setitem__(3, 32),
        "layer 'a': shift: 32 of output channel 3 is outside 0..31",
    ),
    "pickled": (
        lambda m, n, v: v.update({"a.bias": np.array([None] * 4)}),
        "layer 'a': bias: array 'a.bias' cannot be read",
    ),
}


@pytest.mark.parametrize("case", list(REJECTED))
def test_rejected(tmp_path, case):
    edit, message = REJECTED[case]
    meta, arrays = parts()
    edit(meta, {entry["name"]: entry for entry in meta["layers"]}, arrays)
    path = write(tmp_path / "bad.npz", meta, arrays)
    with pytest.raises(NetworkError) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


@pytest.mark.parametrize(
    "bias, excess",
    [(LIMIT, 0), (-LIMIT, 0), (LIMIT + 1, 1), (-LIMIT - 1, 1), (-(2**31), 2**31 - LIMIT)],
)
def test_accumulator_bound(tmp_path, bias, excess):
    meta, arrays = parts()
    arrays["a.bias"][0] = bias
    path = write(tmp_path / "x.npz", meta, arrays)
    if excess == 0:
        assert load_network(path).layer("a").bias[0] == bias
    else:
        message = re.escape(
            "layer 'a': bias: max|a| * sum|w| + |bias| of output channel 0 is "
            f"{2**31 - 1 + excess}, more than"
        )
        with pytest.raises(NetworkError, match=message):
            load_network(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "meta: not JSON"),
        ("[]", "meta: must be a JSON object"),
        ("[" * 100_000, "meta: not JSON"),
        (np.array(["{}"]), "meta: must be a 0-d string array"),
        (np.array(3), "meta: must be a 0-d string array"),
    ],
)
def test_bad_meta(tmp_path, text, message):
    with pytest.raises(NetworkError, match=re.escape(message)):
        load_network(write(tmp_path / "x.npz", text, {}))


def test_files_that_are_no_networks(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", x=1)
    for name, message in (
        ("array.npy", "not a readable .npz archive: it is a single array"),
        ("text.npz", "not a readable .npz archive"),
        ("empty.npz", "not a readable .npz archive"),
        ("absent.npz", "No such file"),
        (".", "Is a directory"),
        ("other.npz", "meta: array 'meta' is missing"),
    ):
        with pytest.raises(NetworkError, match=message):
            load_network(tmp_path / name)


def test_truncated_and_damaged_files(tmp_path, legal):
    save_network(load_network(legal), tmp_path / "good.npz")
    good, path = (tmp_path / "good.npz").read_bytes(), tmp_path / "bad.npz"
    for size in range(0, len(good), 37):
        path.write_bytes(good[:size])
        with pytest.raises(NetworkError):
            load_network(path)
    rng, refused = np.random.default_rng(2), 0
    for _ in range(300):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            save_network(
                load_network(path), tmp_path / "again.npz"
            )  # a flip in unused zip fields does no harm ...
        except NetworkError:
            refused += 1
        else:
            assert (
                tmp_path / "again.npz"
            ).read_bytes() == good  # ... but never changes the network
    assert refused > 200


def test_networks_made_in_code_are_checked_too():
    with pytest.raises(NetworkError, match=r"layers\[0\]: must be a Layer, not dict"):
        Network(name="x", input_shape=(1, 1, 1), input_signed=True, layers=[{}])
