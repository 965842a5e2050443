"""Cross entropy with label smoothing, mixed with a teacher's probabilities.

G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015. The teacher is
the full-precision network of the same run, or the one that --teacher names.
`teacher_probabilities`: it sees each training picture once as it is and once mirrored, not every
augmented copy, so that it costs one epoch's forward pass in all (`train.tail` has it see every
copy).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Loss:
    """smoothing: of the labels. share: weight of the teacher, 0..1. temperature: softens both
    networks' probabilities."""

    smoothing: float = 0.1
    share: float = 0.0
    temperature: float = 2.0

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, soft: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean over the batch. soft: the teacher's probabilities at `temperature`, [N, classes];
        needed if share > 0."""
        hard = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        if not self.share:
            return hard
        # Gradients of softened probabilities are smaller by the square of the temperature.
        softened = F.cross_entropy(logits / self.temperature, soft) * self.temperature**2
        return (1 - self.share) * hard + self.share * softened


@torch.no_grad()
def teacher_probabilities(logits, pixels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities [N, classes] of `logits(pixels)` and `logits(mirrored pixels)`, averaged.
    pixels: uint8, or float32 0..255, [N, 3, H, W]."""
    views = (pixels, pixels.flip(3))
    return sum(F.softmax(logits(v) / temperature, 1) for v in views) / len(views)
