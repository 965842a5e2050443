"""CIFAR as tensors: validation split, augmentation, batches.

Pictures stay uint8 [N, 3, 32, 32] in the memory of the device that trains; a batch is augmented
there as a whole. Every batch has its own random generator, seeded with (seed, epoch, step), so a
run that resumes in the middle of an epoch sees the pictures it would have seen.
"""

import numpy as np
import torch
import torch.nn.functional as F

from model.data.cifar import load_cifar

VALIDATION = 5000  # pictures of the training set held back to choose checkpoints


def load(dataset: str) -> dict:
    """Return {"train", "val", "test"}: (pictures uint8 [N, 3, 32, 32], labels int64 [N]) of
    "cifar10" or "cifar100"."""
    pixels, labels = load_cifar(dataset, "train")
    order = np.random.default_rng(0).permutation(len(labels))
    held, kept = np.sort(order[:VALIDATION]), np.sort(order[VALIDATION:])
    return {
        "train": _tensors(pixels[kept], labels[kept]),
        "val": _tensors(pixels[held], labels[held]),
        "test": _tensors(*load_cifar(dataset, "test")),
    }


def _tensors(pixels, labels):
    return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(
        np.asarray(labels).astype(np.int64)
    )


def generator(*seeds: int) -> torch.Generator:
    """A torch generator seeded with any number of integers."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def augment(
    pixels: torch.Tensor, rng: torch.Generator, shift: int = 4, cutout: int = 0
) -> torch.Tensor:
    """Flip, translate by up to `shift` pixels with reflection and blank a square of `cutout`
    pixels, each at random.

    uint8 [N, 3, H, W] -> float32 of the same shape, values 0..255. The blanked square takes the
    batch's mean colour.
    """
    n, _, height, width = pixels.shape
    x = pixels.float()
    flip = (torch.rand(n, generator=rng) < 0.5).to(x.device)
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    x = F.pad(x, (shift,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * shift + 1, (2, n), generator=rng).to(x.device)
    rows = top[:, None] + torch.arange(height, device=x.device)
    cols = left[:, None] + torch.arange(width, device=x.device)
    x = x[
        torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], cols[:, None, :]
    ].permute(0, 3, 1, 2)
    return _cut(x, cutout, rng) if cutout else x


def _cut(x, size, rng):
    n, _, height, width = x.shape
    top, left = torch.randint(-(size // 2), height - size // 2, (2, n), generator=rng).to(x.device)
    y, z = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside_y = (y >= top[:, None]) & (y < top[:, None] + size)
    inside_x = (z >= left[:, None]) & (z < left[:, None] + size)
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return torch.where(hole, x.mean((0, 2, 3), keepdim=True), x)


def draw_mixture(count: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For `mix`: shares drawn evenly from 0..1, float32 [count], and a random permutation of the
    batch, int64 [count]."""
    share = torch.rand(count, generator=rng)
    return share, torch.randperm(count, generator=rng)


def mix(x: torch.Tensor, share: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """Mix each picture, or its label's probabilities, with that of its partner: float32 [N, ...],
    of the partner's `share` [N], 0..1 -> the same shape."""
    share = share.to(x.device).view(-1, *(1,) * (x.dim() - 1))
    return torch.lerp(x, x[partners.to(x.device)], share)


def resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased bilinear resize to size x size; small pictures make the first epochs cheap."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def batches(pixels, batch: int, seed: int, epoch: int, size: int, first: int = 0, cutout: int = 0):
    """Yield (step, pictures float32 [batch, 3, size, size], their numbers int64 [batch]) of one
    shuffled epoch, from step `first` on."""
    order = torch.randperm(len(pixels), generator=generator(seed, epoch))
    for step in range(first, len(pixels) // batch):
        chosen = order[step * batch : (step + 1) * batch].to(pixels.device)
        x = augment(pixels[chosen], generator(seed, epoch, step + 1), cutout=cutout)
        yield step, resize(x, size), chosen
