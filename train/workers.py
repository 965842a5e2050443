"""Gradients and accuracy of a network on the threads of a CPU, or on a GPU.

A batch is cut into pieces that are normalized by themselves ("ghost" batch norm). Pieces are shared
out to threads, and under torchrun to processes as well; their gradients are summed in order, so the
result does not depend on how many threads there are, nor on which computed what.
"""

import atexit
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module

from model.common.errors import UserError
from train import data
from train.net import Net, Piece, to_input
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


def meet() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def find_device(name: str) -> torch.device:
    """The device "cpu" or "cuda" of this process; under torchrun after meeting the others.

    Raises UserError where "cuda" is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU to use; --device cpu needs none")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if name == "cuda" else "gloo")
        # or its threads may still run when the process ends, which aborts it
        atexit.register(dist.destroy_process_group)
    number = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device(name, number) if name == "cuda" else torch.device(name)


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
        blocks = [block for _, block in net.blocks()] if net.mode != "float" else []
        integers = dict(zip(blocks, self.map(lambda block: block.integers(), blocks)))

        def run(given: Given, share: float) -> list[Tensor]:
            """Share of a piece in loss, gradients, means and mean squares."""
            x, piece = given[0].to(self.device), Piece(given[2], integers)
            with autocast(self.device.type):
                logits = net(x, piece)
            value = loss(logits, x, given[1])
            found = [value.detach().double(), *torch.autograd.grad(value, trained)]
            for mean, variance in piece.statistics:
                found += [mean, variance + mean**2]
            return [share * one for one in found]

        mine = pieces[rank() :: dist.get_world_size() if dist.is_initialized() else 1]
        shares = [len(x) / total for x, *_ in mine]
        parts = self.map(run, mine or pieces[:1], shares or [0.0])
        sums = [sum(found[1:], start=found[0]) for found in zip(*parts)]
        if dist.is_initialized():
            for one in sums:
                dist.all_reduce(one)
        for parameter, grad in zip(trained, sums[1:]):
            parameter.grad = grad
        moments = sums[len(trained) + 1 :] if tracking else []
        norms = (block.bn for _, block in net.blocks() if block.spec["norm"] == "batch")
        for bn, mean, square in zip(norms, moments[::2], moments[1::2]):
            bn.running_mean.lerp_(mean, MOMENTUM)
            # Of the whole batch: inside the pieces plus between them; rounding may go below zero.
            bn.running_var.lerp_((square - mean**2).clamp(min=0), MOMENTUM)
        return sums[0].item()

    @torch.no_grad()
    def measure(self, images: Images) -> None:
        """Set batch norm's statistics to those of these images, in mode "fake".

        Weights that cross a boundary between segments in each step leave the running ones behind
        (Nagel et al., ICML 2022).
        """
        net = self.net
        blocks = [block for _, block in net.blocks()]
        integers = dict(zip(blocks, self.map(lambda block: block.integers(), blocks)))

        def run(part: Tensor) -> list[Tensor]:
            """Share of a part in means and mean squares."""
            piece = Piece(integers=integers)
            with autocast(self.device.type), torch.no_grad():
                net(to_input(part, net.spec["input"]), piece)
            share = len(part) / len(images)
            moments = [(mean, variance + mean**2) for mean, variance in piece.statistics]
            return [share * one for pair in moments for one in pair]

        parts = images.pixels.tensor_split(max(1, len(images) // EVALUATED))
        sums = [sum(found[1:], start=found[0]) for found in zip(*self.map(run, parts))]
        norms = (block.bn for block in blocks if block.spec["norm"] == "batch")
        for bn, mean, square in zip(norms, sums[::2], sums[1::2]):
            bn.running_mean.copy_(mean)
            bn.running_var.copy_((square - mean**2).clamp(min=0))

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
