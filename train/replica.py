"""A batch's gradient on one device; under `torchrun`, every process takes its share of the batch on
a device of its own.

All processes draw the same batches from the same seeds, keep the same parameters and average their
gradients, so any of them may write the checkpoints; the first one does.
"""

import atexit
import os
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist

from train.loss import Loss
from train.nin import NIN
from train.parallel import BN_MOMENTUM
from train.precision import autocast


def join_group(device: str) -> torch.device:
    """The device of this process: `device`, or with torchrun's environment its own GPU, after
    meeting the other processes."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return torch.device(device)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    atexit.register(
        dist.destroy_process_group
    )  # or its threads may still run when the process ends, which aborts it
    return torch.device(device, int(os.environ["LOCAL_RANK"]) if device == "cuda" else None)


def rank() -> int:
    """Number of this process, 0 without torchrun."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


class Replica:
    """`net` on one device. Same interface as `train.parallel.Workers`; batch norm sees this
    process's share as a whole."""

    def __init__(self, net: NIN, device: torch.device):
        self.net, self.device = net.to(device), device
        self.pool, self.threads = ThreadPoolExecutor(1), os.cpu_count()

    def gradients(
        self, pixels, labels, soft, piece: int, loss: Loss, prepare, tracking: bool = True
    ) -> float:
        """Set the gradients of the mean loss over the whole batch and, if `tracking`, let the
        running statistics follow it; return the loss. `piece` is not used."""
        x, y, t = (None if v is None else self._share(v) for v in (pixels, labels, soft))
        self.net.train()
        for _, block in self.net.blocks():
            block.bn.momentum = BN_MOMENTUM if tracking else 0.0
        with autocast(self.device.type):
            logits = self.net(prepare(x))
        value = loss(logits, y, t)
        self.net.zero_grad(set_to_none=True)
        value.backward()
        value = value.detach()
        self._average([p.grad for p in self.net.parameters()] + [value])
        if self.net.mode != "exact":
            self._average(
                [s for _, b in self.net.blocks() for s in (b.bn.running_mean, b.bn.running_var)]
            )
        return value.item()

    def _share(self, batch):
        if len(batch) % world():
            raise ValueError(
                f"a batch of {len(batch)} pictures cannot be shared by {world()} processes"
            )
        return batch.chunk(world())[rank()].to(self.device, non_blocking=True)

    @staticmethod
    def _average(tensors):
        if world() == 1:
            return
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= world()

    @torch.no_grad()
    def logits(self, pixels, prepare, piece: int = 500, net: NIN | None = None) -> torch.Tensor:
        """Logits [N, classes] of the network (or of `net`) in evaluation mode, on the CPU."""
        net = self.net if net is None else net.to(self.device)
        net.eval()
        with autocast(self.device.type):
            return torch.cat(
                [net(prepare(x.to(self.device))).float().cpu() for x in pixels.split(piece)]
            )
