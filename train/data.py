"""Batches: order, augmentation, mixing.

Images stay uint8 [N, C, H, W] in the memory of the device that trains; a batch is augmented there
as a whole. Every batch has its own random generator, seeded with (seed, epoch, step), so a run that
resumes in the middle of an epoch sees the images it would have seen.
"""

import numpy as np
import torch
import torch.nn.functional as F


def generator(*seeds: int) -> torch.Generator:
    """A torch generator seeded with any number of integers."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def augment(
    pixels: torch.Tensor, rng: torch.Generator, flip: bool = True, shift: int = 4, cutout: int = 0
) -> torch.Tensor:
    """Flip, translate by up to `shift` pixels with reflection and blank a square of `cutout`
    pixels, each at random.

    uint8 [N, C, H, W] -> float32 of the same shape, values 0..255. The blanked square takes the
    batch's mean colour.
    """
    n, _, height, width = pixels.shape
    x = pixels.float()
    if flip:
        mirrored = (torch.rand(n, generator=rng) < 0.5).to(x.device)
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if shift:
        x = F.pad(x, (shift,) * 4, mode="reflect")
        top, left = torch.randint(0, 2 * shift + 1, (2, n), generator=rng).to(x.device)
        rows = top[:, None] + torch.arange(height, device=x.device)
        cols = left[:, None] + torch.arange(width, device=x.device)
        number = torch.arange(n, device=x.device)[:, None, None]
        x = x[number, :, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    return _cut(x, cutout, rng) if cutout else x


def _cut(x: torch.Tensor, size: int, rng: torch.Generator) -> torch.Tensor:
    n, _, height, width = x.shape
    inside = []
    for length in (height, width):
        first = torch.randint(-(size // 2), length - size // 2, (n, 1), generator=rng)
        place = torch.arange(length) - first
        inside.append((place >= 0) & (place < size))
    hole = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(x.device)
    return torch.where(hole, x.mean((0, 2, 3), keepdim=True), x)


def mixture(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For `mix`: shares drawn evenly from 0..1, float32 [count], and a random permutation of the
    batch, int64 [count]."""
    share = torch.rand(count, generator=rng)
    return share, torch.randperm(count, generator=rng)


def mix(x: torch.Tensor, share: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """Mix each image, or its label's probabilities, with that of its partner: float32 [N, ...],
    of the partner's `share` [N], 0..1 -> the same shape."""
    share = share.to(x.device).view(-1, *(1,) * (x.dim() - 1))
    return torch.lerp(x, x[partners.to(x.device)], share)


def resize(x: torch.Tensor, size: int | None) -> torch.Tensor:
    """Antialiased bilinear resize to size x size, in floats, None: as it is; small images make the
    first epochs cheap."""
    if size is None or x.shape[2:] == (size, size):
        return x
    return F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True)


def order(count: int, batch: int, seed: int, epoch: int) -> torch.Tensor:
    """Numbers of the images of each batch of one shuffled epoch, int64 [batches, batch]."""
    shuffled = torch.randperm(count, generator=generator(seed, epoch))
    return shuffled[: count // batch * batch].view(-1, batch)
