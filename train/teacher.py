"""A larger network to learn from, in full precision; `train.teacher_training` trains it.

Eight 3x3 convolutions with skip connections where the widths agree and a 1x1 convolution to the
classes: five million weights, about as many multiplications a picture as the NIN, whose 5x5
convolutions on large pictures it does without. It never runs on the hardware; `train.tail` and
`train.train` with --teacher learn its probabilities (G. Hinton, O. Vinyals, J. Dean, "Distilling
the Knowledge in a Neural Network", 2015).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from model.common.errors import printable
from train import checkpoint, run_files
from train.checkpoint import CLASSES
from train.nin import INPUT_UNIT, NIN, ConvBlock
from train.run_files import StateError

# name, input channels, output channels (None: classes), kernel
LAYERS = (
    ("conv1", 3, 32, 3),
    ("conv2", 32, 96, 3),
    ("conv3", 96, 96, 3),
    ("conv4", 96, 256, 3),
    ("conv5", 256, 256, 3),
    ("conv6", 256, 384, 3),
    ("conv7", 384, 384, 3),
    ("conv8", 384, 512, 3),
    ("conv9", 512, None, 1),
)
POOL_AFTER = ("conv2", "conv4", "conv6")


class Teacher(nn.Module):
    """forward: float32 [N, 3, H, W] in input integers (`train.nin.to_input`) -> float32 logits [N,
    classes]; H and W multiples of eight."""

    mode = "float"  # as of `train.nin.NIN`, whose place it takes in a Trainer

    def __init__(self, classes: int):
        super().__init__()
        for name, inputs, outputs, kernel in LAYERS:
            self.add_module(name, ConvBlock(inputs, outputs or classes, kernel, outputs is None))

    def blocks(self):
        """(name, ConvBlock) in order."""
        return [(name, getattr(self, name)) for name, *_ in LAYERS]

    def forward(self, x):
        x = (x / INPUT_UNIT).contiguous(memory_format=torch.channels_last)
        for name, block in self.blocks():
            y = block(x)
            x = y + x if y.shape == x.shape else y
            if name in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        return x.float().mean((2, 3))


def write(net: Teacher, dataset: str, path: Path) -> None:
    """Write `net`, float32, for `dataset`, "cifar10" or "cifar100"; `read` reads it."""
    state = {"version": run_files.VERSION, "dataset": dataset, "net": net.state_dict()}
    run_files.write(path, state)


def read(path: Path, dataset: str) -> Teacher:
    """The network that `write` wrote, on the CPU and in evaluation mode.

    Raises OSError, or StateError if it is damaged, something else, or for another data set.
    """
    fields = run_files.read_fields(path)
    made_for = fields.text("dataset", CLASSES)
    if made_for != dataset:
        raise StateError(f"{printable(path)} is a network for {made_for}, not for {dataset}")
    net = Teacher(CLASSES[dataset])
    fields.inner("net").into_network(net)
    return net.eval()


def read_any(path: Path, dataset: str) -> Teacher | NIN:
    """A network to learn from: `read`'s where the name ends in .pt, else a full-precision NIN's.

    Raises OSError, or UserError that names the file.
    """
    if path.suffix == ".pt":
        return read(path, dataset)
    return checkpoint.read_for(path, dataset, False)[0]
