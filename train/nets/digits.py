"""The 8x8 digits of scikit-learn and a small network for them."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

TEST = 5  # every fifth image


class Digits(Dataset):
    """1,797 handwritten digits, ten classes: (uint8 [1, 8, 8], label). train: four fifths of
    them, or the others."""

    classes = [str(digit) for digit in range(10)]

    def __init__(self, train: bool) -> None:
        from sklearn.datasets import load_digits  # takes a second

        found = load_digits()
        chosen = (np.arange(len(found.target)) % TEST != 0) == train
        self.images = np.rint(found.images[chosen, None] * (255 / 16)).astype(np.uint8)
        self.labels = found.target[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.images[number]), int(self.labels[number])


class DigitsNet(nn.Sequential):
    """forward: float32 [N, 1, 8, 8] -> logits [N, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, classes),
        )
