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
from queue import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.common.errors import UserError
from train.net import MOMENTUM, Dropout, Net

EVALUATED = 100  # images at a time
# Inputs, targets, and where dropout's masks come from.
Piece = tuple[Tensor, Tensor, torch.Generator | None]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@cache
def has_bfloat16() -> bool:
    """Whether the processor, as far as oneDNN may use it, multiplies bfloat16 natively.

    Elsewhere it is ten times slower than float32.
    """
    own = torch.cpu.get_capabilities()
    native = own.get("avx512_bf16") or own.get("amx_bf16")
    return bool(native) and torch.ops.mkldnn._is_mkldnn_bf16_supported()


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

    def gradients(self, pieces: list[Piece], loss: Loss, tracking: bool = True) -> float:
        """Set the gradients of the mean loss over a batch and, if `tracking`, let the running
        statistics follow it; return the loss. loss(logits, inputs, targets): mean over a piece."""
        twins, total = self._ready(), sum(len(x) for x, *_ in pieces)
        mine = pieces[rank() :: dist.get_world_size() if dist.is_initialized() else 1]
        shares = [len(x) / total for x, *_ in mine]
        results = list(self.pool.map(lambda piece: self._piece(twins, loss, *piece), mine))

        def mean(found: Callable[[Any], Tensor], like: Tensor) -> Tensor:
            """Of all pieces, of all processes."""
            parts = [share * found(result) for share, result in zip(shares, results)]
            value = sum(parts[1:], start=parts[0]) if parts else torch.zeros_like(like)
            if dist.is_initialized():
                dist.all_reduce(value)
            return value

        for i, parameter in enumerate(parameters(self.net)):
            parameter.grad = mean(lambda result: result[1][i], parameter)
        for i, bn in enumerate(norms(self.net) if tracking and self.net.mode != "exact" else ()):
            middle = mean(lambda result: result[2][i][0], bn.running_mean)
            # Variance of the whole batch: inside the pieces plus between them.
            square = mean(lambda r: r[2][i][1] + r[2][i][0] ** 2, bn.running_var)
            bn.running_mean.lerp_(middle, MOMENTUM)
            variance = (square - middle**2).clamp(min=0)  # rounding may take it below
            bn.running_var.lerp_(variance, MOMENTUM)
        nothing = torch.zeros((), dtype=torch.float64, device=self.device)
        return mean(lambda result: result[0].double(), nothing).item()

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
        weights = list(self.pool.map(lambda block: block.integers(), blocks)) if fake else []
        ready: SimpleQueue[Net] = SimpleQueue()
        for twin in self.twins:
            for buffer, original in zip(twin.buffers(), self.net.buffers()):
                buffer.copy_(original)
            for node, own in zip(twin.nodes.values(), self.net.nodes.values()):
                node.mode = own.mode
                if hasattr(own, "exact"):
                    node.exact = own.exact
            for (_, block), weight in zip(twin.blocks(), weights):
                block.ready, block.weight.data = True, weight
            ready.put(twin)
        return ready

    def _piece(
        self,
        twins: "SimpleQueue[Net]",
        loss: Loss,
        x: Tensor,
        targets: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, tuple[Tensor, ...], list[tuple[Tensor, Tensor]]]:
        """(loss, gradients, statistics of each batch norm)."""
        x, net = x.to(self.device), twins.get()
        try:
            for node in net.nodes.values():
                if isinstance(node, Dropout):
                    node.generator = generator
            with autocast(self.device.type):
                logits = net(x)
            value = loss(logits, x, targets)
            grads = torch.autograd.grad(value, parameters(net))
            found = [(bn.running_mean.clone(), bn.running_var.clone()) for bn in norms(net)]
            return value.detach(), grads, found
        finally:
            twins.put(net)

    @torch.no_grad()
    def logits(self, x: Tensor, prepare: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits float32 [N, classes] of the network in evaluation mode, of `prepare(part)` for
        parts of x."""
        self.net.eval()
        if self.net.mode == "exact":
            self.net.become_exact()

        def run(part: Tensor) -> Tensor:
            with autocast(self.device.type), torch.no_grad():
                return self.net(prepare(part)).float()

        return torch.cat(list(self.pool.map(run, x.split(EVALUATED))))


def parameters(net: Net) -> list[torch.nn.Parameter]:
    """Those that are trained."""
    return [one for one in net.parameters() if one.requires_grad]


def norms(net: Net) -> list[Any]:
    """Batch norms that have statistics."""
    return [block.bn for _, block in net.blocks() if block.spec["norm"] == "batch"]
