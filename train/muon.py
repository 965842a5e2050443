"""Muon: momentum SGD whose update of a weight matrix is orthogonalized (K. Jordan et al., 2024,
https://kellerjordan.github.io/posts/muon/)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Quintic whose iteration pushes all singular values of a matrix into about [0.7, 1.2]; coefficients
# from the post above.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """The float32 matrix [rows, cols] nearest in direction to `matrix` with singular values near
    one."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.float()
    x = x / (x.norm() + 1e-7)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


class Muon(torch.optim.Optimizer):
    """With Nesterov momentum, for convolution weights [O, I, Kh, Kw].

    Where a group says `fixed` (the default), a weight is scaled to the norm sqrt(O) before each
    step: batch norm makes its length meaningless, and a fixed length makes the learning rate mean
    the same thing all through the training.
    """

    def __init__(self, params: Any, lr: float = 0.05, momentum: float = 0.8) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "fixed": True})

    def step(self, run: Callable[..., Any] = map) -> None:  # type: ignore[override]
        """`run(function, items)` may spread the layers over threads."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            list(run(lambda w: self._update(w, group), weights))

    @torch.no_grad()
    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient, state = weight.grad, self.state[weight]
        if gradient is None:
            return
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        buffer.mul_(group["momentum"]).add_(gradient)
        direction = gradient.add(buffer, alpha=group["momentum"])
        if group["fixed"]:
            weight.div_(weight.norm() / len(weight) ** 0.5)
        update = orthogonalize(direction.reshape(len(direction), -1)).reshape(weight.shape)
        weight.add_(update, alpha=-group["lr"])
