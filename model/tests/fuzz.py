"""Seeded mutations of network files and image files, fed to the commands' readers and both models.

    python -m model.tests.fuzz SEED COUNT

Every file is either refused with an error for the user or gives the same integers in both models.
Anything else, more than 10 seconds for a file, or more than 1 GB of memory ends the program with
the seed of the file.
"""

import copy
import io
import json
import resource
import signal
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from model.common.errors import UserError
from model.data.images import load_images
from model.network import load_network, save_network
from model.network.random_networks import random_input, random_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet

SECONDS = 10
MEMORY = 1 << 30
HOSTILE = (
    None,
    True,
    0,
    -1,
    1,
    3,
    7,
    127,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**63,
    10**400,
    -(10**400),
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "conv",
    "maxpool",
    "input",
    "int32",
    "a\nPASSED",
    "\x1b[2J",
    "\ud800",
    "x" * 3000,
    [],
    [1],
    [1, 1],
    [2, 2],
    [0, 0],
    [-1, 1],
    [1, 2, 3],
    [2**31 - 1] * 2,
    [1e9, 1],
    ["input"],
    ["input", "input"],
    [[]],
    {},
    {"a": 1},
)
KEYS = (
    "name",
    "op",
    "inputs",
    "stride",
    "pad",
    "kernel",
    "out_min",
    "out_max",
    "mult",
    "shift",
    "out",
    "groups",
    "dilation",
    "zero_point",
    "comment",
    "x-note",
    "format",
    "version",
    "classes",
    "input",
    "shape",
    "signed",
    "scale",
    "offset",
    "layers",
)
DTYPES = (
    "int8",
    "uint8",
    "int16",
    ">i4",
    "int64",
    "uint64",
    "float16",
    "float64",
    "complex64",
    "bool",
    "U3",
    "S2",
    "datetime64[s]",
)


def pick(rng, options):
    return copy.deepcopy(options[rng.integers(len(options))])


def parts(path):
    """meta (dict) and arrays of a network file."""
    with np.load(path) as archive:
        return json.loads(str(archive["meta"])), {
            name: archive[name] for name in archive.files if name != "meta"
        }


def nodes(tree):
    """All (container, key) of a JSON tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from nodes(value)


def change_meta(rng, meta, arrays):
    places = list(nodes(meta))
    container, key = places[rng.integers(len(places))]
    kind = rng.integers(5)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[pick(rng, KEYS)] = container.pop(key)
    elif kind == 2 and isinstance(container, dict):
        container[pick(rng, KEYS)] = pick(rng, HOSTILE)
    elif kind == 3 and isinstance(container, list):
        container.insert(int(rng.integers(len(container) + 1)), copy.deepcopy(container[key]))
    else:
        container[key] = pick(rng, HOSTILE)


def change_array(rng, meta, arrays):
    if not arrays:
        return
    name = pick(rng, sorted(arrays))
    array, kind = arrays[name], rng.integers(8)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        with np.errstate(all="ignore"):
            arrays[name] = array.astype(pick(rng, DTYPES))
    elif kind == 2:
        arrays[name] = array.reshape(
            pick(rng, ((-1,), (1, *array.shape), array.shape[::-1], (*array.shape, 1)))
        )
    elif kind == 3:
        arrays[name] = np.resize(
            array, pick(rng, ((), (0,), array.shape[:-1], (*array.shape[:-1], array.shape[-1] + 1)))
        )
    elif kind == 4:
        arrays[name] = arrays[pick(rng, sorted(arrays))]
    elif kind == 5:
        arrays[f"{name}{pick(rng, ('x', '.scale', '.index'))}"] = arrays.pop(name)
    elif kind == 6:
        arrays[name] = np.asfortranarray(array.astype(array.dtype.newbyteorder(">")))
    else:
        array = arrays[name] = array.copy()
        info = np.iinfo(array.dtype)
        array.flat[rng.integers(array.size)] = pick(rng, (info.min, info.max, 0, 1, 3, 31))


def damage(rng, data):
    """The bytes with a few flips, a cut, a repeated or a blanked piece."""
    data, kind = bytearray(data), rng.integers(4)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = data[at : at + length]
    else:
        data[at : at + length] = bytes(min(length, len(data) - at))
    return bytes(data)


def mutated_network(rng, path):
    save_network(
        random_network(
            rng,
            sizes=((6, 5), (3, 3), (1, 1)),
            channels=(1, 2, 3, 5),
            max_layers=4,
            max_macs=50_000,
        ),
        path,
    )
    if rng.random() < 0.25:
        path.write_bytes(damage(rng, path.read_bytes()))
        return
    meta, arrays = parts(path)
    for _ in range(rng.integers(1, 3)):
        try:
            pick(rng, (change_meta, change_meta, change_array))(rng, meta, arrays)
        except (KeyError, IndexError, ValueError, TypeError):
            pass  # an earlier change left nothing to change there
    try:
        text = json.dumps(meta)
    except ValueError:
        text = "{"
    pick(rng, (np.savez, np.savez_compressed))(
        path.with_suffix(".npz"), meta=np.array(text), **arrays
    )


def mutated_images(rng, net, path):
    data = io.BytesIO()
    np.save(
        data,
        random_input(rng, net, int(rng.integers(0, 3))).astype(
            pick(rng, ("int32", "int64", ">i2", *DTYPES[:8]))
        ),
    )
    path.write_bytes(damage(rng, data.getvalue()) if rng.random() < 0.5 else data.getvalue())


def accepted(network, images, rng):
    """Whether both files are accepted; then the models must agree. Raises UserError for a
    refusal."""
    net = load_network(network)
    mutated_images(rng, net, images)
    try:
        x = load_images(images, net, pixels=rng.random() < 0.2)
    except UserError:
        x = random_input(rng, net)
    expected = run_integer(net, x)
    got = TorchNet(net)(torch.from_numpy(x)).numpy()
    if not np.array_equal(expected, got):
        raise AssertionError("the integer model and PyTorch differ")
    return True


def late(*_):
    raise AssertionError(f"no end after {SECONDS} s")


@click.command(help=__doc__)
@click.argument("seed", type=click.IntRange(0))
@click.argument("count", type=click.IntRange(1))
def main(seed, count):
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGALRM, late)
    n_accepted = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        network, images = Path(folder, "net.npz"), Path(folder, "images.npy")
        for number in range(seed, seed + count):
            rng = np.random.default_rng(number)
            mutated_network(rng, network)
            signal.alarm(SECONDS)
            try:
                n_accepted += accepted(network, images, rng)
            except UserError as error:
                if (
                    not all(line.isprintable() for line in str(error).split("\n"))
                    or len(str(error)) > 1000
                ):
                    sys.exit(f"file {number}: an unreadable message: {str(error)[:2000]!r}")
            except BaseException as error:
                print(f"file {number}: {type(error).__name__}", file=sys.stderr)
                raise
            signal.alarm(0)
            used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            if used > MEMORY:
                sys.exit(f"file {number}: {used:,} bytes of memory")
    print(f"{count} files, {n_accepted} accepted, {used:,} bytes of memory")


if __name__ == "__main__":
    main()
