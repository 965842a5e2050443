"""Random pictures for the tests of training."""

import torch


def pictures(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(uint8 pixels [count, 3, 32, 32], int64 labels 0..9 [count]), the same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(
        0, 256, (count, 3, 32, 32), generator=rng, dtype=torch.uint8
    ), torch.randint(0, 10, (count,), generator=rng)
