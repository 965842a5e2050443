"""Gradients of a batch on threads that need not run equally fast.

PyTorch splits every operation evenly over its threads and waits for the slowest after each, so on a machine that does
other work as well a training step slows down to several times its share. Here each thread takes the next piece of the
batch when it has finished one, with its own copy of the network. Pieces are normalized by themselves ("ghost" batch
norm) and their gradients summed in order, so the result does not depend on which thread computed what.
"""

import copy
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
import torch.nn.functional as F

from train import clipq
from train.nin import NIN
from train.precision import autocast

BN_MOMENTUM = 0.1


class Workers:
    """Threads with copies of `net` that share its parameters; PyTorch itself is set to one thread."""

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

    def gradients(self, pixels, labels, piece: int, smoothing: float, prepare) -> float:
        """Set the gradients of the mean loss over the batch and update the running statistics; return the loss."""
        weights = self._weights()
        jobs = [self.pool.submit(self._piece, x, y, smoothing, prepare, weights)
                for x, y in zip(pixels.split(piece), labels.split(piece))]
        results = [job.result() for job in jobs]
        share = [len(y) / len(labels) for y in labels.split(piece)]
        for i, parameter in enumerate(self.net.parameters()):
            parameter.grad = sum(s * r[1][i] for s, r in zip(share, results))
        self._update_statistics([r[2] for r in results], share)
        return sum(s * r[0] for s, r in zip(share, results))

    def _weights(self):
        if not self.net.quantized:
            return None
        return list(self.pool.map(lambda b: clipq.integer_weights(b[1].conv.weight, b[1].setting), self.net.blocks()))

    def _piece(self, pixels, labels, smoothing, prepare, weights):
        net = self.copies.get()
        try:
            net.train()
            net.set_quantized(self.net.quantized)
            for i, (name, block) in enumerate(net.blocks()):
                block.steps = getattr(self.net, name).steps
                block.ready = weights is not None
                if weights is not None:
                    block.conv.weight.data = weights[i]
            with autocast():
                logits = net(prepare(pixels))
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            grads = torch.autograd.grad(loss, list(net.parameters()))
            statistics = [(b.bn.running_mean.clone(), b.bn.running_var.clone()) for _, b in net.blocks()]
            return loss.item(), grads, statistics
        finally:
            self.copies.put(net)

    def _update_statistics(self, pieces, share):
        for i, (_, block) in enumerate(self.net.blocks()):
            mean = sum(s * p[i][0] for s, p in zip(share, pieces))
            # Variance of the whole batch: inside the pieces plus between them.
            square = sum(s * (p[i][1] + p[i][0] ** 2) for s, p in zip(share, pieces))
            block.bn.running_mean.lerp_(mean, BN_MOMENTUM)
            block.bn.running_var.lerp_(square - mean**2, BN_MOMENTUM)

    @torch.no_grad()
    def logits(self, pixels, prepare, piece: int = 100) -> torch.Tensor:
        """Logits [N, classes] in evaluation mode."""
        self.net.eval()

        def run(x):
            with autocast(), torch.no_grad():
                return self.net(prepare(x))

        return torch.cat(list(self.pool.map(run, pixels.split(piece))))
