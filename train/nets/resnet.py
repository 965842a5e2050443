"""ResNet-20 for 32x32 images: K. He, X. Zhang, S. Ren, J. Sun, CVPR 2016, section 4.2.

Three stages of three pairs of 3x3 convolutions; where a stage halves the image and doubles the
channels, a 1x1 convolution of stride 2 is the shortcut (option B). The classifier is a 1x1
convolution before the global average, which is what a linear layer after it computes: the network
ends in sums of 32 bits.
"""

from torch import Tensor, nn

CHANNELS = (16, 32, 64)


def normalized(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Pair(nn.Module):
    """Two convolutions and what leads past them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = normalized(inputs, outputs, 3, stride)
        self.second = normalized(outputs, outputs, 3)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else normalized(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """forward: float32 [N, 3, H, W] -> logits [N, classes]. pairs: of convolutions in a stage,
    3 for ResNet-20 (270,896 weights for 10 classes)."""

    def __init__(self, classes: int = 10, pairs: int = 3) -> None:
        super().__init__()
        self.stem, self.relu = normalized(3, CHANNELS[0], 3), nn.ReLU()
        self.blocks, inputs = nn.Sequential(), CHANNELS[0]
        for outputs in (count for count in CHANNELS for _ in range(pairs)):
            self.blocks.append(Pair(inputs, outputs, stride=1 if inputs == outputs else 2))
            inputs = outputs
        self.classify, self.gap = normalized(inputs, classes, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.gap(self.classify(self.blocks(self.relu(self.stem(x))))).flatten(1)
