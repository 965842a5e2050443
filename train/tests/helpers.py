"""Networks and images that several tests share."""

import multiprocessing

import pytest
import torch

from train.checkpoint import snapped
from train.net import Net, Piece, to_input
from train.nets.nin import NIN
from train.quantize.start import quantize
from train.recipe import Quantization
from train.sources import Images
from train.trace import trace

START = Quantization("clipq")  # the quickest
MEAN = (125.307, 122.950, 113.865)
SOURCE = {
    "shape": [3, 32, 32],
    "scale": [0.9] * 3,
    "offset": [-0.9 * m for m in MEAN],
    "unit": 57.0,
}
# Processes that a test may kill; what they need is imported once, for all of them.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch._dynamo", "train.__main__", "train.tests.helpers"])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small operations on several threads wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pixels(count: int, seed: int = 0, shape=(3, 32, 32)) -> torch.Tensor:
    """Random pixels, uint8 [count, *shape], the same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=rng, dtype=torch.uint8)


def images(count: int, seed: int = 0, shape=(3, 32, 32), classes: int = 10) -> Images:
    """Random images whose labels have nothing to do with them."""
    rng = torch.Generator().manual_seed(seed + 1000)
    return Images(pixels(count, seed, shape), torch.randint(0, classes, (count,), generator=rng))


def nin(seed: int = 0, width: float = 0.05) -> Net:
    """A NIN of few channels, in full precision."""
    torch.manual_seed(seed)
    return trace(NIN(10, width), SOURCE)


def pieced(net: Net) -> Piece:
    """What a forward pass of training gets."""
    return Piece(integers={block: block.integers() for _, block in net.blocks()})


def inputs(net: Net, count: int = 4, seed: int = 0) -> torch.Tensor:
    """Random input integers of a network."""
    return to_input(pixels(count, seed, net.spec["input"]["shape"]), net.spec["input"])


def quantized(seed: int = 0, width: float = 0.05) -> Net:
    """A quantized NIN of few channels, as its file holds it, in mode "fake"."""
    net = nin(seed, width)
    quantize(net, inputs(net), START)
    return snapped(net)
