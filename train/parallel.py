"""Gradients of a batch on threads that need not run equally fast.

PyTorch splits every operation evenly over its threads and waits for the slowest after each, so on a
machine that does other work as well a training step slows down to several times its share. Here
each thread takes the next piece of the batch when it has finished one, with its own copy of the
network. Pieces are normalized by themselves ("ghost" batch norm) and their gradients summed in
order, so the result does not depend on which thread computed what.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch

from train.loss import Loss
from train.nin import NIN
from train.precision import autocast

BN_MOMENTUM = 0.1


class Workers:
    """Threads with copies of `net` that share its parameters; PyTorch itself is set to one
    thread."""

    def __init__(self, net: NIN, threads: int):
        torch.set_num_threads(1)
        self.net, self.threads = net, threads
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.copies = SimpleQueue()
        for _ in range(threads):
            self.copies.put(self._copy())

    def _copy(self) -> NIN:
        twin = copy.deepcopy(self.net)
        for name, block in twin.blocks():
            original = getattr(self.net, name)
            block.bn.momentum = 1.0  # the running statistics of a copy are those of its last piece
            for parameter, shared in zip(block.parameters(), original.parameters()):
                parameter.data = shared.data
        return twin

    def gradients(
        self, pixels, labels, soft, piece: int, loss: Loss, prepare, tracking: bool = True
    ) -> float:
        """Set the gradients of the mean loss over the batch and, if `tracking`, let the running
        statistics follow it; return the loss.

        soft: the teacher's probabilities [N, classes], or None.
        """
        prepared = self._prepared()
        soft = [None] * len(labels) if soft is None else soft.split(piece)
        jobs = [
            self.pool.submit(self._piece, x, y, t, loss, prepare, prepared)
            for x, y, t in zip(pixels.split(piece), labels.split(piece), soft)
        ]
        results = [job.result() for job in jobs]
        share = [len(y) / len(labels) for y in labels.split(piece)]
        for i, parameter in enumerate(self.net.parameters()):
            parameter.grad = sum(s * r[1][i] for s, r in zip(share, results))
        if tracking and self.net.mode != "exact":
            self._update_statistics([r[2] for r in results], share)
        return sum(s * r[0] for s, r in zip(share, results))

    def _prepared(self):
        """What all pieces share: (integer weights, scales or None) of each block; None in full
        precision."""
        if self.net.mode == "float":
            return None
        exact = self.net.mode == "exact"
        return list(
            self.pool.map(
                lambda b: (
                    b[1].quantizer.integers(b[1].conv.weight.detach()),
                    b[1].frozen_scales() if exact else None,
                ),
                self.net.blocks(),
            )
        )

    def _piece(self, pixels, labels, soft, loss, prepare, prepared):
        net = self.copies.get()
        try:
            net.train()
            net.mode = self.net.mode
            for i, (name, block) in enumerate(net.blocks()):
                block.steps = getattr(self.net, name).steps
                block.ready = prepared is not None
                if prepared is not None:
                    block.conv.weight.data, block.scales = prepared[i]
            if net.mode == "exact":
                self._copy_statistics(net)
            with autocast():
                logits = net(prepare(pixels))
            value = loss(logits, labels, soft)
            grads = torch.autograd.grad(value, list(net.parameters()))
            statistics = [
                (b.bn.running_mean.clone(), b.bn.running_var.clone()) for _, b in net.blocks()
            ]
            return value.item(), grads, statistics
        finally:
            self.copies.put(net)

    def _copy_statistics(self, twin):
        for (_, block), (_, original) in zip(twin.blocks(), self.net.blocks()):
            block.bn.running_mean.copy_(original.bn.running_mean)
            block.bn.running_var.copy_(original.bn.running_var)

    def _update_statistics(self, pieces, share):
        for i, (_, block) in enumerate(self.net.blocks()):
            mean = sum(s * p[i][0] for s, p in zip(share, pieces))
            # Variance of the whole batch: inside the pieces plus between them.
            square = sum(s * (p[i][1] + p[i][0] ** 2) for s, p in zip(share, pieces))
            block.bn.running_mean.lerp_(mean, BN_MOMENTUM)
            variance = (square - mean**2).clamp(min=0)  # which rounding may take below
            block.bn.running_var.lerp_(variance, BN_MOMENTUM)

    @torch.no_grad()
    def logits(self, pixels, prepare, piece: int = 100, net: NIN | None = None) -> torch.Tensor:
        """Logits [N, classes] of the network (or of `net`) in evaluation mode."""
        net = net or self.net
        net.eval()

        def run(x):
            with autocast(), torch.no_grad():
                return net(prepare(x))

        return torch.cat(list(self.pool.map(run, pixels.split(piece))))
