"""Muon: momentum SGD whose update of a weight matrix is orthogonalized (K. Jordan et al., 2024).

Source: https://kellerjordan.github.io/posts/muon/ and its use on CIFAR-10
(github.com/KellerJordan/cifar10-airbench).
"""

import torch

# Quintic whose iteration pushes all singular values of a matrix into about [0.7, 1.2]; coefficients
# from the post above.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return the float32 matrix [rows, cols] nearest in direction to `matrix` with singular values
    near one."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.float()
    x = x / (x.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    if transposed:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for convolution weights [O, I, Kh, Kw].

    Where a group says `fixed` (the default), a weight is scaled to the norm sqrt(O) before each
    step: batch norm makes its length meaningless, and a fixed length makes the learning rate mean
    the same thing all through the training.
    """

    def __init__(self, params, lr: float = 0.05, momentum: float = 0.8):
        if lr <= 0 or not 0 <= momentum < 1:
            raise ValueError(f"Muon: lr {lr} must be positive and momentum {momentum} in [0, 1)")
        super().__init__(params, {"lr": lr, "momentum": momentum, "fixed": True})

    def step(self, run=map):
        """`run(function, items)` may spread the layers over threads."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            list(run(lambda w: self._update(w, group), weights))

    @torch.no_grad()
    def _update(self, weight, group):
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(weight.grad)
        direction = weight.grad.add(buffer, alpha=group["momentum"])
        if group["fixed"]:
            weight.div_(weight.norm() / len(weight) ** 0.5)
        update = orthogonalize(direction.reshape(len(direction), -1)).reshape(weight.shape)
        weight.add_(update, alpha=-group["lr"])
