"""Gradients and accuracy of a network on the threads of a CPU, or on a GPU.

A batch is cut into pieces that are normalized by themselves ("ghost" batch norm). Pieces are shared
out to threads, and under torchrun to processes as well; their gradients are summed in order, so the
result does not depend on how many threads there are, nor on which computed what.
"""

import atexit
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from typing import Any

import click
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module

from model.common.errors import UserError
from train import data
from train.net import Conv, Net, Piece, to_input
from train.sources import Images

EVALUATED = 100  # images at a time
MOMENTUM = 0.1  # of batch norm's running statistics
# Inputs, targets, and where dropout's masks come from.
Given = tuple[Tensor, Tensor, torch.Generator | None]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@cache
def has_bfloat16() -> bool:
    """Whether convolutions are faster in bfloat16 than in float32 on this processor, as far as
    oneDNN may use it.

    With bfloat16 vectors but no matrices (AMX), Intel's take 1.2 to 1.9 times as long.
    """
    own = torch.cpu.get_capabilities()
    vectors = own.get("avx512_bf16") and not own.get("cpu_name", "").startswith("Intel")
    return bool(own.get("amx_bf16") or vectors) and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: str = "cpu") -> torch.autocast:
    """Context in which convolutions run in bfloat16 where that is fast (integers up to 256 stay
    exact in it)."""
    fast = has_bfloat16() if device == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast, cache_enabled=False)


def rank() -> int:
    """Number of this process, 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many torchrun has started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def say(text: str, err: bool = True) -> None:
    """Print progress, or a result, once for all processes."""
    if rank() == 0:
        click.echo(text, err=err)


def meet() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def find_device(name: str) -> torch.device:
    """The device "cpu" or "cuda" of this process; under torchrun after meeting the others.

    Raises UserError where "cuda" is asked for and there is none.
    """
    device = torch.device(name)
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError("--device cuda: PyTorch finds no GPU to use; --device cpu needs none")
        device = torch.device(name, int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        # The others wait while the first process quantizes and measures.
        dist.init_process_group("nccl" if name == "cuda" else "gloo", timeout=timedelta(days=1))
        # or its threads may still run when the process ends, which aborts it
        atexit.register(dist.destroy_process_group)
    return device


def moments(piece: Piece) -> list[Tensor]:
    """Mean and mean square of each batch norm."""
    return [one for mean, variance in piece.statistics for one in (mean, variance + mean**2)]


def added(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """Sums of lists of tensors, in order."""
    return [sum(found[1:], start=found[0]) for found in zip(*parts)]


class Workers(ThreadPoolExecutor):
    """Threads that compute with `net`; PyTorch itself is set to one thread. On a GPU there is
    one."""

    def __init__(self, net: Net, device: torch.device, threads: int) -> None:
        torch.set_num_threads(1)
        self.net, self.device = net.to(device), device
        count = threads if device.type == "cpu" else 1
        super().__init__(count, initializer=torch.set_num_threads, initargs=(1,))

    def gradients(self, pieces: list[Given], loss: Loss, tracking: bool = True) -> float:
        """Set the gradients of the mean loss over a batch and, if `tracking`, let the running
        statistics follow it; return the loss. loss(logits, inputs, targets): mean over a piece."""
        net, total = self.net, sum(len(x) for x, *_ in pieces)
        trained = [one for one in net.parameters() if one.requires_grad]
        integers = self.integers() if net.mode != "float" else {}

        def run(given: Given, share: float) -> list[Tensor]:
            """Share of a piece in loss, gradients and moments."""
            x, piece = given[0].to(self.device), Piece(given[2], integers)
            with autocast(self.device.type):
                logits = net(x, piece)
            value = loss(logits, x, given[1])
            found = [value.detach().double(), *torch.autograd.grad(value, trained)]
            return [share * one for one in (*found, *moments(piece))]

        mine = pieces[rank() :: processes()]
        shares = [len(x) / total for x, *_ in mine]
        sums = added(self.map(run, mine or pieces[:1], shares or [0.0]))
        if dist.is_initialized():
            for one in sums:
                dist.all_reduce(one)
        for parameter, grad in zip(trained, sums[1:]):
            parameter.grad = grad
        if tracking:
            self.follow(sums[len(trained) + 1 :], MOMENTUM)
        return sums[0].item()

    @torch.no_grad()
    def measure(self, images: Images) -> None:
        """Set batch norm's statistics to those of these images, in mode "fake".

        Weights that cross a boundary between segments in each step leave the running ones behind
        (Nagel et al., ICML 2022).
        """
        if not self.norms:
            return
        net, integers = self.net, self.integers()

        def run(part: Tensor) -> list[Tensor]:
            """Share of a part in the moments."""
            piece = Piece(integers=integers)
            with autocast(self.device.type), torch.no_grad():
                net(to_input(part, net.spec["input"]), piece)
            return [len(part) / len(images) * one for one in moments(piece)]

        parts = images.pixels.tensor_split(max(1, len(images) // EVALUATED))
        self.follow(added(self.map(run, parts)), 1.0)

    @property
    def norms(self) -> list[Any]:
        """Batch norm of the layers that have statistics."""
        return [block.bn for _, block in self.net.blocks() if block.spec["norm"] == "batch"]

    def integers(self) -> dict[Conv, Tensor]:
        """Those of each convolution's weights."""
        blocks = [block for _, block in self.net.blocks()]
        return dict(zip(blocks, self.map(Conv.integers, blocks)))

    def follow(self, sums: list[Tensor], momentum: float) -> None:
        """Move batch norm's statistics towards the `moments` of a whole batch."""
        for bn, mean, square in zip(self.norms, sums[::2], sums[1::2]):
            bn.running_mean.lerp_(mean, momentum)
            # Inside the pieces plus between them; rounding may go below zero.
            bn.running_var.lerp_((square - mean**2).clamp(min=0), momentum)

    @torch.no_grad()
    def accuracy(
        self, images: Images, size: int | None = None, model: Module | None = None
    ) -> float:
        """Top-1 accuracy 0..1 of the network in its mode, of images resized to `size`. model: what
        computes in its place."""
        source, model = self.net.spec["input"], model or self.net

        def run(part: Tensor) -> Tensor:
            # uint8 as long as they are: `to_input` rounds what the file's user gives as pixels
            x = to_input(data.resize(part, size), source)
            with autocast(self.device.type), torch.no_grad():
                return model(x).flatten(1).argmax(1)

        found = torch.cat(list(self.map(run, images.pixels.split(EVALUATED))))
        return (found == images.labels).double().mean().item()
