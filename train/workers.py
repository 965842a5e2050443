"""Gradients and logits of a network on the threads of a CPU, or on a GPU.

A batch is cut into pieces that are normalized by themselves ("ghost" batch norm). Pieces are shared
out to threads, and under torchrun to processes as well; their gradients are summed in order, so the
result does not depend on how many threads there are, nor on which computed what.
"""

import atexit
import copy
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.common.errors import UserError
from train.net import MOMENTUM, Dropout, Net

EVALUATED = 100  # images at a time


@cache
def has_bfloat16() -> bool:
    """Whether the processor, as far as oneDNN may use it, multiplies bfloat16 natively.

    Elsewhere it is ten times slower than float32.
    """
    flags = Path("/proc/cpuinfo")
    text = flags.read_text() if flags.exists() else ""
    native = "avx512_bf16" in text or "amx_bf16" in text
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: str = "cpu") -> torch.autocast:
    """Context in which convolutions run in bfloat16 where that is fast (integers up to 256 stay
    exact in it)."""
    fast = has_bfloat16() if device == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast, cache_enabled=False)


def rank() -> int:
    """Number of this process, 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


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


def summed(tensor: Tensor) -> Tensor:
    """Over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


class Workers:
    """Threads that compute for `net`, each with a copy of it; PyTorch itself is set to one thread.
    On a GPU there is one."""

    def __init__(self, net: Net, device: torch.device, threads: int) -> None:
        torch.set_num_threads(1)
        self.net, self.device = net.to(device), device
        self.threads = threads if device.type == "cpu" else 1
        self.twins = [self._twin() for _ in range(self.threads)]
        self.pool = ThreadPoolExecutor(
            self.threads, initializer=torch.set_num_threads, initargs=(1,)
        )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def gradients(
        self,
        pieces: list[tuple[Tensor, Tensor]],
        loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        tracking: bool = True,
        seeds: list[torch.Generator] | None = None,
    ) -> float:
        """Set the gradients of the mean loss over a batch and, if `tracking`, let the running
        statistics follow it; return the loss.

        pieces: (inputs [n, C, H, W], targets) each; loss(logits, inputs, targets): mean over a
        piece; seeds: a generator for each piece, which dropout uses.
        """
        twins, total = self._ready(), sum(len(x) for x, _ in pieces)
        world = dist.get_world_size() if dist.is_initialized() else 1
        mine = range(rank(), len(pieces), world)
        drawn: list[Any] = list(seeds) if seeds else [None] * len(pieces)
        jobs = [
            self.pool.submit(_piece, twins, self.device, *pieces[k], loss, drawn[k]) for k in mine
        ]
        share, results = [len(pieces[k][0]) / total for k in mine], [job.result() for job in jobs]
        parts = list(zip(share, results))
        for i, parameter in enumerate(self.net.parameters()):
            parameter.grad = summed(sum((s * grads[i] for s, (_, grads, _) in parts), start=_zero))
        if tracking and self.net.mode != "exact":
            self._update_statistics([(s, statistics) for s, (_, _, statistics) in parts])
        value = sum((s * value for s, (value, _, _) in parts), start=_zero)
        return summed(value.double()).item()

    def _twin(self) -> Net:
        """A copy that shares the parameters; its running statistics will be those of its last
        piece."""
        twin = copy.deepcopy(self.net).train()
        for parameter, shared in zip(twin.parameters(), self.net.parameters()):
            parameter.data = shared.data
        for _, block in twin.blocks():
            block.bn.momentum = 1.0
        return twin

    def _ready(self) -> "SimpleQueue[Net]":
        """The copies, ready for a batch: their weights are the integers already."""
        if self.net.mode == "exact":
            self.net.become_exact()
        blocks, fake = [block for _, block in self.net.blocks()], self.net.mode != "float"
        integers = lambda block: block.quantizer.integers(block.conv.weight.detach())
        weights = list(self.pool.map(integers, blocks)) if fake else []
        ready: SimpleQueue[Net] = SimpleQueue()
        for twin in self.twins:
            for buffer, original in zip(twin.buffers(), self.net.buffers()):
                buffer.copy_(original)
            for name, node in twin.nodes.items():
                node.mode = self.net.mode
                if node.mode == "exact" and node.spec["op"] != "dropout":
                    node.exact = self.net.nodes[name].exact
            for (_, block), weight in zip(twin.blocks(), weights):
                block.ready, block.conv.weight.data = True, weight
            ready.put(twin)
        return ready

    def _update_statistics(self, pieces: list[tuple[float, Any]]) -> None:
        for i, (_, block) in enumerate(self.net.blocks()):
            if block.spec["norm"] == "batch":
                mean = summed(sum((s * stats[i][0] for s, stats in pieces), start=_zero))
                # Variance of the whole batch: inside the pieces plus between them.
                square = sum((s * (v[i][1] + v[i][0] ** 2) for s, v in pieces), start=_zero)
                block.bn.running_mean.lerp_(mean, MOMENTUM)
                variance = (summed(square) - mean**2).clamp(min=0)  # rounding may take it below
                block.bn.running_var.lerp_(variance, MOMENTUM)

    @torch.no_grad()
    def logits(
        self, x: Tensor, prepare: Callable[[Tensor], Tensor], piece: int = EVALUATED
    ) -> Tensor:
        """Logits float32 [N, classes] of the network in evaluation mode, of `prepare(part)` for
        parts of x."""
        self.net.eval()
        if self.net.mode == "exact":
            self.net.become_exact()

        def run(part: Tensor) -> Tensor:
            with autocast(self.device.type), torch.no_grad():
                return self.net(prepare(part)).float()

        return torch.cat(list(self.pool.map(run, x.split(piece))))


_zero = torch.zeros(())


def _piece(
    twins: "SimpleQueue[Net]",
    device: torch.device,
    x: Tensor,
    targets: Tensor,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    generator: torch.Generator | None,
) -> tuple[Tensor, tuple[Tensor, ...], list[tuple[Tensor, Tensor]]]:
    """(loss, gradients, statistics of each convolution's batch norm)."""
    x, net = x.to(device), twins.get()
    try:
        for node in net.nodes.values():
            if isinstance(node, Dropout):
                node.generator = generator
        with autocast(device.type):
            logits = net(x)
        value = loss(logits, x, targets)
        grads = torch.autograd.grad(value, list(net.parameters()))
        norms = [block.bn for _, block in net.blocks()]
        statistics = [(bn.running_mean.clone(), bn.running_var.clone()) for bn in norms]
        return value.detach(), grads, statistics
    finally:
        twins.put(net)
