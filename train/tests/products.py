"""Digests of what must be the same on every machine, as JSON. `python -m train.tests.products`.

Networks and files from the shipped checkpoints, every quantizer's integers, sums in
both integer models. Inputs are drawn as integers: random floats differ by processor.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from model.network import load_network
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet
from train import checkpoint
from train.checkpoint import ZOO, export
from train.net import to_input
from train.quantize.codebooks import ClipQ, FixedPoint, Segments, Signs, root_mean_square

QUANTIZERS = {
    "clipq": ClipQ(0.5),
    "clipq of 20 %": ClipQ(0.2),
    **{f"fixed point of {bits} bits": FixedPoint(bits) for bits in (8, 7, 6, 5, 4)},
    "ternary": Signs(0.7),
    "binary": Signs(0),
    "segments": Segments((-1.2, -0.3, 0.5), 2),
    "affine segments": Segments((-1.2, -0.3, 0.5), 2, affine=True),
    "gain": ClipQ(0.2, 5, 1.0),
}


def digest(*arrays) -> str:
    """Of the bytes, types and shapes of arrays and tensors."""
    seen = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        seen.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return seen.hexdigest()


def weights(rng) -> torch.Tensor:
    """Of many magnitudes, and so many that sums of them are shared by threads."""
    bells = rng.integers(-(2**20), 2**20, (4, 100, 50, 5, 5)).sum(0)
    return torch.from_numpy(np.ldexp(bells, rng.integers(-40, -20, bells.shape)).astype(np.float32))


def products():
    """Yield (name, digest)."""
    rng = np.random.default_rng(1)
    for name, quantizer in QUANTIZERS.items():
        yield f"integers of {name}", digest(quantizer.integers(weights(rng)))
    sizes = [root_mean_square(weights(rng)) for _ in range(5)]
    yield "root mean squares", digest(np.array(sizes))
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 3, 32, 32)).astype(np.uint8))
    for source in sorted(ZOO.glob("*.ckpt.npz")):
        yield from shipped(source, pixels)


def folded(block):
    """The arrays of a layer of the file."""
    return [one for one in block.folded().values() if isinstance(one, np.ndarray)]


@torch.no_grad()
def shipped(source: Path, pixels):
    net, facts = checkpoint.read(source)
    for name, block in net.blocks():
        yield f"{source.name} {name}", digest(*folded(block))
    with tempfile.TemporaryDirectory() as folder:
        export(source, Path(folder, "net"))
        yield f"{source.name} exported", digest(np.fromfile(Path(folder, "net"), np.uint8))
        checkpoint.write(net, Path(folder, "again"), facts)
        yield f"{source.name} written", digest(np.fromfile(Path(folder, "again"), np.uint8))
        network = load_network(Path(folder, "net"))
    x = to_input(pixels, net.spec["input"])
    yield f"{source.name} input", digest(x)
    yield f"{source.name} int", digest(run_integer(network, x.long().numpy()))
    yield f"{source.name} torch", digest(TorchNet(network)(x.long()))


if __name__ == "__main__":
    click.echo(json.dumps(dict(products())))
