"""Gradients and logits of a network on the threads of a CPU, or on a GPU.

A batch is cut into pieces that are normalized by themselves ("ghost" batch norm). Pieces are shared
out to threads, and under torchrun to processes as well; their gradients are summed in order, so the
result does not depend on how many threads there are, nor on which computed what.
"""

import atexit
import copy
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import torch
import torch.distributed as dist

from model.common.errors import UserError
from train.net import Dropout, Net

MOMENTUM = 0.1  # of batch norm's running statistics
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


def autocast(device: str = "cpu"):
    """Context in which convolutions run in bfloat16 where that is fast (integers up to 256 stay
    exact in it)."""
    fast = has_bfloat16() if device == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=fast, cache_enabled=False)


def rank() -> int:
    """Number of this process, 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


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
        return torch.device(name, int(os.environ["LOCAL_RANK"]) if name == "cuda" else None)
    return torch.device(name)


class Workers:
    """Copies of `net`, one a thread, that compute for it; PyTorch itself is set to one thread.

    On a GPU there is one thread.
    """

    def __init__(self, net: Net, device: torch.device, threads: int):
        torch.set_num_threads(1)
        self.net, self.device = net.to(device), device
        self.threads = threads if device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(
            self.threads, initializer=torch.set_num_threads, initargs=(1,)
        )
        self.copies = SimpleQueue()
        for _ in range(self.threads):
            self.copies.put(self._copy())

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown(cancel_futures=True)

    def _copy(self) -> Net:
        twin = copy.deepcopy(self.net)
        for name, node in twin.nodes.items():
            original = self.net.nodes[name]
            for parameter, shared in zip(node.parameters(), original.parameters()):
                parameter.data = shared.data
        for _, block in twin.blocks():
            block.bn.momentum = 1.0  # running statistics of a copy are those of its last piece
        return twin

    def gradients(self, pieces: list, loss, tracking: bool = True, seeds=None) -> float:
        """Set the gradients of the mean loss over a batch and, if `tracking`, let the running
        statistics follow it; return the loss.

        pieces: (inputs [n, C, H, W], targets) each; loss(logits, inputs, targets): mean over a
        piece; seeds: a generator for each piece, which dropout uses.
        """
        prepared, total = self._prepared(), sum(len(x) for x, _ in pieces)
        mine = range(rank(), len(pieces), world())
        jobs = {
            k: self.pool.submit(self._piece, *pieces[k], loss, prepared, seeds and seeds[k])
            for k in mine
        }
        results = {k: job.result() for k, job in jobs.items()}
        share = {k: len(pieces[k][0]) / total for k in mine}
        for i, parameter in enumerate(self.net.parameters()):
            parameter.grad = sum(share[k] * results[k][1][i] for k in mine)
            self._add_up(parameter.grad)
        if tracking and self.net.mode != "exact":
            self._update_statistics([(share[k], results[k][2]) for k in mine])
        value = sum(share[k] * results[k][0] for k in mine)
        return self._add_up(value.double()).item()

    @staticmethod
    def _add_up(tensor):
        if world() > 1:
            dist.all_reduce(tensor)
        return tensor

    def _prepared(self):
        """What all pieces share: (integer weights, scales) of each block; None in full
        precision."""
        if self.net.mode == "float":
            return None
        exact = self.net.mode == "exact"
        return list(
            self.pool.map(
                lambda b: (
                    b[1].quantizer.integers(b[1].conv.weight.detach()),
                    b[1].frozen_scales() if exact else (),
                ),
                self.net.blocks(),
            )
        )

    def _piece(self, x, targets, loss, prepared, generator):
        x = x.to(self.device)
        net = self.copies.get()
        try:
            self._follow(net, prepared, generator)
            with autocast(self.device.type):
                logits = net(x)
            value = loss(logits, x, targets)
            grads = torch.autograd.grad(value, list(net.parameters()))
            norms = [block.bn for _, block in net.blocks()]
            return (
                value.detach(),
                grads,
                [(bn.running_mean.clone(), bn.running_var.clone()) for bn in norms],
            )
        finally:
            self.copies.put(net)

    def _follow(self, twin, prepared, generator) -> None:
        """Make a copy ready for a piece: what it does not share with the network."""
        twin.train()
        twin.mode = self.net.mode
        for name, node in twin.nodes.items():
            original = self.net.nodes[name]
            for key in ("steps", "ratio"):
                if hasattr(node, key):
                    getattr(node, key).copy_(getattr(original, key))
            if isinstance(node, Dropout):
                node.generator = generator
        for i, ((_, block), (_, original)) in enumerate(zip(twin.blocks(), self.net.blocks())):
            block.ready = None
            if prepared is not None:
                block.conv.weight.data, block.ready = prepared[i]
            if twin.mode == "exact" or block.spec["norm"] != "batch":
                block.bn.running_mean.copy_(original.bn.running_mean)
                block.bn.running_var.copy_(original.bn.running_var)
                if block.spec["norm"] != "batch":
                    block.bn.weight.copy_(original.bn.weight)

    def _update_statistics(self, pieces) -> None:
        for i, (_, block) in enumerate(self.net.blocks()):
            if block.spec["norm"] != "batch":
                continue
            mean = self._add_up(sum(share * stats[i][0] for share, stats in pieces))
            # Variance of the whole batch: inside the pieces plus between them.
            square = sum(share * (stats[i][1] + stats[i][0] ** 2) for share, stats in pieces)
            block.bn.running_mean.lerp_(mean, MOMENTUM)
            variance = (self._add_up(square) - mean**2).clamp(min=0)  # rounding may take it below
            block.bn.running_var.lerp_(variance, MOMENTUM)

    @torch.no_grad()
    def logits(self, x: torch.Tensor, prepare, piece: int = EVALUATED) -> torch.Tensor:
        """Logits float32 [N, classes] of the network in evaluation mode, of `prepare(part)` for
        parts of x."""
        self.net.eval()

        def run(part):
            with autocast(self.device.type), torch.no_grad():
                return self.net(prepare(part)).float()

        return torch.cat(list(self.pool.map(run, x.split(piece))))
