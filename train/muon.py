"""Muon: momentum SGD whose update of a weight matrix is orthogonalized (K. Jordan et al., 2024,
https://kellerjordan.github.io/posts/muon/). `torch.optim.Muon` computes in bfloat16 and takes
matrices only."""

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
    x, tall = matrix / (matrix.norm() + 1e-7), matrix.shape[0] > matrix.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """With Nesterov momentum, for convolution weights [O, I, Kh, Kw]; plain momentum SGD for
    vectors.

    Where a group says `fixed`, a weight is scaled to the norm sqrt(O) before each step: batch norm
    makes its length meaningless, and a fixed length makes the learning rate mean the same thing all
    through the training.
    """

    def __init__(self, params: Any, lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "fixed": True})

    def step(self, run: Callable[..., Any] = map) -> None:  # type: ignore[override]
        """`run(function, items)` may spread the groups over threads."""
        list(run(self._update, self.param_groups))

    @torch.no_grad()
    def _update(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
            buffer.mul_(group["momentum"]).add_(weight.grad)
            update = weight.grad.add(buffer, alpha=group["momentum"])
            if weight.dim() > 1:
                if group["fixed"]:
                    weight.div_(weight.norm() / len(weight) ** 0.5)
                update = orthogonalize(update.flatten(1)).view_as(weight)
            weight.add_(update, alpha=-group["lr"])
